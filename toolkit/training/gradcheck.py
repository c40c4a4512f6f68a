"""Automatic gradients held against numerical ones, in float64: a way to find a layer whose gradient is wrong."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.errors import UserError
from toolkit.layers import StochasticDepth
from toolkit.lazy import keras
from toolkit.training.gradients import loss_functions, values
from toolkit.training.prepare import LOGITS

#: Relative differences up to here count as equal. Float64 leaves about 1e-7; a wrong gradient shows as 1e-3 and more.
TOLERANCE = 1e-5
# A step that takes some ReLU or maximum past its kink measures a slope that is none; a smaller one rarely does, but
# rounds more. So an entry that disagrees is measured again, and the best agreement counts: a wrong gradient has none.
# The smallest are for VGG-19, with 300,000 ReLUs per picture of 32 × 32, and for plain networks of 44 layers and more,
# whose slopes are steep.
_STEPS = (1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-4)
# What rounding of the loss does to a slope, in units of loss / step: 16 times epsilon was seen after 32 layers.
_ROUNDING = 32 * np.finfo(np.float64).eps


@dataclass(frozen=True)
class CheckedVariable:
    """One variable's outcome.

    Attributes:
        name: layer and variable.
        shape: of the variable.
        num_checked: entries compared.
        norm: of the automatic gradient over them.
        difference: ‖a − n‖ / (‖a‖ + ‖n‖) of the automatic and the numerical gradient over them.
    """

    name: str
    shape: tuple[int, ...]
    num_checked: int
    norm: float
    difference: float


def in_float64(model: "keras.Model") -> "keras.Model":
    """The network rebuilt in float64 with the same weights, and with nothing random: no dropout, no layer dropped."""

    def rebuild(layer: "keras.layers.Layer") -> "keras.layers.Layer":
        return type(layer).from_config(layer.get_config() | {"dtype": "float64"})

    rebuilt = keras.models.clone_model(model, clone_function=rebuild)
    rebuilt.set_weights(model.get_weights())
    for layer in rebuilt.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
        elif isinstance(layer, StochasticDepth):
            layer.survival = 1.0
    return rebuilt


def check_gradients(
    model: "keras.Model",
    inputs: np.ndarray,
    labels: np.ndarray,
    *,
    batch_statistics: bool = True,
    num_entries: int = 4,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[CheckedVariable]:
    """Compare, for some entries of every trainable variable, the automatic gradient with a central difference.

    Args:
        model: computes in float64 and has nothing random, as ``in_float64`` gives it.
        inputs: (batch, height, width, channels).
        labels: integer class per input.
        batch_statistics: batch normalisation with the batch's statistics; else with its running averages, which are
            set to them first, because a fresh network's would let activations of deep ones grow beyond bounds.
        num_entries: per variable, chosen at random.
        seed: of the choice.
        progress: called with (done, total) variables.

    Returns:
        One row per variable, the worst first.

    Raises:
        UserError: the backend is not TensorFlow; under JAX, Keras takes means and batch statistics in float32.
    """
    if keras.backend.backend() != "tensorflow":
        raise UserError(f"a gradient check needs KERAS_BACKEND=tensorflow, got {keras.backend.backend()}")
    if not batch_statistics:
        _set_running_averages(model, inputs)
    functions = loss_functions(model, _summed_cross_entropy, training=batch_statistics)
    inputs, labels = np.asarray(inputs, np.float64), np.asarray(labels, np.int32)
    trainable, others = values(model)
    automatic = functions.gradients(trainable, others, inputs, labels)
    noise = _ROUNDING * float(functions.loss(trainable, others, inputs, labels)) / _STEPS[0]
    rng = np.random.default_rng(seed)
    rows = []
    for index, variable in enumerate(model.trainable_variables):

        def loss(array: np.ndarray, index: int = index) -> float:
            changed = [*trainable[:index], keras.ops.convert_to_tensor(array), *trainable[index + 1 :]]
            return float(functions.loss(changed, others, inputs, labels))

        array = np.copy(keras.ops.convert_to_numpy(trainable[index]))
        entries = rng.choice(array.size, min(num_entries, array.size), replace=False)
        wanted = np.asarray(keras.ops.convert_to_numpy(automatic[index])).ravel()[entries]
        numerical = np.array([_slope(loss, array, e, a, noise) for e, a in zip(entries, wanted, strict=True)])
        norm, difference = float(np.linalg.norm(wanted)), _relative_difference(wanted, numerical, noise)
        rows.append(CheckedVariable(variable.path, tuple(array.shape), len(entries), norm, difference))
        if progress:
            progress(index + 1, len(trainable))
    return sorted(rows, key=lambda row: -row.difference)


def _set_running_averages(model: "keras.Model", inputs: np.ndarray) -> None:
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    model(inputs, training=True)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def _slope(loss: Callable[[np.ndarray], float], array: np.ndarray, entry: int, expected: float, noise: float) -> float:
    """The central difference that agrees best."""
    flat, found, original = array.reshape(-1), [], array.reshape(-1)[entry]
    for step in _STEPS:
        flat[entry] = original + step
        above = loss(array)
        flat[entry] = original - step
        below = loss(array)
        flat[entry] = original
        found.append((above - below) / (2 * step))
        error = abs(found[-1] - expected)
        if error <= noise or error <= TOLERANCE / 10 * abs(expected):
            break
    return min(found, key=lambda slope: abs(slope - expected))


def _relative_difference(a: np.ndarray, n: np.ndarray, noise: float) -> float:
    # The last summand matters for gradients that are nothing but rounding, as of a bias before batch normalisation.
    return float(np.linalg.norm(a - n) / (np.linalg.norm(a) + np.linalg.norm(n) + noise / TOLERANCE))


def _summed_cross_entropy(labels: Any, outputs: Any) -> Any:
    each = outputs if isinstance(outputs, dict) else {LOGITS: outputs}
    return sum(
        keras.ops.mean(keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True))
        for logits in each.values()
    )
