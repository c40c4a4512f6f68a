"""A Keras graph written out as an OpenVINO graph, layer by layer, without a converter in between.

A converter traces the network in TensorFlow, rewrites it and reads it back, which takes ten times as long as the flat
graphs here need: every layer of theirs is one or two OpenVINO operations. A network with a layer outside the table is
refused, and runs in Keras instead.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from toolkit.engines.translate import (
    array,
    conv_padding,
    pool_padding,
    require_channels,
    require_plain_relu,
    require_vectors,
    translate,
)
from toolkit.lazy import lazy_module
from toolkit.spec import Preprocessing

ov = lazy_module("openvino")
# OpenVINO computes on (batch, channels, height, width); only flattening needs to know that Keras does not.
op = lazy_module("openvino.opset13")


def openvino_graph(model: Any, preprocessing: Preprocessing, *, batch_size: int) -> Any:
    """The network with its normalisation in front.

    Args:
        model: a functional ``keras.Model`` with one input and one output, computed in float32.
        preprocessing: gives the normalisation; channel order and luma are left to the caller.
        batch_size: pictures per call. A fixed number lets OpenVINO choose its kernels once, and makes what a picture
            gets independent of how many came with it.

    Returns:
        An ``openvino.Model``: uint8 ``(batch_size, height, width, channels)``, channels in the network's own order, to
        the float32 output with Keras' layout.

    Raises:
        UntranslatableError: the network has a layer without a rule.
    """
    pixels = op.parameter([batch_size, *preprocessing.input_shape], np.uint8, name="pixels")
    factor, offset = (_per_channel(values) for values in preprocessing.affine())
    channels_first = op.transpose(op.convert(pixels, "f32"), _integers(0, 3, 1, 2))
    normalized = op.add(op.multiply(channels_first, factor), offset)
    output = translate(model, normalized, _RULES, lambda name, node: getattr(op, name)(node))
    return ov.Model([_as_keras(output)], [pixels], model.name)


def _convolution(layer: Any, x: Any) -> Any:
    kernel = array(layer.kernel).transpose(3, 2, 0, 1)
    before, after = conv_padding(layer)
    geometry = (list(layer.strides), before, after, list(layer.dilation_rate))
    if layer.groups == 1:
        y = op.convolution(x, _constant(kernel), *geometry)
    else:
        grouped = kernel.reshape(layer.groups, -1, *kernel.shape[1:])
        y = op.group_convolution(x, _constant(grouped), *geometry)
    return op.add(y, _per_channel(array(layer.bias))) if layer.use_bias else y


def _dense(layer: Any, x: Any) -> Any:
    require_vectors(layer)
    y = op.matmul(x, _constant(array(layer.kernel)), False, False)
    return op.add(y, _constant(array(layer.bias))) if layer.use_bias else y


def _batch_normalization(layer: Any, x: Any) -> Any:
    require_channels(layer)
    scale = 1 / np.sqrt(array(layer.moving_variance) + layer.epsilon)
    if layer.scale:
        scale = scale * array(layer.gamma)
    shift = -array(layer.moving_mean) * scale
    if layer.center:
        shift = shift + array(layer.beta)
    per_channel = _per_channel if len(layer.input.shape) == 4 else _constant
    return op.add(op.multiply(x, per_channel(scale)), per_channel(shift))


def _relu(layer: Any, x: Any) -> Any:
    require_plain_relu(layer)
    return op.relu(x)


def _zero_padding(layer: Any, x: Any) -> Any:
    (top, bottom), (left, right) = layer.padding
    zero = op.constant(np.float32(0))
    return op.pad(x, _integers(0, 0, top, left), _integers(0, 0, bottom, right), "constant", zero)


def _max_pooling(layer: Any, x: Any) -> Any:
    before, after = pool_padding(layer)
    # The later form also answers where each maximum stood.
    return ov.opset1.max_pool(x, list(layer.strides), before, after, list(layer.pool_size))


def _average_pooling(layer: Any, x: Any) -> Any:
    before, after = pool_padding(layer)
    return op.avg_pool(x, list(layer.strides), before, after, list(layer.pool_size), exclude_pad=True)


def _global_average(layer: Any, x: Any) -> Any:
    return op.reduce_mean(x, _integers(2, 3), layer.keepdims)


def _global_maximum(layer: Any, x: Any) -> Any:
    return op.reduce_max(x, _integers(2, 3), layer.keepdims)


def _flatten(layer: Any, x: Any) -> Any:
    return op.reshape(_as_keras(x), _integers(x.get_output_partial_shape(0)[0].get_length(), -1), False)


def _concatenate(layer: Any, *inputs: Any) -> Any:
    require_channels(layer)
    return op.concat(list(inputs), 1)


def _add(layer: Any, first: Any, *others: Any) -> Any:
    for other in others:
        first = op.add(first, other)
    return first


def _multiply(layer: Any, first: Any, *others: Any) -> Any:
    for other in others:
        first = op.multiply(first, other)
    return first


def _local_response_normalization(layer: Any, x: Any) -> Any:
    return op.lrn(x, _integers(1), layer.alpha, 0.75, layer.bias, layer.size)


def _pad_channels(layer: Any, x: Any) -> Any:
    if layer.stride > 1:
        shape = x.get_output_shape(0)
        x = op.strided_slice(x, _integers(0, 0, 0, 0), _integers(*shape), _integers(1, 1, *[layer.stride] * 2), [], [])
    missing = layer.filters - layer.input.shape[-1]
    before, after = _integers(0, missing // 2, 0, 0), _integers(0, missing - missing // 2, 0, 0)
    return op.pad(x, before, after, "constant", op.constant(np.float32(0)))


def _stochastic_depth(layer: Any, x: Any) -> Any:
    return op.multiply(x, _constant(layer.survival))


def _same(layer: Any, x: Any) -> Any:
    return x


_RULES: dict[str, Callable[..., Any]] = {
    "Activation": _same,
    "Add": _add,
    "AveragePooling2D": _average_pooling,
    "BatchNormalization": _batch_normalization,
    "Concatenate": _concatenate,
    "Conv2D": _convolution,
    "Dense": _dense,
    "Dropout": _same,
    "Flatten": _flatten,
    "GlobalAveragePooling2D": _global_average,
    "GlobalMaxPooling2D": _global_maximum,
    "LocalResponseNormalization": _local_response_normalization,
    "MaxPooling2D": _max_pooling,
    "Multiply": _multiply,
    "PadChannels": _pad_channels,
    "ReLU": _relu,
    "StochasticDepth": _stochastic_depth,
    "Subtract": lambda layer, first, second: op.subtract(first, second),
    "ZeroPadding2D": _zero_padding,
}


def _as_keras(node: Any) -> Any:
    is_map = node.get_output_partial_shape(0).rank.get_length() == 4
    return op.transpose(node, _integers(0, 2, 3, 1)) if is_map else node


def _constant(values: Any) -> Any:
    return op.constant(np.ascontiguousarray(values, np.float32))


def _per_channel(values: Any) -> Any:
    return _constant(np.reshape(values, (1, -1, 1, 1)))


def _integers(*values: int) -> Any:
    return op.constant(np.asarray(values, np.int64))
