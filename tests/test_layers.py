"""Custom layers against the definition they state, on every way they travel."""

import keras
import numpy as np
import pytest
from interpreted import interpreted

from toolkit import layers
from toolkit.layers import PadChannels, UnitLength

RNG = np.random.default_rng(0)


def _option_a(x, planes, stride=2):
    """As the public CIFAR checkpoints' code: ``F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, planes // 4, planes // 4))``."""
    return np.pad(x[:, ::stride, ::stride, :], ((0, 0), (0, 0), (0, 0), (planes // 4, planes // 4)))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("side", "stride"), [(8, 2), (7, 2), (7, 3), (1, 2)])
def test_pad_channels_is_option_a(side, stride, training):
    x = RNG.normal(size=(2, side, side, 16)).astype("float32")
    answer = keras.ops.convert_to_numpy(PadChannels(32, stride)(x, training=training))
    np.testing.assert_array_equal(answer, _option_a(x, 32, stride))
    assert answer.shape == PadChannels(32, stride).compute_output_shape(x.shape)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="asks TensorFlow for gradients")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_pad_channels_has_the_gradient_of_a_slice(dtype):
    import tensorflow as tf

    x = tf.cast(RNG.normal(size=(2, 7, 6, 4)), dtype)
    gradients = []
    for training in (False, True):
        with tf.GradientTape() as tape:
            tape.watch(x)
            answer = PadChannels(8, 2, dtype=dtype)(x, training=training)
            square = answer * answer
        gradients.append(keras.ops.convert_to_numpy(keras.ops.cast(tape.gradient(square, x), "float64")))
    np.testing.assert_array_equal(*gradients)


def test_pad_channels_puts_the_odd_channel_after():
    answer = keras.ops.convert_to_numpy(PadChannels(4)(np.ones((1, 1, 1, 1), "float32")))
    assert answer.ravel().tolist() == [0.0, 1.0, 0.0, 0.0]


def test_pad_channels_infers_unknown_sides():
    x = keras.Input((None, None, 16))
    assert PadChannels(64, 2)(x).shape == (None, None, None, 64)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_pad_channels_keeps_the_dtype(dtype):
    layer = PadChannels(8, 2, dtype=dtype)
    assert keras.backend.standardize_dtype(layer(np.ones((1, 4, 4, 4), "float32")).dtype) == dtype


def test_pad_channels_comes_back_from_its_configuration():
    layer = PadChannels(32, 2, name="stage2_block1_shortcut")
    stored = keras.saving.serialize_keras_object(layer)
    assert stored["registered_name"] == "toolkit>PadChannels"
    again = keras.saving.deserialize_keras_object(stored)
    assert (again.name, again.filters, again.stride) == ("stage2_block1_shortcut", 32, 2)


def test_pad_channels_cannot_drop_channels():
    with pytest.raises(ValueError, match="'narrow' pads to 8 channels and got 16"):
        PadChannels(8, name="narrow")(np.ones((1, 4, 4, 16), "float32"))
    with pytest.raises(ValueError, match="must be positive, got filters=8, stride=0"):
        PadChannels(8, 0)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="LiteRT conversion starts from TensorFlow")
def test_pad_channels_becomes_builtin_litert_operators(capfd):
    import tensorflow as tf

    layer = PadChannels(8, 2)
    call = tf.function(layer, input_signature=[tf.TensorSpec((1, 6, 6, 4))]).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([call], layer)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    content = converter.convert()

    x = RNG.normal(size=(1, 6, 6, 4)).astype("float32")
    np.testing.assert_array_equal(interpreted(content, x), _option_a(x, 8))

    capfd.readouterr()
    tf.lite.experimental.Analyzer.analyze(model_content=content)
    listing = capfd.readouterr().out
    assert "STRIDED_SLICE" in listing
    assert "PAD(" in listing
    assert listing.count("Op#") == 2


@pytest.mark.parametrize(
    ("size", "alpha", "bias", "channels"), [(5, 5e-4, 2.0, 96), (5, 1e-4, 1.0, 3), (3, 2.0, 1.0, 7)]
)
def test_lrn_is_tensorflows(size, alpha, bias, channels):
    tf = pytest.importorskip("tensorflow")
    x = np.random.default_rng(0).normal(0, 20, (2, 5, 4, channels)).astype("float32")
    expected = tf.nn.local_response_normalization(x, size // 2, bias, alpha / size, 0.75).numpy()
    answer = keras.ops.convert_to_numpy(layers.LocalResponseNormalization(size, alpha, bias)(x))
    np.testing.assert_allclose(answer, expected, rtol=2e-5, atol=1e-6)


def test_lrn_saves_and_computes_in_float32_under_half_precision(tmp_path):
    inputs = keras.Input((4, 4, 8))
    outputs = layers.LocalResponseNormalization(5, 5e-4, 2.0, dtype="mixed_float16", name="norm")(inputs)
    model = keras.Model(inputs, outputs)
    x = np.full((1, 4, 4, 8), 300.0, "float32")  # its square is beyond float16
    answer = keras.ops.convert_to_numpy(model(x)).astype("float32")
    assert np.isfinite(answer).all()
    np.testing.assert_allclose(answer[0, 0, 0, 4], 300 / (2 + 1e-4 * 5 * 300**2) ** 0.75, rtol=2e-3)
    model.save(tmp_path / "lrn.keras")
    again = keras.saving.load_model(tmp_path / "lrn.keras", safe_mode=True)
    assert again.get_layer("norm").get_config() == model.get_layer("norm").get_config()


@pytest.mark.parametrize("size", [0, 4])
def test_lrn_refuses_an_even_window(size):
    with pytest.raises(ValueError, match=f"size must be odd and positive, got {size}"):
        layers.LocalResponseNormalization(size)


def test_stochastic_depth_scales_at_test_and_is_the_identity_for_certain_branches():
    x = RNG.normal(size=(3, 4, 4, 2)).astype("float32")
    layer = layers.StochasticDepth(0.75)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(x)), 0.75 * x)
    assert layer.compute_output_shape(x.shape) == x.shape
    assert layer.weights == []
    certain = layers.StochasticDepth(1.0)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(certain(x, training=True)), x)


def test_stochastic_depth_drops_whole_batches_at_its_rate_and_by_its_seed():
    x = np.ones((5, 1, 1, 1), "float32")

    def draws(seed):
        layer = layers.StochasticDepth(0.7, seed=seed)
        return [keras.ops.convert_to_numpy(layer(x, training=True)).ravel() for _ in range(400)]

    first = np.stack(draws(0))
    assert set(first.ravel()) == {0.0, 1.0}
    assert (first == first[:, :1]).all()  # a batch is kept or dropped as one
    assert first.mean() == pytest.approx(0.7, abs=0.06)
    np.testing.assert_array_equal(first, np.stack(draws(0)))
    assert not np.array_equal(first, np.stack(draws(1)))


def test_stochastic_depth_draws_anew_in_a_compiled_step():
    inputs = keras.Input((1,))
    dense = keras.layers.Dense(1, kernel_initializer="ones", use_bias=False)
    model = keras.Model(inputs, layers.StochasticDepth(0.5, seed=3)(dense(inputs)))
    model.compile(loss="mse", optimizer=keras.optimizers.SGD(0.0), jit_compile=False)
    x = np.ones((1, 1), "float32")
    assert {float(model.train_on_batch(x, x)) for _ in range(20)} == {0.0, 1.0}


def test_stochastic_depth_saves_and_keeps_the_dtype(tmp_path):
    inputs = keras.Input((4, 4, 8))
    outputs = layers.StochasticDepth(0.9, seed=7, dtype="mixed_float16", name="stage1_block1_drop")(inputs)
    model = keras.Model(inputs, outputs)
    assert keras.backend.standardize_dtype(outputs.dtype) == "float16"
    model.save(tmp_path / "drop.keras")
    again = keras.saving.load_model(tmp_path / "drop.keras", safe_mode=True).get_layer("stage1_block1_drop")
    assert (again.survival, again.seed, again.compute_dtype) == (0.9, 7, "float16")


@pytest.mark.parametrize("survival", [0.0, 1.5])
def test_stochastic_depth_refuses_what_is_no_probability(survival):
    with pytest.raises(ValueError, match=rf"survival must be in \(0, 1\], got {survival}"):
        layers.StochasticDepth(survival)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="LiteRT conversion starts from TensorFlow")
def test_stochastic_depth_becomes_one_litert_multiplication(capfd):
    import tensorflow as tf

    layer = layers.StochasticDepth(0.75)
    call = tf.function(layer, input_signature=[tf.TensorSpec((1, 6, 6, 4))]).get_concrete_function()
    content = tf.lite.TFLiteConverter.from_concrete_functions([call], layer).convert()
    capfd.readouterr()
    tf.lite.experimental.Analyzer.analyze(model_content=content)
    listing = capfd.readouterr().out
    assert "MUL(" in listing
    assert listing.count("Op#") == 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_unit_length_divides_by_the_norm_and_keeps_the_dtype(dtype):
    x = np.array([[3.0, 4.0], [-300.0, 400.0], [0.0, 0.0], [3e-5, 4e-5]], np.float32)
    answer = UnitLength(dtype=dtype)(keras.ops.cast(x, dtype))
    assert keras.backend.standardize_dtype(answer.dtype) == dtype
    expected = [[0.6, 0.8], [-0.6, 0.8], [0, 0], [0.6, 0.8]]
    tolerance = 1e-6 if dtype == "float32" else 1e-2
    np.testing.assert_allclose(keras.ops.convert_to_numpy(keras.ops.cast(answer, "float32")), expected, atol=tolerance)


def test_unit_length_is_keras_unit_normalization():
    x = RNG.normal(size=(5, 40)).astype(np.float32)
    ours, theirs = (keras.ops.convert_to_numpy(layer(x)) for layer in (UnitLength(), keras.layers.UnitNormalization()))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@keras.saving.register_keras_serializable(package="tests")
class Scale(layers.CustomLayer):
    """A layer that the package has never heard of."""

    def __init__(self, factor, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs):
        return inputs * self.factor

    def get_config(self):
        return {**super().get_config(), "factor": self.factor}

    @property
    def words(self):
        return f"scale by {self.factor}"

    def multiply_adds(self):
        return int(np.prod(self.output.shape[1:]))

    def in_onnx(self, graph, *inputs):
        return graph.add("Mul", *inputs, graph.constant("factor", self.factor))

    def in_tensorflow(self, inputs):
        return inputs * self.factor


@pytest.fixture(scope="module")
def scaled():
    """A network with the new layer in its middle, pixels, and what Keras answers to them."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3), name="input")
    x = Scale(3.0, name="stem_scale")(keras.layers.Conv2D(4, 3, padding="same", name="stem_conv")(inputs))
    outputs = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    pixels = RNG.integers(0, 256, (2, 8, 8, 3), np.uint8)
    model = keras.Model(inputs, outputs)
    return model, pixels, keras.ops.convert_to_numpy(model(pixels / np.float32(255)))


def test_a_new_layer_crosses_into_onnx_and_openvino_by_its_own_rule(scaled):
    from toolkit.engines.extract import features_graph
    from toolkit.engines.onnx_graph import to_onnx
    from toolkit.spec import Preprocessing

    onnxruntime, openvino = pytest.importorskip("onnxruntime"), pytest.importorskip("openvino")
    model, pixels, expected = scaled
    preprocessing = Preprocessing(size=(8, 8))
    session = onnxruntime.InferenceSession(to_onnx(model, preprocessing))
    np.testing.assert_allclose(session.run(["logits"], {"pixels": pixels})[0], expected, atol=1e-5)
    graph = features_graph(model, preprocessing, batch_size=2)
    compiled = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(compiled(pixels)[0], expected, atol=1e-5)


def test_a_new_layer_crosses_into_tf_keras_and_back_by_its_own_rule(scaled, tmp_path):
    pytest.importorskip("tf_keras")
    from toolkit.compress.bridge import from_tf_keras, load_twin, save_twin, to_tf_keras

    model, pixels, expected = scaled
    save_twin(to_tf_keras(model), tmp_path / "twin.h5")
    twin = load_twin(tmp_path / "twin.h5")
    inputs = pixels / np.float32(255)
    np.testing.assert_allclose(twin(inputs).numpy(), expected, atol=1e-5)
    assert twin.get_layer("stem_scale").get_config()["factor"] == 3.0
    np.testing.assert_allclose(keras.ops.convert_to_numpy(from_tf_keras(twin, model)(inputs)), expected, atol=1e-5)


def test_a_new_layer_is_counted_and_drawn_by_its_own_words(scaled):
    from toolkit.arithmetic import layer_table
    from toolkit.draw.blocks import boxes

    rows = {row.name: row for row in layer_table(scaled[0])}
    assert rows["stem_scale"].macs == 8 * 8 * 4
    assert rows["stem_scale"].receptive_field == rows["stem_conv"].receptive_field == (3, 3)
    assert [line for box in boxes(scaled[0]) for line in box.lines] == [
        "input",
        "3×3 conv, 4",
        "scale by 3.0",
        "global average pool",
    ]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="compares with TensorFlow's own operations")
@pytest.mark.parametrize("name", layers.Elementwise.FUNCTIONS)
def test_a_function_of_each_number_is_the_same_everywhere(name):
    onnxruntime = pytest.importorskip("onnxruntime")
    from toolkit.engines.onnx_graph import to_onnx
    from toolkit.spec import Preprocessing

    layer = layers.Elementwise(name)
    assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer)).function == name
    model = keras.Model(inputs := keras.Input((2, 2, 3)), keras.layers.GlobalMaxPooling2D()(layer(inputs)))
    pixels = np.full((1, 2, 2, 3), 200, np.uint8)
    x = pixels / np.float32(255)
    expected = keras.ops.convert_to_numpy(layer(x))
    np.testing.assert_allclose(layer.in_tensorflow(x), expected, rtol=1e-6)
    session = onnxruntime.InferenceSession(to_onnx(model, Preprocessing(size=(2, 2))))
    np.testing.assert_allclose(session.run(["logits"], {"pixels": pixels})[0], expected[:, 0, 0], rtol=1e-5)


def test_a_function_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"function must be one of abs, ceil, .*, got 'arcosh'"):
        layers.Elementwise("arcosh")
