import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from toolkit import create_model, list_models, model_info
from toolkit.compress import from_tf_keras, to_tf_keras
from toolkit.compress.bridge import load_twin, save_twin
from toolkit.errors import UserError
from toolkit.layers import StochasticDepth

tf_keras = pytest.importorskip("tf_keras")
layers = keras.layers

QUICK = ("googlenet", "highway_mlp", "lenet5", "nin_cifar", "xo")


def small(name: str) -> keras.Model:
    info = model_info(name)
    shape = info.input_shape if info.input_shape[0] <= 64 else (max(64, info.min_size),) * 2 + info.input_shape[2:]
    return create_model(name, input_shape=shape)


def shaken(model: keras.Model) -> keras.Model:
    """With biases, statistics, gammas and betas that are not those of a fresh network."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        layer.set_weights([rng.uniform(0.5, 1.5, w.shape) if w.ndim == 1 else w for w in layer.get_weights()])
    return model


def inputs_for(model: keras.Model, batch: int = 2) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(batch, *model.input_shape[1:])).astype(np.float32)


def assert_equal_answers(model: keras.Model, twin, *, tolerance: float = 1e-5) -> None:
    inputs = inputs_for(model)
    expected = model(inputs, training=False).numpy()
    difference = np.abs(twin(inputs, training=False).numpy() - expected).max()
    assert difference <= tolerance * max(1, np.abs(expected).max())


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in list_models()]
)
def test_every_network_crosses_and_comes_back(name):
    model = shaken(small(name))
    twin = to_tf_keras(model)
    assert isinstance(twin, tf_keras.Model)
    assert_equal_answers(model, twin)
    back = from_tf_keras(twin, model)
    assert back is not model
    for original, copy in zip(model.layers, back.layers, strict=True):
        assert original.name == copy.name
        for ours, theirs in zip(original.get_weights(), copy.get_weights(), strict=True):
            np.testing.assert_allclose(theirs, ours, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("MobileNetV2", {"input_shape": (96, 96, 3), "alpha": 0.35}, marks=pytest.mark.slow),
        pytest.param("ResNet50", {"input_shape": (64, 64, 3)}, marks=pytest.mark.slow),
        pytest.param("VGG16", {"input_shape": (64, 64, 3)}, marks=pytest.mark.slow),
    ],
)
def test_networks_of_keras_applications_cross(name, options):
    model = shaken(getattr(keras.applications, name)(weights=None, classes=10, **options))
    assert_equal_answers(model, to_tf_keras(model))


def residual_with_depth() -> keras.Model:
    """Two branches that are dropped at random while training, in as few layers as show it."""
    x = inputs = keras.Input((16, 16, 3), name="input")
    for index in (1, 2):
        branch = layers.BatchNormalization(name=f"bn{index}")(layers.Conv2D(3, 3, padding="same", name=f"c{index}")(x))
        x = layers.Add(name=f"add{index}")([x, StochasticDepth(0.5 + 0.2 * index, name=f"drop{index}")(branch)])
    return keras.Model(inputs, layers.GlobalAveragePooling2D(name="pool")(x), name="depth")


def test_weights_trained_in_the_twin_come_back():
    model = shaken(residual_with_depth())
    twin = to_tf_keras(model)
    assert not any("drop" in layer.name for layer in twin.layers)  # stochastic depth has gone into the normalisations
    rng = np.random.default_rng(2)
    twin.set_weights([w * rng.uniform(0.8, 1.2, w.shape) for w in twin.get_weights()])
    back = from_tf_keras(twin, model)
    assert_equal_answers(back, twin)
    assert [layer.survival for layer in back.layers if isinstance(layer, StochasticDepth)] == [0.7, 0.9]


def every_option() -> keras.Model:
    """Two inputs, two named outputs, and stock layers with options that are written differently in Keras 2."""
    keras.utils.set_random_seed(0)
    image, extra = keras.Input((16, 16, 4), name="image"), keras.Input((5,), name="extra")
    x = layers.Conv2D(8, 3, padding="same", groups=2, kernel_regularizer=keras.regularizers.L2(1e-4), name="a")(image)
    x = layers.BatchNormalization(name="b")(x, training=False)
    x = layers.LeakyReLU(0.3, name="c")(x)
    x = layers.ZeroPadding2D(((0, 1), (2, 3)), name="d")(x)
    x = layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2, name="e")(x)
    x = layers.ReLU(6.0, negative_slope=0.1, threshold=0.2, name="f")(x)
    x = layers.SeparableConv2D(6, 3, activation="gelu", name="g")(x)
    x = layers.PReLU(shared_axes=[1, 2], name="h")(x)
    x = layers.Conv2DTranspose(4, 3, strides=2, kernel_constraint=keras.constraints.MaxNorm(2.0), name="i")(x)
    x = layers.AveragePooling2D(3, strides=2, padding="same", name="j")(x)
    x = layers.UpSampling2D(2, interpolation="bilinear", name="k")(x)
    x = layers.SpatialDropout2D(0.3, seed=1, name="l")(x)
    shared = layers.Conv2D(4, 1, activation="silu", name="m")
    x = layers.Maximum(name="n")([shared(x), shared(shared(x))])  # one layer, used three times
    x = layers.Dot(-1, name="o")([layers.GlobalAveragePooling2D(keepdims=True, name="p")(x), x])
    x = layers.Concatenate(name="q")([layers.Flatten(name="r")(x), layers.Dense(3, activation="elu", name="s")(extra)])
    side = layers.Dense(2, activation="softmax", name="t")(x)
    return keras.Model([image, extra], {"main": layers.LayerNormalization(name="u")(x), "side": side}, name="options")


def test_options_are_translated():
    model = shaken(every_option())
    twin = to_tf_keras(model)
    rng = np.random.default_rng(3)
    inputs = [rng.normal(size=(2, 16, 16, 4)).astype(np.float32), rng.normal(size=(2, 5)).astype(np.float32)]
    expected, answers = model(inputs, training=False), twin(inputs, training=False)
    assert set(answers) == {"main", "side"}
    for key in answers:
        np.testing.assert_allclose(answers[key], expected[key], rtol=1e-5, atol=1e-5)
    assert twin.get_layer("a").kernel_regularizer.l2 == pytest.approx(1e-4)
    assert twin.get_layer("i").kernel_constraint.max_value == 2.0


def test_sequential_and_mixed_precision_networks_cross():
    sequential = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(2)])
    assert_equal_answers(sequential, to_tf_keras(sequential))
    mixed = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(4, 3, dtype="mixed_float16"), layers.Flatten(), layers.Dense(2)]
    )
    assert {layer.dtype for layer in to_tf_keras(mixed).layers} == {"float32"}


@pytest.mark.parametrize(
    "activation", ["relu6", "leaky_relu", "gelu", "silu", "mish", "elu", "softplus", "log_softmax"]
)
def test_activations_mean_the_same(activation):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6, activation=activation)])
    assert_equal_answers(model, to_tf_keras(model), tolerance=1e-6)


@pytest.mark.parametrize("activation", ["hard_sigmoid", "hard_silu", "hard_swish"])
def test_activations_that_tf_keras_lacks_cross_as_layers_of_their_own(activation, tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6), layers.Activation(activation)])
    twin = to_tf_keras(model)
    assert_equal_answers(model, twin, tolerance=1e-6)
    save_twin(twin, tmp_path / "twin.h5")
    assert_equal_answers(model, load_twin(tmp_path / "twin.h5"), tolerance=1e-6)


def test_a_separable_convolution_is_two_there_and_one_again_here():
    x = inputs = keras.Input((8, 8, 3))
    x = layers.DepthwiseConv2D(3, name="a_depthwise")(layers.Conv2D(3, 1, name="a")(x))
    model = shaken(keras.Model(inputs, layers.SeparableConv2D(4, 3, strides=2, activation="relu", name="s")(x)))
    twin = to_tf_keras(model)
    assert [layer.name for layer in twin.layers][1:] == ["a", "a_depthwise", "s_depthwise", "s"]
    assert_equal_answers(from_tf_keras(twin, model), twin)


def test_layer_scale_crosses_as_its_refusal_says():
    from keras.src.applications.convnext import LayerScale

    scaled = keras.Sequential([keras.Input((4, 4, 3)), LayerScale(0.5, 3, name="scale")])
    with pytest.raises(UserError, match=r"'scale' \(LayerScale\) .* write DepthwiseConv2D\(1, use_bias=False\)"):
        to_tf_keras(scaled)
    same = keras.Sequential([keras.Input((4, 4, 3)), layers.DepthwiseConv2D(1, use_bias=False)])
    same.set_weights([weight.reshape(1, 1, 3, 1) for weight in scaled.get_weights()])
    np.testing.assert_allclose(same(inputs_for(same)), scaled(inputs_for(same)), rtol=1e-6)
    assert_equal_answers(scaled, to_tf_keras(same))


def no_penalty(weights):
    return 0.0


class Doubled(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs


def refused(kind: str) -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    inner = keras.Sequential([keras.Input((6, 6, 4)), layers.ReLU()], name="inner")
    x = {
        "operator": lambda: x + x,
        "nested": lambda: inner(x),
        "custom": lambda: Doubled(name="doubled")(x),
        "activation": lambda: layers.Conv2D(4, 1, activation="hard_tanh", name="gate")(x),
        "own": lambda: layers.Conv2D(4, 1, activation="hard_sigmoid", name="gate")(x),
        "new": lambda: layers.AdaptiveAveragePooling2D(2, name="pool")(x),
        "option": lambda: layers.Conv2D(4, 1, kernel_regularizer=no_penalty, name="odd")(x),
        "stochastic": lambda: StochasticDepth(0.5, name="drop")(x),
    }[kind]()
    return keras.Model(inputs, x, name=kind)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("operator", r"layer 'add\w*' \(Add\) .* write keras.layers.Add"),
        ("nested", r"layer 'inner' \(Sequential\) .* one by one"),
        ("custom", r"layer 'doubled' \(Doubled\) .* build it of stock layers"),
        ("activation", r"layer 'gate' \(Conv2D\) .* 'hard_tanh' means something else there; use one of elu, "),
        ("own", r"layer 'gate' \(Conv2D\) .* put Activation\('hard_sigmoid'\) behind it"),
        ("new", r"layer 'pool' \(AdaptiveAveragePooling2D\) .*build the network without them"),
        ("option", r"layer 'odd' \(Conv2D\) .* kernel_regularizer"),
        ("stochastic", r"layer 'drop' \(StochasticDepth\) stands behind 'conv' \(Conv2D\); .* BatchNormalization"),
    ],
)
def test_what_cannot_cross_is_named_with_the_remedy(kind, message):
    with pytest.raises(UserError, match=message):
        to_tf_keras(refused(kind))


def test_a_subclassed_model_is_refused():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(UserError, match=r"'own' \(Own\) is not a functional network"):
        to_tf_keras(Own(name="own"))


def test_weights_of_another_network_are_refused(lenet):
    other = to_tf_keras(create_model("lenet5", num_classes=3))
    with pytest.raises(UserError, match=r"'head_logits' .*has weights of shapes"):
        from_tf_keras(other, lenet)


def test_the_process_keeps_its_keras():
    """Even where nothing has looked at ``tf.keras`` before."""
    script = (
        "from toolkit import create_model\n"
        "from toolkit.compress import to_tf_keras\n"
        "to_tf_keras(create_model('lenet5'))\n"
        "import sys, keras, tensorflow as tf\n"
        "assert tf.keras.layers.Dense is keras.layers.Dense and keras.__version__.startswith('3')\n"
        "assert 'tensorflow_model_optimization' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"})
