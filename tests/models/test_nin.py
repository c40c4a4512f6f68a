"""Network in Network against Caffe's layouts, its poolings and its averaged class maps written out."""

import keras
import numpy as np
import pytest

import toolkit
from toolkit.arithmetic import layer_table
from toolkit.errors import UserError
from toolkit.models import nin, parts

RNG = np.random.default_rng(0)


def test_imagenet_layer_by_layer(outline):
    rows = layer_table(outline("nin"))
    assert [row.params for row in rows if row.params] == [
        96 * (11 * 11 * 3 + 1), 96 * (96 + 1), 96 * (96 + 1),
        256 * (5 * 5 * 96 + 1), 256 * (256 + 1), 256 * (256 + 1),
        384 * (3 * 3 * 256 + 1), 384 * (384 + 1), 384 * (384 + 1),
        1024 * (3 * 3 * 384 + 1), 1024 * (1024 + 1), 1000 * (1024 + 1),
    ]  # fmt: skip
    shapes = {row.name: row.output_shape for row in rows}
    assert shapes["stage1_conv3"] == (54, 54, 96)
    assert shapes["stage1_pool"] == (27, 27, 96)
    assert shapes["stage2_pool"] == (13, 13, 256)
    assert shapes["stage3_pool"] == (6, 6, 384)
    assert shapes["head_conv"] == (6, 6, 1000)  # Caffe averages over a window of 6


def test_cifar_layer_by_layer(outline):
    rows = layer_table(outline("nin_cifar"))
    counts = [14_592, 30_880, 15_456, 460_992, 37_056, 37_056, 331_968, 37_056, 1_930]
    assert [row.params for row in rows if row.params] == counts
    assert sum(counts) == 966_986
    assert [row.output_shape[0] for row in rows if "pool" in row.name and "pad" not in row.name] == [16, 8]
    assert {row.name: row.output_shape for row in rows}["head_conv"] == (8, 8, 10)


def test_pooling_and_dropout_of_each_stage(outline):
    for name, expected in (
        ("nin", {"stage1": "max", "stage2": "max", "stage3": "max drop", "stage4": ""}),
        ("nin_cifar", {"stage1": "max drop", "stage2": "average drop", "stage3": ""}),
    ):
        kinds = {
            keras.layers.MaxPooling2D: "max",
            keras.layers.AveragePooling2D: "average",
            keras.layers.Dropout: "drop",
        }
        layers = outline(name).layers
        found = {
            stage: " ".join(kinds[type(x)] for x in layers if x.name.startswith(stage) and type(x) in kinds)
            for stage in expected
        }
        assert found == expected


def test_logits_are_averages_of_rectified_class_maps():
    model = toolkit.create_model("nin_cifar", num_classes=4)
    x = RNG.normal(size=(3, 32, 32, 3)).astype("float32")
    features = keras.Model(model.input, model.get_layer("stage3_conv2").output)(x)
    kernel = RNG.normal(size=(1, 1, 192, 4)).astype("float32")
    maps = keras.ops.convert_to_numpy(features) @ kernel[0, 0]
    bias = -maps.mean((0, 1, 2))
    maps += bias  # now half of each map is negative
    model.get_layer("head_conv").set_weights([kernel, bias])
    expected = np.maximum(maps, 0).mean((1, 2))
    assert np.abs(expected - maps.mean((1, 2))).max() > 1e-3  # so no dense layer on averaged features is the same
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(x)), expected, rtol=0, atol=1e-4)


def _caffe_pool(x, reduce):
    """3×3/2 over every window that starts inside, cut off at the border (PoolingLayer::Reshape and Forward_cpu)."""
    height, width = (-(-(side - 3) // 2) + 1 for side in x.shape[:2])
    rows = [[reduce(x[2 * r : 2 * r + 3, 2 * c : 2 * c + 3], axis=(0, 1)) for c in range(width)] for r in range(height)]
    return np.array(rows)


@pytest.mark.parametrize(
    ("pool", "reduce", "shapes"),
    [
        (parts.max_pool_ceil, np.max, [(8, 8), (9, 9), (54, 27), (3, 2)]),
        (nin.average_pool_ceil, np.mean, [(8, 8), (9, 9), (16, 10), (3, 7)]),
    ],
)
def test_pooling_keeps_partial_windows_as_caffe(pool, reduce, shapes):
    for shape in shapes:
        inputs = keras.Input((*shape, 4))
        model = keras.Model(inputs, pool(inputs, name="pool"))
        x = RNG.uniform(size=(*shape, 4)).astype("float32")
        answer = keras.ops.convert_to_numpy(model(x[None]))[0]
        np.testing.assert_allclose(answer, _caffe_pool(x, reduce), rtol=0, atol=1e-6)


def test_sides_that_pool_differently_are_refused():
    with pytest.raises(UserError, match="stage2_pool cannot average maps of 16×15, one side odd and one even"):
        toolkit.create_model("nin_cifar", input_shape=(32, 30, 3))


def test_file_for_other_classes_leaves_the_classifier_fresh(tmp_path, caplog):
    ten, three = toolkit.create_model("nin_cifar"), toolkit.create_model("nin_cifar", num_classes=3)
    ten.save_weights(tmp_path / "ten.weights.h5")
    fresh = three.get_layer("head_conv").get_weights()
    with caplog.at_level("INFO", logger="toolkit"):
        toolkit.load_weights(three, tmp_path / "ten.weights.h5")
    assert "head_conv keeps its fresh weights: the file has 10 classes, the model 3" in caplog.text
    assert all(np.array_equal(a, b) for a, b in zip(fresh, three.get_layer("head_conv").get_weights(), strict=True))
    for ours, theirs in zip(three.layers, ten.layers, strict=True):
        if ours.name != "head_conv":
            assert all(np.array_equal(a, b) for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True))


@pytest.mark.parametrize(("name", "least", "side"), [("nin", 39, 1), ("nin_cifar", 8, 2)])
def test_smallest_pictures(name, least, side, outline):
    backbone = outline(name, input_shape=(least, least, 3), include_top=False)
    assert backbone.output_shape[1:3] == (side, side)
    with pytest.raises(UserError, match=f"{name} needs pictures of at least {least}×{least}"):
        toolkit.create_model(name, input_shape=(least - 1, least, 3))


def test_weights_start_as_in_caffes_solver_but_no_class_is_shut():
    for name, narrow in (("nin", {"stage1_conv1", "stage3_conv1", "head_conv"}), ("nin_cifar", set())):
        for layer in toolkit.create_model(name).layers:
            if layer.weights:
                kernel, bias = layer.get_weights()
                assert kernel.std() == pytest.approx(0.01 if layer.name in narrow else 0.05, rel=0.05), layer.name
                assert np.all(bias == (1 if layer.name == "head_conv" else 0)), layer.name
