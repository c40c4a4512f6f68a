import keras
import numpy as np
import pytest
from keras import ops

from toolkit.layers import StochasticDepth
from toolkit.training.gradcheck import TOLERANCE, check_gradients, in_float64

RNG = np.random.default_rng(0)


def scaled(factor: float):
    """The identity, whose gradient is said to be ``factor`` times what it is."""

    @ops.custom_gradient
    def identity(x):
        return ops.add(x, 0), lambda *args, upstream=None: factor * (args[0] if upstream is None else upstream)

    return identity


class Scaled(keras.layers.Layer):
    def __init__(self, factor: float, **kwargs) -> None:
        super().__init__(**kwargs)
        self.factor = factor

    def call(self, inputs):
        return scaled(self.factor)(inputs)

    def get_config(self):
        return super().get_config() | {"factor": self.factor}


def network(factor: float) -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.layers.Input((12, 12, 2))
    x = keras.layers.Conv2D(4, 3, name="stage1_conv")(inputs)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="stage1_bn")(Scaled(factor)(x)))
    x = keras.layers.Dropout(0.5)(keras.layers.Flatten()(x))
    return in_float64(keras.Model(inputs, keras.layers.Dense(3, name="head_logits")(x)))


@pytest.mark.parametrize("batch_statistics", [True, False])
@pytest.mark.parametrize("factor", [1.0, 1.01, -1.0])
def test_wrong_gradient_is_found_and_named(factor, batch_statistics):
    rows = check_gradients(
        network(factor), RNG.normal(size=(4, 12, 12, 2)), np.arange(4) % 3, batch_statistics=batch_statistics
    )
    by_layer = {row.name: row.difference for row in rows}
    wrong = {name for name, difference in by_layer.items() if difference > TOLERANCE}
    if factor == 1.0:
        assert not wrong
        return
    # What lies behind the wrong layer has no part in it; a bias before batch statistics has no gradient at all.
    assert "stage1_conv/kernel" in wrong <= {"stage1_conv/kernel", "stage1_conv/bias"}
    # The relative difference of the notes: |a − n| / (|a| + |n|), with a = factor · n.
    expected = abs(factor - 1) / (abs(factor) + 1)
    assert by_layer["stage1_conv/kernel"] == pytest.approx(expected, rel=0.02)
    assert rows[0].name in wrong


def test_rebuilt_network_is_the_same_in_float64_and_has_no_chance_in_it():
    inputs = keras.layers.Input((64,))
    x = keras.layers.Dropout(0.5)(keras.layers.Dense(64, name="stage1_fc")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(10, name="head_logits")(StochasticDepth(0.5)(x)))
    rebuilt = in_float64(model)
    data = RNG.normal(size=(2, 64))
    answers = [np.asarray(rebuilt(data, training=True)) for _ in range(8)]
    assert answers[0].dtype == np.float64
    for answer in answers:
        np.testing.assert_array_equal(answer, answers[0])
    kernel, bias, head, head_bias = model.get_weights()
    np.testing.assert_allclose(answers[0], (data @ kernel + bias) @ head + head_bias, rtol=1e-4, atol=1e-5)
