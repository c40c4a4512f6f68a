"""The notes' first networks against the notes' own figures."""

import keras
import numpy as np
import pytest

import toolkit
from toolkit.arithmetic import count_macs, count_params, layer_table
from toolkit.errors import UserError

CLEAR_X = """
. . . . . . . . .
. # . . . . . # .
. . # . . . # . .
. . . # . # . . .
. . . . # . . . .
. . . # . # . . .
. . # . . . # . .
. # . . . . . # .
. . . . . . . . .
"""
CROOKED_X = """
. . . . . . . . .
. . . . . . # . .
. # . . . # . . .
. . # # . # . . .
. . . . # . . . .
. . . # . # # . .
. . . # . . . # .
. . # . . . . . .
. . . . . . . . .
"""
ROUND_O = """
. . . . . . . . .
. . . # # # . . .
. . # . . . # . .
. # . . . . . # .
. # . . . . . # .
. # . . . . . # .
. . # . . . # . .
. . . # # # . . .
. . . . . . . . .
"""
# The notes cut decimals off: 7/9 is printed 0.77. A copy of the first says 1.77 in its last corner, a slip for 0.77.
FIRST_DIAGONAL = """
0.77 -0.11 0.11 0.33 0.55 -0.11 0.33
-0.11 1.00 -0.11 0.33 -0.11 0.11 -0.11
0.11 -0.11 1.00 -0.33 0.11 -0.11 0.55
0.33 0.33 -0.33 0.55 -0.33 0.33 0.33
0.55 -0.11 0.11 -0.33 1.00 -0.11 0.11
-0.11 0.11 -0.11 0.33 -0.11 1.00 -0.11
0.33 -0.11 0.55 0.33 0.11 -0.11 0.77
"""
CROSS = """
0.33 -0.55 0.11 -0.11 0.11 -0.55 0.33
-0.55 0.55 -0.55 0.33 -0.55 0.55 -0.55
0.11 -0.55 0.55 -0.77 0.55 -0.55 0.11
-0.11 0.33 -0.77 1.00 -0.77 0.33 -0.11
0.11 -0.55 0.55 -0.77 0.55 -0.55 0.11
-0.55 0.55 -0.55 0.33 -0.55 0.55 -0.55
0.33 -0.55 0.11 -0.11 0.11 -0.55 0.33
"""
POOLED = [
    "1.00 0.33 0.55 0.33\n0.33 1.00 0.33 0.55\n0.55 0.33 1.00 0.11\n0.33 0.55 0.11 0.77",
    "0.55 0.33 0.55 0.33\n0.33 1.00 0.55 0.11\n0.55 0.55 0.55 0.11\n0.33 0.11 0.11 0.33",
    "0.33 0.55 1.00 0.77\n0.55 0.55 1.00 0.33\n1.00 1.00 0.11 0.55\n0.77 0.33 0.55 0.33",
]
PRINTED = 0.0079  # what cutting off after two decimals can take from a ninth


def _picture(text):
    rows = [[1.0 if pixel == "#" else -1.0 for pixel in line.split()] for line in text.split("\n") if line]
    return np.array(rows, "float32")[None, :, :, None]


def _table(text):
    return np.array([[float(value) for value in line.split()] for line in text.split("\n") if line])


def _answer(model, layer, x):
    return keras.ops.convert_to_numpy(keras.Model(model.input, model.get_layer(layer).output)(x))[0]


@pytest.fixture(scope="module")
def xo():
    return toolkit.create_model("xo")


def test_first_feature_maps_are_the_notes_tables(xo):
    maps = _answer(xo, "stage1_conv", _picture(CLEAR_X))
    expected = np.stack([_table(FIRST_DIAGONAL), _table(CROSS), _table(FIRST_DIAGONAL)[::-1]], axis=-1)
    np.testing.assert_allclose(maps, expected, rtol=0, atol=PRINTED)
    np.testing.assert_allclose(maps * 9, np.round(maps * 9), atol=1e-5)  # mean of nine products of ±1


def test_relu_and_pooling_with_partial_windows_are_the_notes_tables(xo):
    rectified = _answer(xo, "stage1_relu", _picture(CLEAR_X))
    np.testing.assert_allclose(rectified[..., 0], np.maximum(_table(FIRST_DIAGONAL), 0), rtol=0, atol=PRINTED)
    pooled = _answer(xo, "stage1_pool1", _picture(CLEAR_X))
    np.testing.assert_allclose(pooled, np.stack([_table(t) for t in POOLED], axis=-1), rtol=0, atol=PRINTED)


def test_last_maps_of_a_clear_x_are_the_notes_vector(xo):
    last = _answer(xo, "stage1_pool2", _picture(CLEAR_X)).transpose(2, 0, 1).ravel()
    expected = [1.0, 0.55, 0.55, 1.0, 1.0, 0.55, 0.55, 0.55, 0.55, 1.0, 1.0, 0.55]
    np.testing.assert_allclose(last, expected, rtol=0, atol=PRINTED)


def test_votes_are_the_notes_averages(xo):
    """For the twelve values of the notes' example: 4.56 / 5 = 0.91 for X; 2.07 / 4 for O, which they cut to 0.51."""
    values = np.array([0.9, 0.65, 0.45, 0.87, 0.96, 0.73, 0.23, 0.63, 0.44, 0.89, 0.94, 0.53], "float32")
    head = keras.Model(xo.get_layer("stage1_pool2").output, xo.output)
    maps = values.reshape(3, 2, 2).transpose(1, 2, 0)[None]
    np.testing.assert_allclose(keras.ops.convert_to_numpy(head(maps))[0], [4.56 / 5, 2.07 / 4], rtol=0, atol=1e-6)


@pytest.mark.parametrize(("picture", "winner"), [(CLEAR_X, 0), (CROOKED_X, 0), (ROUND_O, 1)])
def test_x_and_o_are_told_apart(xo, picture, winner):
    votes = _answer(xo, "head_logits", _picture(picture))
    assert votes.argmax() == winner
    assert votes[winner] > votes[1 - winner] + 0.1


def test_given_weights_are_frozen_and_alike_in_every_model(xo):
    assert not xo.trainable_weights
    again = toolkit.create_model("xo")
    assert all(np.array_equal(a, b) for a, b in zip(xo.get_weights(), again.get_weights(), strict=True))
    backbone = toolkit.create_model("xo", include_top=False, pooling="max")
    np.testing.assert_array_equal(backbone.get_weights()[0], xo.get_weights()[0])


@pytest.mark.parametrize("arguments", [{"num_classes": 3}, {"input_shape": (10, 9, 1)}, {"input_shape": (9, 9, 3)}])
def test_xo_is_for_its_own_pictures_only(arguments):
    with pytest.raises(UserError, match=r"xo is made by hand for input_shape=\(9, 9, 1\) and num_classes=2"):
        toolkit.create_model("xo", **arguments)


def test_dense_baselines_by_formula():
    """A neuron on a 200×200×3 picture has 120,000 weights: the notes' argument against these networks."""
    shape = (200, 200, 3)
    assert count_params(toolkit.create_model("softmax_regression", input_shape=shape, num_classes=1)) == 120_000 + 1
    assert count_params(toolkit.create_model("softmax_regression", input_shape=shape)) == 10 * (120_000 + 1)
    model = toolkit.create_model("mlp", input_shape=(20, 10, 3), hidden=(50, 40, 30), num_classes=7)
    assert count_params(model) == 50 * 601 + 40 * 51 + 30 * 41 + 7 * 31
    assert count_macs(model) == 50 * 600 + 40 * 50 + 30 * 40 + 7 * 30


def test_softmax_regression_is_one_matrix():
    model = toolkit.create_model("softmax_regression", input_shape=(3, 2, 1), num_classes=4)
    x = np.random.default_rng(0).normal(size=(5, 3, 2, 1)).astype("float32")
    kernel, bias = model.get_weights()
    expected = x.reshape(5, 6) @ kernel + bias
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(x)), expected, rtol=0, atol=1e-5)


def test_dropout_follows_every_hidden_layer():
    model = toolkit.create_model("mlp", input_shape=(4, 4, 1), hidden=(5, 6), dropout=0.5)
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == ["InputLayer", "Flatten", "Dense", "Dropout", "Dense", "Dropout", "Dense"]
    assert count_params(model) == count_params(toolkit.create_model("mlp", input_shape=(4, 4, 1), hidden=(5, 6)))
    with pytest.raises(UserError, match=r"dropout must be in \[0, 1\), got 1"):
        toolkit.create_model("mlp", dropout=1)


@pytest.mark.parametrize("hidden", [(), (10, 0)])
def test_widths_are_checked(hidden):
    with pytest.raises(UserError, match="hidden must be one or more positive widths"):
        toolkit.create_model("mlp", hidden=hidden)


@pytest.mark.parametrize(
    ("padding", "sides", "fc", "total"),
    [("valid", (126, 63, 61, 30), 3_686_528, 3_697_962), ("same", (128, 64, 64, 32), 4_194_432, 4_205_866)],
)
def test_exercise_is_counted_step_by_step(padding, sides, fc, total):
    rows = layer_table(toolkit.create_model("exercise_cnn", padding=padding))
    assert [row.output_shape[0] for row in rows[1:5]] == list(sides)
    assert [row.params for row in rows if row.params] == [896, 9_248, fc, 1_290]
    assert sum(row.params for row in rows) == total


def test_exercise_padding_is_checked():
    with pytest.raises(UserError, match=r"unknown padding 'full'.*same, valid"):
        toolkit.create_model("exercise_cnn", padding="full")
