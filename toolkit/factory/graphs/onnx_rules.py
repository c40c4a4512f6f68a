"""ONNX operators as Keras layers, one rule an operator; the forms of all opsets from 7 on."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.factory.graphs.building.builder import MAX_CHANNELS, NO_PADS, Builder, Pads, same_pads
from toolkit.factory.graphs.building.values import Operands, UnreadableError, Value
from toolkit.lazy import lazy_module

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy_module("numpy")


@dataclass(frozen=True)
class Node(Operands):
    """An operator with what it is given.

    Attributes:
        attributes: by name; text as str.
        opset: the version of the operators' definitions.
        batch: how many pictures the file takes at once; 1 where any number.
        num_outputs: how many values it answers.
    """

    attributes: dict[str, Any]
    opset: int
    batch: int = 1
    num_outputs: int = 1

    def setting(self, name: str, place: int, since: int) -> Any:
        """Read what was an attribute in older opsets and is an input ``since`` another; None where it is left out."""
        if self.opset < since:
            return self.attributes.get(name)
        found = self.constant(place)
        if np.size(found) > MAX_CHANNELS:
            raise UnreadableError(f"is given {np.size(found):,} numbers, where a few are expected")
        return None if found is None else found.tolist()


def _pass_on(builder: Builder, node: Node) -> Value:
    return node.value()


def _activation(name: str) -> Callable[[Builder, Node], Value]:
    return lambda builder, node: builder.activation(node.value(), name)


def _cast(builder: Builder, node: Node) -> Value:
    if node.attributes.get("to") not in (1, 10, 11, 16):  # float32, float16, float64, bfloat16
        raise UnreadableError("makes integers of numbers, which is no layer")
    return node.value()


def _dropout(builder: Builder, node: Node) -> Value:
    if bool(node.constant(2, False)):
        raise UnreadableError("drops out at inference, too; export the network in evaluation mode, model.eval()")
    return node.value()


def _convolution(builder: Builder, node: Node) -> Value:
    kernel, value = _floats(node.constant(1)), node.value()
    if kernel.ndim != 4:
        raise UnreadableError(f"is a convolution of {kernel.ndim - 2} dimensions, and pictures have two")
    strides, dilations = (tuple(node.attributes.get(name, (1, 1))) for name in ("strides", "dilations"))
    spans = [(size - 1) * rate + 1 for size, rate in zip(kernel.shape[2:], dilations, strict=True)]
    return builder.convolution(
        value,
        kernel.transpose(2, 3, 1, 0),
        _floats(node.constant(2)),
        strides=strides,
        dilations=dilations,
        pads=_pads(node, _sides(value), spans, strides),
        groups=int(node.attributes.get("group", 1)),
    )


def _sides(value: Value) -> tuple[int, int]:
    if value.rank != 4:
        raise UnreadableError(f"takes maps of height and width, and gets {value.rank} axes")
    return value.shape[2], value.shape[3]


def _pads(node: Node, sides: Sequence[int], spans: Sequence[int], strides: Sequence[int]) -> Pads:
    word = node.attributes.get("auto_pad", "NOTSET")
    if word in ("SAME_UPPER", "SAME_LOWER"):
        rows, columns = same_pads(sides, spans, strides)
        return (rows, columns) if word == "SAME_UPPER" else (rows[::-1], columns[::-1])
    if word == "VALID":
        return NO_PADS
    top, left, bottom, right = node.attributes.get("pads", (0, 0, 0, 0))
    return (top, bottom), (left, right)


def _pooling(kind: str) -> Callable[[Builder, Node], Value]:
    def rule(builder: Builder, node: Node) -> Value:
        value, size = node.value(), tuple(node.attributes["kernel_shape"])
        if len(size) != 2 or set(node.attributes.get("dilations", (1,))) != {1}:
            raise UnreadableError(f"pools windows of {size} with gaps, or not over height and width")
        strides = tuple(node.attributes.get("strides", (1, 1)))
        sides = _sides(value)
        given = _pads(node, sides, size, strides)
        counts = bool(node.attributes.get("count_include_pad", 0))
        pads = given
        if node.attributes.get("ceil_mode", 0):
            rows, columns = (_with_last(*each) for each in zip(sides, size, strides, given, strict=True))
            pads = rows, columns
            if pads != given and counts and given != NO_PADS:
                raise UnreadableError("counts a border in its averages and goes beyond it (ceil_mode)")
            counts = counts and pads == given
        return builder.pooled(value, kind, size, strides, pads=pads, counts_padding=counts)

    return rule


def _with_last(side: int, size: int, stride: int, pads: tuple[int, int]) -> tuple[int, int]:
    """The border with what ``ceil_mode`` adds behind, so that a last window begins in the map or before it."""
    before, after = pads
    windows = -(-(side + before + after - size) // stride) + 1
    if (windows - 1) * stride >= side + before:
        windows -= 1
    return before, max(after, (windows - 1) * stride + size - side - before)


def _resize(builder: Builder, node: Node) -> Value:
    """Repeat rows and columns: what else enlarges or shrinks maps has no rule."""
    value = node.value()
    scales, sizes = (node.constant(place, ()) for place in ((2, 3) if node.opset >= 11 else (1, 3)))
    found = [size / own for size, own in zip(sizes, value.shape, strict=False)] if len(sizes) else [*scales]
    times = [round(float(scale)) for scale in found[2:]]
    if node.attributes.get("mode", "nearest") != "nearest" or len(found) != 4 or [*found[1:]] != [1, *times]:
        raise UnreadableError("makes maps larger or smaller, other than by repeating rows and columns")
    return builder.repeated(value, (times[0], times[1]))


def _expand(builder: Builder, node: Node) -> Value:
    """Repeat what has one row or column, as ``y.expand_as(x)`` does in squeeze and excitation."""
    value, wanted = node.value(), [int(side) for side in node.constant(1)]
    shape = np.broadcast_shapes(tuple(value.shape[1:]), tuple(wanted[-value.rank + 1 :]))
    if shape == tuple(value.shape[1:]):
        return value
    if value.rank != 4 or len(wanted) > 4 or shape[0] != value.shape[1]:
        raise UnreadableError(
            "repeats channels or makes further axes; give both sides of the operator behind one shape"
        )
    down, across = (new // own for new, own in zip(shape[1:], value.shape[2:], strict=True))
    return builder.repeated(value, (down, across))


def _global_pooling(kind: str) -> Callable[[Builder, Node], Value]:
    return lambda builder, node: builder.reduced(node.value(), kind, (2, 3), keep=True)


def _reduction(kind: str, since: int = 18) -> Callable[[Builder, Node], Value]:
    def rule(builder: Builder, node: Node) -> Value:
        axes = node.setting("axes", 1, since)
        if axes is None:
            raise UnreadableError("reduces all axes, the batch's among them")
        return builder.reduced(node.value(), kind, axes, keep=bool(node.attributes.get("keepdims", 1)))

    return rule


def _length(builder: Builder, node: Node) -> Value:
    value = node.value()
    squares = Node([builder.merged("multiply", [value, value]), *node.inputs[1:]], node.attributes, node.opset)
    return builder.function(_reduction("Sum")(builder, squares), "sqrt")


def _power(builder: Builder, node: Node) -> Value:
    value, power = node.value(), _number(node.constant(1), math.nan)
    if np.size(node.constant(1)) != 1 or power not in (0.5, 1, 2):
        raise UnreadableError(f"raises to the power of {power:g}, and 2 and 0.5 alone have a rule")
    if power == 2:
        return builder.merged("multiply", [value, value])
    return value if power == 1 else builder.function(value, "sqrt")


def _function(name: str) -> Callable[[Builder, Node], Value]:
    return lambda builder, node: builder.function(node.value(), name)


def _negative(builder: Builder, node: Node) -> Value:
    return builder.scaled(node.value(), -1.0, 0.0)


def _floor(builder: Builder, node: Node) -> Value:
    return builder.floored(node.value())


def _gemm(builder: Builder, node: Node) -> Value:
    if node.attributes.get("transA", 0):
        raise UnreadableError("turns its first matrix round, and a row is a picture")
    kernel = _floats(node.constant(1))
    kernel = (kernel.T if node.attributes.get("transB", 0) else kernel) * node.attributes.get("alpha", 1.0)
    bias = node.constant(2)
    if bias is not None:
        bias = np.broadcast_to(np.ravel(_floats(bias)) * node.attributes.get("beta", 1.0), kernel.shape[1])
    return builder.dense(node.value(), kernel, bias)


def _matrix_product(builder: Builder, node: Node) -> Value:
    if isinstance(node.inputs[0], Value) and isinstance(node.inputs[1], Value):
        raise UnreadableError("multiplies two matrices computed from the picture, as attention does, which has no rule")
    return builder.dense(node.value(), _floats(node.constant(1)))


def _normalization(builder: Builder, node: Node) -> Value:
    if node.attributes.get("training_mode", 0):
        raise UnreadableError(
            "normalises by the batch's statistics; export the network in evaluation mode, model.eval()"
        )
    parameters = [_floats(node.constant(place)) for place in (1, 2, 3, 4)]
    return builder.normalized(node.value(), parameters, float(node.attributes.get("epsilon", 1e-5)))


def _layer_normalization(builder: Builder, node: Node) -> Value:
    value, scale, offset = node.value(), _floats(node.constant(1)), _floats(node.constant(2, 0.0))
    if node.attributes.get("axis", -1) not in (-1, value.rank - 1):
        raise UnreadableError("normalises several axes, and only the last has a rule")
    return builder.layer_normalized(value, value.rank - 1, float(node.attributes.get("epsilon", 1e-5)), scale, offset)


def _local_response(builder: Builder, node: Node) -> Value:
    alpha, bias, power = (
        node.attributes.get(name, default) for name, default in (("alpha", 1e-4), ("bias", 1.0), ("beta", 0.75))
    )
    return builder.local_response(node.value(), int(node.attributes["size"]), alpha=alpha, bias=bias, power=power)


def _arithmetic(kind: str) -> Callable[[Builder, Node], Value]:
    return lambda builder, node: builder.computed(kind, node)


def _several(kind: str) -> Callable[[Builder, Node], Value]:
    def rule(builder: Builder, node: Node) -> Value:
        values = [given for given in node.inputs if isinstance(given, Value)]
        constants = [np.asarray(given, np.float64) for given in node.inputs if not isinstance(given, Value)]
        found = builder.merged(kind, values)
        for constant in constants:
            if kind == "add":
                found = builder.scaled(found, 1.0, constant)
            elif constant.size == 1:
                bounds = (float(constant.ravel()[0]), math.inf)
                found = builder.clipped(found, *(bounds if kind == "maximum" else (-math.inf, bounds[0])))
            else:
                raise UnreadableError("compares with a constant of several numbers, which is no layer")
        return found

    return rule


def _clip(builder: Builder, node: Node) -> Value:
    low, high = node.setting("min", 1, since=11), node.setting("max", 2, since=11)
    return builder.clipped(node.value(), *(_number(low, -math.inf), _number(high, math.inf)))


def _number(value: Any, default: float) -> float:
    return default if value is None else float(np.ravel(value)[0])


def _softmax(name: str) -> Callable[[Builder, Node], Value]:
    def rule(builder: Builder, node: Node) -> Value:
        value, axis = node.value(), node.attributes.get("axis", -1 if node.opset >= 13 else 1)
        if node.opset < 13 and math.prod(value.shape[axis:]) != value.shape[axis]:
            raise UnreadableError(f"works along axes {axis} and further (as before opset 13); export it anew")
        return builder.softmax(value, axis, name)

    return rule


def _hard_sigmoid(builder: Builder, node: Node) -> Value:
    slope, start = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    if math.isclose(slope, 1 / 6, rel_tol=1e-4) and start == 0.5:
        return builder.activation(node.value(), "hard_sigmoid")
    return builder.clipped(builder.scaled(node.value(), slope, start), 0.0, 1.0)


def _gelu(builder: Builder, node: Node) -> Value:
    if node.attributes.get("approximate", "none") != "none":
        raise UnreadableError("approximates GELU by tanh, and the exact one alone has a rule")
    return builder.activation(node.value(), "gelu")


def _leaky_relu(builder: Builder, node: Node) -> Value:
    return builder.each(node.value(), "LeakyReLU", float(node.attributes.get("alpha", 0.01)))


def _elu(builder: Builder, node: Node) -> Value:
    return builder.each(node.value(), "ELU", float(node.attributes.get("alpha", 1.0)))


def _parametric_relu(builder: Builder, node: Node) -> Value:
    slope, value = _floats(node.constant(1)), node.value()
    if slope.size == 1:
        return builder.each(value, "LeakyReLU", float(slope.ravel()[0]))
    if value.rank != 4 or slope.size not in (value.shape[1], math.prod(value.shape[1:])):
        raise UnreadableError(f"has slopes of shape {slope.shape}, other than one a channel, or one for each number")
    maps = builder.maps(value)
    options: dict[str, Any] = {"shared_axes": [1, 2], "weights": [slope.reshape(1, 1, -1)]}
    if slope.size != value.shape[1]:
        options = {"weights": [slope.reshape(value.shape[1:]).transpose([axis - 1 for axis in builder.map_axes[1:]])]}
    return Value(builder.layer("PReLU", maps, **options), builder.map_axes)


def _flatten(builder: Builder, node: Node) -> Value:
    value = node.value()
    if node.attributes.get("axis", 1) % max(1, value.rank) != 1:
        raise UnreadableError("flattens other axes than those behind the batch's")
    return builder.reshaped(value, (0, math.prod(value.shape[1:])))


def _reshape(builder: Builder, node: Node) -> Value:
    value, target = node.value(), [int(size) for size in np.ravel(node.setting("", 1, since=0))]
    shape = (node.batch, *value.shape[1:])
    if not node.attributes.get("allowzero", 0):
        target = [shape[place] if size == 0 and place < len(shape) else size for place, size in enumerate(target)]
    if target.count(-1) == 1:
        rest = math.prod(size for size in target if size != -1)
        target[target.index(-1)] = math.prod(shape) // max(1, rest)
    if not target or target[0] != node.batch:
        raise UnreadableError(f"makes {target} of {[*shape]}, which mixes numbers of different pictures")
    return builder.reshaped(value, target)


def _squeeze(builder: Builder, node: Node) -> Value:
    value, axes = node.value(), node.setting("axes", 1, since=13)
    found = [size == 1 for size in value.shape]
    chosen = {axis % value.rank for axis in axes} if axes is not None else {n for n, one in enumerate(found) if one}
    if any(not found[axis] for axis in chosen):
        raise UnreadableError(f"takes away axes {sorted(chosen)}, which are not of size 1")
    return builder.reshaped(value, [size for axis, size in enumerate(value.shape) if axis not in chosen])


def _unsqueeze(builder: Builder, node: Node) -> Value:
    value, axes = node.value(), node.setting("axes", 1, since=13)
    rank = value.rank + len(axes)
    chosen, sizes = {axis % rank for axis in axes}, iter(value.shape)
    return builder.reshaped(value, [1 if axis in chosen else next(sizes) for axis in range(rank)])


def _transpose(builder: Builder, node: Node) -> Value:
    value = node.value()
    return value.transposed(node.attributes.get("perm", range(value.rank)[::-1]))


def _concat(builder: Builder, node: Node) -> Value:
    return builder.joined([node.value(place) for place in range(len(node.inputs))], node.attributes["axis"])


def _gather(builder: Builder, node: Node) -> Value:
    places = node.setting("", 1, since=0)
    if np.ndim(places) > 1:
        raise UnreadableError("takes parts by a table of several axes, which is no layer")
    chosen = [int(place) for place in np.ravel(places)]
    return builder.picked(node.value(), node.attributes.get("axis", 0), chosen, drop=np.ndim(places) == 0)


def _split(builder: Builder, node: Node) -> list[Value]:
    value, axis = node.value(), node.attributes.get("axis", 0)
    total, parts = value.shape[axis], node.setting("split", 1, since=13)
    if parts is None:
        size = -(-total // node.num_outputs)
        parts = [min(size, total - size * number) for number in range(node.num_outputs)]
    starts = [sum(parts[:number]) for number in range(len(parts))]
    return [builder.picked(value, axis, range(start, start + size)) for start, size in zip(starts, parts, strict=True)]


def _slice(builder: Builder, node: Node) -> Value:
    value = node.value()
    if node.opset < 10:
        starts, ends, axes, steps = (
            node.attributes["starts"],
            node.attributes["ends"],
            node.attributes.get("axes"),
            None,
        )
    else:
        starts, ends, axes, steps = (node.setting("", place, since=0) for place in (1, 2, 3, 4))
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    parts = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = value.shape[axis]
        stop = None if step < 0 and end < -size else end
        parts[axis % value.rank] = range(*slice(start, stop, step).indices(size))
    return builder.sliced(value, parts)


def _pad(builder: Builder, node: Node) -> Value:
    value, pads = node.value(), node.setting("pads", 1, since=11)
    mode, filling = node.attributes.get("mode", "constant"), node.setting("value", 2, since=11)
    axes = node.constant(3) if node.opset >= 18 else None
    axes = range(value.rank) if axes is None else [int(axis) % value.rank for axis in axes]
    both = {axis: (before, after) for axis, before, after in zip(axes, pads, pads[len(pads) // 2 :], strict=False)}
    both = {axis: own for axis, own in both.items() if own != (0, 0)}
    if mode != "constant" or _number(filling, 0.0) != 0:
        raise UnreadableError(f"puts a border around maps that is not of zeros ({mode})")
    if value.rank != 4 or 0 in both:
        raise UnreadableError(f"puts a border around {value.rank} axes, other than those of maps")
    if 1 in both:  # shortcuts without parameters
        before, after = both[1]
        if min(before, after) < 0 or max(before, after) > MAX_CHANNELS:
            raise UnreadableError(f"adds {before} and {after} channels")
        value = builder.picked(value, 1, [*[None] * before, *range(value.shape[1]), *[None] * after])
    return builder.bordered(value, (both.get(2, (0, 0)), both.get(3, (0, 0))))


def _quantize(builder: Builder, node: Node) -> Value:
    """Pass on what a quantized file rounds; where its range begins at nought, it also cuts off what is outside.

    ONNX Runtime leaves a ReLU or ReLU6 out where the range does it.
    """
    value, zero = node.value(), node.constant(2)
    kind = np.iinfo(np.uint8 if zero is None else zero.dtype)
    begins_at_zero = zero is None or bool((zero == kind.min).all())
    if not begins_at_zero or value.scaling is not None or value.nonnegative:
        return value
    if np.size(node.constant(1)) != 1:
        return builder.activation(value, "relu")
    cap = (int(kind.max) - int(kind.min)) * _number(node.constant(1), math.nan)
    return builder.clipped(value, 0.0, 6.0 if math.isclose(cap, 6.0, rel_tol=1e-3) else cap)


def _floats(array: Any) -> Any:
    return None if array is None else np.asarray(array, np.float32)


#: By the operator's name: ``rule(builder, node)`` makes its value, or the values of one that answers several.
RULES: dict[str, Callable[[Builder, Node], Value | list[Value]]] = {
    "Abs": _function("abs"),
    "Add": _arithmetic("add"),
    "AveragePool": _pooling("Average"),
    "BatchNormalization": _normalization,
    "Cast": _cast,
    "Ceil": _function("ceil"),
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _convolution,
    "Cos": _function("cos"),
    "DequantizeLinear": _pass_on,
    "Div": _arithmetic("divide"),
    "Dropout": _dropout,
    "Elu": _elu,
    "Erf": _function("erf"),
    "Exp": _function("exp"),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": _floor,
    "Gather": _gather,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pooling("Average"),
    "GlobalMaxPool": _global_pooling("Max"),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _activation("hard_silu"),
    "Identity": _pass_on,
    "LRN": _local_response,
    "LayerNormalization": _layer_normalization,
    "LeakyRelu": _leaky_relu,
    "Log": _function("log"),
    "LogSoftmax": _softmax("log_softmax"),
    "MatMul": _matrix_product,
    "Max": _several("maximum"),
    "MaxPool": _pooling("Max"),
    "Min": _several("minimum"),
    "Mish": _activation("mish"),
    "Mul": _arithmetic("multiply"),
    "Neg": _negative,
    "PRelu": _parametric_relu,
    "Pad": _pad,
    "Pow": _power,
    "QuantizeLinear": _quantize,
    "Reciprocal": _function("reciprocal"),
    "ReduceL2": _length,
    "ReduceMax": _reduction("Max"),
    "ReduceMean": _reduction("Average"),
    "ReduceMin": _reduction("Min"),
    "ReduceSum": _reduction("Sum", since=13),
    "Relu": _activation("relu"),
    "Reshape": _reshape,
    "Resize": _resize,
    "Selu": _activation("selu"),
    "Sigmoid": _activation("sigmoid"),
    "Sin": _function("sin"),
    "Slice": _slice,
    "Softmax": _softmax("softmax"),
    "Softplus": _activation("softplus"),
    "Softsign": _activation("softsign"),
    "Split": _split,
    "Sqrt": _function("sqrt"),
    "Squeeze": _squeeze,
    "Sub": _arithmetic("subtract"),
    "Sum": _several("add"),
    "Tanh": _activation("tanh"),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
