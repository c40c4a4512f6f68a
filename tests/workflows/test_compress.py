import importlib.util
import json
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.bundle import (
    EXAMPLES,
    EXTRA,
    FLOAT_LITERT,
    INT8_LITERT,
    KERAS_FILE,
    Manifest,
    litert_file,
    picture_digests,
    read_examples,
    read_manifest,
    verify_files,
    write_manifest,
    write_pictures,
)
from toolkit.compress.changes import kernels_in, most_values, share_of_zeros
from toolkit.data import Split
from toolkit.data.feed.split import Subset
from toolkit.errors import UserError
from toolkit.inference import Predictor
from toolkit.network import load_network
from toolkit.workflows import ExportOptions, compress_bundle, finetune_folder
from toolkit.workflows.compress import COMPRESSION_METHODS, CompressionOptions
from toolkit.workflows.compress.pictures import DividedPictures, training_parts
from toolkit.workflows.compress.publishing import _accuracy, unchanged
from toolkit.workflows.compress.source import Source
from toolkit.workflows.finetune import FolderOptions

needs_worker = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_model_optimization") is None, reason="needs toolkit[compress]"
)
BRIEF = CompressionOptions(epochs=1)


@pytest.fixture(scope="module")
def finetuned(bundle, digits, tmp_path_factory) -> Path:
    """A fine-tuned bundle: LeNet-5 whose convolutions are frozen."""
    root = tmp_path_factory.mktemp("finetuned")
    export = ExportOptions(root / "digits", num_examples=3)
    finetune_folder(digits, "lenet5", weights=bundle, export=export, options=FolderOptions(root / "cache"))
    network = load_network(root / "digits" / "1" / KERAS_FILE)
    assert [layer.name for layer in network.layers if layer.weights and not layer.trainable][:2] == [
        "stage1_conv",
        "stage2_conv",
    ]
    return root / "digits"


@pytest.fixture
def finetuned_copy(finetuned, tmp_path) -> Path:
    return Path(shutil.copytree(finetuned, tmp_path / "finetuned"))


@pytest.mark.parametrize(
    ("method", "share"),
    [
        ("int8", 0.27),
        pytest.param("dynamic", 0.32, marks=pytest.mark.slow),
        pytest.param("float16", 0.55, marks=pytest.mark.slow),
        pytest.param("int16x8", 0.28, marks=pytest.mark.slow),
    ],
)
def test_each_method_writes_a_bundle_and_measures_it(bundle_copy, digits, held_out_decoded, tmp_path, method, share):
    page = tmp_path / "report.html"
    made = bundle_copy / litert_file(method)
    made.unlink(missing_ok=True)  # the int8 file would not be made again
    write_manifest(bundle_copy, replace(read_manifest(bundle_copy), recipes={}))
    result = compress_bundle(bundle_copy, method, data=digits, options=CompressionOptions(page=page))
    assert ("<h2>Ranges</h2>" in page.read_text()) == (method in ("int8", "int16x8"))
    assert len(held_out_decoded) == len(set(held_out_decoded)) == 359
    path = bundle_copy.parent / "2"
    assert result["bundle"] == str(path)
    assert result["bytes"] == (path / litert_file(method)).stat().st_size < share * result["float_bytes"]
    assert abs(result["top1"] - result["float_top1"]) < 0.01
    reference, row = result["report"]["rows"]
    assert (reference["method"], row["method"]) == ("float", method)
    assert row["verdict"].startswith(method)
    verify_files(path, read_manifest(path))
    assert f"top1_litert-{method}" in read_manifest(path).metrics
    assert [example.label for example in read_examples(path)] == ["0", "1", "2"]
    assert read_manifest(path).ground == read_manifest(bundle_copy).ground
    (answer,) = Predictor.load(path, engine=f"litert-{method}").predict([np.zeros((32, 32, 3), np.uint8)])
    assert len(answer) == 5


def test_what_chooses_among_epochs_is_not_reported_on():
    pictures = [Subset(tuple(f"{name}{i}" for i in range(10)), tuple(range(10))) for name in "abc"]
    assert training_parts(Split(*pictures)) == (pictures[0], pictures[1])
    train, validation = training_parts(Split(pictures[0], pictures[1], Subset((), ())))
    assert validation == Subset(("a0", "a5"), (0, 5))
    assert sorted(train.paths + validation.paths) == sorted(pictures[0].paths)


@needs_worker
@pytest.mark.slow
def test_a_quantization_aware_trained_file_is_the_bundles_int8(finetuned_copy, digits, tmp_path, told):
    page = tmp_path / "report.html"
    options = CompressionOptions(epochs=1, page=page)
    result = compress_bundle(finetuned_copy, "qat", data=digits, options=options)
    first, path = finetuned_copy / "1", finetuned_copy / "2"
    assert in_head(result["kept_float"])
    assert (path / INT8_LITERT).read_bytes() != (first / INT8_LITERT).read_bytes()
    parameters = load_network(path / KERAS_FILE).count_params()
    assert result["changes"]["trained"] == result["changes"]["parameters"] == parameters
    verdict = result["report"]["rows"][1]["verdict"]
    assert ("--engine" in verdict) == ("use it" in verdict)
    assert f"training moved {parameters:,} of {parameters:,} parameters" in page.read_text()
    assert "training, epoch 1 of 1" in {label for label, *_ in told}
    picture = np.zeros((32, 32, 3), np.uint8)
    for engine in ("litert-int8", "openvino-int8"):
        (answer,) = Predictor.load(path, engine=engine).predict([picture])
        assert len(answer) == 5
    assert page.read_text().count("<svg") == 1


def in_head(outputs: Iterable[str]) -> bool:
    """Tell if all of these are of the classifier on several stages, whose unit lengths stay in float."""
    return all("head_" in name for name in outputs)


def is_novelty(kernel: np.ndarray, network: Any) -> bool:
    """Tell the class means, which stand beside the network in a SavedModel, from its kernels."""
    return kernel.shape not in [layer.kernel.shape for layer in network.layers if hasattr(layer, "kernel")]


def large_kernels(version_dir: Path) -> dict[str, list[np.ndarray]]:
    """Kernels of 256 weights and more in every file of a version that holds the float network."""
    import tensorflow as tf

    network = load_network(version_dir / KERAS_FILE)
    checkpoint = tf.train.load_checkpoint(str(version_dir / "variables" / "variables"))
    names = [name for name, shape in checkpoint.get_variable_to_shape_map().items() if len(shape) in (2, 4)]
    names = [name for name in names if not is_novelty(checkpoint.get_tensor(name), network)]
    litert = kernels_in((version_dir / FLOAT_LITERT).read_bytes(), [layer.name for layer in network.layers])
    found = {
        "keras": [np.asarray(layer.kernel) for layer in network.layers if hasattr(layer, "kernel")],
        "saved model": [checkpoint.get_tensor(name) for name in names],
        "litert": list(litert.values()),
    }
    return {file: [kernel for kernel in kernels if kernel.size >= 256] for file, kernels in found.items()}


@needs_worker
@pytest.mark.slow
@pytest.mark.parametrize("method", [m for m in COMPRESSION_METHODS if "prune" in m or "cluster" in m])
def test_what_fine_tuning_froze_is_changed_in_the_files(finetuned_copy, digits, method):
    result = compress_bundle(finetuned_copy, method, data=digits, options=BRIEF, force=True)
    row, path, changes = result["report"]["rows"][1], finetuned_copy / "2", result["changes"]
    files = large_kernels(path)
    assert {file: len(kernels) for file, kernels in files.items()} == dict.fromkeys(files, 4)
    for kernels in files.values():
        if "prune" in method:
            assert share_of_zeros(kernels) == pytest.approx(0.5, abs=0.01)
        if "cluster" in method:
            assert most_values(dict(enumerate(kernels)), by_channel=False) <= 16
    if "prune" in method:
        assert row["gzip_bytes"] < 0.75 * result["bytes"]
    if "int8" in method or "qat" in method:
        assert in_head(result["kept_float"])
        assert result["bytes"] < 0.32 * result["float_bytes"]  # the classifier's unit lengths stay in float
        layers = ["stage2_conv", "head_fc1", "head_fc2", "head_logits"]
        kernels = kernels_in((path / INT8_LITERT).read_bytes(), layers)
        if "prune" in method:
            assert share_of_zeros(kernels.values()) >= 0.49
        if "cluster" in method:
            assert most_values(kernels, by_channel=True) <= 16
    else:
        assert result["bytes"] == pytest.approx(result["float_bytes"], rel=0.01)
    assert changes["trained"] == load_network(path / KERAS_FILE).count_params()
    assert changes["zeros"] == row["zeros"]
    assert (changes["values"] is not None and changes["values"] <= 16) == ("cluster" in method)


def test_what_stands_beside_the_network_is_carried_over(bundle_copy, digits):
    """Examples for the demo with their labels, and which pictures taught."""
    extra = {"examples.json": {"00.png": "0"}, "pictures.json": {"train": ["abc"], "val": [], "test": []}}
    for name, document in extra.items():
        (bundle_copy / EXTRA / name).write_text(json.dumps(document))
    write_manifest(bundle_copy, read_manifest(bundle_copy))
    compress_bundle(bundle_copy, "dynamic", data=digits)
    path = bundle_copy.parent / "2"
    for name, document in extra.items():
        assert json.loads((path / EXTRA / name).read_text()) == document
    examples = sorted((path / EXAMPLES).iterdir())
    assert [file.name for file in examples] == ["00.png", "01.png", "02.png"]
    assert [file.read_bytes() for file in examples] == [
        file.read_bytes() for file in sorted((bundle_copy / EXAMPLES).iterdir())
    ]
    verify_files(path, read_manifest(path))


def test_pictures_that_taught_are_said_and_others_judge(finetuned_copy, bundle_copy, digits):
    assert compress_bundle(finetuned_copy, "int8", data=digits)["written"] is False  # fine-tuning made it
    report = compress_bundle(finetuned_copy, "dynamic", data=digits)["report"]
    assert "pictures that taught the bundle, like all others" in report["pictures"]
    before, after = read_manifest(finetuned_copy / "1"), read_manifest(finetuned_copy / "2")
    assert accuracy(before) == accuracy(after)
    assert (before.rejection, after.subset) == (after.rejection, "out-of-fold")
    known = {"train": picture_digests(sorted(digits.glob("[0-4]/*.png")) + sorted(digits.glob("[5-9]/*[02468].png")))}
    write_pictures(bundle_copy, known)
    write_manifest(bundle_copy, read_manifest(bundle_copy))
    report = compress_bundle(bundle_copy, "dynamic", data=digits)["report"]
    unseen = len(list(digits.glob("[5-9]/*[13579].png")))
    assert (report["n"], report["pictures"]) == (unseen, f"{unseen:,} pictures that did not teach the bundle")
    assert accuracy(read_manifest(bundle_copy.parent / "2"))["n"] == unseen


def accuracy(manifest: Manifest) -> dict[str, float]:
    """Figures of the network itself; a bundle's others are of its engines."""
    return {name: value for name, value in manifest.metrics.items() if "top1_" not in name}


def test_accuracy_that_is_not_known_is_not_noted(bundle_copy, digits):
    """Of an imported bundle nobody knows which pictures taught it, nor of a network that was trained on all of them."""
    write_manifest(bundle_copy, replace(read_manifest(bundle_copy), metrics={}, rejection=None))
    compress_bundle(bundle_copy, "dynamic", data=digits)
    manifest = read_manifest(bundle_copy.parent / "2")
    assert (manifest.metrics, manifest.rejection) == ({}, None)
    source, taught = Source(bundle_copy, manifest, object()), Subset(("a.png",), (0,))
    pictures = DividedPictures(taught, taught, taught, taught, "one picture")
    assert _accuracy(source, object(), pictures) == {"out_of_fold": {}}


def test_a_file_that_is_there_is_not_made_again(bundle_copy, digits, monkeypatch, caplog):
    """The export quantized the same network with the same pictures: that is said before anything heavy."""
    import toolkit.compress
    import toolkit.workflows.compress.journey

    def heavy(*_, **__):
        raise AssertionError("not at once")

    monkeypatch.setattr(toolkit.workflows.compress.journey, "load_network", heavy)
    monkeypatch.setattr(toolkit.compress, "quantize", heavy)
    caplog.set_level("INFO", "toolkit")
    result = compress_bundle(bundle_copy, "INT8", data=digits)
    assert not result["written"]
    assert result["bundle"] == str(bundle_copy)
    assert "has this very int8 file already" in caplog.text
    assert sorted(path.name for path in bundle_copy.parent.iterdir()) == ["1"]
    for other in (CompressionOptions(keep_float=("stage2_conv",)), CompressionOptions(keep_worst=1)):
        with pytest.raises(AssertionError, match="not at once"):
            compress_bundle(bundle_copy, "int8", data=digits, options=other)


def test_the_file_of_quantization_aware_training_that_is_there_is_the_int8_file(bundle):
    assert unchanged(bundle, "qat")["bytes"] == (bundle / INT8_LITERT).stat().st_size


def test_forms_in_float_are_not_made_again(bundle_copy, digits, monkeypatch):
    """No method that quantizes after training changes the network, whose files the bundle has."""
    import toolkit.engines.convert
    import toolkit.export.saved_model

    monkeypatch.setattr(toolkit.export.saved_model, "write_saved_model", lambda *_, **__: pytest.fail("written anew"))
    monkeypatch.setattr(toolkit.engines.convert, "_converter", lambda *_: pytest.fail("converted anew"))
    options = CompressionOptions(keep_float=("stage2_conv",))
    result = compress_bundle(bundle_copy, "int8", data=digits, options=options, force=True)
    before, after = read_manifest(bundle_copy).files, read_manifest(bundle_copy.parent / "2").files
    assert result["kept_float"] == ["stage2_conv"]
    assert before.keys() == after.keys()
    assert {place for place in before if before[place] != after[place]} == {INT8_LITERT}


def test_a_bundle_without_litert_files_is_compressed(bundle_copy, digits):
    (bundle_copy / FLOAT_LITERT).unlink()
    write_manifest(bundle_copy, read_manifest(bundle_copy))
    assert compress_bundle(bundle_copy, "int8", data=digits)["float_bytes"] is None  # it is there already
    result = compress_bundle(bundle_copy, "dynamic", data=digits)
    assert result["float_bytes"] == (bundle_copy.parent / "2" / FLOAT_LITERT).stat().st_size > 3 * result["bytes"]


@pytest.mark.slow
def test_an_equal_version_is_not_written(bundle_copy, digits):
    """An older bundle does not say what its int8 file follows from."""
    write_manifest(bundle_copy, replace(read_manifest(bundle_copy), recipes={}))
    assert not compress_bundle(bundle_copy, "int8", data=digits)["written"]
    assert sorted(path.name for path in bundle_copy.parent.iterdir()) == ["1"]
    assert compress_bundle(bundle_copy, "dynamic", data=digits)["written"]
    assert not compress_bundle(bundle_copy.parent / "2", "dynamic", data=digits)["written"]
    assert sorted(path.name for path in bundle_copy.parent.iterdir()) == ["1", "2"]


@pytest.mark.slow
def test_a_method_that_did_nothing_fails(bundle_copy, digits, monkeypatch):
    import toolkit.compress

    monkeypatch.setattr(toolkit.compress, "prune", lambda model, *_, **__: model)
    with pytest.raises(UserError, match=r"pruning was to make 50.0 % of the weights zero, and made 0.0 %; none in"):
        compress_bundle(bundle_copy, "prune", data=digits)
    assert sorted(path.name for path in bundle_copy.parent.iterdir()) == ["1"]


@pytest.mark.slow
def test_the_worst_layers_stay_in_float(bundle_copy, digits):
    options = CompressionOptions(keep_float=("stage1_conv",), keep_worst=1)
    result = compress_bundle(bundle_copy, "int8", data=digits, options=options)
    assert "stage1_conv" in result["kept_float"]
    assert len(result["kept_float"]) > 1
    assert result["report"]["rows"][1]["operators"]["by_type"]["float32"] >= 2


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("int4", {}, "unknown method 'int4'"),
        ("int8", {"keep_float": ("conv9",)}, "unknown layer 'conv9'"),
        ("Prune ", {}, "unknown method 'prune '; did you mean 'prune'"),
        ("prune", {"sparsity": 50}, "sparsity must lie between 0 and 1, got 50"),
        ("cluster", {"num_clusters": 1}, "at least 2, got 1"),
        ("qat", {"learning_rate": 0.0}, "learning_rate positive"),
        ("qat", {"epochs": 0}, "epochs must be at least 1"),
        ("prune", {"pattern": "4:2"}, "unknown pattern '4:2'"),
    ],
)
def test_bad_requests_leave_nothing_behind(bundle_copy, digits, method, options, message):
    with pytest.raises(UserError, match=message):
        compress_bundle(bundle_copy, method, data=digits, options=CompressionOptions(**options))
    assert sorted(path.name for path in bundle_copy.parent.iterdir()) == ["1"]


@pytest.mark.slow
def test_too_much_lost_is_refused_unless_forced(bundle_copy, digits, monkeypatch):
    """A network pruned of everything and not trained on."""
    import toolkit.compress

    def ruined(model, *args, **kwargs):
        copy = model.__class__.from_config(model.get_config())
        copy.set_weights([0 * weight for weight in model.get_weights()])
        return copy

    monkeypatch.setattr(toolkit.compress, "prune", ruined)
    with pytest.raises(UserError, match=r"not written: prune costs \d+.\d points of top-1.*--force"):
        compress_bundle(bundle_copy, "prune", data=digits)
    assert sorted(path.name for path in bundle_copy.parent.iterdir()) == ["1"]
