"""ONNX operations for Keras' stock layers, one rule a class; custom layers carry their own (``toolkit.layers``).

ONNX has channels first: what a rule is given is ``(batch, channels, height, width)`` or a matrix.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.lazy import keras

if TYPE_CHECKING:  # the module brings Keras
    from toolkit.layers import OnnxGraph


class UntranslatableError(Exception):
    """A layer or an option without a rule; the message names it."""


def _convolution(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
    kernel = graph.constant("kernel", _array(layer.kernel).transpose(3, 2, 0, 1))
    return _convolved(graph, layer, x, kernel, layer.groups)


def _depthwise_convolution(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
    height, width, channels, multiplier = layer.kernel.shape
    kernel = _array(layer.kernel).transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)
    return _convolved(graph, layer, x, graph.constant("kernel", kernel), channels)


def _convolved(graph: "OnnxGraph", layer: "keras.Layer", x: str, kernel: str, groups: int) -> str:
    bias = [graph.constant("bias", _array(layer.bias))] if layer.use_bias else []
    return graph.add(
        "Conv",
        x,
        kernel,
        *bias,
        group=groups,
        strides=layer.strides,
        dilations=layer.dilation_rate,
        pads=_pads(layer, layer.kernel_size, layer.dilation_rate),
    )


def _dense(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
    if len(layer.input.shape) != 2:
        raise UntranslatableError(f"layer {layer.name!r} reads {layer.input.shape}, not (batch, features)")
    bias = [graph.constant("bias", _array(layer.bias))] if layer.use_bias else []
    return graph.add("Gemm", x, graph.constant("kernel", _array(layer.kernel)), *bias)


def _batch_normalization(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
    _require_channels(layer)
    mean, variance = _array(layer.moving_mean), _array(layer.moving_variance)
    values = {
        "gamma": _array(layer.gamma) if layer.scale else np.ones_like(mean),
        "beta": _array(layer.beta) if layer.center else np.zeros_like(mean),
        "mean": mean,
        "variance": variance,
    }
    inputs = [graph.constant(name, value) for name, value in values.items()]
    return graph.add("BatchNormalization", x, *inputs, epsilon=layer.epsilon)


def _relu(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
    if layer.negative_slope or layer.threshold:
        raise UntranslatableError(f"layer {layer.name!r} is a ReLU with a slope or a threshold")
    if layer.max_value is None:
        return graph.add("Relu", x)
    return graph.add("Clip", x, graph.constant("low", 0), graph.constant("high", layer.max_value))


def _zero_padding(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
    (top, bottom), (left, right) = layer.padding
    return graph.add("Pad", x, graph.constant("pads", [0, 0, top, left, 0, 0, bottom, right], np.int64))


def _pooling(kind: str) -> Callable[..., str]:
    def rule(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
        pads = _pads(layer, layer.pool_size, (1, 1))
        return graph.add(kind, x, kernel_shape=layer.pool_size, strides=layer.strides, pads=pads)

    return rule


def _up_sampling(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
    if layer.interpolation != "nearest":
        raise UntranslatableError(f"layer {layer.name!r} interpolates ({layer.interpolation}), not repeats")
    scales = graph.constant("scales", [1, 1, *layer.size])
    how = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    return graph.add("Resize", x, "", scales, **how)


def _global_pooling(kind: str) -> Callable[..., str]:
    def rule(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
        x = graph.add(kind, x)
        return x if layer.keepdims else graph.add("Flatten", x)

    return rule


def _flatten(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
    # Keras counts channels last.
    return graph.add("Flatten", graph.add("Transpose", x, perm=[0, 2, 3, 1]) if len(layer.input.shape) == 4 else x)


def _concatenate(graph: "OnnxGraph", layer: "keras.Layer", *inputs: str) -> str:
    _require_channels(layer)
    return graph.add("Concat", *inputs, axis=1)


def _pairwise(kind: str) -> Callable[..., str]:
    def rule(graph: "OnnxGraph", layer: "keras.Layer", first: str, *others: str) -> str:
        for other in others:
            first = graph.add(kind, first, other)
        return first

    return rule


def _same(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
    return x


#: By class name: ``rule(graph, layer, *inputs)`` names the layer's output before its activation.
RULES: dict[str, Callable[..., str]] = {
    "Activation": _same,
    "Add": _pairwise("Add"),
    "AveragePooling2D": _pooling("AveragePool"),
    "BatchNormalization": _batch_normalization,
    "Concatenate": _concatenate,
    "Conv2D": _convolution,
    "Dense": _dense,
    "DepthwiseConv2D": _depthwise_convolution,
    "Dropout": _same,
    "Flatten": _flatten,
    "GlobalAveragePooling2D": _global_pooling("GlobalAveragePool"),
    "GlobalMaxPooling2D": _global_pooling("GlobalMaxPool"),
    "MaxPooling2D": _pooling("MaxPool"),
    "Multiply": _pairwise("Mul"),
    "ReLU": _relu,
    "Subtract": _pairwise("Sub"),
    "UpSampling2D": _up_sampling,
    "ZeroPadding2D": _zero_padding,
}


def _require_channels(layer: "keras.Layer") -> None:
    """Refuse a layer that works along another axis than channels."""
    if layer.axis not in (-1, len(layer.output.shape) - 1):
        raise UntranslatableError(f"layer {layer.name!r} works along axis {layer.axis}, not channels")


def _pads(layer: "keras.Layer", kernel: tuple[int, int], dilation: tuple[int, int]) -> list[int]:
    """Rows and columns added before, then those after, as TensorFlow divides them: the odd one goes after."""
    if layer.padding == "valid":
        return [0, 0, 0, 0]
    spans = [(size - 1) * step + 1 for size, step in zip(kernel, dilation, strict=True)]
    totals = [
        max(0, (-(-side // stride) - 1) * stride + span - side)
        for side, stride, span in zip(layer.input.shape[1:3], layer.strides, spans, strict=True)
    ]
    return [total // 2 for total in totals] + [total - total // 2 for total in totals]


def _array(variable: Any) -> np.ndarray:
    """A weight as float32."""
    return np.asarray(keras.ops.convert_to_numpy(variable), np.float32)
