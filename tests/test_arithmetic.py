"""Convolution arithmetic against the figures of papers and lecture notes."""

import keras
import numpy as np
import pytest

import toolkit
from toolkit.arithmetic import (
    LayerRow,
    conv_output_size,
    count_macs,
    count_params,
    format_table,
    layer_table,
    peak_memory,
    summary,
)


@pytest.mark.parametrize(
    ("n", "kernel", "stride", "padding", "expected"),
    [
        (6, 3, 1, 0, 4),  # valid
        (6, 3, 1, 1, 6),  # same: padding (3 - 1) / 2
        (7, 3, 2, 0, 3),
        (8, 3, 2, 0, 3),  # floor: the last column is left over
        (32, 5, 1, 0, 28),  # LeNet-5 C1
        (227, 11, 4, 0, 55),  # AlexNet conv1
        (224, 7, 2, 3, 112),  # ResNet stem
        (112, 3, 2, 1, 56),
        (5, 5, 3, 0, 1),
    ],
)
def test_output_size(n, kernel, stride, padding, expected):
    assert conv_output_size(n, kernel, stride=stride, padding=padding) == expected


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_output_size_is_what_keras_gives(stride, padding):
    x = keras.layers.ZeroPadding2D(padding)(keras.Input((11, 11, 1)))
    x = keras.layers.Conv2D(1, 4, strides=stride)(x)
    assert x.shape[1] == conv_output_size(11, 4, stride=stride, padding=padding)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 4, "kernel": 5}, "a kernel of 5 does not fit into 4 pixels with padding 0"),
        ({"n": 4, "kernel": 3, "stride": 0}, "stride=0"),
        ({"n": 4, "kernel": 3, "padding": -1}, "padding=-1"),
        ({"n": 0, "kernel": 3}, "n=0"),
    ],
)
def test_impossible_sizes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        conv_output_size(**arguments)


def test_ten_filters_of_3x3x3_hold_280_parameters():
    x = keras.Input((8, 8, 3))
    model = keras.Model(x, keras.layers.Conv2D(10, 3)(x))
    assert count_params(model) == 280


def test_lenet_table_is_the_notes_table():
    table = {row.name: row for row in layer_table(toolkit.create_model("lenet5"))}
    expected = {
        "input": ((32, 32, 1), 1024, 0, 0),
        "stage1_conv": ((28, 28, 6), 4704, 156, 117_600),
        "stage1_pool": ((14, 14, 6), 1176, 0, 0),
        "stage2_conv": ((10, 10, 16), 1600, 2416, 240_000),
        "stage2_pool": ((5, 5, 16), 400, 0, 0),
        "head_flatten": ((400,), 400, 0, 0),
        "head_fc1": ((120,), 120, 48_120, 48_000),
        "head_fc2": ((84,), 84, 10_164, 10_080),
        "head_logits": ((10,), 10, 850, 840),
    }
    assert {n: (r.output_shape, r.activation_size, r.params, r.macs) for n, r in table.items()} == expected


def test_table_text_is_aligned_and_ends_in_totals():
    rows = layer_table(toolkit.create_model("lenet5"))
    lines = format_table(rows).splitlines()
    assert len(lines) == len(rows) + 2
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == [
        "layer",
        "type",
        "activation",
        "shape",
        "activation",
        "size",
        "parameters",
        "multiply-adds",
    ]
    assert lines[2].split() == ["stage1_conv", "Conv2D", "(28,", "28,", "6)", "4,704", "156", "117,600"]
    assert lines[-1].split() == ["total", "61,706", "416,520"]


def test_inception_bottleneck_figures():
    """28·28·32·5·5·192 ≈ 120 M directly; 2.4 M + 10.0 M behind a 16-channel 1×1 (Szegedy 2014, retold in notes)."""
    x = keras.Input((28, 28, 192))
    direct = keras.Model(x, keras.layers.Conv2D(32, 5, padding="same")(x))
    reduced = keras.Model(x, keras.layers.Conv2D(32, 5, padding="same")(keras.layers.Conv2D(16, 1)(x)))
    assert count_macs(direct) == 120_422_400
    assert [row.macs for row in layer_table(reduced)] == [0, 2_408_448, 10_035_200]


@pytest.mark.parametrize(
    ("layer", "macs"),
    [
        (keras.layers.Conv2D(8, 3, groups=4), 36 * 8 * (9 * 1)),
        (keras.layers.Conv2D(8, 3, strides=2), 9 * 8 * (9 * 4)),
        (keras.layers.DepthwiseConv2D(3, depth_multiplier=2), 36 * 8 * 9),
        (keras.layers.SeparableConv2D(5, 3, depth_multiplier=2), 36 * (8 * 9 + 8 * 5)),
        (keras.layers.Dense(7), 8 * 8 * 4 * 7),  # over the last axis, at each of the 64 pixels
        (keras.layers.BatchNormalization(), 0),
        (keras.layers.MaxPooling2D(), 0),
    ],
)
def test_macs_of_each_kind_of_layer(layer, macs):
    x = keras.Input((8, 8, 4))
    assert count_macs(keras.Model(x, layer(x))) == macs


def test_a_layer_without_a_rule_is_named():
    x = keras.Input((8, 8, 4))
    model = keras.Model(x, keras.layers.Conv2DTranspose(4, 3, name="up")(x))
    with pytest.raises(ValueError, match=r"'up' of type Conv2DTranspose.*add its rule to toolkit\.arithmetic"):
        layer_table(model)


def test_unknown_sides_are_refused():
    x = keras.Input((None, None, 3))
    with pytest.raises(ValueError, match=r"\(None, None, 3\) is not fully known"):
        layer_table(keras.Model(x, keras.layers.ReLU()(x)))


def test_rows_are_values():
    assert LayerRow("fc", "Dense", (2,), 2, 34, 32) == LayerRow("fc", "Dense", (2,), 2, 34, 32)


@pytest.mark.parametrize(
    ("name", "variant", "layer", "side", "jump"),
    [
        ("lenet5", {}, "stage2_pool", 16, 4),
        ("resnet20", {}, "stage3_block3_out", 81, 4),
        # Araujo, Norris and Sim, Computing receptive fields of convolutional neural networks, Distill 2019, table 1.
        ("resnet50", {"version": "v1"}, "stage4_block3_out", 483, 32),
        ("resnet101", {"version": "v1"}, "stage4_block3_out", 1027, 32),
        pytest.param("resnet152", {"version": "v1"}, "stage4_block3_out", 1507, 32, marks=pytest.mark.slow),
        ("resnet50", {"version": "v1.5"}, "stage4_block3_out", 427, 32),
    ],
)
def test_receptive_field_of_networks(name, variant, layer, side, jump, outline):
    rows = {row.name: row for row in layer_table(outline(name, **variant))}
    assert (rows[layer].receptive_field, rows[layer].jump) == ((side, side), (jump, jump))
    assert rows["input"].receptive_field == (1, 1)
    assert rows["head_logits"].receptive_field is None


def _seen(layers, side=33):
    """Height and width of the input pixels that have a gradient from the middle output pixel, all weights one."""
    tf = pytest.importorskip("tensorflow")
    x = keras.Input((side, side, 1))
    model = keras.Model(x, layers(x))
    for weight in model.trainable_weights:
        weight.assign(np.ones(weight.shape))
    picture = tf.Variable(np.ones((1, side, side, 1), "float32"))
    with tf.GradientTape() as tape:
        answer = model(picture)
        middle = tf.reduce_sum(answer[0, answer.shape[1] // 2, answer.shape[2] // 2])
    down, across = np.nonzero(tape.gradient(middle, picture).numpy()[0, :, :, 0])
    return model, (down.max() - down.min() + 1, across.max() - across.min() + 1)


def _conv(kernel, **arguments):
    return keras.layers.Conv2D(1, kernel, use_bias=False, **arguments)


@pytest.mark.parametrize(
    "layers",
    [
        lambda x: _conv(3)(_conv(5, strides=2)(x)),
        lambda x: _conv((1, 7))(_conv((3, 1), padding="same")(x)),
        lambda x: _conv(3, dilation_rate=3)(_conv(2)(x)),
        lambda x: keras.layers.AveragePooling2D(3, 2, padding="same")(_conv(3, strides=2, padding="same")(x)),
        lambda x: keras.layers.Add()([_conv(5, padding="same")(x), _conv(3, padding="same")(x)]),
        lambda x: keras.layers.Add()([_conv(4)(x), keras.layers.Cropping2D(((0, 3), (3, 0)))(x)]),
        lambda x: keras.layers.Concatenate()(
            [_conv(3, strides=2)(keras.layers.ZeroPadding2D(((2, 0), (0, 2)))(x)), _conv(1, strides=2)(x)]
        ),
        lambda x: keras.layers.DepthwiseConv2D(5, strides=3)(keras.layers.ReLU()(x)),
    ],
)
def test_receptive_field_is_where_gradients_arrive(layers):
    model, seen = _seen(layers)
    assert layer_table(model)[-1].receptive_field == seen


def test_receptive_field_ends_where_all_pixels_mix():
    x = keras.Input((8, 8, 4))
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    model = keras.Model(x, keras.layers.Multiply(name="gated")([_conv(3, padding="same")(x), gate]))
    rows = {row.name: row for row in layer_table(model)}
    assert rows["pool"].receptive_field is None
    assert rows["gated"].receptive_field == (3, 3)


def test_sequential_models_start_from_the_picture():
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(1, 3), keras.layers.Conv2D(1, 3)])
    assert [row.receptive_field for row in layer_table(model)] == [(3, 3), (5, 5)]


def test_live_bytes_of_a_chain_and_of_a_shortcut():
    x = keras.Input((8, 8, 2), name="in")  # 128 values
    y = keras.layers.Conv2D(4, 3, padding="same", name="conv1")(x)  # 256
    y = keras.layers.ReLU(name="relu")(y)  # over its input
    z = keras.layers.Conv2D(4, 3, padding="same", name="conv2")(y)  # 256 beside the 256 kept for the sum
    z = keras.layers.Add(name="add")([y, z])  # over one of them
    z = keras.layers.MaxPooling2D(2, name="pool")(z)  # 64
    rows = layer_table(keras.Model(x, keras.layers.Flatten(name="flat")(z)))
    alive = {"in": 128, "conv1": 128 + 256, "relu": 256, "conv2": 512, "add": 512, "pool": 256 + 64, "flat": 64}
    assert {row.name: row.live_bytes for row in rows} == {name: 4 * count for name, count in alive.items()}
    assert peak_memory(rows) == 2048


def test_outputs_outlive_the_layers_after_them():
    x = keras.Input((4,), name="in")
    early = keras.layers.Dense(10, name="early")(x)
    late = keras.layers.ReLU(name="late")(early)
    rows = layer_table(keras.Model(x, {"early": early, "late": late}))
    assert [row.live_bytes for row in rows] == [16, 56, 80]


def test_memory_of_vgg_is_its_first_two_feature_maps(outline):
    """224·224·64 before and after the second convolution."""
    rows = layer_table(outline("vgg16"))
    assert peak_memory(rows) == 4 * 2 * 224 * 224 * 64


def test_summary_of_lenet():
    assert summary(layer_table(toolkit.create_model("lenet5"))) == (
        "61,706 parameters, 416,520 multiply-adds, receptive field of the last feature map 16×16, "
        "peak activation memory 23,520 bytes"
    )
