"""A small network that knows three textures, trained once: its maps must find them in pictures made of two."""

import keras
import numpy as np
import pytest
from textured import LABELS, texture, two_halves

from toolkit.data.pixels.decode import normalize
from toolkit.explain import Explainer
from toolkit.spec import Preprocessing

PREPROCESSING = Preprocessing((48, 48), mean=(0.5,) * 3, std=(0.5,) * 3)


def build(head):
    x = inputs = keras.Input((48, 48, 3))
    for stage, filters in enumerate((12, 24, 24), start=1):
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"stage{stage}_conv")(x)
        if stage < 3:
            x = keras.layers.MaxPooling2D(2, name=f"stage{stage}_pool")(x)
    if head == "linear":
        x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    else:
        x = keras.layers.MaxPooling2D(3, name="head_shrink")(x)
        x = keras.layers.Flatten(name="head_flatten")(x)
        x = keras.layers.Dense(24, activation="relu", name="head_fc")(x)
    return keras.Model(inputs, keras.layers.Dense(3, name="head_logits")(x))


def train(head):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    pixels = np.stack([texture(LABELS[index % 3], 48, 48, rng) for index in range(240)])
    model = build(head)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(5e-3), loss, metrics=["accuracy"])
    model.fit(normalize(pixels, PREPROCESSING), np.arange(240) % 3, batch_size=24, epochs=8, verbose=0)
    return Explainer(model, PREPROCESSING, LABELS)


@pytest.fixture(scope="session")
def textures():
    """The network with a linear classifier of its averaged last map. Not to be changed."""
    return train("linear")


@pytest.fixture(scope="session")
def flattened():
    """The network with a hidden layer on its flattened last map. Not to be changed."""
    return train("hidden")


@pytest.fixture(scope="session")
def halved():
    """Draw pictures of two halves: ``(pixels, left class, right class)`` of each."""
    rng = np.random.default_rng(1)
    pairs = [(first, second) for first in LABELS for second in LABELS if first != second]
    return [(two_halves(*pair, rng), *pair) for pair in pairs * 4]
