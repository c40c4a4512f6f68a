"""Training with the fused batch normalisation is Keras' training, and leaves no trace."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from toolkit.network.fused import fused_batch_norm, spare_grouped_convolutions

CHANNELS = 6


def network(*, dtype: str = "float32", shape: tuple[int, ...] = (8, 8, CHANNELS), **options) -> keras.Model:
    """One batch normalisation with weights of its own, the same at each call."""
    rng = np.random.default_rng(0)
    inputs = layers.Input(shape, dtype=dtype.removeprefix("mixed_"))
    layer = layers.BatchNormalization(name="bn", dtype=dtype, **options)
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.weights])
    return model


def step(model: keras.Model, x: np.ndarray, *, mask=None, training: bool = True) -> dict[str, np.ndarray]:
    """Outputs, running averages and gradients of one call."""
    layer = model.get_layer("bn")
    x = tf.cast(x, layer.compute_dtype)
    direction = tf.cast(np.random.default_rng(1).normal(size=x.shape), "float64")
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x, training=training, mask=mask)
        value = tf.reduce_sum(tf.cast(outputs, "float64") * direction)
    gradients = tape.gradient(value, [x, *(v.value for v in layer.trainable_variables)])
    found = {"outputs": outputs, **{v.name: v for v in layer.non_trainable_variables}}
    found |= {f"gradient {number}": gradient for number, gradient in enumerate(gradients)}
    assert outputs.dtype == layer.compute_dtype
    return {name: keras.ops.convert_to_numpy(keras.ops.cast(value, "float64")) for name, value in found.items()}


def both(x: np.ndarray, **options) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    model = network(**options)
    with fused_batch_norm(model):
        fused = step(model, x)
    return fused, step(network(**options), x)


PICTURES = np.random.default_rng(2).normal(3, 2, (5, 8, 8, CHANNELS)).astype("float32")


@pytest.fixture
def operations(monkeypatch):
    """The calls of the fused operation."""
    calls: list[str] = []
    original = tf.raw_ops.FusedBatchNormV3

    def counted(**arguments):
        calls.append(arguments["x"].dtype.name)
        return original(**arguments)

    monkeypatch.setattr(tf.raw_ops, "FusedBatchNormV3", counted)
    return calls


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"epsilon": 1e-12},
        {"epsilon": 1e-5, "momentum": 0.0},
        {"momentum": 1.0},
        {"axis": 3},
        {"center": False},
        {"scale": False},
        {"center": False, "scale": False},
        {"gamma_regularizer": "l2", "beta_constraint": "non_neg"},
    ],
    ids=str,
)
def test_a_training_call_is_that_of_keras(options, operations):
    fused, stock = both(PICTURES, **options)
    assert operations == ["float32"]
    assert fused.keys() == stock.keys()
    for name, expected in stock.items():
        np.testing.assert_allclose(fused[name], expected, rtol=1e-4, atol=2e-5, err_msg=name)
    for name in ("moving_mean", "moving_variance"):  # to the rounding: an estimate by n - 1 would differ by 1 in 320
        np.testing.assert_allclose(fused[name], stock[name], rtol=2e-6)


@pytest.mark.parametrize(("dtype", "digits"), [("mixed_bfloat16", 8), ("mixed_float16", 11), ("bfloat16", 8)])
def test_half_precision_keeps_its_statistics_in_float32(dtype, digits, operations):
    large = PICTURES * 200  # whose squares float16 cannot hold
    fused, stock = both(large, dtype=dtype)
    assert operations == [dtype.removeprefix("mixed_")]
    for name, expected in stock.items():
        tolerance = 2.0**-digits * max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(fused[name], expected, atol=tolerance, err_msg=name)
    if dtype.startswith("mixed"):
        np.testing.assert_allclose(fused["moving_variance"], stock["moving_variance"], rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1, CHANNELS), (1, 1, 2, CHANNELS), (2, 1, 1, CHANNELS)])
def test_a_batch_of_one_pixel_or_two(shape, operations):
    x = np.random.default_rng(3).normal(size=shape).astype("float32")
    fused, stock = both(x, shape=shape[1:])
    assert operations
    for name, expected in stock.items():
        np.testing.assert_allclose(fused[name], expected, rtol=1e-3, atol=1e-4, err_msg=name)


def test_channels_of_constants(operations):
    fused, stock = both(np.full_like(PICTURES, 7.0))
    assert operations
    for name, expected in stock.items():  # Keras' rounding, 1e-7 of 7, is divided by the root of epsilon
        np.testing.assert_allclose(fused[name], expected, rtol=1e-3, atol=2e-2, err_msg=name)


class Twice(layers.BatchNormalization):
    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


@pytest.mark.parametrize(
    "options",
    [
        {"axis": 1},
        {"renorm": True},
        {"synchronized": True},
        {"dtype": "float64"},
        {"shape": (CHANNELS,)},
        {"shape": (8, CHANNELS)},
    ],
    ids=str,
)
def test_what_the_operation_cannot_compute_is_left_to_keras(options, operations):
    x = PICTURES.reshape(-1, *options["shape"]) if "shape" in options else PICTURES
    fused, stock = both(x, **options)
    assert not operations
    for name, expected in stock.items():
        np.testing.assert_array_equal(fused[name], expected, err_msg=name)


def test_a_layer_of_ones_own_is_left_alone(operations):
    inputs = layers.Input((8, 8, CHANNELS))
    model = keras.Model(inputs, Twice()(inputs))
    with fused_batch_norm(model):
        model(PICTURES, training=True)
    assert not operations


def test_inference_frozen_layers_and_masks_are_keras_own(operations):
    mask = np.random.default_rng(4).uniform(size=PICTURES.shape[:-1]) < 0.5
    for options in ({"training": False}, {"mask": mask}):
        model = network()
        with fused_batch_norm(model):
            fused = step(model, PICTURES, **options)
        for name, expected in step(network(), PICTURES, **options).items():
            np.testing.assert_array_equal(fused[name], expected)
    frozen = network()
    frozen.get_layer("bn").trainable = False
    before = frozen.get_weights()
    with fused_batch_norm(frozen):
        outputs = frozen(PICTURES, training=True)
    np.testing.assert_array_equal(outputs, network()(PICTURES, training=False))
    for weight, expected in zip(frozen.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, expected)
    assert not operations


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_keep_keras(backend, monkeypatch):
    model = network()
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    with fused_batch_norm(model):
        assert "call" not in vars(model.get_layer("bn"))


def residual(seed: int) -> keras.Model:
    """Batch normalisation of several kinds in a small network with a shortcut."""
    keras.utils.set_random_seed(seed)
    inputs = layers.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stage1_conv")(inputs)
    x = shortcut = layers.ReLU()(layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name="stage1_bn")(x))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="stage2_conv")(x)
    x = layers.BatchNormalization(scale=False, name="stage2_bn")(x)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.Add()([x, shortcut])))
    x = layers.BatchNormalization(momentum=0.9, name="head_bn")(layers.Dense(8, name="head_fc")(x))
    return keras.Model(inputs, layers.Dense(4, name="head_logits")(x))


def trained(*, fused: bool, steps: int = 100) -> keras.Model:
    rng = np.random.default_rng(5)
    y = rng.integers(0, 4, 16 * 5)
    x = (rng.normal(size=(len(y), 8, 8, 3)) + y[:, None, None, None]).astype("float32")
    model = residual(0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
    if fused:
        with fused_batch_norm(model):
            model.fit(x, y, batch_size=16, epochs=steps // 5, shuffle=False, verbose=0, validation_data=(x[:4], y[:4]))
    else:
        model.fit(x, y, batch_size=16, epochs=steps // 5, shuffle=False, verbose=0)
    return model


@pytest.fixture(scope="module")
def pair():
    return trained(fused=True), trained(fused=False)


def test_a_hundred_steps_end_where_those_of_keras_do(pair):
    fused, stock = pair
    start = residual(0)
    for variable, expected in zip(fused.variables, stock.variables, strict=True):
        assert variable.path == expected.path
        np.testing.assert_allclose(variable, expected, rtol=1e-4, atol=5e-5, err_msg=variable.path)
    for name in ("stage1_conv", "stage2_bn", "head_bn"):
        moved = [
            np.abs(a - b).max() for a, b in zip(*(m.get_layer(name).get_weights() for m in (stock, start)), strict=True)
        ]
        assert min(moved) > 0.01, name


def test_nothing_of_it_is_saved_exported_or_left(pair, tmp_path):
    fused, stock = pair
    assert not any("call" in vars(layer) for layer in fused.layers)
    with fused_batch_norm(fused):
        fused.save(tmp_path / "during.keras")
        fused.export(tmp_path / "served", verbose=False)
    loaded = keras.saving.load_model(tmp_path / "during.keras", compile=False)
    assert [type(layer) for layer in loaded.layers] == [type(layer) for layer in stock.layers]
    assert [layer.get_config() for layer in loaded.layers] == [layer.get_config() for layer in fused.layers]
    x = np.random.default_rng(6).normal(size=(3, 8, 8, 3)).astype("float32")
    np.testing.assert_array_equal(loaded(x), fused(x))
    graph = tf.saved_model.load(str(tmp_path / "served")).signatures["serving_default"].graph
    assert not [operation for operation in graph.get_operations() if "FusedBatchNorm" in operation.type]


def test_layers_are_keras_own_again_after_an_error():
    model = network()
    with pytest.raises(ZeroDivisionError), fused_batch_norm(model):
        1 / 0  # noqa: B018
    assert "call" not in vars(model.get_layer("bn"))


@pytest.mark.parametrize(("groups", "noted"), [(1, {}), (2, {"remapping": False})])
def test_only_grouped_convolutions_switch_the_remapper_off(groups, noted, monkeypatch):
    options = {}
    monkeypatch.setattr(tf.config.optimizer, "set_experimental_options", options.update)
    inputs = layers.Input((8, 8, CHANNELS))
    spare_grouped_convolutions(keras.Model(inputs, layers.Conv2D(4, 3, groups=groups)(inputs)))
    assert options == noted


def test_a_network_with_grouped_convolutions_trains_in_batches_of_any_length():
    code = """
import keras, numpy, tensorflow, toolkit
from toolkit.network.fused import spare_grouped_convolutions
model = toolkit.create_model("alexnet", num_classes=2, input_shape=(67, 67, 3))
spare_grouped_convolutions(model)
model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
pictures = numpy.zeros((6, 67, 67, 3), "float32"), numpy.zeros(6, "int32")
model.fit(tensorflow.data.Dataset.from_tensor_slices(pictures).batch(4), verbose=0)
"""
    subprocess.run([sys.executable, "-c", code], check=True)  # where it failed, the process was gone
