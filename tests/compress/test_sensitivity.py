import keras
import numpy as np
import pytest
from interpreted import interpreted

from toolkit.compress import float_layers, layer_sensitivity, quantize, range_report
from toolkit.compress.sensitivity import _rounded
from toolkit.spec import Preprocessing

layers = keras.layers
RGB = Preprocessing((16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)
PIXELS = np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), np.uint8)
LABELS = np.zeros(64, int)


@pytest.fixture(scope="module")
def uneven():
    """A network in which one channel of one layer is a hundred times the others: its range leaves those few steps."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3), name="input")
    x = layers.Conv2D(16, 3, activation="relu", name="first")(inputs)
    x = layers.Conv2D(16, 3, use_bias=False, name="second")(x)
    x = layers.ReLU(name="second_relu")(layers.BatchNormalization(name="second_bn")(x))
    x = layers.Conv2D(16, 3, activation="relu", name="third")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, layers.Dense(4, name="logits")(x), name="uneven")
    gamma = np.ones(16, np.float32)
    gamma[3] = 100
    model.get_layer("second_bn").gamma.assign(gamma)
    kernel = model.get_layer("third").get_weights()[0]
    kernel[:, :, 3] /= 100
    model.get_layer("third").set_weights([kernel, np.zeros(16)])
    return model


@pytest.fixture(scope="module")
def uneven_int8(uneven):
    return quantize(uneven, "int8", preprocessing=RGB, calibration=(PIXELS, LABELS))


def test_the_layer_that_spoils_int8_comes_first_and_in_float_mends_it(uneven, uneven_int8):
    ranking = layer_sensitivity(uneven, (PIXELS, LABELS), preprocessing=RGB)
    assert ranking[0].layer == "second"
    assert {row.layer for row in ranking} >= {"first", "third"}
    # The third has its weights in as uneven a scale, per output channel; the others are sound.
    assert ranking[0].decibels < 25 < 40 < ranking[2].decibels
    worst = float_layers(uneven, ranking, 1)
    assert worst == ("second", "second_bn", "second_relu", "third")

    def error(content: bytes) -> float:
        return float(np.abs(interpreted(content, inputs()) - uneven(inputs(), training=False).numpy()).max())

    def mixed(keep_float: tuple[str, ...]) -> bytes:
        return quantize(uneven, "int8", preprocessing=RGB, calibration=(PIXELS, LABELS), keep_float=keep_float)

    everything = error(uneven_int8)
    assert error(mixed(worst)) < 0.5 * everything
    assert error(mixed(("second",))) > 0.9 * everything  # its output is rounded all the same


def test_the_rounding_of_one_layer_is_what_the_file_does(lenet, lenet_preprocessing, lenet_files, digits_split):
    """Noises of independent roundings add up: together about what the int8 file shows."""
    from toolkit.data.feed.arrays import load_pixels
    from toolkit.data.pixels.decode import normalize

    ranking = layer_sensitivity(lenet, digits_split.train, preprocessing=lenet_preprocessing)
    pictures = normalize(load_pixels(digits_split.train.paths[:64], lenet_preprocessing), lenet_preprocessing)
    expected = lenet(pictures, training=False).numpy()
    error = interpreted(lenet_files["int8"], pictures) - expected
    measured = 10 * np.log10(np.mean(expected**2) / np.mean(error**2))
    together = -10 * np.log10(sum(10 ** (-row.decibels / 10) for row in ranking))
    assert measured == pytest.approx(together, abs=3)


def inputs() -> np.ndarray:
    return PIXELS.astype(np.float32) / 127.5 - 1


def test_a_depthwise_kernel_is_rounded_channel_by_channel():
    """As the file stores it; with one scale for all, a sound layer of a MobileNet was called the worst by far."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="first")(inputs)
    x = layers.DepthwiseConv2D(3, use_bias=False, name="depthwise")(x)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="bn")(x))
    model = keras.Model(inputs, layers.Dense(4, name="logits")(layers.GlobalAveragePooling2D(name="pool")(x)))
    spread = np.logspace(-2, 0, 8).astype(np.float32)  # which the normalisation takes out again
    (kernel,) = model.get_layer("depthwise").get_weights()
    model.get_layer("depthwise").set_weights([kernel * spread[:, None]])
    gamma, beta, mean, _ = model.get_layer("bn").get_weights()
    model.get_layer("bn").set_weights([gamma, beta, mean, 0.05 * spread**2])
    ranking = {row.layer: row.decibels for row in layer_sensitivity(model, (PIXELS, LABELS), preprocessing=RGB)}
    assert ranking["depthwise"] > 40


def test_so_is_that_of_a_separable_convolution():
    layer = layers.SeparableConv2D(6, 3, use_bias=False)
    layer.build((None, 8, 8, 4))
    kernel, pointwise = layer.get_weights()
    layer.set_weights([kernel * np.float32([1e-3, 1e-2, 1e-1, 1])[:, None], pointwise])
    for weight, rounded, axes in zip(layer.get_weights(), _rounded(layer), [(0, 1), (0, 1, 2)], strict=True):
        largest = np.abs(weight).max(axis=axes)
        assert (np.abs(weight - rounded).max(axis=axes) <= largest / 254 * 1.001).all()
        assert not np.array_equal(weight, rounded)


def test_ranges_are_those_of_the_pictures(uneven, uneven_int8):
    rows = {row.layer: row for row in range_report(uneven_int8, uneven, (PIXELS, LABELS), preprocessing=RGB)}
    assert set(rows) >= {"first", "second_relu", "third"}
    for name, row in rows.items():
        values = keras.Model(uneven.inputs, uneven.get_layer(name).output)([inputs()], training=False).numpy()
        assert row.seen_high == pytest.approx(values.max(), rel=1e-4)
        assert row.low <= 0 <= row.high
        assert row.saturated < 0.01
        assert row.seen_high > 0.5 * row.high


def test_a_range_learned_from_dark_pictures_cuts_bright_ones_off(uneven):
    dark = (PIXELS // 64 + 120, LABELS)  # grey throughout
    content = quantize(uneven, "int8", preprocessing=RGB, calibration=dark)
    rows = {row.layer: row for row in range_report(content, uneven, (PIXELS, LABELS), preprocessing=RGB)}
    assert rows["first"].saturated > 0.1
    assert rows["first"].seen_high > rows["first"].high
