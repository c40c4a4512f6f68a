"""A flat Keras graph handed over to another runtime, layer by layer, by a table of rules.

Layers are found by class name; a network with a layer outside the table is refused by that layer's name. The runtimes
written for here have channels first, so what a rule is given is ``(batch, channels, height, width)`` or a matrix.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from toolkit.lazy import keras
from toolkit.network import inputs_of

#: Activations that every runtime here has an operation for.
ACTIVATIONS = ("linear", "relu", "sigmoid", "tanh")


class UntranslatableError(Exception):
    """A layer or an option that a translation has no rule for; the message names it."""


def translate(model: Any, first: Any, rules: Mapping[str, Callable[..., Any]], activate: Callable[..., Any]) -> Any:
    """Apply a rule per layer, from the network's input to its output.

    Args:
        model: a functional ``keras.Model`` with one input and one output.
        first: the input in the other runtime, normalised, channels first.
        rules: by class name, ``rule(layer, *inputs)`` gives the layer's output before its activation.
        activate: ``activate(name, node)``, for the ``ACTIVATIONS`` but ``"linear"``.

    Returns:
        The network's output in the other runtime.

    Raises:
        UntranslatableError: the network has a layer or an activation without a rule, or uses a layer twice.
    """
    tensors = {id(model.inputs[0]): first}
    for layer in model.layers:
        kind = type(layer).__name__
        if kind == "InputLayer":
            continue
        if kind not in rules:
            raise UntranslatableError(f"layer {layer.name!r} is a {kind}")
        if getattr(layer, "data_format", None) == "channels_first":
            raise UntranslatableError(f"layer {layer.name!r} has its channels first")
        if id(layer.output) in tensors:
            continue
        tensors_in = (_known(tensors, tensor, f"layer {layer.name!r}") for tensor in inputs_of(layer))
        node = rules[kind](layer, *tensors_in)
        name = getattr(getattr(layer, "activation", None), "__name__", "linear")
        if name not in ACTIVATIONS:
            raise UntranslatableError(f"layer {layer.name!r} has the activation {name}")
        tensors[id(layer.output)] = node if name == "linear" else activate(name, node)
    return _known(tensors, model.outputs[0], "the output")


def _known(tensors: Mapping[int, Any], tensor: Any, reader: str) -> Any:
    # Of a layer that is used twice, Keras tells the first output only.
    if id(tensor) not in tensors:
        raise UntranslatableError(f"{reader} reads a layer that is used more than once")
    return tensors[id(tensor)]


def require_plain_relu(layer: Any) -> None:
    """Refuse a rectifier that is more than ``max(x, 0)``."""
    if layer.negative_slope or layer.threshold or layer.max_value is not None:
        raise UntranslatableError(f"layer {layer.name!r} is a ReLU with a slope, a threshold or a ceiling")


def require_channels(layer: Any) -> None:
    """Refuse a layer that works along another axis than channels."""
    if layer.axis not in (-1, len(layer.output.shape) - 1):
        raise UntranslatableError(f"layer {layer.name!r} works along axis {layer.axis}, not channels")


def require_vectors(layer: Any) -> None:
    """Refuse a dense layer that reads maps."""
    if len(layer.input.shape) != 2:
        raise UntranslatableError(f"layer {layer.name!r} reads {layer.input.shape}, not (batch, features)")


def conv_padding(layer: Any) -> tuple[list[int], list[int]]:
    """Rows and columns that a convolution adds before and after its input."""
    return _padding(layer, layer.kernel_size, layer.dilation_rate)


def pool_padding(layer: Any) -> tuple[list[int], list[int]]:
    """Rows and columns that a pooling layer adds before and after its input."""
    return _padding(layer, layer.pool_size, (1, 1))


def _padding(layer: Any, kernel: tuple[int, int], dilation: tuple[int, int]) -> tuple[list[int], list[int]]:
    """As TensorFlow divides them: the odd one goes after."""
    if layer.padding == "valid":
        return [0, 0], [0, 0]
    spans = [(size - 1) * step + 1 for size, step in zip(kernel, dilation, strict=True)]
    totals = [
        max(0, (-(-side // stride) - 1) * stride + span - side)
        for side, stride, span in zip(layer.input.shape[1:3], layer.strides, spans, strict=True)
    ]
    return [total // 2 for total in totals], [total - total // 2 for total in totals]


def array(variable: Any) -> np.ndarray:
    """A weight as float32."""
    return np.asarray(keras.ops.convert_to_numpy(variable), np.float32)
