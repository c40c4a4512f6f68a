"""A flat Keras graph, channels last, built operation by operation in the order of another framework's file."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from toolkit.factory.graphs import formulas
from toolkit.factory.graphs.values import Operands, Scaling, Trace, UnreadableError, Value
from toolkit.lazy import keras, layers, lazy_module

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy_module("numpy")

#: Numbers in a map at most, of as many pictures as the file takes at once: 1 GiB.
MAX_NUMBERS = 1 << 28
#: Numbers in all weights and constants at most: 4 GiB. A bias or a factor of its own makes weights once more.
MAX_HELD = 1 << 30
#: Channels that an operator adds, or numbers that tell it what to do, at most.
MAX_CHANNELS = 1 << 16
#: A bound so large is none: exporters write the least float16 or float32 for it, and sums with such numbers are rounded
#: to nothing.
_UNBOUNDED = 3e4
#: What Keras adds to a variance, unless told otherwise.
_EPSILON = 1e-3
#: Merges by the operation's name, and the layer that each is.
_MERGES = {"add": "Add", "subtract": "Subtract", "multiply": "Multiply", "maximum": "Maximum", "minimum": "Minimum"}
#: Of a value, that it is global pooling of maps.
_GLOBAL = ("GlobalAverage", "GlobalMax")
#: Of a value, that it is a convolution or a matrix product, which can be made once more with a factor and an offset.
_LINEAR = "linear"
#: The formula of a picture's luma before it is rounded down, ITU-R 601 in 16-bit fixed point as Pillow has it.
_LUMA = "luma"
_LUMA_WEIGHTS = (19595 / 65536, 38470 / 65536, 7471 / 65536)
#: Of activations whose answers are never below nought.
_NONNEGATIVE = ("relu", "relu6", "sigmoid", "hard_sigmoid", "softmax", "softplus")

Pads = tuple[tuple[int, int], tuple[int, int]]  # rows above and below, columns left and right
NO_PADS: Pads = ((0, 0), (0, 0))


class Builder:
    """The graph so far.

    Attributes:
        map_axes: the file's axes of maps in Keras' order: batch, height, width, channels.
        batch: how many pictures the file takes at once.
        wish: the name for the next layers.
    """

    def __init__(self, map_axes: tuple[int, int, int, int], batch: int) -> None:
        self.map_axes = map_axes
        self.batch = batch
        self.wish = ""
        self._taken: set[str] = set()
        self._numbers: dict[str, int] = {}  # behind the names of layers, the last by each wish
        self._held = 0
        self._picture: Any = None

    # The network's ends

    def picture(self, shape: tuple[int, int, int], axes: tuple[int, int, int, int]) -> Value:
        """Begin with pictures of ``shape``, height, width and channels, which are the file's ``axes``."""
        self._require_room(shape)
        self._taken.add("input")
        tensor = keras.Input(shape, name="input")
        self._picture = tensor
        channels = shape[2]
        return Value(tensor, axes, Scaling(tuple(range(channels)), np.ones(channels), np.zeros(channels)))

    def network(self, output: Value, name: str) -> "keras.Model":
        """End in ``output``."""
        if output.rank != 2 and not (output.rank == 4 and output.shape[2:] == (1, 1)):
            sides = "×".join(str(size) for size in output.shape[1:]) or "nothing"
            raise UnreadableError(f"answers {sides} a picture, and a classifier answers one number for each class")
        answers = self.vectors(self.reshaped(output, (0, math.prod(output.shape[1:]))))
        try:
            return keras.Model(self._picture, answers, name=_plain_name(name) or "network")
        except ValueError:
            raise UnreadableError("reads the picture both in colour and in grey, and a network takes one") from None

    @property
    def channels(self) -> int:
        """Channels of the pictures that the network takes."""
        return self._picture.shape[-1]

    # Axes

    def arranged(self, value: Value, axes: Sequence[int]) -> Any:
        """The value's tensor with the file's ``axes`` in that order; one that the value has not is of size 1."""
        value = self.built(value)
        if value.axes == tuple(axes):
            return value.tensor
        if value.axes[0] != 0 or axes[0] != 0:
            raise UnreadableError("mixes numbers of different pictures: its first axis is not the batch's")
        sizes = dict(zip(value.axes, value.tensor.shape, strict=True))
        own = [axis for axis in value.axes[1:] if axis is not None and sizes[axis] != 1]
        wanted = [axis for axis in axes[1:] if sizes.get(axis, 1) != 1]
        if sorted(own) != sorted(wanted):
            raise UnreadableError(f"takes {len(axes)} axes, and gets {value.rank}")
        tensor = value.tensor
        if own != wanted:
            if len(own) != len(value.axes) - 1:
                tensor = self._reshape(tensor, [sizes[axis] for axis in own])
            tensor = self.layer("Permute", tensor, [own.index(axis) + 1 for axis in wanted])
        return self._reshape(tensor, [sizes.get(axis, 1) for axis in axes[1:]])

    def maps(self, value: Value) -> Any:
        """The value's tensor as maps: batch, height, width, channels."""
        if value.rank != 4:
            raise UnreadableError(f"takes maps of height, width and channels, and gets {value.rank} axes")
        return self.arranged(value, self.map_axes)

    def vectors(self, value: Value) -> Any:
        """The value's tensor as vectors: batch, columns in the file's order."""
        if value.rank != 2:
            raise UnreadableError(f"takes a vector for each picture, and gets {value.rank} axes")
        return self.arranged(value, (0, 1))

    def built(self, value: Value, *, columns: bool = True) -> Value:
        """The value with what was put off: the picture's scaling, and unless told otherwise the order of columns."""
        if value.scaling is not None:
            return replace(value, tensor=self._scaled_picture(value), scaling=None)
        if value.flat is not None and columns:
            tensor = self.layer("Permute", self._reshape(value.tensor, value.flat), (3, 1, 2))
            columns = self._reshape(tensor, [math.prod(value.flat)])
            return replace(value.becomes(columns, nonnegative=value.nonnegative), flat=None)
        return value

    def reshaped(self, value: Value, shape: Sequence[int]) -> Value:
        """Give the value another shape in the file; the batch stays first, of whatever size it is said to be."""
        own, target = value.shape[1:], tuple(shape)[1:]
        if math.prod(own) != math.prod(target):
            raise UnreadableError(f"makes {_times(target)} numbers a picture of {_times(own)}")
        if target == own:
            return value
        if [size for size in own if size != 1] == [size for size in target if size != 1]:
            return self._with_other_ones(value, target)
        value = self.built(value)
        if len(target) == 1 and value.axes == self.map_axes != (0, 1, 2, 3):
            height, width, channels = value.tensor.shape[1:]
            flat = self._reshape(value.tensor, target)
            kept = (height, width, channels) if channels > 1 and height * width > 1 else None
            return replace(value.becomes(flat, nonnegative=value.nonnegative), axes=(0, 1), flat=kept)
        tensor = self._reshape(self.arranged(value, range(value.rank)), target)
        return Value(tensor, tuple(range(len(target) + 1)), nonnegative=value.nonnegative)

    def _with_other_ones(self, value: Value, target: tuple[int, ...]) -> Value:
        """Rename axes, where only some of size 1 come or go."""
        kind, source = value.made_by or ("", None)
        if kind in _GLOBAL and len(target) == 1:
            return self._global(source, kind, keep=False)
        if value.flat is not None:
            value = self.built(value)
        sizes = dict(zip(value.axes, value.sizes, strict=True))
        long = [axis for axis in range(1, value.rank) if sizes[axis] != 1]
        places = [axis for axis, size in enumerate(target, start=1) if size != 1]
        spare = [axis for axis, size in enumerate(target, start=1) if size == 1]
        axes: list[int | None] = [0]
        for axis in value.axes[1:]:
            if axis in long:
                axes.append(places[long.index(axis)])
            else:
                axes.append(spare.pop(0) if spare else None)
        renamed = replace(value.renamed(tuple(axes)), made_by=None)
        if not spare:
            return renamed
        wanted = self.map_axes if len(target) == 3 else tuple(range(len(target) + 1))
        return Value(self.arranged(renamed, wanted), wanted, nonnegative=value.nonnegative)

    def _reshape(self, tensor: Any, shape: Sequence[int]) -> Any:
        if tuple(tensor.shape[1:]) == tuple(shape):
            return tensor
        return self.layer("Flatten", tensor) if len(shape) == 1 else self.layer("Reshape", tensor, tuple(shape))

    # Memory

    def hold(self, numbers: int) -> None:
        """Count numbers that weights or constants will keep in memory: what a file repeats, it need not contain."""
        self._held += numbers
        if not 0 <= numbers <= self._held <= MAX_HELD:
            raise UnreadableError(f"makes a constant of {numbers:,} numbers, more than there is memory for")

    def _require_room(self, sizes: Sequence[int]) -> None:
        if self.batch * math.prod(sizes) > MAX_NUMBERS:
            pictures = f" for {self.batch:,} pictures at once" if self.batch > 1 else ""
            raise UnreadableError(f"makes maps of {_times(sizes)} numbers{pictures}, more than there is memory for")

    # Layers

    def layer(self, kind: str, inputs: Any, *arguments: Any, weights: Sequence[Any] = (), **options: Any) -> Any:
        """Call a new layer of Keras' class ``kind``, filled with ``weights``."""
        made = getattr(layers, kind)(*arguments, name=self.name(kind), **options)
        return self.called(made, inputs, weights)

    def called(self, layer: Any, inputs: Any, weights: Sequence[Any] = ()) -> Any:
        """Call a layer."""
        self.hold(sum(np.size(array) for array in weights))
        answer = layer(inputs)
        self._require_room(answer.shape[1:])
        if weights:
            layer.set_weights([np.asarray(array, np.float32) for array in weights])
        return answer

    def each(self, value: Value, kind: str, *arguments: Any, nonnegative: bool = False, **options: Any) -> Value:
        """Call a layer that treats each number, or each channel, by itself."""
        value = self.built(value, columns=False)
        return value.becomes(self.layer(kind, value.tensor, *arguments, **options), nonnegative=nonnegative)

    def activation(self, value: Value, name: str) -> Value:
        """Apply an activation by Keras' name, which treats each number by itself."""
        value = self.built(value, columns=False)
        if name == "linear":
            return value
        kind, *options = ("ReLU", 6.0) if name == "relu6" else ("ReLU",) if name == "relu" else ("Activation", name)
        found = self.each(value, kind, *options, nonnegative=name in _NONNEGATIVE)
        traces = formulas.traces(value, formulas.activation(name)) if "softmax" not in name else ()
        return replace(found, made_by=(name, value.tensor), traces=traces)

    def clipped(self, value: Value, low: float, high: float) -> Value:
        """Hold each number between two bounds, either of which may be infinite."""
        if low > high:
            raise UnreadableError(f"clips to {low}…{high}")
        low, high = (math.copysign(math.inf, bound) if abs(bound) >= _UNBOUNDED else bound for bound in (low, high))
        if (low, high) == (0.0, 6.0):
            return self.activation(value, "relu6")
        if math.isinf(low) and math.isinf(high):
            return value
        traces = formulas.traces(value, lambda numbers: np.clip(numbers, low, high))
        formula = ("maximum", (value, low)) if math.isinf(high) else None
        return replace(self._clipped(value, low, high), formula=formula, traces=traces)

    def _clipped(self, value: Value, low: float, high: float) -> Value:
        if math.isinf(low):  # the least of x and h is h less what h exceeds x by
            flipped = self.scaled(value, -1.0, high)
            return self.scaled(self.each(flipped, "ReLU"), -1.0, high)
        bound = None if math.isinf(high) else high - low
        if low == 0:
            if bound is None:
                return self.activation(value, "relu")
            return self.each(value, "ReLU", bound, nonnegative=True)
        return self.scaled(self.each(self.scaled(value, 1.0, -low), "ReLU", bound), 1.0, low)

    def softmax(self, value: Value, axis: int, name: str = "softmax") -> Value:
        """Apply softmax, or another activation along an axis."""
        value = self.built(value)
        if axis % value.rank != value.axes[-1]:
            order = [*(number for number in range(value.rank) if number != axis % value.rank), axis % value.rank]
            value = Value(self.arranged(value, order), tuple(order))
        return self.activation(value, name)

    def scaled(self, value: Value, factor: Any, offset: Any) -> Value:
        """Multiply by a constant and add another: numbers, or arrays that meet the value's shape in the file."""
        factors, offsets = self._by_channel(value, factor), self._by_channel(value, offset)
        if factors is None or offsets is None:
            if value.rank == 4 and value.axes != self.map_axes:
                return self.scaled(Value(self.maps(value), self.map_axes), factor, offset)
            what = _times(np.shape(offset if factors is not None else factor))
            raise UnreadableError(f"reckons with a constant of {what} numbers, other than one a channel")
        if value.scaling is not None:
            return replace(value, scaling=value.scaling.then(factors, offsets))
        if (factors == 1).all() and (offsets == 0).all():
            return value
        traces: tuple[Trace, ...] = ()
        if factors.size == offsets.size == 1:
            traces = formulas.traces(value, lambda numbers: numbers * float(factors) + float(offsets))
            if known := formulas.recognized(traces):
                return self.activation(known[1], known[0])
        kind, again = value.made_by or ("", None)
        if kind == _LINEAR and again is not None:  # a bias is often an operation of its own
            # Which may have been turned round since.
            return replace(again(factors, offsets), axes=value.axes, traces=traces)
        if factors.size == offsets.size == 1:
            formula = ("plus", (value, float(offsets))) if factors == 1 else None
            found = self.each(value, "Rescaling", float(factors), float(offsets))
            return replace(found, formula=formula, traces=traces)
        # Keras' only stock layer of a factor and an offset a channel, and converters fold it into convolutions.
        channels = value.tensor.shape[-1]
        gamma, beta = (np.broadcast_to(array, channels) for array in (factors, offsets))
        weights = [gamma, beta, np.zeros(channels), np.full(channels, 1 - _EPSILON)]
        return self.each(value, "BatchNormalization", epsilon=_EPSILON, weights=weights)

    def normalized(self, value: Value, parameters: Sequence[Any], epsilon: float) -> Value:
        """Normalise by fixed statistics: ``parameters`` are gamma, beta, mean and variance, one a channel."""
        if value.scaling is not None:
            gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in parameters)
            factor = gamma / np.sqrt(variance + epsilon)
            return replace(value, scaling=value.scaling.then(factor, beta - mean * factor))
        if value.rank == 4 and value.axes != self.map_axes:
            value = Value(self.maps(value), self.map_axes)
        return self.each(self.built(value), "BatchNormalization", epsilon=epsilon, weights=parameters)

    def local_response(self, value: Value, size: int, *, alpha: float, bias: float, power: float) -> Value:
        """Divide by a power of the neighbouring channels' squares; ``alpha`` stands before their mean."""
        from toolkit.layers import LocalResponseNormalization  # which brings Keras

        if not math.isclose(power, 0.75, rel_tol=1e-6):
            raise UnreadableError(f"divides by a power of {power:g}, and 0.75 alone has a rule")
        layer = LocalResponseNormalization(size, alpha=alpha, bias=bias, name=self.name("LocalResponse"))
        return Value(self.called(layer, self.maps(value)), self.map_axes)

    def convolution(
        self,
        value: Value,
        kernel: Any,
        bias: Any = None,
        *,
        strides: Sequence[int] = (1, 1),
        pads: Pads | str = NO_PADS,
        dilations: Sequence[int] = (1, 1),
        groups: int = 1,
    ) -> Value:
        """Convolve maps.

        Args:
            value: maps.
            kernel: (height, width, channels in / groups, channels out).
            bias: (channels out,), or None.
            strides: down and across.
            pads: zeros around, or ``"same"`` as TensorFlow counts them.
            dilations: down and across.
            groups: that channels are divided in; as many as there are is a depthwise convolution.
        """
        maps, (height, width, depth, filters), kernel_given = self.maps(value), kernel.shape, kernel
        channels = maps.shape[-1]
        if depth * groups != channels or filters % groups:
            raise UnreadableError(f"has a kernel of {_times(kernel.shape)} in {groups} groups for {channels} channels")
        spans = [(size - 1) * rate + 1 for size, rate in zip((height, width), dilations, strict=True)]
        same, padding = same_pads(maps.shape[1:3], spans, strides), "valid"
        pads = same if isinstance(pads, str) else pads
        if pads == same != NO_PADS:
            padding = "same"
        else:
            maps = self._bordered(maps, pads)
        plain = {"strides": tuple(strides), "padding": padding, "dilation_rate": tuple(dilations)}
        options: dict[str, Any] = {**plain, "use_bias": bias is not None}
        biases = [] if bias is None else [bias]
        if groups == channels > 1 and strides[0] == strides[1]:
            kernel = kernel.reshape(height, width, channels, filters // groups)
            options["depth_multiplier"] = filters // groups
            found = self.layer("DepthwiseConv2D", maps, (height, width), weights=[kernel, *biases], **options)
        else:
            options["groups"] = groups
            found = self.layer("Conv2D", maps, filters, (height, width), weights=[kernel, *biases], **options)

        def again(factor: Any, offset: Any) -> Value:
            shift = offset if bias is None else bias * factor + offset
            shift = np.broadcast_to(shift, filters)
            return self.convolution(
                value, kernel_given * factor, shift, strides=strides, pads=pads, dilations=dilations, groups=groups
            )

        first = value.scaling is not None and value.scaling.changes_nothing and _is_luma(kernel_given, bias)
        return Value(found, self.map_axes, made_by=(_LINEAR, again), formula=(_LUMA, ()) if first else None)

    def dense(self, value: Value, kernel: Any, bias: Any = None) -> Value:
        """Multiply the last axis by a matrix (columns in, columns out)."""
        if kernel.ndim != 2 or value.shape[-1] != kernel.shape[0]:
            raise UnreadableError(f"multiplies {value.shape[-1]} columns by a matrix of {_times(kernel.shape)}")
        units, order, given = kernel.shape[1], tuple(range(value.rank)), value
        rows = kernel
        if value.flat is not None:
            rows = np.empty_like(kernel)
            rows[value.columns()] = kernel
            given = replace(value, flat=None)
        weights = [rows] if bias is None else [rows, np.broadcast_to(np.reshape(bias, -1), units)]
        made = self.layer("Dense", self.arranged(given, order), units, use_bias=bias is not None, weights=weights)

        def again(factor: Any, offset: Any) -> Value:
            shift = offset if bias is None else np.reshape(bias, -1) * factor + offset
            return self.dense(value, kernel * factor, np.broadcast_to(shift, units))

        return Value(made, order, made_by=(_LINEAR, again))

    def pooled(
        self,
        value: Value,
        kind: str,
        size: Sequence[int],
        strides: Sequence[int],
        *,
        pads: Pads | str = NO_PADS,
        counts_padding: bool = False,
    ) -> Value:
        """Pool maps: ``kind`` is ``"Max"`` or ``"Average"``; an average counts zeros around where it is told to."""
        maps, size, strides = self.maps(value), tuple(size), tuple(strides)
        same = same_pads(maps.shape[1:3], size, strides)
        pads = same if isinstance(pads, str) else pads
        if size == tuple(maps.shape[1:3]) and pads == NO_PADS:
            return self._global(maps, f"Global{kind}", keep=True, nonnegative=value.nonnegative)
        if size == strides == (1, 1) and pads == NO_PADS:
            return value
        padding = "valid"
        if kind == "Average" and counts_padding:
            maps = self._bordered(maps, pads)
        elif pads == same != NO_PADS:
            padding = "same"
        elif kind == "Max" and value.nonnegative:  # where nought never wins
            maps = self._bordered(maps, pads)
        elif pads == tuple((side // 2, side // 2) for side in size) and all(side % 2 for side in size):
            # Pooled at each place, then some of the places: what "same" means at a stride of one.
            maps, size = self.layer(f"{kind}Pooling2D", maps, size, strides=1, padding="same"), (1, 1)
        elif pads != NO_PADS:
            raise UnreadableError(f"pools {_times(size)} with a border of {pads} that is not counted")
        found = self.layer(f"{kind}Pooling2D", maps, size, strides=strides, padding=padding)
        return Value(found, self.map_axes, nonnegative=value.nonnegative)

    def reduced(self, value: Value, kind: str, over: Sequence[int], *, keep: bool) -> Value:
        """Reduce over axes other than the batch's: ``kind`` is ``"Average"``, ``"Max"``, ``"Min"`` or ``"Sum"``."""
        chosen = tuple(sorted(axis % value.rank for axis in over))
        if 0 in chosen:
            raise UnreadableError("reduces the first axis, which is the batch's: it mixes different pictures")
        if kind == "Min":
            found = self.scaled(self._reduced(self.scaled(value, -1.0, 0.0), "Max", chosen, keep), -1.0, 0.0)
        elif kind == "Sum":
            count = math.prod(value.shape[axis] for axis in chosen)
            found = self.scaled(self._reduced(value, "Average", chosen, keep), count, 0.0)
        else:
            found = self._reduced(value, kind, chosen, keep)
        return replace(found, formula=(kind, (value, chosen))) if keep else found

    def _reduced(self, value: Value, kind: str, chosen: tuple[int, ...], keep: bool) -> Value:
        kept = [1 if axis in chosen else size for axis, size in enumerate(value.shape)]
        rest = [axis for axis in range(1, value.rank) if axis not in chosen]
        left = [value.shape[axis] for axis in (0, *rest)]
        if all(value.shape[axis] == 1 for axis in chosen):
            return self.reshaped(value, kept if keep else left)
        if value.rank == 4 and len(rest) == 1:
            axes = (0, *chosen, *rest)
            found = self._global(self.arranged(value, axes), f"Global{kind}", keep=keep, nonnegative=value.nonnegative)
            return replace(found, axes=axes) if keep else found
        # As pooling of maps of one column.
        sizes = [math.prod(value.shape[axis] for axis in axes) for axes in (chosen, rest)]
        columns = self._reshape(self.arranged(value, (0, *chosen, *rest)), (sizes[0], 1, sizes[1]))
        pooled = Value(self.layer(f"Global{kind}Pooling2D", columns), (0, 1), nonnegative=value.nonnegative)
        return self.reshaped(pooled, kept if keep else left)

    def merged(self, kind: str, values: Sequence[Value]) -> Value:
        """Add, subtract, multiply values, or take the larger or smaller of them."""
        if len(values) == 1:
            return values[0]
        if len({value.rank for value in values}) > 1:
            raise UnreadableError(f"joins {' and '.join(str(value.rank) for value in values)} axes")
        traces = formulas.joined_traces(kind, *values) if len(values) == 2 else ()
        if known := formulas.recognized(traces):
            return self.activation(known[1], known[0])
        for value, factor in (values, values[::-1]) if kind == "multiply" and len(values) == 2 else ():
            match factor.formula:
                case ("reciprocal", (divisor,)) if quotient := self._normalized_by(divisor, value):
                    return quotient
        formula = formulas.of_joined(kind, values)
        values, axes = self._alike(values)
        tensor = self.layer(_MERGES[kind], [value.tensor for value in values])
        same_sign = kind != "subtract" and all(value.nonnegative for value in values)
        return Value(tensor, axes, flat=values[0].flat, nonnegative=same_sign, formula=formula, traces=traces)

    def computed(self, kind: str, given: Operands) -> Value:
        """Add, subtract, multiply or divide an operator's two inputs; one of them may be a constant."""
        first, second = given.inputs[:2]
        leads = isinstance(first, Value)
        if isinstance(first, Value) and isinstance(second, Value):
            return self.divided(first, second) if kind == "divide" else self.merged(kind, [first, second])
        if kind == "divide" and isinstance(second, Value):
            return self.scaled(self.function(second, "reciprocal"), np.asarray(first, np.float64), 0.0)
        value, constant = given.value(0 if leads else 1), np.asarray(given.required(1 if leads else 0), np.float64)
        if kind == "multiply" or kind == "divide":
            return self.scaled(value, constant if kind == "multiply" else 1 / constant, 0.0)
        if kind == "subtract":
            return self.scaled(value, 1.0, -constant) if leads else self.scaled(value, -1.0, constant)
        return self.scaled(value, 1.0, constant)

    def divided(self, value: Value, divisor: Value) -> Value:
        """Divide one value by another."""
        return self._normalized_by(divisor, value) or self.merged(
            "multiply", [value, self.function(divisor, "reciprocal")]
        )

    def _normalized_by(self, divisor: Value, value: Value) -> Value | None:
        """Divide where that is a layer: by the length of vectors, or by the deviation of what has a mean of nought."""
        if formulas.is_length(divisor, value):
            from toolkit.layers import UnitLength  # which brings Keras

            tensor = self.called(UnitLength(name=self.name("UnitLength")), self.arranged(value, (0, 1)))
            return Value(tensor, (0, 1))
        if found := formulas.deviation(divisor, value):
            source, axis, epsilon = found
            return self.layer_normalized(source, axis, epsilon)
        return None

    def function(self, value: Value, name: str) -> Value:
        """Apply a function of each number that is no activation, see ``toolkit.layers.Elementwise``."""
        from toolkit.layers import Elementwise  # which brings Keras

        value = self.built(value, columns=False)
        found = value.becomes(self.called(Elementwise(name, name=self.name(name)), value.tensor))
        return replace(found, formula=(name, (value,)), traces=formulas.traces(value, formulas.elementwise(name)))

    def layer_normalized(self, value: Value, axis: int, epsilon: float, factor: Any = 1.0, offset: Any = 0.0) -> Value:
        """Subtract the mean along an axis, divide by the deviation, and scale: numbers, or one for each on the axis."""
        order = (*(own for own in range(value.rank) if own != axis), axis)
        if value.rank == 4 and axis == self.map_axes[3]:
            order = self.map_axes
        weights = [np.broadcast_to(array, value.shape[axis]) for array in (factor, offset)]
        tensor = self.layer("LayerNormalization", self.arranged(value, order), epsilon=epsilon, weights=weights)

        def again(more: Any, further: Any) -> Value:
            return self.layer_normalized(value, axis, epsilon, factor * more, offset * more + further)

        return Value(tensor, order, made_by=(_LINEAR, again))

    def joined(self, values: Sequence[Value], axis: int) -> Value:
        """Put values one behind the other along an axis."""
        if len(values) == 1:
            return values[0]
        axis %= values[0].rank
        if axis == 0:
            raise UnreadableError("joins different pictures: its first axis is the batch's")
        first = values[0]
        if all(value.scaling is not None and value.tensor is first.tensor for value in values) and (
            {value.axes for value in values} == {first.axes} and first.axes[-1] == axis
        ):
            parts = [value.scaling for value in values if value.scaling is not None]
            channels = tuple(channel for part in parts for channel in part.channels)
            factor, offset = (np.concatenate([getattr(part, name) for part in parts]) for name in ("factor", "offset"))
            return replace(first, scaling=Scaling(channels, factor, offset))
        values, axes = self._alike([self.built(value) for value in values])
        tensor = self.layer("Concatenate", [value.tensor for value in values], axis=axes.index(axis))
        return Value(tensor, axes, nonnegative=all(value.nonnegative for value in values))

    def picked(self, value: Value, axis: int, places: Sequence[int | None], *, drop: bool = False) -> Value:
        """Take channels by their numbers, None for one of zeros; ``drop`` the axis where it is one."""
        axis %= value.rank
        if value.rank != 4 or (axis != self.map_axes[3] and value.axes[-1] != axis):
            raise UnreadableError(f"takes parts along axis {axis} of {value.rank}, which is not that of channels")
        size = value.shape[axis]
        chosen = [place if place is None or place >= 0 else place + size for place in places]
        if not chosen or any(place is not None and not 0 <= place < size for place in chosen):
            raise UnreadableError(f"takes channels {[*places]} of {size}")
        if value.scaling is not None and None not in chosen and value.axes[-1] == axis:
            found = replace(value, scaling=value.scaling.picked(place for place in chosen if place is not None))
        elif chosen == [*range(size)]:
            found = value
        else:
            maps = self.maps(value)
            found = Value(self._picked(maps, chosen), self.map_axes, nonnegative=value.nonnegative)
        if not drop:
            return found
        if len(chosen) != 1:
            raise UnreadableError(f"drops an axis of {len(chosen)}")
        dropped = tuple(None if own == axis else own if own is None or own < axis else own - 1 for own in found.axes)
        return found.renamed(dropped)

    def sliced(self, value: Value, parts: Mapping[int, range]) -> Value:
        """Take parts along axes: any channels, and every so many rows and columns of maps from one to another."""
        steps, cropping = [1, 1], [(0, 0), (0, 0)]
        for axis, places in parts.items():
            size, step = value.shape[axis], places.step
            if axis and places == range(size):
                continue
            if value.rank == 4 and axis in self.map_axes[1:3] and step > 0 and len(places):
                side = self.map_axes[1:3].index(axis)
                steps[side] = step
                behind = 0 if places == range(places.start, size, step) else size - places[-1] - 1
                cropping[side] = (places.start, behind)
            else:
                value = self.picked(value, axis, places)
        if cropping != [(0, 0), (0, 0)]:
            tensor = self.layer("Cropping2D", self.maps(value), cropping)
            value = Value(tensor, self.map_axes, nonnegative=value.nonnegative)
        if steps != [1, 1]:
            maps = self.layer("MaxPooling2D", self.maps(value), (1, 1), strides=steps)
            value = Value(maps, self.map_axes, nonnegative=value.nonnegative)
        return value

    def repeated(self, value: Value, times: tuple[int, int]) -> Value:
        """Repeat rows and columns of maps."""
        maps = self.maps(value)
        self._require_room((maps.shape[1] * times[0], maps.shape[2] * times[1], maps.shape[3]))
        return Value(self.layer("UpSampling2D", maps, times), self.map_axes, nonnegative=value.nonnegative)

    def floored(self, value: Value) -> Value:
        """Round down; what makes grey of a picture so is left out, and the network takes grey pictures."""
        if value.formula != (_LUMA, ()):
            return self.function(value, "floor")
        height, width = value.tensor.shape[1:3]
        self._picture = keras.Input((height, width, 1), name="input")
        return Value(self._picture, self.map_axes, Scaling((0,), np.ones(1), np.zeros(1)))

    def bordered(self, value: Value, pads: Pads) -> Value:
        """Put zeros around maps."""
        if pads == NO_PADS:
            return value
        return Value(self._bordered(self.maps(value), pads), self.map_axes, nonnegative=value.nonnegative)

    def _scaled_picture(self, value: Value) -> Any:
        scaling, tensor = value.scaling, value.tensor
        assert scaling is not None
        if scaling.changes_nothing:
            return tensor
        wish, self.wish = self.wish, "input_scaling"
        if scaling.channels != tuple(range(tensor.shape[-1])):
            tensor = self._picked(tensor, scaling.channels)
        if not ((scaling.factor == 1).all() and (scaling.offset == 0).all()):
            tensor = self.layer("Rescaling", tensor, scaling.factor.tolist(), scaling.offset.tolist())
        self.wish = wish
        return tensor

    def _picked(self, maps: Any, channels: Sequence[int | None]) -> Any:
        self._require_room((*maps.shape[1:3], len(channels)))
        self.hold(maps.shape[-1] * len(channels))
        kernel = np.zeros((1, 1, maps.shape[-1], len(channels)), np.float32)
        for place, channel in enumerate(channels):
            if channel is not None:
                kernel[0, 0, channel, place] = 1
        return self.layer("Conv2D", maps, len(channels), 1, use_bias=False, trainable=False, weights=[kernel])

    def _bordered(self, maps: Any, pads: Pads) -> Any:
        if min(pads[0] + pads[1]) < 0:
            raise UnreadableError(f"cuts borders off: {pads}")
        if pads == NO_PADS:
            return maps
        height, width = (size + sum(own) for size, own in zip(maps.shape[1:3], pads, strict=True))
        self._require_room((height, width, maps.shape[3]))
        wish, self.wish = self.wish, f"{self.wish}_pad"
        found = self.layer("ZeroPadding2D", maps, pads)
        self.wish = wish
        return found

    def _global(self, maps: Any, kind: str, *, keep: bool, nonnegative: bool = False) -> Value:
        tensor = self.layer(f"{kind}Pooling2D", maps, keepdims=keep)
        return Value(tensor, self.map_axes if keep else (0, 1), made_by=(kind, maps), nonnegative=nonnegative)

    def _alike(self, values: Sequence[Value]) -> tuple[list[Value], tuple[int, ...]]:
        """Values of one order of axes, and that order."""
        values = [self.built(value, columns=False) for value in values]
        first = values[0]
        if all((value.axes, value.flat) == (first.axes, first.flat) and None not in value.axes for value in values):
            return values, tuple(axis for axis in first.axes if axis is not None)
        axes = self.map_axes if first.rank == 4 else tuple(range(first.rank))
        return [replace(value, tensor=self.arranged(value, axes), axes=axes, flat=None) for value in values], axes

    def _by_channel(self, value: Value, constant: Any) -> "np.ndarray | None":
        """A constant as one number, or as one for each channel of the value's tensor; None where it is neither."""
        values = np.asarray(constant, np.float64)
        if values.size == 1:
            return values.reshape(())
        shape = (1,) * (value.rank - values.ndim) + values.shape
        long = [axis for axis, size in enumerate(shape) if size != 1]
        if len(shape) != value.rank or long != [value.axes[-1]] or values.size != value.shape[long[0]]:
            return None
        if value.flat is None:
            return values.reshape(-1)
        columns = np.empty(values.size)
        columns[value.columns()] = values.reshape(-1)
        return columns

    def name(self, kind: str) -> str:
        wish = _plain_name(self.wish) or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower()
        name, number = wish, self._numbers.get(wish, 1)
        while name in self._taken:
            number += 1
            name = f"{wish}_{number}"
        self._numbers[wish] = number
        self._taken.add(name)
        return name


def same_pads(sizes: Sequence[int], spans: Sequence[int], strides: Sequence[int]) -> Pads:
    """The border that TensorFlow calls ``"same"``: the odd row and column come last.

    >>> same_pads((112, 5), (3, 3), (2, 1))
    ((0, 1), (1, 1))
    """
    totals = [
        max(0, (-(-size // stride) - 1) * stride + span - size)
        for size, span, stride in zip(sizes, spans, strides, strict=True)
    ]
    (top, left) = (total // 2 for total in totals)
    return (top, totals[0] - top), (left, totals[1] - left)


def _is_luma(kernel: Any, bias: Any) -> bool:
    """Tell if a convolution of a picture in RGB answers its luma, and a half more."""
    if kernel.shape != (1, 1, 3, 1) or bias is None:
        return False
    return np.allclose(kernel.ravel(), _LUMA_WEIGHTS, rtol=1e-6, atol=0) and np.allclose(bias, 0.5, atol=1e-6)


def _plain_name(name: str) -> str:
    """A name that Keras and TensorFlow take for a layer's."""
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[-80:].strip("_")


def _times(sizes: Sequence[int]) -> str:
    return "×".join(str(size) for size in sizes) or "1"
