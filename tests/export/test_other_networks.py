"""Networks that people bring: what their own predict answers is what every file of the bundle answers."""

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.bundle import KERAS_FILE, read_manifest
from toolkit.data.pixels.decode import normalize
from toolkit.engines import available_engines, open_engine
from toolkit.errors import UserError
from toolkit.export import export_bundle
from toolkit.network import load_network, probabilities_of
from toolkit.spec import Preprocessing

RNG = np.random.default_rng(0)
SIZE = (16, 16)
AS_IT_IS = Preprocessing(SIZE, scale=1.0)
TO_ONE = Preprocessing(SIZE)


def tutorial(*head, scaled=True):
    """Augmentation, scaling, a nested backbone, pooling, dropout: as tutorials build a classifier."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((*SIZE, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2)(inputs)))
    backbone = keras.Model(inputs, x, name="backbone")
    start = [layers.RandomFlip("horizontal"), layers.Rescaling(1 / 127.5, offset=-1)] if scaled else []
    end = [layers.GlobalAveragePooling2D(), layers.Dropout(0.2), *head]
    model = keras.Sequential([keras.Input((*SIZE, 3)), *start, backbone, *end], name="tutorial")
    for weight in model.weights:
        if weight.name == "moving_variance":
            weight.assign(RNG.uniform(0.5, 1.5, weight.shape))
        if weight.name == "kernel" and len(weight.shape) == 2:  # answers far from even
            weight.assign(RNG.normal(0, 20.0, weight.shape))
    return model


@pytest.mark.parametrize(
    ("model", "preprocessing"),
    [
        (lambda: tutorial(layers.Dense(3, activation="softmax")), AS_IT_IS),
        pytest.param(lambda: tutorial(layers.Dense(3), layers.Softmax(), scaled=False), TO_ONE, marks=pytest.mark.slow),
        (lambda: tutorial(layers.Dense(1, activation="sigmoid"), scaled=False), TO_ONE),
    ],
    ids=["softmax", "softmax layer", "sigmoid"],
)
def test_a_bundle_answers_what_the_networks_own_predict_answers(tmp_path, model, preprocessing):
    model = model()
    pixels = RNG.integers(0, 256, (8, *SIZE, 3), np.uint8)
    own = model.predict(normalize(pixels, preprocessing), verbose=0)
    expected = own if own.shape[1] > 1 else np.concatenate([1 - own, own], axis=1)
    labels = ("ant", "bee", "cow")[: expected.shape[1]]
    path = export_bundle(model, tmp_path / "mine", labels=labels, preprocessing=preprocessing, methods=("float16",))
    assert expected.max(axis=1).mean() > 0.6  # a second softmax would leave less
    for engine in available_engines(path):
        found = open_engine(engine, path, read_manifest(path).preprocessing).probabilities(pixels)
        np.testing.assert_allclose(found, expected, atol=2e-2 if "16" in engine else 1e-5, err_msg=engine)
    assert max(read_manifest(path).parity.values()) < 2e-2
    network = load_network(path / KERAS_FILE)
    answers = network.predict(normalize(pixels, read_manifest(path).preprocessing), verbose=0)
    np.testing.assert_allclose(probabilities_of(network)(answers), expected, atol=1e-5)
    assert not any(isinstance(layer, keras.Model | layers.Rescaling | layers.RandomFlip) for layer in network.layers)


@pytest.mark.parametrize(
    ("model", "labels", "preprocessing", "words"),
    [
        (lambda: tutorial(layers.Dense(3, activation="sigmoid")), 3, AS_IT_IS, "multi-label"),
        (lambda: tutorial(layers.Dense(3)), 3, TO_ONE, r"scales its input itself \(rescaling\w*\)"),
        (lambda: tutorial(layers.Dense(1)), 2, AS_IT_IS, "end the network in a sigmoid"),
        (lambda: tutorial(), 8, AS_IT_IS, "expected a classifier: put a"),
    ],
    ids=["ten sigmoids", "scaled twice", "one logit", "no classifier"],
)
def test_what_has_no_right_answer_is_refused_before_anything_is_written(tmp_path, model, labels, preprocessing, words):
    with pytest.raises(UserError, match=words):
        export_bundle(model(), tmp_path / "mine", labels=tuple("abcdefgh"[:labels]), preprocessing=preprocessing)
    assert not list(tmp_path.iterdir())
