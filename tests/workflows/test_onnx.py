"""`toolkit export`: a bundle's network as an ONNX file, written only if ONNX Runtime answers as Keras does."""

import importlib.util

import numpy as np
import pytest

from toolkit.data.feed.arrays import load_pixels
from toolkit.engines import open_engine
from toolkit.errors import UserError
from toolkit.workflows import onnx as workflow
from toolkit.workflows.onnx import export_onnx

onnxruntime = pytest.importorskip("onnxruntime")


def test_the_file_answers_as_the_bundle_does(bundle, lenet_preprocessing, digits_split, tmp_path):
    file = tmp_path / "digits.onnx"
    pictures = digits_split.test.paths[:5]
    result = export_onnx(bundle, file, images=pictures)
    assert result["file"] == str(file)
    assert result["bytes"] == file.stat().st_size > 4 * 61_706
    assert result["n"] == 4 + 3 + 5  # noise, the bundle's examples, the pictures given
    assert result["difference"] < 1e-5
    pixels = load_pixels(pictures, lenet_preprocessing)
    (answer,) = onnxruntime.InferenceSession(file).run(["probabilities"], {"pixels": pixels})
    expected = open_engine("savedmodel", bundle, lenet_preprocessing).probabilities(pixels)
    np.testing.assert_allclose(answer, expected, atol=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == ["digits.onnx"]


@pytest.mark.parametrize("answer", [0.2, np.nan])
def test_a_file_that_answers_otherwise_is_not_written(bundle, tmp_path, monkeypatch, answer):
    monkeypatch.setattr(workflow, "_in_onnx_runtime", lambda content, pixels: np.full((len(pixels), 10), answer))
    with pytest.raises(UserError, match=r"digits\.onnx: not written, ONNX Runtime differs from Keras by"):
        export_onnx(bundle, tmp_path / "digits.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [("digits.pb", "expected a name that ends in .onnx"), ("none/digits.onnx", "there is no folder")],
)
def test_bad_names_are_refused_first(bundle, tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        export_onnx(bundle, tmp_path / name)


def test_what_is_missing_is_named_with_what_to_install(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs onnx and onnxruntime.*pip install 'toolkit\[onnx\]'"):
        export_onnx(bundle, tmp_path / "digits.onnx")
