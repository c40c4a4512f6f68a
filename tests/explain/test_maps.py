"""Cells of maps stand in the picture where they look."""

import keras
import numpy as np
import pytest

from toolkit.errors import UserError
from toolkit.explain.maps import find_map, spreading, stage_maps


def test_cells_without_padding_stand_inside(outline):
    model = outline("lenet5")
    assert list(stage_maps(model)) == ["stage1", "stage2"]
    layer = find_map(model, stage_maps(model), "stage2")
    down, across = spreading(model, layer.output)
    assert layer.name == "stage2_conv"
    assert down.shape == (32, layer.output.shape[1])
    np.testing.assert_allclose(down.sum(axis=1), 1 / 2, rtol=1e-5)
    # Of ten cells 2 apart, each seeing 14 pixels, the first is in the middle of pixels 0 to 13.
    peak = down[:, 1].argmax()
    assert peak in (8, 9)
    assert across.shape == down.shape


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "googlenet", "lenet5"])
def test_equal_cells_are_equally_hot_up_to_the_border(outline, name):
    """Cells whose middles lie at the picture's edge were up to four times as hot as others, and drew the peak there."""
    model = outline(name)
    for layer in stage_maps(model).values():
        down, across = spreading(model, layer.output)
        heat = down @ np.ones(layer.output.shape[1:3]) @ across.T
        np.testing.assert_allclose(heat, heat[0, 0], rtol=1e-5)


def test_maps_of_a_network_that_is_read_at_several_stages(outline):
    model = outline("resnet20")
    known = stage_maps(model)
    names = [layer.name for layer in known.values()]
    assert [model.get_layer(name).output.shape[1] for name in names] == [32, 16, 8]
    assert find_map(model, known, names[0]).name == names[0]
    assert find_map(model, known, "stem").output.shape[1] == 32


def test_network_without_maps(outline):
    model = outline("mlp")
    assert stage_maps(model) == {}
    with pytest.raises(UserError, match="has no map to show"):
        find_map(model, {}, "stage1")


@pytest.mark.parametrize("builder", ["MobileNetV2", "MobileNetV3Small", "DenseNet121"])
def test_maps_of_other_networks(outline, builder):
    model = outline(getattr(keras.applications, builder), weights=None, input_shape=(64, 64, 3))
    sides = [layer.output.shape[1] for layer in stage_maps(model).values()]
    assert sides == sorted(sides, reverse=True)
    assert len(set(sides)) == len(sides) >= 4
    for layer in stage_maps(model).values():
        down, _ = spreading(model, layer.output)
        assert np.isfinite(down).all()
