"""`toolkit export`: a bundle's network as an ONNX file, written only if ONNX Runtime answers as Keras does."""

import dataclasses
import importlib.util
import json

import numpy as np
import pytest
from PIL import Image, ImageOps

from toolkit.data.feed.arrays import load_pixels
from toolkit.engines import open_engine
from toolkit.errors import UserError
from toolkit.metrics import softmax
from toolkit.spec import Preprocessing
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
    [
        ("digits.pb", "expected a name that ends in .onnx"),
        ("none/digits.onnx", r"cannot be written \(no such folder\)"),
    ],
)
def test_bad_names_are_refused_first(bundle, tmp_path, name, message):
    with pytest.raises(UserError, match=message):
        export_onnx(bundle, tmp_path / name)


def test_what_is_missing_is_named_with_what_to_install(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs onnx and onnxruntime.*pip install 'toolkit\[onnx\]'"):
        export_onnx(bundle, tmp_path / "digits.onnx")


def from_the_file_alone(file, picture):
    """Answer as a reader in any language does: by Pillow, ONNX Runtime and the file's metadata."""
    session = onnxruntime.InferenceSession(file)
    told = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    image = ImageOps.exif_transpose(Image.open(picture)).convert("RGB")
    resize = told["resize"]
    width, height = resize["width"], resize["height"]
    kernel = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[resize["interpolation"]]
    assert resize["antialias"]  # as Pillow always does
    if resize["mode"] == "crop":
        scale = max(width / image.width, height / image.height) / resize["crop_fraction"]
        image = image.resize((round(image.width * scale), round(image.height * scale)), kernel)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    else:
        image = image.resize((width, height), kernel)
    assert (told["input"]["dtype"], told["input"]["layout"], told["input"]["channels"]) == ("uint8", "NHWC", "RGB")
    pixels = np.asarray(image)[None]
    assert told["input"]["range"] == [0, 255]
    probabilities = session.run(["probabilities"], {told["input"]["name"]: pixels})[0][0]
    best = int(probabilities.argmax())
    rejected = told["reject_below"] is not None and probabilities[best] < told["reject_below"]
    return told["labels"][best], float(probabilities[best]), rejected


@pytest.mark.parametrize("threshold", [None, 0.999])
def test_a_reader_reproduces_the_answer_from_the_file_alone(bundle_copy, jpegs, tmp_path, threshold):
    from toolkit.bundle import read_manifest, write_manifest
    from toolkit.inference import Predictor

    write_manifest(bundle_copy, dataclasses.replace(read_manifest(bundle_copy), reject_below=threshold))
    export_onnx(bundle_copy, tmp_path / "digits.onnx")
    predictor = Predictor.load(bundle_copy, "litert")
    for number, jpeg in enumerate(jpegs):
        picture = tmp_path / f"{number}.jpg"
        picture.write_bytes(jpeg)
        label, probability, rejected = from_the_file_alone(tmp_path / "digits.onnx", picture)
        [[best]] = predictor.predict(picture, top_k=1)
        assert (label, rejected) == (best.label, threshold is not None and best.probability < threshold)
        assert probability == pytest.approx(best.probability, abs=0.02)  # Pillow rounds twice


@pytest.mark.parametrize("mode", ["crop", "stretch"])
def test_the_crop_is_told_as_it_is_done(tmp_path, mode):
    """Of a photograph that is no square, at a crop of seven eighths."""
    keras = pytest.importorskip("keras")
    from toolkit.data.pixels.decode import normalize
    from toolkit.engines.onnx_graph import to_onnx

    preprocessing = Preprocessing((20, 28), resize=mode, crop_fraction=0.875, interpolation="bicubic", mean=(0.5,) * 3)
    inputs = keras.Input((20, 28, 3))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(inputs)))
    (tmp_path / "net.onnx").write_bytes(to_onnx(model, preprocessing, labels="abc"))
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (9, 13, 3), np.uint8)).resize((157, 93), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "photo.png")
    label, probability, rejected = from_the_file_alone(tmp_path / "net.onnx", tmp_path / "photo.png")
    pixels = load_pixels([tmp_path / "photo.png"], preprocessing)
    expected = softmax(keras.ops.convert_to_numpy(model(normalize(pixels, preprocessing))))[0]
    assert (label, rejected) == ("abc"[expected.argmax()], False)
    assert probability == pytest.approx(expected.max(), abs=0.01)
