import pytest

from toolkit.bundle import FLOAT_LITERT, litert_file
from toolkit.compress import operator_report, quantize
from toolkit.data.feed.arrays import load_pixels
from toolkit.data.feed.split import Subset
from toolkit.engines import open_engine
from toolkit.engines.runtimes import LiteRTEngine
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
