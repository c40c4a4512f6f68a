"""Loss and gradients of one batch outside ``fit``, to look at them: TensorFlow and JAX say it differently."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.errors import UserError
from toolkit.lazy import keras

#: ``loss(labels, outputs)`` of a batch, a scalar.
Loss = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class LossFunctions:
    """Compiled functions ``(trainable, others, inputs, labels)``, where the first two are what ``values`` gives.

    Attributes:
        loss: a scalar tensor.
        gradients: of it, one tensor per trainable variable.
    """

    loss: Callable[..., Any]
    gradients: Callable[..., list[Any]]


def values(model: "keras.Model") -> tuple[list[Any], list[Any]]:
    """The tensors that the trainable and the other variables hold now: weights, running averages, random seeds."""
    convert = keras.ops.convert_to_tensor
    return [convert(v) for v in model.trainable_variables], [convert(v) for v in model.non_trainable_variables]


def loss_functions(model: "keras.Model", loss: Loss, *, training: bool) -> LossFunctions:
    """Functions that leave the network's state as it is, whatever its layers would update in training.

    Args:
        model: any network.
        loss: of the labels and the network's outputs.
        training: whether layers behave as they do in training.

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
    """The Euclidean norm of each layer's gradients together, by layer name, input to output."""
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
