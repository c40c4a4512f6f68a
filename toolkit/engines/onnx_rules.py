"""ONNX operations for Keras' stock layers, one rule a class; custom layers carry their own (``toolkit.layers``).

ONNX has channels first: what a rule is given is ``(batch, channels, height, width)`` or a matrix.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.lazy import keras
from toolkit.network import inputs_of

if TYPE_CHECKING:  # the module brings Keras
    from toolkit.layers import OnnxGraph


class UntranslatableError(Exception):
    """A layer or an option without a rule; the message names it."""


#: Activations that are one ONNX operation of the same name.
_SAME_NAME = ("elu", "relu", "selu", "sigmoid", "softplus", "softsign", "tanh")


def write_activation(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
    """Write the activation that a layer computes last, if it has one; the result's name comes back."""
    function = getattr(layer, "activation", None)
    name = getattr(function, "__name__", str(function))
    if function is None or name == "linear":
        return x
    if name in _SAME_NAME:
        return graph.add(name.capitalize(), x)
    if name not in _ACTIVATIONS:
        known = ", ".join(sorted(["linear", *_SAME_NAME, *_ACTIVATIONS]))
        raise UntranslatableError(f"layer {layer.name!r} has the activation {name}; those with a rule: {known}")
    return _ACTIVATIONS[name](graph, x)


def _relu6(graph: "OnnxGraph", x: str) -> str:
    return graph.add("Clip", x, graph.constant("low", 0), graph.constant("high", 6))


def _leaky_relu(graph: "OnnxGraph", x: str) -> str:
    return graph.add("LeakyRelu", x, alpha=0.2)  # Keras' own slope


def _silu(graph: "OnnxGraph", x: str) -> str:
    return graph.add("Mul", x, graph.add("Sigmoid", x))


def _hard_sigmoid(graph: "OnnxGraph", x: str) -> str:
    return graph.add("HardSigmoid", x, alpha=1 / 6, beta=0.5)


def _hard_silu(graph: "OnnxGraph", x: str) -> str:
    return graph.add("Mul", x, _hard_sigmoid(graph, x))


def _softmax(graph: "OnnxGraph", x: str) -> str:
    return graph.add("Softmax", x, axis=1)


def _log_softmax(graph: "OnnxGraph", x: str) -> str:
    return graph.add("LogSoftmax", x, axis=1)


def _mish(graph: "OnnxGraph", x: str) -> str:
    return graph.add("Mul", x, graph.add("Tanh", graph.add("Softplus", x)))


def _gelu(graph: "OnnxGraph", x: str) -> str:
    # The exact one, x · (1 + erf(x / √2)) / 2: Keras approximates by tanh only where a caller asks it to.
    erf = graph.add("Erf", graph.add("Mul", x, graph.constant("half_root", 0.5**0.5)))
    return graph.add(
        "Mul", graph.add("Mul", x, graph.constant("half", 0.5)), graph.add("Add", erf, graph.constant("one", 1))
    )


_ACTIVATIONS: dict[str, Callable[..., str]] = {
    "gelu": _gelu,
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": _hard_silu,
    "leaky_relu": _leaky_relu,
    "log_softmax": _log_softmax,
    "mish": _mish,
    "relu6": _relu6,
    "silu": _silu,
    "softmax": _softmax,
}


def _convolution(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
    kernel = graph.constant("kernel", _array(layer.kernel).transpose(3, 2, 0, 1))
    return _convolved(graph, layer, x, kernel, layer.groups)


def _depthwise_convolution(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
    kernel = graph.constant("kernel", _depthwise(layer.kernel))
    return _convolved(graph, layer, x, kernel, layer.kernel.shape[2])


def _separable_convolution(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
    kernel = graph.constant("depthwise_kernel", _depthwise(layer.depthwise_kernel))
    x = graph.add("Conv", x, kernel, group=layer.depthwise_kernel.shape[2], **_steps(layer))
    pointwise = graph.constant("pointwise_kernel", _array(layer.pointwise_kernel).transpose(3, 2, 0, 1))
    return graph.add("Conv", x, pointwise, *_bias(graph, layer))


def _depthwise(kernel: Any) -> np.ndarray:
    height, width, channels, multiplier = kernel.shape
    return _array(kernel).transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)


def _convolved(graph: "OnnxGraph", layer: "keras.Layer", x: str, kernel: str, groups: int) -> str:
    return graph.add("Conv", x, kernel, *_bias(graph, layer), group=groups, **_steps(layer))


def _steps(layer: "keras.Layer") -> dict[str, Any]:
    pads = _pads(layer, layer.kernel_size, layer.dilation_rate)
    return {"strides": layer.strides, "dilations": layer.dilation_rate, "pads": pads}


def _bias(graph: "OnnxGraph", layer: "keras.Layer") -> list[str]:
    return [graph.constant("bias", _array(layer.bias))] if layer.use_bias else []


def _dense(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
    _require_ranks(layer)
    kernel = _array(layer.kernel)
    if len(layer.input.shape) == 4:  # at every pixel, as a convolution of one pixel does
        return graph.add("Conv", x, graph.constant("kernel", kernel.T[:, :, None, None]), *_bias(graph, layer))
    return graph.add("Gemm", x, graph.constant("kernel", kernel), *_bias(graph, layer))


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


def _layer_normalization(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
    _require_channels(layer)
    if getattr(layer, "rms_scaling", False):
        raise UntranslatableError(f"layer {layer.name!r} scales by the root mean square; make it rms_scaling=False")
    centred = graph.add("Sub", x, graph.add("ReduceMean", x, axes=[1]))
    variance = graph.add("ReduceMean", graph.add("Mul", centred, centred), axes=[1])
    deviation = graph.add("Sqrt", graph.add("Add", variance, graph.constant("epsilon", layer.epsilon)))
    x = graph.add("Div", centred, deviation)
    if layer.scale:
        x = graph.add("Mul", x, _by_channel(graph, layer, "gamma", layer.gamma))
    return graph.add("Add", x, _by_channel(graph, layer, "beta", layer.beta)) if layer.center else x


def _rescaling(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
    x = graph.add("Mul", x, _by_channel(graph, layer, "scale", layer.scale))
    return graph.add("Add", x, _by_channel(graph, layer, "offset", layer.offset))


def _normalization(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
    if layer.axis not in ((), (-1,), (len(layer.output.shape) - 1,)):
        raise UntranslatableError(f"layer {layer.name!r} works along axes {layer.axis}, not channels")
    deviation = np.maximum(np.sqrt(_array(layer.variance)), keras.config.epsilon())
    mean, scale = _by_channel(graph, layer, "mean", layer.mean), _by_channel(graph, layer, "deviation", deviation)
    if layer.invert:
        return graph.add("Add", graph.add("Mul", x, scale), mean)
    return graph.add("Div", graph.add("Sub", x, mean), scale)


def _layer_scale(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
    return graph.add("Mul", x, _by_channel(graph, layer, "gamma", layer.gamma))


def _relu(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
    if layer.threshold:
        raise UntranslatableError(f"layer {layer.name!r} is a ReLU with a threshold; make it threshold=0")
    if layer.negative_slope:
        x = graph.add("LeakyRelu", x, alpha=layer.negative_slope)
        if layer.max_value is None:
            return x
        return graph.add("Min", x, graph.constant("high", layer.max_value))
    if layer.max_value is None:
        return graph.add("Relu", x)
    return graph.add("Clip", x, graph.constant("low", 0), graph.constant("high", layer.max_value))


def _leaky_relu_layer(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
    return graph.add("LeakyRelu", x, alpha=layer.negative_slope)


def _elu_layer(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
    return graph.add("Elu", x, alpha=layer.alpha)


def _parametric_relu(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
    slope = _array(layer.alpha)  # (height, width, channels), or 1 where shared
    return graph.add("PRelu", x, graph.constant("slope", slope.transpose(2, 0, 1) if slope.ndim == 3 else slope))


def _softmax_layer(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
    _require_channels(layer)
    return graph.add("Softmax", x, axis=1)


def _zero_padding(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
    (top, bottom), (left, right) = layer.padding
    return graph.add("Pad", x, graph.constant("pads", [0, 0, top, left, 0, 0, bottom, right], np.int64))


def _cropping(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
    (top, bottom), (left, right) = layer.cropping
    height, width = layer.input.shape[1:3]
    ends = {"starts": [top, left], "ends": [height - bottom, width - right], "axes": [2, 3]}
    return graph.add("Slice", x, *(graph.constant(name, values, np.int64) for name, values in ends.items()))


def _reshape(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
    _require_ranks(layer)
    if len(layer.input.shape) == 4:  # Keras counts channels last
        x = graph.add("Transpose", x, perm=[0, 2, 3, 1])
    x = graph.add("Reshape", x, graph.constant("shape", [0, *layer.output.shape[1:]], np.int64))
    return graph.add("Transpose", x, perm=[0, 3, 1, 2]) if len(layer.output.shape) == 4 else x


def _pooling(kind: str) -> Callable[..., str]:
    def rule(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
        pads = _pads(layer, layer.pool_size, (1, 1))
        if kind == "MaxPool" and x.endswith("/Pad"):
            # ONNX Runtime takes the two for one, and lets the border's zeros never win.
            x = graph.add("Max", x, graph.constant("lowest", np.finfo(np.float32).min))
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
        _require_ranks(layer)
        for other in others:
            first = graph.add(kind, first, other)
        return first

    return rule


def _same(graph: "OnnxGraph", layer: "keras.Layer", x: str) -> str:
    return x


#: By the name of Keras' class: ``rule(graph, layer, *inputs)`` names the layer's output before its activation.
RULES: dict[str, Callable[..., str]] = {
    "Activation": _same,
    "Add": _pairwise("Add"),
    "AveragePooling2D": _pooling("AveragePool"),
    "BatchNormalization": _batch_normalization,
    "Concatenate": _concatenate,
    "Conv2D": _convolution,
    "Cropping2D": _cropping,
    "Dense": _dense,
    "DepthwiseConv2D": _depthwise_convolution,
    "Dropout": _same,
    "ELU": _elu_layer,
    "Flatten": _flatten,
    "GaussianDropout": _same,
    "GaussianNoise": _same,
    "GlobalAveragePooling2D": _global_pooling("GlobalAveragePool"),
    "GlobalMaxPooling2D": _global_pooling("GlobalMaxPool"),
    "LayerNormalization": _layer_normalization,
    "LayerScale": _layer_scale,
    "LeakyReLU": _leaky_relu_layer,
    "MaxPooling2D": _pooling("MaxPool"),
    "Maximum": _pairwise("Max"),
    "Minimum": _pairwise("Min"),
    "Multiply": _pairwise("Mul"),
    "Normalization": _normalization,
    "PReLU": _parametric_relu,
    "ReLU": _relu,
    "Rescaling": _rescaling,
    "Reshape": _reshape,
    "SeparableConv2D": _separable_convolution,
    "Softmax": _softmax_layer,
    "SpatialDropout2D": _same,
    "Subtract": _pairwise("Sub"),
    "UpSampling2D": _up_sampling,
    "ZeroPadding2D": _zero_padding,
}


def _require_channels(layer: "keras.Layer") -> None:
    """Refuse a layer that works along another axis than channels."""
    axis = layer.axis[0] if isinstance(layer.axis, list | tuple) and len(layer.axis) == 1 else layer.axis
    if axis not in (-1, len(layer.output.shape) - 1):
        raise UntranslatableError(f"layer {layer.name!r} works along axis {layer.axis}, not channels")


def _require_ranks(layer: "keras.Layer") -> None:
    """Refuse a layer whose inputs or output are neither maps nor vectors, or not of one kind where they are joined."""
    shapes = [tensor.shape for tensor in (*inputs_of(layer), layer.output)]
    joined = type(layer).__name__ != "Reshape"
    if any(len(shape) not in (2, 4) for shape in shapes) or (joined and len({len(shape) for shape in shapes}) > 1):
        listed = " and ".join(str(shape[1:]) for shape in shapes)
        raise UntranslatableError(
            f"layer {layer.name!r} goes between shapes {listed}; only maps (height, width, channels) and vectors have "
            "a rule, and are not mixed: put a Reshape to (1, 1, channels) in front of a vector"
        )


def _by_channel(graph: "OnnxGraph", layer: "keras.Layer", name: str, values: Any) -> str:
    """Store one number for all, or one for each channel, so that it meets the channels of the layer's input."""
    values = np.ravel(_array(values))
    return graph.constant(name, values.reshape(-1, 1, 1) if len(layer.input.shape) == 4 else values)


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
