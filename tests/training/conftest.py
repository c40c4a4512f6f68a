from pathlib import Path

import keras
import pytest


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, make_folder) -> Path:
    """28 to train on, in batches of 8, 8, 8 and 4, unevenly divided among the classes; 11 to validate on."""
    return make_folder(tmp_path_factory.mktemp("pictures"), {"train/a": 20, "train/b": 8, "val/a": 6, "val/b": 5})


@pytest.fixture
def convolutional():
    """Makes a small network with dropout and an auxiliary head, a new one at each call."""

    def make() -> keras.Model:
        inputs = keras.layers.Input((8, 8, 30))
        x = keras.layers.Dropout(0.5)(keras.layers.Conv2D(200, 3, name="stage1_conv")(inputs))
        x = keras.layers.GlobalAveragePooling2D()(x)
        heads = {"logits": keras.layers.Dense(10, name="head_logits")(x), "aux": keras.layers.Dense(10, name="aux")(x)}
        return keras.Model(inputs, heads)

    return make
