"""Gradients of a sum of logits by a map within a network, on TensorFlow and JAX."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.errors import UserError
from toolkit.lazy import keras
from toolkit.network import inputs_of, outputs_of


@dataclass(frozen=True)
class Halves:
    """A network cut in two at a map.

    Attributes:
        front: picture to the map, and to what else leads past it.
        back: from these to the logits.
    """

    front: "keras.Model"
    back: "keras.Model"


def cut_at(model: "keras.Model", tensor: "keras.KerasTensor") -> Halves:
    """Cut a flat functional network at a map; its layers are shared."""
    behind = {id(tensor)}
    past: dict[int, Any] = {}
    for layer in model.operations:
        read = inputs_of(layer)
        if layer.output is not tensor and any(id(one) in behind for one in read):
            behind.update(map(id, outputs_of(layer)))
            past |= {id(one): one for one in read if id(one) not in behind}
    tensors = [tensor, *past.values()] if past else tensor
    return Halves(keras.Model(model.input, tensors), keras.Model(tensors, model.outputs[0]))


def map_and_gradient(halves: Halves, inputs: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute a picture's map, and the gradient by it of a weighted sum of logits: each (rows, columns, channels).

    Args:
        halves: of the network.
        inputs: float32 (1, height, width, channels).
        weights: one per class.

    Raises:
        UserError: the backend is neither TensorFlow nor JAX.
    """
    values = halves.front(inputs, training=False)
    cells, *past = values if isinstance(values, list | tuple) else [values]

    def logits(value: Any) -> Any:
        return halves.back([value, *past] if past else value, training=False)

    gradient = _gradient(logits, cells, weights.astype(np.float32))
    return keras.ops.convert_to_numpy(cells)[0], keras.ops.convert_to_numpy(gradient)[0]


def _gradient(logits: Any, cells: Any, weights: np.ndarray) -> Any:
    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            with tf.GradientTape() as tape:
                tape.watch(cells)
                score = tf.reduce_sum(logits(cells) * weights)
            return tape.gradient(score, cells, unconnected_gradients="zero")
        case "jax":
            import jax

            return jax.grad(lambda value: (logits(value) * weights).sum())(cells)
        case other:
            raise UserError(
                f"Grad-CAM needs KERAS_BACKEND=tensorflow or jax, got {other}; occlusion works with all of them"
            )
