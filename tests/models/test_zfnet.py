"""ZFNet against figure 3 of the paper, and its count derived by hand."""

import keras
import pytest

import toolkit
from toolkit.arithmetic import layer_table
from toolkit.errors import UserError


def test_layer_by_layer(outline):
    rows = layer_table(outline("zfnet"))
    counts = [
        96 * (7 * 7 * 3 + 1),
        256 * (5 * 5 * 96 + 1),
        384 * (3 * 3 * 256 + 1),
        384 * (3 * 3 * 384 + 1),
        256 * (3 * 3 * 384 + 1),
        4096 * (6 * 6 * 256 + 1),
        4096 * (4096 + 1),
        1000 * (4096 + 1),
    ]
    assert [row.params for row in rows if row.params] == counts
    assert sum(counts) == 62_357_608 == toolkit.model_info("zfnet").num_params
    shapes = {row.name: row.output_shape for row in rows}
    assert shapes["stage1_conv"] == (110, 110, 96)
    assert shapes["stage1_pool"] == shapes["stage1_norm"] == (55, 55, 96)
    assert shapes["stage2_conv"] == (26, 26, 256)
    assert shapes["stage2_pool"] == (13, 13, 256)
    assert shapes["stage3_conv"] == shapes["stage4_conv"] == (13, 13, 384)
    assert shapes["stage5_conv"] == (13, 13, 256)
    assert shapes["stage5_pool"] == (6, 6, 256)


def test_multiply_adds_by_hand():
    convolutions = 110**2 * 96 * 147 + 26**2 * 256 * 2400 + 13**2 * (384 * 2304 + 384 * 3456 + 256 * 3456)
    dense = 4096 * 9216 + 4096 * 4096 + 1000 * 4096
    assert convolutions + dense == 1_168_032_896 == toolkit.model_info("zfnet").macs


def test_normalisation_follows_the_first_two_poolings(outline):
    names = [layer.name for layer in outline("zfnet").layers]
    assert [name for name in names if name.endswith("_norm")] == ["stage1_norm", "stage2_norm"]
    assert all(names[names.index(f"{stage}_norm") - 1] == f"{stage}_pool" for stage in ("stage1", "stage2"))


def test_kernels_are_dense_across_channels(outline):
    """Unlike AlexNet's, whose towers the authors join."""
    model = outline("zfnet")
    assert {layer.groups for layer in model.layers if isinstance(layer, keras.layers.Conv2D)} == {1}


def test_smallest_picture_leaves_one_pixel(outline):
    model = outline("zfnet", input_shape=(47, 47, 3), include_top=False)
    assert model.output_shape == (None, 1, 1, 256)
    with pytest.raises(UserError, match="zfnet needs pictures of at least 47×47"):
        toolkit.create_model("zfnet", input_shape=(46, 64, 3))
