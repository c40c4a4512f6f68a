"""The working behind a layer's figures: what it says is what the layer table counts."""

import re

import keras
import pytest

import toolkit
from toolkit.arithmetic import layer_table, working


def worked_out(text: str) -> int:
    """Compute what a working says, by Python's own arithmetic."""
    assert re.fullmatch(r"[\d ·+−/()⌊⌋]+", text), text
    python = text.translate(str.maketrans({"·": "*", "−": "-", "⌊": "(", "⌋": ")", "/": "//"}))
    return eval(python)


@pytest.mark.parametrize(
    "name",
    [
        "lenet5",
        "nin_cifar",
        "resnet20",
        "googlenet_bn",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("alexnet", "alexnet_owt", "googlenet", "vgg11_bn", "resnet50")
        ),
    ],
)
def test_every_working_gives_the_tables_figure(name):
    with keras.StatelessScope():  # without weights, which nothing here looks at
        model = toolkit.create_model(name)
    for layer, row in zip(model.layers, layer_table(model), strict=True):
        found = working(layer)
        assert found.num_params == row.params, row
        if found.params:
            assert worked_out(found.params) == row.params, row
        assert (worked_out(found.macs) if found.macs else 0) == row.macs, row
        sides = row.output_shape[:2] if len(row.output_shape) == 3 else row.output_shape
        for text, side in zip(found.size.split(", "), sides, strict=False):
            assert not found.size or text == "as it is" or worked_out(text) == side, row
        if row.type in ("Conv2D", "MaxPooling2D", "AveragePooling2D", "ZeroPadding2D"):
            assert found.size or row.output_shape[:2] == layer.input.shape[1:3], row


def test_frozen_weights_are_counted_and_statistics_are_not():
    inputs = keras.Input((8, 6, 3))
    conv, norm = keras.layers.Conv2D(4, (3, 2), padding="same", strides=2), keras.layers.BatchNormalization()
    norm(conv(inputs))
    conv.trainable = False
    assert working(conv).num_params == (3 * 2 * 3 + 1) * 4
    assert working(conv).size == "⌊(8 + 1 − 3)/2⌋ + 1, ⌊(6 − 2)/2⌋ + 1"
    assert (working(norm).params, working(norm).num_params) == ("2·4", 8)
