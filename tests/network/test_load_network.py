"""Whole networks loaded from files, and what no file may bring."""

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.errors import UserError
from toolkit.factory import open_network
from toolkit.network import flatten, load_network

SHAPE = (8, 8, 3)


@keras.saving.register_keras_serializable("elsewhere")
class OfMine(layers.Layer):
    def call(self, inputs):
        return inputs


def network(*more):
    inner = keras.Sequential([keras.Input(SHAPE), layers.Conv2D(2, 3, name="conv"), *more], name="inner")
    return keras.Sequential([keras.Input(SHAPE), inner, layers.Flatten(), layers.Dense(3, activation="softmax")])


@pytest.mark.parametrize("name", ["mine.keras", "mine.h5"])
def test_a_network_comes_as_it_was_saved(tmp_path, name):
    model = network()
    model.compile("adam", "categorical_crossentropy")
    model.save(tmp_path / name)
    inputs = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype("float32")
    loaded = load_network(tmp_path / name)
    np.testing.assert_array_equal(loaded.predict(inputs, verbose=0), model.predict(inputs, verbose=0))
    assert [layer.name for layer in flatten(loaded).layers][1] == "conv"


@pytest.mark.parametrize("name", ["mine.keras", "mine.h5"])
@pytest.mark.parametrize(
    ("more", "words"),
    [(lambda: layers.Lambda(lambda x: x * 2), "Lambda layer, which is code"), (OfMine, "class 'OfMine', which is not")],
    ids=["lambda", "class"],
)
def test_code_and_classes_of_others_are_refused_in_a_line(tmp_path, name, more, words):
    network(more()).save(tmp_path / name)
    registered = keras.saving.get_custom_objects()
    own = {key: registered.pop(key) for key in [key for key in registered if "OfMine" in key]}
    try:
        with pytest.raises(UserError, match=rf"mine\.\w+: .*{words}") as caught:
            load_network(tmp_path / name)
    finally:
        registered |= own
    assert "\n" not in str(caught.value)


def test_a_file_of_keras_2_is_read(tmp_path):
    tf_keras = pytest.importorskip("tf_keras")
    old = tf_keras.layers
    inputs = tf_keras.Input(SHAPE)
    x = old.BatchNormalization(name="bn")(old.DepthwiseConv2D(3, name="depth")(inputs))
    inner = tf_keras.Model(inputs, old.Add()([x, old.ReLU()(x)]), name="inner")
    model = tf_keras.Sequential([tf_keras.Input(SHAPE), old.RandomFlip(), inner, old.Flatten(), old.Dense(3)])
    model.save(tmp_path / "old.h5")
    inputs = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype("float32")
    loaded = load_network(tmp_path / "old.h5")
    np.testing.assert_allclose(loaded.predict(inputs, verbose=0), model.predict(inputs, verbose=0), atol=1e-6)


def test_settings_that_only_keras_2_knew_are_passed_over(tmp_path):
    """The network of TensorFlow's tutorial on pictures among them, which begins with an augmentation."""
    tf_keras = pytest.importorskip("tf_keras")
    old = tf_keras.layers
    parts = [
        *(old.RandomFlip("horizontal", input_shape=SHAPE), old.RandomRotation(0.1), old.RandomZoom(0.1)),
        *(old.SeparableConv2D(4, 3), old.SpatialDropout2D(0.2), old.Conv2DTranspose(4, 3)),
    ]
    model = tf_keras.Sequential([*parts, old.Flatten(), old.Dense(3)])
    model.save(tmp_path / "old.h5")
    inputs = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype("float32")
    loaded = load_network(tmp_path / "old.h5")
    np.testing.assert_allclose(loaded.predict(inputs, verbose=0), model.predict(inputs, verbose=0), atol=1e-5)
    model.save(tmp_path / "old.keras")
    with pytest.raises(
        UserError, match=r"is of Keras 2, .* save it as \.h5 or SavedModel with the Keras that wrote it"
    ):
        open_network(tmp_path / "old.keras")


def test_what_is_no_network_is_refused_in_a_line(tmp_path):
    (tmp_path / "cut.keras").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "cut.h5").write_bytes(b"\x89HDF\r\n\x1a\n and no more")
    network().save_weights(tmp_path / "mine.weights.h5")
    for name in ("cut.keras", "cut.h5", "mine.weights.h5", "none.keras"):
        with pytest.raises(UserError, match=name) as caught:
            load_network(tmp_path / name)
        assert "\n" not in str(caught.value)
