"""The examples that the lecture notes work through by hand, each recomputed by the layer or function that does it here.

Where the notes print something else, ``docs/notes-errata.md`` has both figures, and the right one is tested.
"""

import keras
import numpy as np
import pytest

import toolkit
from toolkit.arithmetic import conv_output_size, count_macs, count_params, layer_table
from toolkit.draw.filters import FILTERS, filter_layer
from toolkit.errors import UserError

PICTURE_6 = [
    [3, 0, 1, 2, 7, 4],
    [1, 5, 8, 9, 3, 1],
    [2, 7, 2, 5, 1, 3],
    [0, 1, 3, 1, 7, 8],
    [4, 2, 1, 6, 2, 8],
    [2, 4, 5, 2, 3, 9],
]
PICTURE_7 = [
    [2, 3, 7, 4, 6, 2, 9],
    [6, 6, 9, 8, 7, 4, 3],
    [3, 4, 8, 3, 8, 9, 7],
    [7, 8, 3, 6, 6, 3, 4],
    [4, 2, 1, 8, 3, 4, 6],
    [3, 2, 4, 1, 9, 8, 3],
    [0, 1, 3, 9, 2, 1, 4],
]
STEP = [[10, 10, 10, 0, 0, 0]] * 6
CHEQUER = [[10, 10, 10, 0, 0, 0]] * 3 + [[0, 0, 0, 10, 10, 10]] * 3
RECTIFIED = [
    [0.77, 0, 0.11, 0.33, 0.55, 0, 0.33],
    [0, 1.00, 0, 0.33, 0, 0.11, 0],
    [0.11, 0, 1.00, 0, 0.11, 0, 0.55],
    [0.33, 0.33, 0, 0.55, 0, 0.33, 0.33],
    [0.55, 0, 0.11, 0, 1.00, 0, 0.11],
    [0, 0.11, 0, 0.33, 0, 1.00, 0],
    [0.33, 0, 0.55, 0.33, 0.11, 0, 0.77],
]


def _apply(layer, picture):
    """A layer on one grey picture, as rows of numbers."""
    x = np.asarray(picture, "float32")[None, :, :, None]
    return keras.ops.convert_to_numpy(layer(x))[0, :, :, 0].tolist()


def _convolve(kernel, picture, **arguments):
    kernel = np.asarray(kernel, "float32")[:, :, None, None]
    layer = keras.layers.Conv2D(1, kernel.shape[0], use_bias=False, **arguments)
    layer.build((None, None, None, 1))
    layer.kernel.assign(kernel)
    return _apply(layer, picture)


@pytest.mark.parametrize(
    ("n", "kernel", "stride", "padding", "expected"),
    [
        (6, 3, 1, 0, 4),
        (6, 3, 1, 1, 6),  # 'same': p = (3 - 1) / 2
        (6, 5, 1, 2, 6),  # and (5 - 1) / 2
        (7, 3, 2, 0, 3),
        (9, 3, 1, 0, 7),  # the X-or-O picture
        (32, 5, 1, 0, 28),  # CS 182's quiz
        (227, 11, 4, 0, 55),
        (55, 3, 2, 0, 27),
        (13, 3, 2, 0, 6),
    ],
)
def test_convolution_output_sizes(n, kernel, stride, padding, expected):
    assert conv_output_size(n, kernel, stride=stride, padding=padding) == expected


def test_strided_convolution():
    """The notes print 83 for 88 and 127 for 117."""
    answer = _convolve([[3, 4, 4], [1, 0, 2], [-1, 0, 3]], PICTURE_7, strides=2)
    assert answer == [[91, 100, 88], [69, 91, 117], [44, 72, 74]]


def test_vertical_edges():
    expected = [[-5, -4, 0, 8], [-10, -2, 2, 3], [0, -2, -4, -7], [-3, -2, -3, -16]]
    assert _apply(filter_layer("vertical"), PICTURE_6) == expected


def test_step_from_bright_to_dark_and_back():
    assert _apply(filter_layer("vertical"), STEP) == [[0, 30, 30, 0]] * 4
    assert _apply(filter_layer("vertical"), np.fliplr(STEP)) == [[0, -30, -30, 0]] * 4


def test_horizontal_edges_of_a_chequer():
    assert _apply(filter_layer("horizontal"), CHEQUER) == [
        [0, 0, 0, 0],
        [30, 10, -10, -30],
        [30, 10, -10, -30],
        [0, 0, 0, 0],
    ]


def test_sobel_and_scharr_weigh_the_middle_row():
    assert _apply(filter_layer("sobel"), STEP) == [[0, 40, 40, 0]] * 4
    assert _apply(filter_layer("scharr"), STEP) == [[0, 160, 160, 0]] * 4
    assert _apply(filter_layer("sobel"), PICTURE_6)[0] == _convolve(FILTERS["sobel"], PICTURE_6)[0]
    assert {name: np.sum(kernel) for name, kernel in FILTERS.items()} == dict.fromkeys(FILTERS, 0)


def test_filters_work_on_every_channel_and_do_not_train():
    x = np.stack([STEP, np.fliplr(STEP), CHEQUER], axis=-1).astype("float32")[None]
    layer = filter_layer("vertical")
    answer = keras.ops.convert_to_numpy(layer(x))
    assert answer.shape == (1, 4, 4, 3)
    assert answer[0, 0].T.tolist() == [[0, 30, 30, 0], [0, -30, -30, 0], [0, 30, 30, 0]]
    assert layer.trainable_weights == []
    with pytest.raises(UserError, match="unknown filter 'sobell'; did you mean 'sobel'"):
        filter_layer("sobell")


def test_average_pooling():
    picture = [[1, 3, 2, 1], [2, 9, 1, 1], [1, 4, 2, 3], [5, 6, 1, 2]]
    assert _apply(keras.layers.AveragePooling2D(2), picture) == [[3.75, 1.25], [4, 2]]


def test_max_pooling_with_partial_windows():
    answer = _apply(keras.layers.MaxPooling2D(2, padding="same"), RECTIFIED)
    expected = [[1.00, 0.33, 0.55, 0.33], [0.33, 1.00, 0.33, 0.55], [0.55, 0.33, 1.00, 0.11], [0.33, 0.55, 0.11, 0.77]]
    np.testing.assert_allclose(answer, expected, rtol=1e-6)


def test_parameters_of_ten_filters():
    x = keras.Input((8, 8, 3))
    assert count_params(keras.Model(x, keras.layers.Conv2D(10, 3)(x))) == (3 * 3 * 3 + 1) * 10 == 280


def test_weights_of_a_neuron_that_sees_the_whole_picture():
    x = keras.Input((200, 200, 3))
    flat = keras.layers.Flatten()(x)
    assert count_params(keras.Model(x, keras.layers.Dense(1, use_bias=False)(flat))) == 120_000


def test_inception_with_and_without_the_reduction():
    x = keras.Input((28, 28, 192))
    direct = keras.Model(x, keras.layers.Conv2D(32, 5, padding="same")(x))
    reduced = keras.Model(x, keras.layers.Conv2D(32, 5, padding="same")(keras.layers.Conv2D(16, 1)(x)))
    assert count_macs(direct) == 28 * 28 * 32 * 5 * 5 * 192 == 120_422_400
    assert [row.macs for row in layer_table(reduced)[1:]] == [2_408_448, 10_035_200]
    assert count_macs(reduced) == pytest.approx(12.4e6, rel=0.005)


def test_softmax_of_four_logits():
    answer = keras.ops.convert_to_numpy(keras.ops.softmax(np.array([5.0, 2.0, -1.0, 3.0], "float32")))
    assert answer.round(3).tolist() == pytest.approx([0.842, 0.042, 0.002, 0.114])


def test_sum_of_three_exponentials():
    assert np.exp([5.0, 2.0, -1.0]).round(1).tolist() == [148.4, 7.4, 0.4]
    assert np.exp([5.0, 2.0, -1.0]).sum() == pytest.approx(156.2, abs=0.05)


def test_residual_block_with_nothing_learnt_is_g_of_a():
    """a + 2 layers on: g(W·a + b + a) with W = b = 0."""
    model = toolkit.create_model("resnet20")
    for name in ("stage1_block1_conv2", "stage1_block1_bn2"):
        layer = model.get_layer(name)
        for weight in layer.trainable_weights:
            weight.assign(np.zeros(weight.shape))
    block = keras.Model(model.get_layer("stem_bn").output, model.get_layer("stage1_block1_out").output)
    a = np.random.default_rng(0).normal(size=(1, 32, 32, 16)).astype("float32")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(block(a)), np.maximum(a, 0))


def test_lenet_on_colour_pictures():
    """The notes' table with the right parameters: 208, 416, 48,001, 10,081 and 841 are printed."""
    rows = [row for row in layer_table(toolkit.create_model("lenet5_rgb")) if row.params or "Pool" in row.type]
    assert [(row.output_shape, row.activation_size, row.params) for row in rows] == [
        ((28, 28, 8), 6272, 608),
        ((14, 14, 8), 1568, 0),
        ((10, 10, 16), 1600, 3216),
        ((5, 5, 16), 400, 0),
        ((120,), 120, 48_120),
        ((84,), 84, 10_164),
        ((10,), 10, 850),
    ]
    assert sum(row.params for row in rows) == 62_958


def test_rate_of_four_epochs():
    """0.2 / (1 + epoch); the notes print 0.67, 0.5 and 0.4 for the last three."""
    assert [round(0.2 / (1 + epoch), 3) for epoch in (1, 2, 3, 4)] == [0.1, 0.067, 0.05, 0.04]


def test_convolution_of_textbooks_turns_the_filter():
    from scipy.signal import convolve2d

    turned = [[7, 9, -1], [2, 0, 1], [5, 4, 3]]
    expected = convolve2d(PICTURE_6, [[3, 4, 5], [1, 0, 2], [-1, 9, 7]], mode="valid")
    assert _convolve(turned, PICTURE_6) == expected.tolist()


def test_weighted_average_remembers_until_one_over_e():
    """After ten steps of 0.9, or fifty of 0.98."""
    np.testing.assert_allclose([0.9**10, 0.98**50], 1 / np.e, atol=0.02)


def test_alexnets_first_layer():
    assert (11 * 11 * 3 + 1) * 96 == 34_944
