"""Loss and gradients of one batch outside ``fit``: their norms, where they stop being finite, and a numerical check."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.errors import UserError
from toolkit.layers import StochasticDepth
from toolkit.lazy import keras
from toolkit.progress import track
from toolkit.training.losses import LOGITS, Loss

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
class LossFunctions:
    """Compiled functions ``(trainable, others, inputs, labels)``, where the first two are what ``values`` gives.

    The loss is a scalar, and its gradients one tensor per trainable variable.
    """

    loss: Callable[..., Any]
    gradients: Callable[..., list[Any]]


def values(model: "keras.Model") -> tuple[list[Any], list[Any]]:
    """Read the tensors that the trainable and the other variables hold: weights, running averages, random seeds."""
    convert = keras.ops.convert_to_tensor
    return [convert(v) for v in model.trainable_variables], [convert(v) for v in model.non_trainable_variables]


def loss_functions(model: "keras.Model", loss: Loss, *, training: bool) -> LossFunctions:
    """Compile functions that leave the network's state as it is, whatever its layers would update in training.

    With ``training``, layers behave as they do in training.

    Raises:
        UserError: the backend is neither TensorFlow nor JAX.
    """

    def value(trainable: list[Any], others: list[Any], inputs: Any, labels: Any) -> Any:
        state = zip([*model.trainable_variables, *model.non_trainable_variables], [*trainable, *others], strict=True)
        with keras.StatelessScope(state_mapping=list(state)):
            return loss(labels, model(inputs, training=training))

    match keras.backend.backend():
        case "tensorflow":
            return _for_tensorflow(value)
        case "jax":
            import jax

            return LossFunctions(jax.jit(value), jax.jit(jax.grad(value)))
        case other:
            raise UserError(f"gradients need KERAS_BACKEND=tensorflow or jax, got {other}")


def layer_norms(model: "keras.Model", gradients: list[Any]) -> dict[str, float]:
    """Compute the Euclidean norm of each layer's gradients together, by layer name, input to output."""
    of_variable = {id(v): gradient for v, gradient in zip(model.trainable_variables, gradients, strict=True)}
    norms = {}
    for layer in model.layers:
        arrays = [keras.ops.convert_to_numpy(of_variable[id(v)]) for v in layer.trainable_variables]
        if arrays:
            norms[layer.name] = float(np.sqrt(sum(np.sum(np.square(a, dtype=np.float64)) for a in arrays)))
    return norms


def _for_tensorflow(value: Callable[..., Any]) -> LossFunctions:
    import tensorflow as tf

    def gradients(trainable: list[Any], others: list[Any], inputs: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            result = value(trainable, others, inputs, labels)
        return tape.gradient(result, trainable, unconnected_gradients="zero")

    return LossFunctions(*(tf.function(f, reduce_retracing=True, autograph=False) for f in (value, gradients)))


def replay(model: "keras.Model", batches: Iterable[tuple[Any, ...]], loss: Loss) -> str:
    """Train step by step, from the state before the first of ``batches``, until a step spoils the network.

    Returns:
        Where it began, as part of a sentence, such as ``"at the output of layer 'stage1_conv'"``.
    """
    for batch in batches:
        before = [np.copy(keras.ops.convert_to_numpy(variable)) for variable in model.variables]
        result = model.train_on_batch(*batch)
        finite = np.all(np.isfinite(np.ravel(result)[0]))
        if not finite or not all(_is_finite(variable) for variable in model.trainable_variables):
            for variable, array in zip(model.variables, before, strict=True):
                variable.assign(array)
            return find_not_finite(model, batch[0], batch[1], loss)
    return "but not again when the epoch was repeated, so the hardware may be at fault"


def find_not_finite(model: "keras.Model", inputs: Any, labels: Any, loss: Loss) -> str:
    """Find where, forwards and then backwards through the network, the first value appears that is not finite."""
    if not _is_finite(inputs):
        return "in the input pictures"
    names = [layer.name for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    probe = keras.Model(model.inputs[0], [model.get_layer(name).output for name in names])
    with keras.StatelessScope():
        outputs = probe(inputs, training=True)
    for name, output in zip(names, outputs, strict=True):
        if not _is_finite(output):
            return f"at the output of layer {name!r}"
    gradients = loss_functions(model, loss, training=True).gradients(*values(model), inputs, labels)
    spoilt = {id(v) for v, g in zip(model.trainable_variables, gradients, strict=True) if not _is_finite(g)}
    for layer in reversed(model.layers):
        if any(id(variable) in spoilt for variable in layer.trainable_variables):
            return f"in the gradient of layer {layer.name!r}"
    return "in the optimizer's step, from finite gradients"


def _is_finite(array: Any) -> bool:
    return bool(np.all(np.isfinite(keras.ops.convert_to_numpy(keras.ops.cast(array, "float32")))))


@dataclass(frozen=True)
class CheckedVariable:
    """The result of a gradient check for ``num_checked`` entries of one variable.

    Over these, ``norm`` is that of the automatic gradient a, and ``difference`` ‖a − n‖ / (‖a‖ + ‖n‖) from the
    numerical gradient n.
    """

    name: str
    shape: tuple[int, ...]
    num_checked: int
    norm: float
    difference: float


def in_float64(model: "keras.Model") -> "keras.Model":
    """Rebuild a network in float64 with the same weights, and with nothing random: no dropout, no layer dropped."""

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
) -> list[CheckedVariable]:
    """Compare the automatic gradient with a central difference, for entries of every variable drawn from ``seed``.

    Args:
        model: computes in float64 and has nothing random, as ``in_float64`` gives it.
        inputs: (batch, height, width, channels).
        labels: integer class per input.
        batch_statistics: batch normalisation with the batch's statistics; else with its running averages, which are
            set to them first, because a fresh network's would let activations of deep ones grow beyond bounds.
        num_entries: per variable.

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
    for index, variable in enumerate(track(model.trainable_variables, "checking variables")):

        def loss(array: np.ndarray, index: int = index) -> float:
            changed = [*trainable[:index], keras.ops.convert_to_tensor(array), *trainable[index + 1 :]]
            return float(functions.loss(changed, others, inputs, labels))

        array = np.copy(keras.ops.convert_to_numpy(trainable[index]))
        entries = rng.choice(array.size, min(num_entries, array.size), replace=False)
        wanted = np.asarray(keras.ops.convert_to_numpy(automatic[index])).ravel()[entries]
        numerical = np.array([_slope(loss, array, e, a, noise) for e, a in zip(entries, wanted, strict=True)])
        norm, difference = float(np.linalg.norm(wanted)), _relative_difference(wanted, numerical, noise)
        rows.append(CheckedVariable(variable.path, tuple(array.shape), len(entries), norm, difference))
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
    """Compute the central difference that agrees best."""
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
