"""Classifiers as people end theirs, brought to flat networks of logits that answer the same."""

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.errors import UserError
from toolkit.metrics import softmax
from toolkit.network import as_classifier, feature_tensor, flatten, probabilities_of, split_rescaling
from toolkit.spec import Preprocessing

RNG = np.random.default_rng(0)
SHAPE = (12, 12, 3)
PIXELS = RNG.uniform(0, 255, (4, *SHAPE)).astype("float32")
INPUTS = PIXELS / 255
PLAIN = Preprocessing(SHAPE[:2], scale=1.0)


def backbone(name="backbone"):
    """Convolution, normalisation with statistics of its own, a residual sum as an operator."""
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(4, 3, padding="same", name="conv1")(inputs)
    x = layers.BatchNormalization(name="bn1")(x)
    x = layers.ReLU(name="relu1")(x) + x
    return keras.Model(inputs, layers.GlobalAveragePooling2D(name="pool")(x), name=name)


def randomized(model):
    for weight in model.weights:
        low, high = (0.5, 1.5) if "variance" in weight.name else (-0.05, 0.05)
        if weight.dtype == "float32":
            weight.assign(RNG.uniform(low, high, weight.shape))
    return model


def stacked(*ends, name="mine"):
    return randomized(keras.Sequential([keras.Input(SHAPE), backbone(), *ends], name=name))


def functional(end):
    inputs = keras.Input(SHAPE)
    return randomized(keras.Model(inputs, end(backbone()(inputs, training=False)), name="mine"))


def convolutional():
    """As MobileNetV3 ends: a 1×1 convolution of pooled maps."""
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(4, 3)(inputs)
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Flatten()(layers.Conv2D(3, 1, name="logits")(layers.Dropout(0.2)(x)))
    return randomized(keras.Model(inputs, layers.Activation("softmax")(x), name="mine"))


def subclassed():
    class Mine(keras.Model):
        def __init__(self):
            super().__init__(name="mine")
            self.pool, self.dense = layers.GlobalAveragePooling2D(), layers.Dense(3, activation="softmax")

        def call(self, inputs):
            return self.dense(self.pool(inputs))

    model = Mine()
    model(PIXELS)
    return randomized(model)


HEADS = {
    "softmax": lambda: stacked(layers.Dense(3, activation="softmax")),
    "softmax layer": lambda: stacked(layers.Dense(3), layers.Softmax()),
    "activation layer": lambda: stacked(layers.Dense(3), layers.Activation("softmax", dtype="float32")),
    "softmax operation": lambda: functional(lambda x: keras.ops.softmax(layers.Dense(3)(x))),
    "log softmax": lambda: stacked(layers.Dense(3, activation="log_softmax")),
    "around a network of logits": lambda: keras.Sequential([stacked(layers.Dense(3)), layers.Softmax()], name="mine"),
    "no bias": lambda: stacked(layers.Dense(3, use_bias=False, activation="softmax")),
    "normalised logits": lambda: stacked(layers.Dense(3), layers.BatchNormalization(), layers.Softmax()),
    "convolution": convolutional,
    "one sigmoid": lambda: stacked(layers.Dense(1, activation="sigmoid")),
    "one sigmoid layer": lambda: stacked(layers.Dense(1), layers.Activation("sigmoid")),
    "one sigmoid without a dense layer": lambda: stacked(
        layers.Dense(1), layers.BatchNormalization(), layers.Activation("sigmoid")
    ),
    "subclassed, made functional": lambda: keras.Model(x := keras.Input(SHAPE), subclassed().call(x)),
}


@pytest.mark.parametrize("kind", HEADS)
def test_a_classifier_that_answers_probabilities_is_cut_to_logits_of_the_same(kind):
    model = HEADS[kind]()
    given = model.predict(INPUTS, verbose=0)
    answers = np.exp(given) if kind == "log softmax" else given
    expected = np.concatenate([1 - answers, answers], axis=1) if answers.shape[1] == 1 else answers
    assert expected.max() < 0.99  # not so sure that anything would do
    logits = as_classifier(model)
    np.testing.assert_allclose(softmax(logits.predict(INPUTS, verbose=0)), expected, atol=1e-6)
    np.testing.assert_allclose(probabilities_of(model)(model.predict(INPUTS, verbose=0)), expected, atol=1e-6)
    assert as_classifier(logits) is logits
    assert not any(isinstance(layer, keras.Model) for layer in logits.layers)
    assert len(logits.operations) == len(logits.layers)
    np.testing.assert_array_equal(model.predict(INPUTS, verbose=0), given)  # the given one is as it was
    if "dense layer" not in kind and kind != "normalised logits":
        assert len(feature_tensor(logits).shape) == 2


def test_logits_stay_logits():
    model = stacked(layers.Dense(3))
    np.testing.assert_allclose(
        as_classifier(model).predict(PIXELS, verbose=0), model.predict(PIXELS, verbose=0), atol=1e-6
    )


def two_inputs():
    first, second = keras.Input(SHAPE, name="left"), keras.Input(SHAPE, name="right")
    return keras.Model([first, second], layers.Dense(3)(backbone()(layers.Add()([first, second]))), name="mine")


def two_outputs():
    inputs = keras.Input(SHAPE)
    x = backbone()(inputs)
    return keras.Model(inputs, [layers.Dense(3)(x), layers.Dense(4)(x)], name="mine")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: stacked(layers.Dense(10, activation="sigmoid")), r"10 sigmoid units.*multi-label.*softmax"),
        (lambda: stacked(layers.Dense(1, activation="softmax")), r"1 softmax unit, which always answers 1"),
        (lambda: stacked(layers.Dense(3, activation="softmax"), layers.Softmax()), r"softmax of softmax"),
        (two_inputs, r"2 inputs \(left, right\).*keras\.Model\(model\.inputs\[0\]"),
        (two_outputs, r"2 outputs"),
        (subclassed, r"subclassed model.*keras\.Model\(x, model\.call\(x\)\)"),
        (lambda: keras.Sequential([layers.Dense(3)], name="mine"), r"no input shape yet"),
        (lambda: stacked(layers.Lambda(lambda x: x, name="odd"), layers.Dense(3)), r"'odd'.*Lambda"),
        (
            lambda: keras.Sequential([keras.Input(SHAPE), layers.Conv2D(3, 1, activation="softmax")], name="mine"),
            r"map of 12×12×3",
        ),
        (lambda: "resnet50", r"expected a keras\.Model, got str"),
    ],
)
def test_other_networks_are_refused_in_a_line_that_says_what_to_do(model, words):
    with pytest.raises(UserError, match=words) as caught:
        as_classifier(model())
    assert "\n" not in str(caught.value)


def test_networks_within_networks_become_one_with_names_of_their_own():
    inner = keras.Sequential([keras.Input(SHAPE), layers.Conv2D(3, 1, name="conv1")], name="inner")
    relu = layers.ReLU(name="again")
    inputs = keras.Input(SHAPE, name="picture")
    x = backbone()(relu(inner(relu(inputs))))
    model = randomized(keras.Model(inputs, layers.Dense(3, name="last")(x), name="mine"))
    flat = flatten(model)
    names = ["sum" if isinstance(layer, layers.Add) else layer.name for layer in flat.layers]
    assert names == ["picture", "again", "conv1", "again_2", "conv1_2", "bn1", "relu1", "sum", "pool", "last"]
    np.testing.assert_allclose(flat.predict(PIXELS, verbose=0), model.predict(PIXELS, verbose=0), atol=1e-6)
    assert flatten(flat) is flat


def test_augmentation_is_left_out(caplog):
    caplog.set_level("INFO", logger="toolkit")
    augment = keras.Sequential(
        [layers.RandomFlip("horizontal", name="random_flip"), layers.RandomRotation(0.2, name="random_rotation")],
        name="augment",
    )
    model = keras.Sequential([keras.Input(SHAPE), augment, layers.Flatten(), layers.Dropout(0.3), layers.Dense(3)])
    flat = flatten(model)
    assert [type(layer).__name__ for layer in flat.layers] == ["InputLayer", "Flatten", "Dropout", "Dense"]
    assert "leaving out random_flip, random_rotation: augmentation is for training only" in caplog.text
    np.testing.assert_array_equal(flat.predict(PIXELS, verbose=0), model.predict(PIXELS, verbose=0))


def normalization():
    return layers.Normalization(mean=(120.0, 110.0, 100.0), variance=(60.0**2, 55.0**2, 50.0**2))


def tutorial(inputs):
    """The operations that preprocess_input of MobileNet puts into a graph."""
    return inputs / 127.5 - 1.0


@pytest.mark.parametrize(
    "start",
    [
        lambda x: layers.Rescaling(1 / 255)(x),
        lambda x: layers.Rescaling(1 / 127.5, offset=-1)(x),
        lambda x: normalization()(x),
        lambda x: normalization()(layers.Rescaling(2.0)(layers.RandomFlip()(x))),
        tutorial,
        keras.applications.resnet50.preprocess_input,
        keras.applications.densenet.preprocess_input,
        lambda x: x[..., ::-1] - keras.ops.convert_to_tensor([103.0, 116.0, 123.0]),
        lambda x: keras.ops.flip(keras.ops.divide(x, 60.0), axis=-1),
        lambda x: keras.ops.stack([x[..., 2], x[:, :, :, 1], x[..., -3]], axis=-1) / 255.0,
    ],
)
def test_scaling_at_the_input_goes_into_the_preprocessing(start):
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, layers.Dense(3)(backbone()(start(inputs))), name="mine")
    network, preprocessing = split_rescaling(as_classifier(model), PLAIN)
    assert [type(layer).__name__ for layer in network.layers[:2]] == ["InputLayer", "Conv2D"]
    factor, offset = preprocessing.affine()
    pixels = PIXELS[..., ::-1] if preprocessing.channel_order == "bgr" else PIXELS
    np.testing.assert_allclose(
        network.predict(pixels * np.float32(factor) + np.float32(offset), verbose=0),
        model.predict(PIXELS, verbose=0),
        rtol=1e-4,
        atol=1e-5,
    )


def test_scaling_twice_is_refused():
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, layers.Dense(3)(backbone()(layers.Rescaling(1 / 255, name="to_one")(inputs))))
    with pytest.raises(UserError, match=r"scales its input itself \(to_one\).*scale=1\.0"):
        split_rescaling(as_classifier(model), Preprocessing(SHAPE[:2]))
    plain = as_classifier(stacked(layers.Dense(3)))
    assert split_rescaling(plain, PLAIN) == (plain, PLAIN)


def test_a_scaled_copy_beside_the_pixels_stays_in_the_network():
    inputs = keras.Input(SHAPE)
    both = layers.Concatenate()([layers.Rescaling(1 / 255)(inputs), inputs])
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(both)))
    assert split_rescaling(as_classifier(model), PLAIN)[1] is PLAIN


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        (lambda x: x[..., 1:], "GetItem"),
        (lambda x: x[:, ::-1], "GetItem"),
        (lambda x: keras.ops.flip(x, axis=1), "Flip"),
        (lambda x: keras.ops.stack([x[..., 1], x[..., 0]], axis=-1), "Conv2D"),
        (lambda x: keras.ops.tanh(x), "Activation"),
        (lambda x: keras.ops.square(x), "Square"),
    ],
)
def test_operations_become_layers_where_there_are_some_and_stay_otherwise(operation, kind):
    inputs = keras.Input(SHAPE)
    x = operation(layers.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    flat = flatten(model)
    assert kind in {type(layer).__name__ for layer in flat.operations[2:]}
    np.testing.assert_allclose(flat(INPUTS), model(INPUTS), rtol=1e-5, atol=1e-6)


def test_a_network_that_is_the_last_layer_of_another_is_flattened():
    inner = stacked(layers.Dense(3))
    inputs = keras.Input(SHAPE)
    for model in (keras.Sequential([inputs, inner]), keras.Model(inputs, inner(inputs))):
        np.testing.assert_allclose(flatten(model)(INPUTS), inner(INPUTS), rtol=1e-5)
