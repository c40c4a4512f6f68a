"""Training on TensorFlow's CPU: batch normalisation in one operation, and one of the graph's passes left out."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from toolkit.lazy import keras


@contextmanager
def fused_batch_norm(model: "keras.Model") -> Iterator[None]:
    """Train what is trained inside with TensorFlow's fused batch normalisation, where Keras would run it in parts.

    Keras passes over the activations again and again, which a CPU's memory is slow at; ``benchmarks/training.py``
    measures what that costs. The fused operation gives the same answers and running averages but for rounding. The
    layers stay Keras' own: what is saved, exported or called in inference knows nothing of it. Other backends and GPUs
    compile and fuse by themselves, and nothing changes there.

    Args:
        model: a flat network; layers that the operation cannot compute keep Keras' way.
    """
    layers = [layer for layer in model.layers if _is_fusable(layer)] if _is_tensorflow_on_cpu() else []
    for layer in layers:
        layer.call = partial(_call, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.call  # of the object, which uncovers that of the class


def _is_tensorflow_on_cpu() -> bool:
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU")


def _is_fusable(layer: "keras.Layer") -> bool:
    """Tell plain batch normalisation of the last axis of feature maps from everything else."""
    return (
        type(layer) is keras.layers.BatchNormalization
        and layer.built
        and layer.input_spec.ndim == 4
        and layer.axis in (-1, 3)
        and layer.compute_dtype != "float64"
        and not layer.renorm
        and not layer.synchronized
    )


def _call(layer: "keras.layers.BatchNormalization", inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
    """Call a layer as Keras does, in the one case of training statistics of whole feature maps by the operation."""
    if not (training and layer.trainable) or mask is not None:
        return type(layer).call(layer, inputs, training=training, mask=mask)
    import tensorflow as tf

    inputs = keras.ops.cast(inputs, layer.compute_dtype)
    channels = inputs.shape[-1]
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=keras.ops.cast(layer.gamma, "float32") if layer.scale else tf.ones(channels),
        offset=keras.ops.cast(layer.beta, "float32") if layer.center else tf.zeros(channels),
        mean=tf.zeros(0),  # only used in inference, as is the next
        variance=tf.zeros(0),
        epsilon=layer.epsilon,
        is_training=True,
    )
    # The operation estimates the variance of a population, by n - 1; Keras averages that of the batch, by n.
    n = tf.cast(tf.size(inputs) // channels, tf.float32)
    for average, now in ((layer.moving_mean, mean), (layer.moving_variance, variance * ((n - 1) / n))):
        average.assign(keras.ops.cast(average, "float32") * layer.momentum + now * (1 - layer.momentum))
    return outputs


def spare_grouped_convolutions(model: "keras.Model") -> None:
    """Switch TensorFlow's remapper off, for the process, before a network with grouped convolutions trains.

    It notes the shapes that convolutions see, and where the batch's length is open, oneDNN's pass reads one behind a
    grouped convolution that is unknown, which ends the process (TensorFlow 2.21).
    """
    if _is_tensorflow_on_cpu() and any(getattr(layer, "groups", 1) > 1 for layer in model.layers):
        tensorflow = importlib.import_module("tensorflow")
        tensorflow.config.optimizer.set_experimental_options({"remapping": False})
