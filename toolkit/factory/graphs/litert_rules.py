"""LiteRT operators as Keras layers, one rule an operator."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.factory.graphs.building.builder import MAX_CHANNELS, Builder, Pads
from toolkit.factory.graphs.building.values import Operands, UnreadableError, Value
from toolkit.lazy import lazy_module

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy_module("numpy")

_FUSED = {0: "linear", 1: "relu", 3: "relu6", 4: "tanh"}  # the schema's ActivationFunctionType
_RELU_N1_TO_1 = 2
_SAME = 0  # the schema's Padding


@dataclass(frozen=True)
class Operator(Operands):
    """An operator with what it is given; in place of an input that is only a size stands None.

    Attributes:
        options: of the schema, None where it has none.
        shapes: of its outputs in the file, that of a batch as 1.
        rectified: the range of its first output, which is rounded, begins at nought: what is below is cut off.
    """

    options: Any
    shapes: Sequence[tuple[int, ...]]
    rectified: bool = False


Rule = Callable[[Builder, Operator], Value | list[Value]]


def _fused(builder: Builder, operator: Operator, value: Value) -> Value:
    """Apply the activation that is part of an operator."""
    kind = getattr(operator.options, "fusedActivationFunction", 0)
    if kind == _RELU_N1_TO_1:
        return builder.clipped(value, -1.0, 1.0)
    if kind not in _FUSED:
        raise UnreadableError(f"has the activation {kind}, which has no rule")
    if kind == 0 and operator.rectified and not value.nonnegative:
        return builder.activation(value, "relu")
    return builder.activation(value, _FUSED[kind])


def _pass_on(builder: Builder, operator: Operator) -> Value:
    return operator.value()


def _activation(name: str) -> Rule:
    return lambda builder, operator: builder.activation(operator.value(), name)


def _pads(options: Any) -> Pads | str:
    return "same" if options.padding == _SAME else ((0, 0), (0, 0))


def _convolution(builder: Builder, operator: Operator) -> Value:
    value, kernel, options = operator.value(), operator.required(1).transpose(1, 2, 3, 0), operator.options
    return _fused(
        builder,
        operator,
        builder.convolution(
            value,
            kernel,
            operator.constant(2),
            strides=(options.strideH, options.strideW),
            dilations=(options.dilationHFactor, options.dilationWFactor),
            pads=_pads(options),
            groups=value.shape[-1] // max(1, kernel.shape[2]),
        ),
    )


def _depthwise_convolution(builder: Builder, operator: Operator) -> Value:
    value, kernel, options = operator.value(), operator.required(1)[0], operator.options
    found = builder.convolution(
        value,
        kernel[:, :, None],
        operator.constant(2),
        strides=(options.strideH, options.strideW),
        dilations=(options.dilationHFactor, options.dilationWFactor),
        pads=_pads(options),
        groups=value.shape[-1],
    )
    return _fused(builder, operator, found)


def _dense(builder: Builder, operator: Operator) -> Value:
    value, kernel = operator.value(), operator.required(1).T
    if operator.options.weightsFormat:
        raise UnreadableError("has its weights shuffled, which has no rule")
    if value.rank > 2 and not operator.options.keepNumDims:
        value = builder.reshaped(value, (0, math.prod(value.shape[1:])))
    return _fused(builder, operator, builder.dense(value, kernel, operator.constant(2)))


def _matrix_product(builder: Builder, operator: Operator) -> Value:
    if isinstance(operator.inputs[1], Value):
        raise UnreadableError("multiplies two matrices computed from the picture, as attention does, which has no rule")
    kernel = operator.required(1)
    return builder.dense(operator.value(), kernel.T if operator.options.adjY else kernel)


def _pooling(kind: str) -> Rule:
    def rule(builder: Builder, operator: Operator) -> Value:
        options = operator.options
        size, strides = (options.filterHeight, options.filterWidth), (options.strideH, options.strideW)
        return _fused(builder, operator, builder.pooled(operator.value(), kind, size, strides, pads=_pads(options)))

    return rule


def _reduction(kind: str) -> Rule:
    def rule(builder: Builder, operator: Operator) -> Value:
        axes = [int(axis) for axis in np.ravel(operator.required(1))]
        return builder.reduced(operator.value(), kind, axes, keep=bool(operator.options.keepDims))

    return rule


def _arithmetic(kind: str) -> Rule:
    def rule(builder: Builder, operator: Operator) -> Value:
        found = builder.computed(kind, operator)
        if found.scaling is not None and not getattr(operator.options, "fusedActivationFunction", 0):
            return found
        return _fused(builder, operator, found)

    return rule


def _bound(kind: str) -> Rule:
    def rule(builder: Builder, operator: Operator) -> Value:
        values = [given for given in operator.inputs if isinstance(given, Value)]
        if len(values) > 1:
            return builder.merged(kind, values)
        constant = operator.required(1 if isinstance(operator.inputs[0], Value) else 0)
        if constant.size != 1:
            raise UnreadableError("compares with a constant of several numbers, which is no layer")
        number = float(constant.ravel()[0])
        return builder.clipped(values[0], *((number, math.inf) if kind == "maximum" else (-math.inf, number)))

    return rule


def _sum(builder: Builder, operator: Operator) -> Value:
    return builder.merged("add", [operator.value(place) for place in range(len(operator.inputs))])


def _concatenation(builder: Builder, operator: Operator) -> Value:
    values = [operator.value(place) for place in range(len(operator.inputs))]
    return _fused(builder, operator, builder.joined(values, operator.options.axis))


def _reshape(builder: Builder, operator: Operator) -> Value:
    # As the file says the answer is: the shape it is given may be reckoned from the batch's size.
    return builder.reshaped(operator.value(), (0, *operator.shapes[0][1:]))


def _transpose(builder: Builder, operator: Operator) -> Value:
    return operator.value().transposed(int(axis) for axis in operator.required(1))


def _softmax(builder: Builder, operator: Operator) -> Value:
    return builder.softmax(builder.scaled(operator.value(), operator.options.beta, 0.0), -1)


def _log_softmax(builder: Builder, operator: Operator) -> Value:
    return builder.softmax(operator.value(), -1, "log_softmax")


def _leaky_relu(builder: Builder, operator: Operator) -> Value:
    return builder.each(operator.value(), "LeakyReLU", float(operator.options.alpha))


def _parametric_relu(builder: Builder, operator: Operator) -> Value:
    value, slope = operator.value(), operator.required(1)
    if value.rank != 4 or slope.size != value.shape[-1]:
        raise UnreadableError(f"has slopes of shape {slope.shape}, other than one a channel")
    options = {"shared_axes": [1, 2], "weights": [slope.reshape(1, 1, -1)]}
    return Value(builder.layer("PReLU", builder.maps(value), **options), builder.map_axes)


def _unit_range(builder: Builder, operator: Operator) -> Value:
    return builder.clipped(operator.value(), 0.0, 1.0)


def _symmetric_range(builder: Builder, operator: Operator) -> Value:
    return builder.clipped(operator.value(), -1.0, 1.0)


def _gelu(builder: Builder, operator: Operator) -> Value:
    if operator.options is not None and operator.options.approximate:
        raise UnreadableError("approximates GELU by tanh, and the exact one alone has a rule")
    return builder.activation(operator.value(), "gelu")


def _negative(builder: Builder, operator: Operator) -> Value:
    return builder.scaled(operator.value(), -1.0, 0.0)


def _pad(builder: Builder, operator: Operator) -> Value:
    value, pads, filling = operator.value(), operator.required(1), operator.constant(2)
    both = [(int(before), int(after)) for before, after in pads]
    if filling is not None and (filling != 0).any():
        raise UnreadableError("puts a border around maps that is not of zeros")
    if value.rank != 4 or both[0] != (0, 0):
        raise UnreadableError(f"puts a border around {value.rank} axes, other than those of maps")
    if both[3] != (0, 0):  # shortcuts without parameters
        before, after = both[3]
        if max(before, after) > MAX_CHANNELS:
            raise UnreadableError(f"adds {before} and {after} channels")
        value = builder.picked(value, 3, [*[None] * before, *range(value.shape[3]), *[None] * after])
    return builder.bordered(value, (both[1], both[2]))


def _reverse(builder: Builder, operator: Operator) -> Value:
    value, axes = operator.value(), [int(axis) for axis in np.ravel(operator.required(1))]
    if len(axes) != 1:
        raise UnreadableError(f"turns axes {axes} round, and that of channels alone has a rule")
    return builder.picked(value, axes[0], range(value.shape[axes[0]])[::-1])


def _split(builder: Builder, operator: Operator) -> list[Value]:
    # The axis comes first, and the parts are of one size.
    axis, value = int(np.ravel(operator.required(0))[0]), operator.value(1)
    size = value.shape[axis] // len(operator.shapes)
    return [
        builder.picked(value, axis, range(number * size, (number + 1) * size)) for number in range(len(operator.shapes))
    ]


def _strided_slice(builder: Builder, operator: Operator) -> Value:
    value, options = operator.value(), operator.options
    begin, end, steps = ([int(number) for number in operator.required(place)] for place in (1, 2, 3))
    if options.ellipsisMask or options.newAxisMask or options.shrinkAxisMask:
        raise UnreadableError("adds or drops axes where it takes parts, which has no rule")
    parts = {}
    for axis in range(1, len(steps)):
        start = None if options.beginMask >> axis & 1 else begin[axis]
        stop = None if options.endMask >> axis & 1 else end[axis]
        parts[axis] = range(*slice(start, stop, steps[axis]).indices(value.shape[axis]))
    return builder.sliced(value, parts)


def _local_response(builder: Builder, operator: Operator) -> Value:
    options, size = operator.options, 2 * operator.options.radius + 1
    # LiteRT's alpha stands before each square, and the layer's before their mean.
    alpha = options.alpha * size
    return builder.local_response(operator.value(), size, alpha=alpha, bias=options.bias, power=options.beta)


#: By the operator's name in the schema: ``rule(builder, operator)`` makes its value, or several.
RULES: dict[str, Rule] = {
    "ADD": _arithmetic("add"),
    "ADD_N": _sum,
    "AVERAGE_POOL_2D": _pooling("Average"),
    "BATCH_MATMUL": _matrix_product,
    "CAST": _pass_on,
    "CONCATENATION": _concatenation,
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise_convolution,
    "DEQUANTIZE": _pass_on,
    "DIV": _arithmetic("divide"),
    "ELU": lambda builder, operator: builder.each(operator.value(), "ELU"),
    "EXPAND_DIMS": _reshape,
    "FULLY_CONNECTED": _dense,
    "GELU": _gelu,
    "HARD_SWISH": _activation("hard_silu"),
    "LEAKY_RELU": _leaky_relu,
    "LOCAL_RESPONSE_NORMALIZATION": _local_response,
    "LOGISTIC": _activation("sigmoid"),
    "LOG_SOFTMAX": _log_softmax,
    "MAXIMUM": _bound("maximum"),
    "MAX_POOL_2D": _pooling("Max"),
    "MEAN": _reduction("Average"),
    "MINIMUM": _bound("minimum"),
    "MUL": _arithmetic("multiply"),
    "NEG": _negative,
    "PAD": _pad,
    "PADV2": _pad,
    "PRELU": _parametric_relu,
    "QUANTIZE": _pass_on,
    "REDUCE_MAX": _reduction("Max"),
    "RELU": _activation("relu"),
    "RELU6": _activation("relu6"),
    "RELU_0_TO_1": _unit_range,
    "RELU_N1_TO_1": _symmetric_range,
    "RESHAPE": _reshape,
    "REVERSE_V2": _reverse,
    "SOFTMAX": _softmax,
    "SPLIT": _split,
    "SQUEEZE": _reshape,
    "STRIDED_SLICE": _strided_slice,
    "SUB": _arithmetic("subtract"),
    "TANH": _activation("tanh"),
    "TRANSPOSE": _transpose,
}
