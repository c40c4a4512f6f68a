"""Custom layers against the definition they state, on every way they travel."""

import keras
import numpy as np
import pytest

from toolkit import layers
from toolkit.layers import PadChannels

RNG = np.random.default_rng(0)


def _option_a(x, planes):
    """As the public CIFAR checkpoints' code: ``F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, planes // 4, planes // 4))``."""
    return np.pad(x[:, ::2, ::2, :], ((0, 0), (0, 0), (0, 0), (planes // 4, planes // 4)))


@pytest.mark.parametrize("side", [8, 7])
def test_pad_channels_is_option_a(side):
    x = RNG.normal(size=(2, side, side, 16)).astype("float32")
    answer = keras.ops.convert_to_numpy(PadChannels(32, 2)(x))
    np.testing.assert_array_equal(answer, _option_a(x, 32))
    assert answer.shape == PadChannels(32, 2).compute_output_shape(x.shape) == (2, 4, 4, 32)


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
    from ai_edge_litert.interpreter import Interpreter

    layer = PadChannels(8, 2)
    call = tf.function(layer, input_signature=[tf.TensorSpec((1, 6, 6, 4))]).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([call], layer)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    content = converter.convert()

    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    x = RNG.normal(size=(1, 6, 6, 4)).astype("float32")
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    answer = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_array_equal(answer, _option_a(x, 8))

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
