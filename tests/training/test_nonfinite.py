import keras
import numpy as np
import pytest
from keras import ops

from toolkit.training.losses import SparseCrossEntropy
from toolkit.training.nonfinite import find_not_finite, replay

INPUTS = np.ones((4, 6), np.float32)
LABELS = np.array([0, 1, 2, 0], np.int32)
LOSS = SparseCrossEntropy()


class Root(keras.layers.Layer):
    """Its value at 0 is 0, and its slope there infinite."""

    def call(self, inputs):
        return ops.sqrt(ops.abs(inputs))


def network(middle: keras.layers.Layer) -> keras.Model:
    inputs = keras.layers.Input((6,))
    x = keras.layers.Dense(5, name="stage1_fc")(inputs)
    x = keras.layers.Dense(5, name="stage2_fc")(middle(x))
    return keras.Model(inputs, keras.layers.Dense(3, name="head_logits")(x))


def test_pictures_are_looked_at_first():
    spoilt = INPUTS.copy()
    spoilt[2, 3] = np.inf
    assert find_not_finite(network(keras.layers.ReLU()), spoilt, LABELS, LOSS) == "in the input pictures"


@pytest.mark.parametrize("layer", ["stage1_fc", "stage2_fc", "head_logits"])
def test_first_output_that_is_not_finite_is_named(layer):
    model = network(keras.layers.ReLU())
    model.get_layer(layer).bias.assign(np.full(model.get_layer(layer).bias.shape, np.nan))
    assert find_not_finite(model, INPUTS, LABELS, LOSS) == f"at the output of layer {layer!r}"


def test_first_gradient_that_is_not_finite_is_named_going_backwards():
    """All outputs are finite, and so are the gradients behind the root: the first spoilt one is just before it."""
    model = network(Root(name="root"))
    model.get_layer("stage1_fc").kernel.assign(np.zeros((6, 5)))
    assert find_not_finite(model, INPUTS, LABELS, LOSS) == "in the gradient of layer 'stage1_fc'"


def test_replay_stops_at_the_step_that_spoils_and_blames_what_was_there_before_it():
    """The third batch divides by nothing; by the fourth, every weight is NaN, and any layer could be blamed."""
    model = network(Root(name="root"))
    model.compile(keras.optimizers.SGD(0.01), LOSS)
    good = [(INPUTS * scale, LABELS) for scale in (1.0, 2.0)]
    bias = model.get_layer("stage1_fc").bias
    bias.assign(np.full(5, 50.0))
    assert replay(model, good, LOSS).startswith("but not again")
    model.get_layer("stage1_fc").kernel.assign(np.zeros((6, 5)))
    bias.assign(np.zeros(5))
    assert replay(model, good, LOSS) == "in the gradient of layer 'stage1_fc'"
    assert np.all(np.isfinite(model.get_layer("head_logits").kernel))
