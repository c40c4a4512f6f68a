"""Networks written out as ONNX answer what Keras answers, in ONNX Runtime and in OpenVINO."""

import json
import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest

import toolkit
from toolkit import create_model, model_info
from toolkit.data.feed.arrays import load_pixels
from toolkit.data.pixels.decode import luma, normalize
from toolkit.engines.extract import features_graph, relative_difference
from toolkit.engines.onnx_graph import features_to_onnx, to_onnx
from toolkit.engines.onnx_rules import UntranslatableError
from toolkit.errors import UserError
from toolkit.factory import open_network, preprocessing_of
from toolkit.layers import Elementwise, StochasticDepth
from toolkit.metrics import softmax
from toolkit.spec import Preprocessing

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
openvino = pytest.importorskip("openvino")

RNG = np.random.default_rng(0)
NAMES = [name for name in toolkit.list_models() if model_info(name).num_params]
#: Of each kind a small one; with the test of all other layers, every rule.
KINDS = {"lenet5", "nin_cifar", "googlenet", "resnet20", "highway_cnn19"}


def in_onnx_runtime(content: bytes, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return tuple(session.run(["logits", "probabilities"], {"pixels": pixels}))


def in_openvino(model: keras.Model, preprocessing: Preprocessing, pixels: np.ndarray) -> np.ndarray:
    """As the features of a cache are computed."""
    graph = features_graph(model, preprocessing, batch_size=len(pixels))
    compiled = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return compiled(luma(pixels) if preprocessing.channel_order == "grey" else pixels)[0]


def assert_answers_as_keras(model: keras.Model, *, atol: float) -> None:
    preprocessing = Preprocessing(size=model.input_shape[1:3])
    pixels = RNG.integers(0, 256, (2, *preprocessing.size, 3), np.uint8)
    expected = keras.ops.convert_to_numpy(model(normalize(pixels, preprocessing), training=False))
    content = to_onnx(model, preprocessing)
    np.testing.assert_allclose(in_onnx_runtime(content, pixels)[0], expected, atol=atol)
    np.testing.assert_allclose(in_openvino(model, preprocessing, pixels), expected, atol=atol)
    assert_read_back(content, pixels, expected)


def assert_read_back(content: bytes, pixels: np.ndarray, expected: np.ndarray) -> None:
    """The file becomes a network of stock layers again, which answers alike."""
    with tempfile.TemporaryDirectory() as folder:
        (path := Path(folder) / "ours.onnx").write_bytes(content)
        network = open_network(path)
    assert not [layer.name for layer in network.layers if isinstance(layer, Elementwise)]
    found = keras.ops.convert_to_numpy(network(normalize(pixels, preprocessing_of(network)), training=False))
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def with_statistics(model: keras.Model) -> keras.Model:
    """As if trained, so that they matter."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(RNG.normal(0, 0.2, layer.moving_mean.shape))
            layer.moving_variance.assign(RNG.uniform(0.5, 1.5, layer.moving_variance.shape))
            layer.beta.assign(RNG.normal(0, 0.2, layer.beta.shape))
    return model


def small(name: str) -> tuple[keras.Model, Preprocessing]:
    """A network at a small input, with batch statistics as if trained and logits that vary by about one."""
    info = model_info(name)
    height, width, _ = info.input_shape
    side = max(48, info.min_size)
    preprocessing = info.preprocessing.resized((min(height, side), min(width, side)))
    keras.utils.set_random_seed(0)
    model = with_statistics(create_model(name, num_classes=5, input_shape=preprocessing.input_shape))
    noise = RNG.integers(0, 256, (8, *preprocessing.size, 3), np.uint8)
    deviation = np.std(keras.ops.convert_to_numpy(model(normalize(noise, preprocessing), training=False)))
    head = next(layer for layer in reversed(model.layers) if layer.weights)
    head.set_weights([weight / (deviation or 1.0) for weight in head.get_weights()])
    return model, preprocessing


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in KINDS else pytest.mark.slow) for name in NAMES]
)
def test_same_answers_as_keras(name):
    model, preprocessing = small(name)
    content = to_onnx(model, preprocessing)
    for batch in (1, 3):
        pixels = RNG.integers(0, 256, (batch, *preprocessing.size, 3), np.uint8)
        expected = keras.ops.convert_to_numpy(model(normalize(pixels, preprocessing), training=False))
        logits, probabilities = in_onnx_runtime(content, pixels)
        assert np.ptp(expected) > 0.01
        np.testing.assert_allclose(logits, expected, atol=1e-4)
        np.testing.assert_allclose(probabilities, softmax(expected), atol=1e-4)
    assert_read_back(content, pixels, expected)
    assert relative_difference(in_openvino(model, preprocessing, pixels), expected) < 1e-5


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("resnet18", {"include_top": False, "pooling": "max"}),
        ("nin_cifar", {"include_top": False}),
        pytest.param("vgg11_bn", {"include_top": False}, marks=pytest.mark.slow),
        pytest.param("resnet50", {"version": "v1", "epsilon": 1e-3, "use_bias": True}, marks=pytest.mark.slow),
    ],
)
def test_features_have_the_layout_of_keras(name, arguments):
    keras.utils.set_random_seed(0)
    model = with_statistics(create_model(name, input_shape=(64, 64, 3), **arguments))
    preprocessing = Preprocessing(size=(64, 64), channel_order="bgr", mean=(0.4,) * 3, std=(0.3,) * 3)
    pixels = RNG.integers(0, 256, (3, 64, 64, 3), np.uint8)
    expected = keras.ops.convert_to_numpy(model(normalize(pixels, preprocessing), training=False))
    features = in_openvino(model, preprocessing, pixels)
    assert features.shape == expected.shape
    assert np.ptp(expected, axis=0).max() > 0
    assert relative_difference(features, expected) < 1e-5


def test_real_pictures_and_labels(lenet, lenet_preprocessing, digits_split):
    """A trained network on real pictures, from grey by the luma that every engine uses."""
    labels = tuple("0123456789")
    content = to_onnx(lenet, lenet_preprocessing, labels=labels)
    pixels = load_pixels(digits_split.test.paths[:64], lenet_preprocessing)
    _, probabilities = in_onnx_runtime(content, pixels)
    expected = lenet(normalize(pixels, lenet_preprocessing), training=False)
    np.testing.assert_allclose(probabilities, softmax(keras.ops.convert_to_numpy(expected)), atol=1e-5)
    assert np.mean(probabilities.argmax(1) == np.asarray(digits_split.test.labels[:64])) > 0.8
    metadata = onnxruntime.InferenceSession(content).get_modelmeta().custom_metadata_map
    assert json.loads(metadata["labels"]) == list(labels)


@pytest.mark.parametrize(
    ("order", "values"),
    [("rgb", [10, 20, 30]), ("bgr", [30, 20, 10]), ("grey", [(19595 * 10 + 38470 * 20 + 7471 * 30 + 32768) >> 16])],
)
def test_channel_order_and_statistics_are_inside(order, values):
    """One weightless network, so that the logits are the normalised pixel itself."""
    channels = len(values)
    statistics = {"mean": tuple(0.1 * i for i in range(channels)), "std": tuple(0.5 + i for i in range(channels))}
    preprocessing = Preprocessing(size=(2, 2), channel_order=order, scale=1 / 255, **statistics)
    inputs = keras.Input((2, 2, channels))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs))
    logits, _ = in_onnx_runtime(to_onnx(model, preprocessing), np.tile(np.uint8([10, 20, 30]), (1, 2, 2, 1)))
    expected = (np.array(values) / 255 - statistics["mean"]) / statistics["std"]
    np.testing.assert_allclose(logits[0], expected, atol=1e-6)
    features = in_openvino(model, preprocessing, np.tile(np.uint8([10, 20, 30]), (1, 2, 2, 1)))
    np.testing.assert_allclose(features[0], expected, atol=1e-6)


def test_layers_and_options_of_no_network_above():
    inputs = keras.Input((17, 22, 3))
    x = keras.layers.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2)(inputs)
    x = keras.layers.ReLU(1.0)(x)
    x = keras.layers.Conv2D(8, 3, padding="same", groups=2, activation="tanh")(x)
    x = keras.layers.Conv2D(6, 3, dilation_rate=2, padding="same", use_bias=False)(x)
    x = keras.layers.MaxPooling2D(3, strides=2, padding="same")(x)
    x = keras.layers.AveragePooling2D(2, strides=1, padding="same")(x)
    x = keras.layers.ZeroPadding2D(((1, 0), (0, 2)))(x)
    x = keras.layers.UpSampling2D((2, 3))(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.BatchNormalization(scale=False)(StochasticDepth(0.7)(x))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Dense(4, activation="sigmoid")(x)))
    assert_answers_as_keras(model, atol=1e-6)


def test_zeros_around_a_pooled_map_win_over_what_is_less():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 1, bias_initializer=keras.initializers.Constant(-3.0))(inputs)
    x = keras.layers.MaxPooling2D(3, strides=2)(keras.layers.ZeroPadding2D(1)(x))
    assert_answers_as_keras(keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x))), atol=1e-5)


def test_an_operation_that_is_no_layer_is_named():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(keras.ops.square(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    with pytest.raises(UserError, match=r"operation 'square\w*' \(Square\) is no layer.*SavedModel or LiteRT file"):
        to_onnx(model, Preprocessing((8, 8)))


def test_a_softmax_at_the_end_is_not_applied_twice():
    inner = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.Flatten()])
    model = keras.Sequential([keras.Input((8, 8, 3)), inner, keras.layers.Dense(3, activation="softmax")])
    preprocessing = Preprocessing(size=(8, 8))
    pixels = RNG.integers(0, 256, (2, 8, 8, 3), np.uint8)
    expected = model.predict(normalize(pixels, preprocessing), verbose=0)
    logits, probabilities = in_onnx_runtime(to_onnx(model, preprocessing), pixels)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), expected, atol=1e-6)


def gated(x):
    """Squeeze and excite, as EfficientNet writes it."""
    y = keras.layers.Reshape((1, 1, 4))(keras.layers.GlobalAveragePooling2D()(x))
    return keras.layers.Multiply()([x, keras.layers.Conv2D(4, 1, activation="sigmoid")(y)])


STOCK = {
    "rescaling": lambda x: keras.layers.Rescaling(0.5, -0.25)(x),
    "rescaling_by_channel": lambda x: keras.layers.Rescaling([0.5, 1.0, 2.0, 3.0], [0.1, 0.2, 0.3, 0.4])(x),
    "normalization": lambda x: keras.layers.Normalization(mean=[0.1, 0.2, 0.3, 0.4], variance=[1.0, 2.0, 3.0, 0.5])(x),
    "normalization_back": lambda x: keras.layers.Normalization(axis=None, mean=0.5, variance=2.0, invert=True)(x),
    "separable": lambda x: keras.layers.SeparableConv2D(5, 3, strides=2, padding="same", depth_multiplier=2)(x),
    "layer_norm": lambda x: keras.layers.LayerNormalization(gamma_initializer="ones", beta_initializer="ones")(x),
    "dense_on_maps": lambda x: keras.layers.Dense(3, activation="gelu", bias_initializer="ones")(x),
    "reshape": lambda x: keras.layers.Reshape((5, 10, 8))(x),
    "gate": gated,
    "cropping": lambda x: keras.layers.Cropping2D(((1, 0), (2, 1)))(x),
    "leaky": lambda x: keras.layers.LeakyReLU(0.3)(x),
    "leaky_and_cut": lambda x: keras.layers.ReLU(0.5, negative_slope=0.1)(x),
    "parametric": lambda x: keras.layers.PReLU(alpha_initializer="he_normal", shared_axes=[1, 2])(x),
    "elu": lambda x: keras.layers.ELU(0.7)(x),
    "softmax": lambda x: keras.layers.Softmax()(x),
    "most": lambda x: keras.layers.Maximum()([x, keras.layers.Minimum()([x, keras.layers.Rescaling(0.5)(x)])]),
    "kept_dims": lambda x: keras.layers.GlobalMaxPooling2D(keepdims=True)(x),
}
ACTIVATIONS = (
    *("elu", "gelu", "hard_sigmoid", "hard_silu", "leaky_relu", "log_softmax", "mish", "relu6", "selu", "sigmoid"),
    *("silu", "softmax", "softplus", "softsign", "tanh"),
)


@pytest.mark.parametrize("kind", [*STOCK, *ACTIVATIONS])
def test_stock_layers_of_published_networks(kind):
    keras.utils.set_random_seed(0)
    layer = STOCK.get(kind, keras.layers.Activation(kind) if kind in ACTIVATIONS else None)
    x = inputs = keras.Input((10, 12, 3))
    x = layer(keras.layers.Conv2D(4, (1, 3), strides=(1, 1), name="stem")(keras.layers.Rescaling(6.0, -3.0)(x)))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)))
    assert_answers_as_keras(model, atol=2e-5)


def test_a_layer_that_is_only_called_like_a_stock_one_is_refused():
    class Rescaling(keras.layers.Layer):
        def call(self, inputs):
            return inputs * 2

    model = keras.Model(inputs := keras.Input((8, 8, 3)), keras.layers.Flatten()(Rescaling(name="twice")(inputs)))
    with pytest.raises(UntranslatableError, match="layer 'twice' is a Rescaling, which has no rule"):
        features_to_onnx(model, Preprocessing(size=(8, 8)), batch_size=1)


def test_large_weights_stand_beside_the_document_that_computes_features():
    model = create_model("lenet5")
    preprocessing = model_info("lenet5").preprocessing
    content, weights = features_to_onnx(model, preprocessing, batch_size=1)
    kernels = [layer.kernel for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    large = [np.prod(kernel.shape) for kernel in kernels if 4 * np.prod(kernel.shape) >= 1 << 16]
    assert sorted(values.size for values in weights.values()) == sorted(large)
    assert len(content) < 4 * (model.count_params() - sum(large)) + 10_000
    graph = features_graph(model, preprocessing, batch_size=1)
    assert [own.any_name for own in graph.inputs] == ["pixels"]


def test_mixed_precision_is_written_in_float32():
    model = create_model("lenet5")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        mixed = create_model("lenet5")
    finally:
        keras.config.set_dtype_policy("float32")
    mixed.set_weights(model.get_weights())
    preprocessing = model_info("lenet5").preprocessing
    assert to_onnx(mixed, preprocessing) == to_onnx(model, preprocessing)


def test_a_layer_called_twice_is_written_twice_but_not_cut_before():
    shared = keras.layers.Conv2D(3, 1, name="shared")
    model = keras.Model(inputs := keras.Input((8, 8, 3)), shared(shared(inputs)), name="net")
    preprocessing = Preprocessing(size=(8, 8))
    pixels = RNG.integers(0, 256, (2, 8, 8, 3), np.uint8)
    with pytest.raises(UntranslatableError, match="the output reads a layer that is used more than once"):
        features_to_onnx(model, preprocessing, batch_size=1)
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(model.output)))
    expected = keras.ops.convert_to_numpy(model(normalize(pixels, preprocessing)))
    np.testing.assert_allclose(in_onnx_runtime(to_onnx(model, preprocessing), pixels)[0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda x: keras.layers.UnitNormalization(name="norm")(x), "layer 'norm' is a UnitNormalization"),
        (
            lambda x: keras.layers.Conv2D(2, 1, activation="hard_tanh", name="conv")(x),
            "layer 'conv' has the activation hard_tanh; those with a rule: elu, gelu",
        ),
        (lambda x: keras.layers.ReLU(threshold=0.1, name="late")(x), "layer 'late' is a ReLU with a threshold"),
        (
            lambda x: keras.layers.Reshape((64, 3), name="rows")(x),
            r"layer 'rows' goes between shapes \(8, 8, 3\) and \(64, 3\); only maps",
        ),
        (lambda x: keras.layers.Concatenate(1, name="rows")([x, x]), "layer 'rows' works along axis 1, not channels"),
    ],
    ids=["norm", "activation", "threshold", "rank", "rows"],
)
def test_what_has_no_rule_is_refused_by_name(build, message):
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, build(inputs), name="net")
    with pytest.raises(UserError, match=f"net cannot be written as ONNX: {message}"):
        to_onnx(model, Preprocessing(size=(8, 8)))
    with pytest.raises(UntranslatableError, match=message):
        features_to_onnx(model, Preprocessing(size=(8, 8)), batch_size=1)
