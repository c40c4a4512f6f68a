"""Networks of keras.applications from a weights file to a bundle that answers."""

from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from toolkit.data.pixels.decode import normalize
from toolkit.engines import available_engines
from toolkit.errors import UserError
from toolkit.factory.keras_applications import PREFIX, PREPROCESSING
from toolkit.inference import Predictor
from toolkit.workflows import ExportOptions
from toolkit.workflows.finetune import FolderOptions, finetune_folder

COLOURS = {"coral": (220, 90, 70), "slate": (80, 95, 120)}
NAMES = (
    *("ConvNeXtTiny", "DenseNet121", "EfficientNetB0", "EfficientNetV2B0", "InceptionV3"),
    *("MobileNetV2", "MobileNetV3Large", "MobileNetV3Small", "ResNet50V2", "Xception"),
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Ten noisy pictures of each of two colours."""
    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("pictures")
    for name, colour in COLOURS.items():
        (root / name).mkdir()
        for number in range(10):
            values = np.kron(rng.normal(colour, 25, (6, 6, 3)), np.ones((12, 12, 1)))
            Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(root / name / f"{number}.png")
    return root


def save_weights(path, name, pictures, **options):
    """Random weights, with the statistics of pictures, in the input size that Keras takes by default."""
    keras.utils.set_random_seed(0)
    preprocessing = PREPROCESSING[name]
    model = getattr(keras.applications, name)(weights=None, input_shape=preprocessing.input_shape, **options)
    shown = [Image.open(file).resize(preprocessing.size[::-1]) for file in sorted(pictures.glob("*/*"))[::3]]
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
        elif type(layer).__name__ == "LayerScale":
            layer.gamma.assign(np.random.default_rng(0).normal(0, 0.5, layer.gamma.shape))
    model(normalize(np.stack([np.asarray(picture) for picture in shown]), preprocessing), training=True)
    (model.save_weights if path.name.endswith(".weights.h5") else model.save)(path)


def finetuned(name, pictures, tmp_path, weights, *formats):
    return finetune_folder(
        pictures,
        f"{PREFIX}{name}",
        weights=weights,
        export=ExportOptions(tmp_path / "bundle", formats=formats),
        options=FolderOptions(tmp_path / "cache"),
    )


@pytest.mark.slow
def test_a_published_file_becomes_a_bundle_that_answers(pictures, tmp_path):
    save_weights(tmp_path / "mobilenet_no_top.h5", "MobileNet", pictures, include_top=False, alpha=0.25)
    result = finetuned("MobileNet", pictures, tmp_path, tmp_path / "mobilenet_no_top.h5", "savedmodel")
    assert result["accuracy"] >= 0.9
    predictor = Predictor.load(result["bundle"])
    for name in COLOURS:
        assert predictor.predict(pictures / name / "0.png")[0][0].label == name


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_application_becomes_a_bundle_with_int8(name, pictures, tmp_path):
    save_weights(tmp_path / "own.weights.h5", name, pictures)
    result = finetuned(name, pictures, tmp_path, tmp_path / "own.weights.h5", "savedmodel", "litert", "int8")
    assert result["accuracy"] >= 0.9
    # LayerNormalization has no int8 form.
    assert (name != "ConvNeXtTiny") == ("litert-int8" in available_engines(Path(result["bundle"])))


def test_what_cannot_be_is_told_before_the_pictures_are_read(tmp_path):
    with pytest.raises(UserError, match=r"did you mean 'keras.applications:MobileNetV2'"):
        finetuned("MobilNetV2", tmp_path / "nowhere", tmp_path, "imagenet", "savedmodel")
    with pytest.raises(UserError, match=r"no weights file at .*own\.h5"):
        finetuned("MobileNetV2", tmp_path / "nowhere", tmp_path, tmp_path / "own.h5", "savedmodel")
