import numpy as np
import pytest

from toolkit.bundle import picture_digests, read_manifest, read_pictures
from toolkit.data.feed.arrays import load_pixels
from toolkit.engines.runtimes import KerasEngine
from toolkit.errors import UserError
from toolkit.metrics import accuracy_report
from toolkit.workflows.steps import ExportOptions, export_held_out, require_writable


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
    shown.clear()
    _, again = export_held_out(
        lenet, digits_folder, digits_split, lenet_preprocessing, export, reference=expected, methods=()
    )
    assert shown == []  # what is known is not computed anew
    assert again == metrics


def test_a_place_where_nothing_can_be_written_is_refused(tmp_path):
    require_writable(tmp_path / "new" / "digits")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="not a writable folder"):
        require_writable(tmp_path / "file" / "digits")
