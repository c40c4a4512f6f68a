"""Stages of networks that others named: told by resolution, one tensor leading out of each."""

import numpy as np
import pytest

from toolkit.lazy import keras, layers
from toolkit.network import name_stages, stage_of, with_new_head
from toolkit.transfer.freeze import cut_tensors, stages_of


def plain():
    """As a tutorial writes it: names by Keras, which tell no stage."""
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            *(layers.Conv2D(4, 3, padding="same", activation="relu"), layers.MaxPooling2D()),
            *(layers.Conv2D(8, 3, padding="same", activation="relu"), layers.MaxPooling2D()),
            *(layers.Conv2D(8, 3, padding="same", activation="relu"), layers.Flatten()),
            *(layers.Dense(16, activation="relu"), layers.Dense(10)),
        ]
    )


def mobilenet():
    return keras.applications.MobileNetV2(weights=None, input_shape=(96, 96, 3), alpha=0.35)


@pytest.mark.parametrize(
    ("build", "stages"), [(plain, ("stem", "stage1", "stage2", "head")), (mobilenet, ("stem", *"1234", "head"))]
)
def test_names_of_others_get_stages_by_resolution(build, stages):
    keras.utils.set_random_seed(0)
    model = with_new_head(build(), 3)
    named = name_stages(model)
    assert stages_of(named) == tuple(f"stage{stage}" if stage.isdigit() else stage for stage in stages)
    assert [layer.name for layer in model.operations][1:] == [
        layer.name.removeprefix(f"{stage_of(layer.name)}_") if layer.name != "head_logits" else layer.name
        for layer in named.operations
    ][1:]
    assert all(len(cut_tensors(named, stage)) == 1 for stage in stages_of(named)[:-1])
    pictures = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:])).astype("float32")
    np.testing.assert_array_equal(named(pictures, training=False), model(pictures, training=False))


def test_names_that_tell_stages_stay():
    x = keras.Input((8, 8, 3), name="pictures")
    y = layers.Conv2D(4, 3, name="stem_conv")(x)
    y = layers.Conv2D(4, 3, name="stage1_conv1")(y)
    y = layers.ReLU(name="stage1_relu")(y)
    y = layers.GlobalAveragePooling2D(name="head_pool")(y)
    model = keras.Model(x, layers.Dense(2, name="head_logits")(y))
    assert name_stages(model) is model
