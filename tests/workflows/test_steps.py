import logging

import numpy as np
import pytest

import toolkit.export
import toolkit.factory.graphs.onnx_file
from toolkit import Predictor
from toolkit.bundle import EXTRA, RejectionCurve, picture_digests, read_manifest, read_pictures
from toolkit.data.feed.arrays import load_pixels
from toolkit.data.feed.split import Split, Subset
from toolkit.engines import available_engines
from toolkit.engines.runtimes import KerasEngine
from toolkit.errors import UserError
from toolkit.metrics import accuracy_report
from toolkit.workflows import steps
from toolkit.workflows.steps import ExportOptions, export_held_out, import_network


def test_one_pass_gives_the_metrics_and_the_gate(
    lenet, lenet_preprocessing, digits_folder, digits_split, held_out_decoded, monkeypatch, tmp_path
):
    test = digits_split.test
    run, shown = KerasEngine.probabilities, []
    expected = KerasEngine(lenet, lenet_preprocessing).probabilities(load_pixels(test.paths, lenet_preprocessing))
    monkeypatch.setattr(
        KerasEngine, "probabilities", lambda self, pixels: shown.append(len(pixels)) or run(self, pixels)
    )
    export = ExportOptions(tmp_path / "digits", num_examples=2)
    path, metrics = export_held_out(
        lenet, digits_folder, digits_split, lenet_preprocessing, export, temperature=1.5, reject_below=0.4
    )
    assert sum(shown) == len(test)
    assert held_out_decoded == list(test.paths)
    report = accuracy_report(expected, np.asarray(test.labels), digits_folder.class_names)
    assert metrics == {"subset": "test"} | report
    manifest = read_manifest(path)
    assert {key: manifest.metrics[key] for key in ("top1", "top5", "n")} == {
        k: report[k] for k in ("top1", "top5", "n")
    }
    assert "top1_litert-int8" in manifest.metrics
    subsets = {"train": digits_split.train, "val": digits_split.val, "test": test}
    assert read_pictures(path, manifest) == {name: set(picture_digests(own.paths)) for name, own in subsets.items()}
    assert (manifest.temperature, manifest.reject_below) == (1.5, 0.4)
    curve, sure = manifest.rejection, expected.max(axis=1) >= 0.9
    assert (curve.answered[0], curve.right[0]) == (len(test), round(report["top1"] * len(test)))
    assert (curve.below[90], curve.answered[90]) == (0.9, sure.sum())
    assert curve.right[90] == (sure & (expected.argmax(axis=1) == test.labels)).sum()
    shown.clear()
    _, again = export_held_out(
        lenet, digits_folder, digits_split, lenet_preprocessing, export, reference=expected, methods=()
    )
    assert shown == []  # what is known is not computed anew
    assert again == metrics


def test_an_imported_network_keeps_the_threshold_that_its_file_notes(bundle, tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr(steps, "_opened", lambda *_: None)
    monkeypatch.setattr(toolkit.factory, "preprocessing_of", lambda _: None)
    monkeypatch.setattr(toolkit.factory.graphs.onnx_file, "read_notes", lambda _: {"reject_below": "0.25"})
    monkeypatch.setattr(toolkit.export, "export_bundle", lambda *_, **given: asked.update(given) or bundle)
    for name, expected in (("theirs.onnx", 0.25), ("theirs.keras", None)):
        (tmp_path / name).touch()
        import_network(tmp_path / name, ExportOptions(tmp_path / "saved_models" / "m"), labels=["a", "b"])
        assert asked["reject_below"] == expected


@pytest.mark.slow
def test_a_bundle_gets_the_files_that_were_asked_for_and_accuracy_is_told_before_them(
    lenet, lenet_preprocessing, digits_folder, digits_split, caplog, tmp_path
):
    directory = tmp_path / "digits"

    def files(*formats: str) -> set[str]:
        path, _ = export_held_out(
            lenet, digits_folder, digits_split, lenet_preprocessing, ExportOptions(directory, formats=formats)
        )
        predictor = Predictor.load(path)
        assert predictor.predict(digits_split.test.paths[:1])[0][0].label in digits_folder.class_names
        assert read_manifest(path).recommended_engine in available_engines(path)
        return {file.name for file in (path / EXTRA).glob("*.tflite")}

    with caplog.at_level(logging.INFO, logger="toolkit"):
        assert files() == set()
    said = [record for record in caplog.records if "held-out accuracy: " in record.message]
    assert "of 359 pictures" in said[0].message
    assert said[0].created < (directory / "1" / "saved_model.pb").stat().st_mtime
    assert files("savedmodel", "int8") == {"model.int8.tflite"}
    assert files("litert") == {"model.fp32.tflite"}
    with pytest.raises(UserError, match="unknown format 'lite'; did you mean 'litert'"):
        ExportOptions(directory, formats=("lite",))


def test_where_nothing_is_held_out_the_bundle_says_what_cross_validation_said(
    lenet, lenet_preprocessing, digits_folder, digits_split, tmp_path
):
    taught = Split(digits_split.test, Subset((), ()), Subset((), ()))
    export = ExportOptions(tmp_path / "digits")
    out_of_fold = {"top1": 0.5, "top5": 0.75, "n": 300, "standard_error": 0.02, "num_classes": 10, "per_class": {}}
    known = {"out_of_fold": out_of_fold, "rejection": RejectionCurve((0.0, 0.5), (300, 200), (150, 140))}
    path, metrics = export_held_out(lenet, digits_folder, taught, lenet_preprocessing, export, **known)
    assert metrics == {"subset": "out-of-fold"} | out_of_fold
    manifest = read_manifest(path)
    assert manifest.rejection == known["rejection"]
    assert {key: manifest.metrics[key] for key in ("top1", "top5", "n", "standard_error")} == {
        key: out_of_fold[key] for key in ("top1", "top5", "n", "standard_error")
    }
    assert abs(manifest.metrics["top1_litert-int8"] - 0.5) < 0.02
    assert {name: len(own) for name, own in read_pictures(path, manifest).items()} == {
        "train": len(set(picture_digests(taught.train.paths))),
        "val": 0,
        "test": 0,
    }
    path, metrics = export_held_out(lenet, digits_folder, taught, lenet_preprocessing, export, out_of_fold={})
    assert (metrics, read_manifest(path).metrics) == ({}, {})
