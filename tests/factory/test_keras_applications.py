"""Networks of keras.applications by name: their weights, their preprocessing, and one line for what cannot be had."""

import inspect
import logging

import keras
import numpy as np
import pytest

from toolkit import create_model
from toolkit.errors import UserError
from toolkit.factory import open_application, preprocessing_of, require_application
from toolkit.factory.keras_applications import PREFIX, PREPROCESSING
from toolkit.spec import Preprocessing

SMALL = f"{PREFIX}MobileNetV3Small"
SHAPE = (64, 64, 3)
PIXELS = np.random.default_rng(0).uniform(0, 255, (3, *SHAPE)).astype("float32")
MODULES = [
    module
    for name, module in inspect.getmembers(keras.applications, inspect.ismodule)
    if hasattr(module, "preprocess_input") and name != "imagenet_utils"
]


def prepared(preprocessing: Preprocessing) -> np.ndarray:
    factor, offset = preprocessing.affine()
    pixels = PIXELS[..., ::-1] if preprocessing.channel_order == "bgr" else PIXELS
    return pixels * np.float32(factor) + np.float32(offset)


def with_statistics(model: keras.Model, inputs: np.ndarray) -> keras.Model:
    """An untrained network answers next to nothing without the statistics of pictures."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(inputs, training=True)
    return model


@pytest.fixture(scope="module")
def own():
    """A small application as Keras builds it."""
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV3Small(weights=None, input_shape=SHAPE, classifier_activation=None)
    return with_statistics(model, PIXELS)


@pytest.fixture(scope="module")
def files(own, tmp_path_factory):
    """Its weights in every form that Keras writes, whole and without the classifier."""
    folder = tmp_path_factory.mktemp("weights")
    backbone = keras.applications.MobileNetV3Small(weights=None, input_shape=SHAPE, include_top=False)
    backbone.set_weights(own.get_weights()[: len(backbone.weights)])
    for model, name in ((own, "whole"), (backbone, "notop")):
        model.save_weights(folder / f"{name}.weights.h5")
        model.save(folder / f"{name}.keras")
        model.save(folder / f"{name}.h5")
    return folder


def test_the_table_holds_every_application_of_keras():
    functions = inspect.getmembers(keras.applications, inspect.isfunction)
    assert sorted(PREPROCESSING) == sorted(name for name, _ in functions)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_preprocessing_is_that_of_keras(module):
    names = [name for name in PREPROCESSING if hasattr(module, name)]
    names = names or [name for name in PREPROCESSING if name.lower().startswith(module.__name__[-12:].replace("_", ""))]
    assert names
    expected = module.preprocess_input(PIXELS.copy())
    for name in names:
        np.testing.assert_allclose(prepared(PREPROCESSING[name]), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["whole.weights.h5", pytest.param("whole.h5", marks=pytest.mark.slow)])
def test_a_file_fills_the_whole_network(own, files, name):
    model = create_model(SMALL, input_shape=SHAPE, weights=files / name)
    np.testing.assert_allclose(model(prepared(preprocessing_of(model))), own(PIXELS), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["notop.weights.h5", "notop.h5", "whole.keras"])
def test_a_new_classifier_stands_on_a_files_features(own, files, name):
    model = open_application(SMALL, num_classes=3, input_shape=SHAPE, weights=files / name)
    assert (model.output_shape, model.layers[-1].name) == ((None, 3), "head_logits")
    tensors = {"notop": conv_features(own), "whole": own.get_layer("logits").input}
    expected = np.mean(keras.Model(own.input, tensors[name[:5]])(PIXELS), axis=(1, 2))
    found = keras.Model(model.input, model.layers[-1].input)(prepared(preprocessing_of(model)))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def conv_features(model: keras.Model):
    """The answer of a network without classifier: the input of the pooling before the last two convolutions."""
    return next(layer for layer in reversed(model.layers) if "pool" in layer.name).input


def test_fresh_weights_a_size_and_a_preprocessing_of_ones_own():
    model = open_application(SMALL, num_classes=3, input_shape=SHAPE, preprocessing=Preprocessing((8, 8), scale=1.0))
    preprocessing = preprocessing_of(model)
    assert (preprocessing.size, preprocessing.crop_fraction) == ((64, 64), 1.0)
    np.testing.assert_allclose(preprocessing.affine(), [(1 / 127.5,) * 3, (-1,) * 3], rtol=1e-6)
    assert "Rescaling" not in {type(layer).__name__ for layer in model.layers[:3]}
    with pytest.raises(UserError, match="scales its input itself"):
        open_application(SMALL, num_classes=3, preprocessing=Preprocessing((8, 8)))


@pytest.mark.slow
def test_weights_come_by_keras_own_download(own, monkeypatch):
    def stand_in(weights, **options):
        if weights != "imagenet":
            return build(weights=weights, **options)
        assert "input_shape" not in options  # with a classifier, Keras takes its own alone
        return own

    build = keras.applications.MobileNetV3Small
    monkeypatch.setattr(keras.applications, "MobileNetV3Small", stand_in)
    model = create_model(SMALL, input_shape=SHAPE, weights="imagenet")
    np.testing.assert_allclose(model(prepared(preprocessing_of(model))), own(PIXELS), atol=1e-4)
    model = create_model(SMALL, num_classes=2, input_shape=(32, 32, 3), weights="imagenet")
    np.testing.assert_array_equal(model.get_layer("conv").get_weights()[0], own.get_layer("conv").get_weights()[0])


def test_without_a_network_one_line_says_what_to_do(monkeypatch):
    def stand_in(**options):
        raise Exception("URL fetch failure on https://storage.example/small.h5: None -- [Errno -3] no\nname")

    monkeypatch.setattr(keras.applications, "MobileNetV3Small", stand_in)
    with pytest.raises(UserError, match=r"cannot be downloaded .*storage.example/small.h5.*--weights PATH") as caught:
        create_model(SMALL, weights="imagenet")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        (f"{PREFIX}MobilNetV3Smal", None, r"unknown model .*did you mean 'keras.applications:MobileNetV3Small'"),
        (f"{PREFIX}mobilenetv3small", None, r"did you mean 'keras.applications:MobileNetV3Small'"),
        ("keras.applications.MobileNetV2", None, r"did you mean 'keras.applications:MobileNetV2'"),
        ("MobileNetV2", None, r"unknown model 'MobileNetV2'; did you mean 'keras.applications:MobileNetV2'"),
        (PREFIX, None, r"unknown model .*keras.applications:ConvNeXtBase"),
        (SMALL, "imagenet-v2", r"unknown weights 'imagenet-v2'.*imagenet.*path"),
        (SMALL, "nowhere/file.h5", r"no weights file at nowhere/file.h5"),
    ],
)
def test_what_is_misspelt_is_told_before_anything_is_built(name, weights, message):
    with pytest.raises(UserError, match=message):
        require_application(name, weights)


def test_a_file_of_another_network_is_refused_in_a_line(files, tmp_path):
    with pytest.raises(UserError, match=r"has no classifier; give num_classes"):
        create_model(SMALL, input_shape=SHAPE, weights=files / "notop.h5")
    create_model("lenet5").save(tmp_path / "lenet.keras")
    with pytest.raises(UserError, match=r"lenet.keras does not hold the arrays of keras.applications:VGG16"):
        create_model(f"{PREFIX}VGG16", input_shape=(32, 32, 3), weights=tmp_path / "lenet.keras")


def test_options_are_those_of_keras():
    assert create_model(SMALL, num_classes=3, input_shape=SHAPE, alpha=0.75).count_params() < 1_100_000
    with pytest.raises(UserError, match=r"unknown keyword 'alhpa'; did you mean 'alpha'"):
        create_model(SMALL, alhpa=0.75)
    with pytest.raises(UserError, match=r"cannot be built: .*at least 32x32"):
        create_model(SMALL, input_shape=(8, 8, 3))


@pytest.mark.slow
def test_a_width_is_found_that_the_file_was_saved_with(tmp_path, caplog):
    own = keras.applications.MobileNetV3Small(weights=None, input_shape=SHAPE, classes=4, alpha=0.75)
    own.save_weights(tmp_path / "narrow.weights.h5")
    with caplog.at_level(logging.INFO, "toolkit"):
        model = create_model(SMALL, input_shape=SHAPE, weights=tmp_path / "narrow.weights.h5")
    assert model.output_shape == (None, 4)
    assert "alpha=0.75" in caplog.text


@pytest.mark.slow
def test_efficientnets_published_files_hold_deviations_where_variances_belong(tmp_path):
    own = keras.applications.EfficientNetB0(weights=None, input_shape=(32, 32, 3), include_top=False)
    layer = next(layer for layer in own.layers if isinstance(layer, keras.layers.Normalization))
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    layer.set_weights([np.array(mean), np.array(deviation), np.array(1)])
    own.save_weights(tmp_path / "efficientnetb0_notop.weights.h5")
    model = open_application(
        f"{PREFIX}EfficientNetB0",
        num_classes=2,
        input_shape=(32, 32, 3),
        weights=tmp_path / "efficientnetb0_notop.weights.h5",
    )
    expected = Preprocessing((32, 32), mean=mean, std=deviation).affine()
    np.testing.assert_allclose(preprocessing_of(model).affine(), expected, rtol=1e-5)
