"""Networks written out for OpenVINO answer what Keras answers."""

import keras
import numpy as np
import pytest

from toolkit import create_model
from toolkit.data.pixels.decode import luma, normalize
from toolkit.engines.extract import relative_difference
from toolkit.engines.openvino_graph import openvino_graph
from toolkit.engines.translate import UntranslatableError
from toolkit.layers import StochasticDepth
from toolkit.spec import Preprocessing

openvino = pytest.importorskip("openvino")

RNG = np.random.default_rng(0)

SMALL = {"input_shape": (64, 64, 3), "num_classes": 5}
# Every layer that a network here has stands in one of those not slow, or in the test of options.
NETWORKS = [
    ("lenet5", {}),
    ("nin_cifar", {}),
    pytest.param("resnet56_sd", {}, marks=pytest.mark.slow),
    ("highway_cnn19", {}),
    ("xo", {}),
    pytest.param("zfnet", {"input_shape": (96, 96, 3), "num_classes": 5}, marks=pytest.mark.slow),
    ("googlenet", SMALL),
    pytest.param("resnet50", SMALL, marks=pytest.mark.slow),
    pytest.param("resnet50", {**SMALL, "version": "v1", "epsilon": 1e-3, "use_bias": True}, marks=pytest.mark.slow),
    ("resnet18", {"input_shape": (64, 64, 3), "include_top": False, "pooling": "max"}),
    pytest.param("vgg11_bn", {"input_shape": (32, 32, 3), "include_top": False}, marks=pytest.mark.slow),
]


def in_openvino(model, preprocessing, pixels):
    graph = openvino_graph(model, preprocessing, batch_size=len(pixels))
    compiled = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    values = luma(pixels) if preprocessing.channel_order == "grey" else pixels
    return compiled(np.ascontiguousarray(values))[0]


def give_statistics(model):
    """Statistics and gains as if trained, so that they matter."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(RNG.normal(0, 0.2, layer.moving_mean.shape))
            layer.moving_variance.assign(RNG.uniform(0.5, 1.5, layer.moving_variance.shape))
            layer.beta.assign(RNG.normal(0, 0.2, layer.beta.shape))


@pytest.mark.parametrize(("name", "arguments"), NETWORKS)
def test_same_answers_as_keras(name, arguments):
    keras.utils.set_random_seed(0)
    model = create_model(name, **arguments)
    give_statistics(model)
    height, width, channels = model.input_shape[1:]
    order = "grey" if channels == 1 else "rgb"
    statistics = {"mean": (0.4,) * channels, "std": (0.3,) * channels}
    preprocessing = Preprocessing(size=(height, width), channel_order=order, **statistics)
    pixels = RNG.integers(0, 256, (3, height, width, 3), np.uint8)
    expected = keras.ops.convert_to_numpy(model(normalize(pixels, preprocessing), training=False))
    answer = in_openvino(model, preprocessing, pixels)
    assert answer.shape == expected.shape
    assert np.ptp(expected, axis=0).max() > 0
    assert relative_difference(answer, expected) < 1e-5


def test_layers_and_options_of_no_network_above():
    inputs = keras.Input((17, 22, 4))
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", groups=4, activation="tanh")(inputs)
    x = keras.layers.Conv2D(6, 3, dilation_rate=2, padding="same", use_bias=False)(x)
    x = keras.layers.MaxPooling2D(3, strides=2, padding="same")(x)
    x = keras.layers.AveragePooling2D(2, strides=1, padding="same")(x)
    x = StochasticDepth(0.7)(keras.layers.ZeroPadding2D(((1, 0), (0, 2)))(x))
    outputs = keras.layers.Dense(3, activation="sigmoid")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, outputs)
    # Four channels have no preprocessing of their own: the translation only asks for size, channels and affine.
    preprocessing = FourChannels()
    pixels = RNG.integers(0, 256, (2, 17, 22, 4), np.uint8)
    expected = keras.ops.convert_to_numpy(model(pixels / np.float32(255), training=False))
    graph = openvino_graph(model, preprocessing, batch_size=2)
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    answer = openvino.Core().compile_model(graph, "CPU", options)(pixels)[0]
    np.testing.assert_allclose(answer, expected, atol=1e-6)


class FourChannels:
    input_shape = (17, 22, 4)

    def affine(self):
        return (1 / 255,) * 4, (0.0,) * 4


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (keras.layers.LayerNormalization(name="norm"), "layer 'norm' is a LayerNormalization"),
        (keras.layers.ReLU(6.0, name="relu6"), "layer 'relu6' is a ReLU with a slope, a threshold or a ceiling"),
        (keras.layers.Conv2D(2, 1, activation="gelu", name="conv"), "layer 'conv' has the activation gelu"),
    ],
)
def test_what_has_no_rule_is_refused_by_name(layer, message):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, layer(inputs))
    with pytest.raises(UntranslatableError, match=message):
        openvino_graph(model, Preprocessing(size=(8, 8)), batch_size=1)
