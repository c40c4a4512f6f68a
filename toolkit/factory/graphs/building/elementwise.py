"""Operations on each number of a Keras graph by itself: functions, scaling, normalisation, and values joined."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from toolkit.factory.graphs.building import formulas
from toolkit.factory.graphs.building.graph import Graph, times
from toolkit.factory.graphs.building.values import Operands, Trace, UnreadableError, Value
from toolkit.lazy import lazy_module

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy_module("numpy")

#: A bound so large is none: exporters write the least float16 or float32 for it, and sums with such numbers are rounded
#: to nothing.
_UNBOUNDED = 3e4
#: What Keras adds to a variance, unless told otherwise.
_EPSILON = 1e-3
#: Merges by the operation's name, and the layer that each is.
_MERGES = {"add": "Add", "subtract": "Subtract", "multiply": "Multiply", "maximum": "Maximum", "minimum": "Minimum"}
#: Of a value, that it is a convolution or a matrix product, which can be made once more with a factor and an offset.
LINEAR = "linear"
#: Of activations whose answers are never below nought.
_NONNEGATIVE = ("relu", "relu6", "sigmoid", "hard_sigmoid", "softmax", "softplus")


class ElementwiseGraph(Graph):
    """A graph that grows by operations on numbers."""

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

    def function(self, value: Value, name: str) -> Value:
        """Apply a function of each number that is no activation, see ``toolkit.layers.Elementwise``."""
        from toolkit.layers import Elementwise  # which brings Keras

        value = self.built(value, columns=False)
        found = value.becomes(self.called(Elementwise(name, name=self.name(name)), value.tensor))
        return replace(found, formula=(name, (value,)), traces=formulas.traces(value, formulas.elementwise(name)))

    def scaled(self, value: Value, factor: Any, offset: Any) -> Value:
        """Multiply by a constant and add another: numbers, or arrays that meet the value's shape in the file."""
        factors, offsets = self._by_channel(value, factor), self._by_channel(value, offset)
        if factors is None or offsets is None:
            if value.rank == 4 and value.axes != self.map_axes:
                return self.scaled(Value(self.maps(value), self.map_axes), factor, offset)
            what = times(np.shape(offset if factors is not None else factor))
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
        if kind == LINEAR and again is not None:  # a bias is often an operation of its own
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

    def normalized(self, value: Value, parameters: Sequence[Any], epsilon: float) -> Value:
        """Normalise by fixed statistics: ``parameters`` are gamma, beta, mean and variance, one a channel."""
        if value.scaling is not None:
            gamma, beta, mean, variance = (np.asarray(array, np.float64) for array in parameters)
            factor = gamma / np.sqrt(variance + epsilon)
            return replace(value, scaling=value.scaling.then(factor, beta - mean * factor))
        if value.rank == 4 and value.axes != self.map_axes:
            value = Value(self.maps(value), self.map_axes)
        return self.each(self.built(value), "BatchNormalization", epsilon=epsilon, weights=parameters)

    def layer_normalized(self, value: Value, axis: int, epsilon: float, factor: Any = 1.0, offset: Any = 0.0) -> Value:
        """Subtract the mean along an axis, divide by the deviation, and scale: numbers, or one for each on the axis."""
        order = (*(own for own in range(value.rank) if own != axis), axis)
        if value.rank == 4 and axis == self.map_axes[3]:
            order = self.map_axes
        weights = [np.broadcast_to(array, value.shape[axis]) for array in (factor, offset)]
        tensor = self.layer("LayerNormalization", self.arranged(value, order), epsilon=epsilon, weights=weights)

        def again(more: Any, further: Any) -> Value:
            return self.layer_normalized(value, axis, epsilon, factor * more, offset * more + further)

        return Value(tensor, order, made_by=(LINEAR, again))

    # Several values

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

    def _alike(self, values: Sequence[Value]) -> tuple[list[Value], tuple[int, ...]]:
        """Values of one order of axes, and that order."""
        values = [self.built(value, columns=False) for value in values]
        first = values[0]
        if all((value.axes, value.flat) == (first.axes, first.flat) and None not in value.axes for value in values):
            return values, tuple(axis for axis in first.axes if axis is not None)
        axes = self.map_axes if first.rank == 4 else tuple(range(first.rank))
        return [replace(value, tensor=self.arranged(value, axes), axes=axes, flat=None) for value in values], axes
