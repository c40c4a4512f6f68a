import dataclasses
import functools
from pathlib import Path

import keras
import numpy as np
import pytest

from toolkit.bundle import FLOAT_LITERT, litert_file
from toolkit.compress import operator_report, quantize
from toolkit.data.feed.arrays import load_pixels
from toolkit.data.feed.split import Subset
from toolkit.data.pixels.decode import normalize
from toolkit.engines import open_engine
from toolkit.engines.runtimes import KerasEngine, LiteRTEngine
from toolkit.errors import UserError
from toolkit.metrics import top_k_accuracy


def test_methods_in_order_of_size(lenet_files, bundle):
    assert set(lenet_files) == {"float16", "dynamic", "int8", "int16x8"}
    float32 = (bundle / FLOAT_LITERT).stat().st_size
    assert float32 > 1.8 * len(lenet_files["float16"]) > 1.8 * 1.3 * len(lenet_files["dynamic"])
    assert len(lenet_files["int8"]) < 0.27 * float32
    assert len(lenet_files["int8"]) < len(lenet_files["int16x8"]) < 0.28 * float32


@pytest.mark.parametrize(("method", "points"), [("float16", 0), ("dynamic", 1), ("int8", 0.5), ("int16x8", 0.3)])
def test_quantized_network_keeps_its_accuracy(
    lenet_files, lenet_preprocessing, digits_split, bundle, tmp_path, method, points
):
    test = digits_split.test
    pixels = load_pixels(test.paths, lenet_preprocessing)
    (tmp_path / litert_file(method)).parent.mkdir()
    (tmp_path / litert_file(method)).write_bytes(lenet_files[method])
    answers = LiteRTEngine(tmp_path / litert_file(method), lenet_preprocessing).probabilities(pixels)
    reference = open_engine("litert", bundle, lenet_preprocessing).probabilities(pixels)
    lost = top_k_accuracy(reference, test.labels, 1) - top_k_accuracy(answers, test.labels, 1)
    assert abs(lost) <= points / 100 + 1e-9


@pytest.mark.parametrize("calibration", [None, Subset((), ())])
@pytest.mark.parametrize("method", ["int8", "int16x8"])
def test_integers_need_pictures(lenet, lenet_preprocessing, method, calibration):
    with pytest.raises(UserError, match=f"{method} needs training pictures"):
        quantize(lenet, method, preprocessing=lenet_preprocessing, calibration=calibration)


def test_files_hold_no_float_operators_but_in_layers_named(lenet, lenet_preprocessing, digits_split, lenet_files):
    assert operator_report(lenet_files["int8"]).float_outputs == ()
    assert set(operator_report(lenet_files["int16x8"]).by_type) == {"convert", "int16", "int32"}
    mixed = quantize(
        lenet,
        "int8",
        preprocessing=lenet_preprocessing,
        calibration=digits_split.train,
        keep_float=("stage2_conv", "head_logits"),
    )
    kept = {name.split("/")[0] for name in operator_report(mixed).float_outputs}
    assert kept == {"stage2_conv", "StatefulPartitionedCall:0"}
    with pytest.raises(UserError, match="keep_float is for int8, got it with dynamic"):
        quantize(lenet, "dynamic", preprocessing=lenet_preprocessing, keep_float=("stage2_conv",))


def test_unknown_method_is_named_with_the_known(lenet, lenet_preprocessing):
    with pytest.raises(UserError, match=r"unknown method 'int4'; known: dynamic, float16, int8, int16x8"):
        quantize(lenet, "int4", preprocessing=lenet_preprocessing)


def test_calibration_pictures_decide_the_ranges(lenet, lenet_preprocessing, digits_split, lenet_files):
    dark = Subset(digits_split.train.paths[:1], digits_split.train.labels[:1])
    other = quantize(lenet, "int8", preprocessing=lenet_preprocessing, calibration=dark)
    assert other != lenet_files["int8"]
    again = quantize(lenet, "int8", preprocessing=lenet_preprocessing, calibration=digits_split.train)
    assert again == lenet_files["int8"]


def test_labels_are_not_needed(lenet, lenet_preprocessing, digits_split):
    train = Subset(digits_split.train.paths[:20], digits_split.train.labels[:20])
    pixels = load_pixels(train.paths, lenet_preprocessing)
    given = {
        "files with labels": train,
        "files": Subset(train.paths, ()),
        "paths": [Path(path) for path in train.paths],
        "pixels": pixels,
        "pixels in batches": iter([pixels[:9], pixels[9:]]),
        "floats": normalize(pixels, lenet_preprocessing),
        "one-hot labels": (pixels, np.eye(20)),
    }
    files = {
        kind: quantize(lenet, "int8", preprocessing=lenet_preprocessing, calibration=pictures)
        for kind, pictures in given.items()
    }
    assert {kind for kind in files if files[kind] != files["files with labels"]} == set()


@pytest.mark.parametrize("calibration", [[], np.zeros((0, 32, 32, 3), np.uint8), iter([])])
def test_no_pictures_are_refused(lenet, lenet_preprocessing, calibration):
    with pytest.raises(UserError, match=r"int8 needs training pictures|got no pictures"):
        quantize(lenet, "int8", preprocessing=lenet_preprocessing, calibration=calibration)


@pytest.mark.parametrize(("low", "high"), [(0, 255), (-2, 3)])
def test_floats_that_the_network_was_not_trained_on_are_refused(lenet, lenet_preprocessing, low, high):
    inputs = np.linspace(low, high, 4 * 32 * 32).reshape(4, 32, 32, 1)
    with pytest.raises(
        UserError, match=rf"got float inputs of {low}…{high}, and pixels of 0…255 are normalised to -1…1"
    ):
        quantize(lenet, "int8", preprocessing=lenet_preprocessing, calibration=inputs)


def test_floats_that_fill_little_of_the_range_are_warned_of(lenet, lenet_preprocessing, digits_split, caplog):
    raw = dataclasses.replace(lenet_preprocessing, scale=1.0, mean=(0.0,), std=(1.0,))
    inputs = np.random.default_rng(0).random((4, *raw.input_shape)).astype(np.float32)
    quantize(lenet, "int8", preprocessing=raw, calibration=inputs)
    assert "and pixels of 0…255 are normalised to 0…255 here" in caplog.text


def with_layer(layer):
    """A small classifier of grey pictures with this layer in it."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((32, 32, 1))
    x = layer(keras.layers.Conv2D(4, 3, strides=4, name="stem")(x))
    return keras.Model(inputs, keras.layers.Dense(3, name="out")(keras.layers.Flatten()(x)), name="net")


PIXELS = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), np.uint8)


def test_an_operation_that_int16x8_lacks_is_named_with_remedies_that_work(lenet_preprocessing, tmp_path):
    model = with_layer(keras.layers.LayerNormalization(name="norm"))
    message = r"net has no int16x8 form: layer 'norm' \(LayerNormalization\) computes \w+, .*; take float16, or dynamic"
    with pytest.raises(UserError, match=message):
        quantize(model, "int16x8", preprocessing=lenet_preprocessing, calibration=PIXELS)
    for method in ("float16", "dynamic"):
        content = quantize(model, method, preprocessing=lenet_preprocessing)
        assert_like_keras(content, model, lenet_preprocessing, tmp_path, 0.02)


def test_layers_without_an_int8_form_are_kept_in_float_by_their_kind(lenet_preprocessing, tmp_path):
    """As the message says."""
    model = with_layer(keras.layers.LayerNormalization(name="norm"))
    quantized = functools.partial(quantize, model, "int8", preprocessing=lenet_preprocessing, calibration=PIXELS)
    message = r"1 layers stayed in float in the int8 file: norm; .* all of their kind at once: LayerNormalization$"
    with pytest.raises(UserError, match=message):
        quantized()
    assert quantized(keep_float=["LayerNormalization"]) == quantized(keep_float=["norm"])
    assert_like_keras(quantized(keep_float=["norm"]), model, lenet_preprocessing, tmp_path, 0.05)


def test_hard_swish_has_an_int16x8_form(lenet_preprocessing, tmp_path):
    model = with_layer(keras.layers.Activation("hard_silu"))
    content = quantize(model, "int16x8", preprocessing=lenet_preprocessing, calibration=PIXELS)
    assert_like_keras(content, model, lenet_preprocessing, tmp_path, 0.01)


def test_equal_biases_are_quantized_each_with_its_own_scale(lenet_preprocessing, tmp_path):
    """The converter stores equal constants once, and int16x8 took one convolution's scale for both."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((32, 32, 1))
    for scale in (1.0, 0.1):
        kernel = keras.initializers.RandomNormal(stddev=scale)
        x = keras.layers.Conv2D(4, 3, strides=2, kernel_initializer=kernel, bias_initializer="ones")(x)
    model = keras.Model(inputs, keras.layers.Dense(3, name="out")(keras.layers.Flatten()(x)))
    content = quantize(model, "int16x8", preprocessing=lenet_preprocessing, calibration=PIXELS)
    assert_like_keras(content, model, lenet_preprocessing, tmp_path, 0.01)


def assert_like_keras(content, model, preprocessing, tmp_path, tolerance):
    (tmp_path / "model.tflite").write_bytes(content)
    answers = LiteRTEngine(tmp_path / "model.tflite", preprocessing).probabilities(PIXELS)
    expected = KerasEngine(model, preprocessing).probabilities(PIXELS)
    assert np.ptp(expected, axis=0).max() > 2 * tolerance
    np.testing.assert_allclose(answers, expected, atol=tolerance)
