"""AlexNet against the paper's figures, Caffe's layouts and torchvision's counts."""

import keras
import numpy as np
import pytest

import toolkit
from toolkit.arithmetic import count_params, layer_table
from toolkit.errors import UserError
from toolkit.layers import LocalResponseNormalization

RNG = np.random.default_rng(0)
SMALL = {"input_shape": (67, 67, 3), "num_classes": 5}
# What the three dense layers hold: 4096·(6·6·256+1), 4096·(4096+1), 1000·(4096+1).
DENSE = [37_752_832, 16_781_312, 4_097_000]


def _numpy(x):
    return keras.ops.convert_to_numpy(x)


def test_alexnet_layer_by_layer(outline):
    rows = layer_table(outline("alexnet"))
    # 96·(11·11·3+1); 256·(5·5·48+1), two groups of 48 channels; 384·(3·3·256+1); 384·(3·3·192+1); 256·(3·3·192+1)
    assert [row.params for row in rows if row.params] == [34_944, 307_456, 885_120, 663_936, 442_624, *DENSE]
    shapes = {row.name: row.output_shape for row in rows}
    assert shapes["stage1_conv"] == (55, 55, 96)
    assert shapes["stage1_pool"] == (27, 27, 96)
    assert shapes["stage2_conv"] == (27, 27, 256)
    assert shapes["stage2_pool"] == (13, 13, 256)
    assert shapes["stage3_conv"] == shapes["stage4_conv"] == (13, 13, 384)
    assert shapes["stage5_conv"] == (13, 13, 256)
    assert shapes["stage5_pool"] == (6, 6, 256)


def test_single_tower_layer_by_layer(outline):
    rows = layer_table(outline("alexnet_owt"))
    # 64·(11·11·3+1), 192·(5·5·64+1), 384·(3·3·192+1), 256·(3·3·384+1), 256·(3·3·256+1)
    assert [row.params for row in rows if row.params] == [23_296, 307_392, 663_936, 884_992, 590_080, *DENSE]
    assert [row.output_shape[0] for row in rows if row.type == "MaxPooling2D"] == [27, 13, 6]
    assert {"head_repeat", "head_pool"}.isdisjoint(row.name for row in rows)  # the maps are 6×6 already


@pytest.mark.parametrize("stage", ["stage2", "stage4", "stage5"])
def test_towers_are_two_groups_of_channels(stage):
    model = toolkit.create_model("alexnet", **SMALL)
    conv = model.get_layer(f"{stage}_conv")
    kernel, bias = (weight.astype("float32") for weight in conv.get_weights())
    half_in, half_out = kernel.shape[2], kernel.shape[3] // 2
    x = RNG.normal(size=(2, 9, 9, 2 * half_in)).astype("float32")
    towers = [
        keras.ops.conv(
            x[..., s * half_in :][..., :half_in], kernel[..., s * half_out :][..., :half_out], padding="same"
        )
        for s in (0, 1)
    ]
    expected = np.maximum(np.concatenate([_numpy(tower) for tower in towers], axis=-1) + bias, 0)
    np.testing.assert_allclose(_numpy(conv(x)), expected, rtol=0, atol=1e-4)


def _divisors(x, window=5):
    """Sum of squares over the channels at most two away, as section 3.3 writes it."""
    sums = np.zeros_like(x)
    for i in range(x.shape[-1]):
        sums[..., i] = (x[..., max(0, i - window // 2) : i + window // 2 + 1] ** 2).sum(-1)
    return sums


@pytest.mark.parametrize(
    ("layout", "k", "alpha"),
    [("paper", 2.0, 1e-4), ("bvlc_alexnet", 1.0, 1e-4 / 5), ("bvlc_reference_caffenet", 1.0, 1e-4 / 5)],
)
def test_normalisation_has_the_constants_of_its_layout(layout, k, alpha):
    model = toolkit.create_model("alexnet", layout=layout, **SMALL)
    x = RNG.uniform(0, 200, size=(1, 2, 2, 96)).astype("float32")
    expected = x / (k + alpha * _divisors(x)) ** 0.75
    np.testing.assert_allclose(_numpy(model.get_layer("stage1_norm")(x)), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("layout", "order"),
    [
        ("paper", ["conv", "norm", "pool"]),
        ("bvlc_alexnet", ["conv", "norm", "pool"]),
        ("bvlc_reference_caffenet", ["conv", "pool", "norm"]),
    ],
)
def test_normalisation_stands_before_or_behind_pooling(layout, order, outline):
    model = outline("alexnet", layout=layout)
    names = [layer.name for layer in model.layers]
    for stage in ("stage1", "stage2"):
        assert [name.removeprefix(f"{stage}_") for name in names if name.startswith(stage)] == order
    assert sum(isinstance(layer, LocalResponseNormalization) for layer in model.layers) == 2
    assert count_params(model) == count_params(outline("alexnet"))


def test_layout_is_checked():
    with pytest.raises(UserError, match=r"unknown layout 'caffe'.*paper, bvlc_alexnet, bvlc_reference_caffenet"):
        toolkit.create_model("alexnet", layout="caffe")


def test_weights_start_as_the_paper_says():
    """Section 5: N(0, 0.01), and biases of one in the second, fourth and fifth convolution and the hidden layers."""
    model = toolkit.create_model("alexnet", **SMALL)
    layers = [layer for layer in model.layers if layer.weights]
    ones = {layer.name for layer in layers if np.all(layer.get_weights()[1] == 1)}
    zeros = {layer.name for layer in layers if np.all(layer.get_weights()[1] == 0)}
    assert ones == {"stage2_conv", "stage4_conv", "stage5_conv", "head_fc1", "head_fc2"}
    assert zeros == {"stage1_conv", "stage3_conv", "head_logits"}
    for layer in layers:
        kernel = layer.get_weights()[0]
        assert kernel.std() == pytest.approx(0.01, rel=0.02)
        assert abs(kernel.mean()) < 3e-4


@pytest.mark.parametrize("name", ["alexnet", "alexnet_owt", "zfnet", "vgg11"])
def test_dropout_follows_both_hidden_layers(name, outline):
    model = outline(name)
    names = [layer.name for layer in model.layers if not layer.name.endswith(("_repeat", "_pool"))]
    start = names.index("head_flatten")
    assert names[start:] == ["head_flatten", "head_fc1", "head_drop1", "head_fc2", "head_drop2", "head_logits"]
    assert {layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)} == {0.5}


@pytest.mark.parametrize(
    ("shape", "maps"), [((63, 63), (1, 1)), ((126, 158), (2, 3)), ((63, 254), (1, 6)), ((446, 127), (12, 3))]
)
def test_single_tower_averages_other_maps_as_torchvision(shape, maps, outline):
    model = outline("alexnet_owt", input_shape=(*shape, 3), num_classes=2)
    assert model.get_layer("stage5_pool").output.shape[1:3] == maps
    pool = keras.Model(model.get_layer("stage5_pool").output, model.get_layer("head_flatten").input)
    x = RNG.normal(size=(1, *maps, 256)).astype("float32")
    # torch.nn.AdaptiveAvgPool2d: output i averages inputs floor(i·n/6) to ceil((i+1)·n/6).
    rows, columns = ([(i * n // 6, -(-(i + 1) * n // 6)) for i in range(6)] for n in maps)
    expected = np.stack([np.stack([x[0, a:b, c:d].mean((0, 1)) for c, d in columns]) for a, b in rows])
    np.testing.assert_allclose(_numpy(pool(x))[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("side", [159, 222, 255, 414, 447])
def test_single_tower_says_which_sizes_its_head_takes(side, outline):
    with pytest.raises(UserError, match=r"sides of 63 to 158, 223 to 254 or 415 to 446"):
        toolkit.create_model("alexnet_owt", input_shape=(side, 224, 3), num_classes=2)
    outline("alexnet_owt", input_shape=(side, 224, 3), include_top=False)


@pytest.mark.parametrize(("name", "least"), [("alexnet", 39), ("alexnet_owt", 63)])
def test_smallest_picture_leaves_one_pixel(name, least, outline):
    model = outline(name, input_shape=(least, least, 3), include_top=False)
    assert model.output_shape == (None, 1, 1, 256)
    with pytest.raises(UserError, match=f"{name} needs pictures of at least {least}×{least}"):
        toolkit.create_model(name, input_shape=(least - 1, least, 3))
