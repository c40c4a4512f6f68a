"""Weights rounded to half precision, and files that hold them in it."""

import keras
import numpy as np
import pytest

from toolkit.errors import UserError
from toolkit.network import in_half, load_network, rounded_to_half, save_in_half


def test_rounded_copy_differs_by_half_precision_and_the_network_stays(lenet):
    before = lenet.get_weights()
    rounded = rounded_to_half(lenet)
    for given, now, still in zip(before, rounded.get_weights(), lenet.get_weights(), strict=True):
        assert now.dtype == np.float32
        np.testing.assert_array_equal(now, given.astype(np.float16))
        np.testing.assert_array_equal(still, given)


def test_file_is_less_than_half_the_size_and_holds_the_same_network(residual, tmp_path):
    rounded = rounded_to_half(residual)
    rounded.save(tmp_path / "whole.keras")
    save_in_half(rounded, tmp_path / "half.keras")
    loaded = load_network(tmp_path / "half.keras")
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in rounded.layers]
    for variable, expected in zip(loaded.variables, rounded.get_weights(), strict=True):
        assert variable.dtype == "float32"
        np.testing.assert_array_equal(variable.numpy(), expected)
    whole, half = ((tmp_path / name).stat().st_size for name in ("whole.keras", "half.keras"))
    assert half < 0.45 * whole


def test_what_half_precision_does_not_hold_stays_as_it_is():
    assert in_half(np.array([0.5, 1.0], np.float32)).dtype == np.float16
    for values in (np.array([0.1], np.float32), np.array([1e6], np.float32), np.array([7], np.uint32)):
        assert in_half(values) is values


def test_weight_too_large_is_refused_in_one_line():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="head")], name="large")
    model.set_weights([np.full((2, 1), 7e4, np.float32), np.zeros(1, np.float32)])
    with pytest.raises(UserError, match="half precision ends at 65,504 and 'large' has a weight of 70,000"):
        rounded_to_half(model)
