"""Chains of operators that are one layer: activations, told by their values, and normalisations, by their form.

Exporters write GELU, SiLU or a layer normalisation as several operators, each in an order of its own.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from toolkit.factory.graphs.building.values import Trace, Value
from toolkit.lazy import keras, lazy_module

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy_module("numpy")

#: Activations that exporters write as several operators, by Keras' names.
_ACTIVATIONS = ("gelu", "silu", "hard_silu", "mish")
#: Steps that are remembered back from a value.
_MAX_STEPS = 6
#: Numbers as a file holds them differ from Keras' by rounding.
_ROUNDING = 1e-5
#: Squared lengths below which a vector is not brought to unit length: more is another function.
_MAX_SMALLEST = 1e-8

#: What joins two values, number by number.
_JOINS: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "maximum": lambda a, b: np.maximum(a, b),
    "minimum": lambda a, b: np.minimum(a, b),
}


def points() -> "np.ndarray":
    """Places at which functions are compared: on both sides of every kink, and on none."""
    return np.linspace(-8.03, 8.07, 257)


def traces(value: Value, function: Callable[["np.ndarray"], "np.ndarray"]) -> tuple[Trace, ...]:
    """Give the traces of what a function makes of each number of a value."""
    if value.scaling is not None:
        return ()
    with np.errstate(all="ignore"):  # a logarithm has no answer at every place
        return tuple((source, function(numbers)) for source, numbers in _traces(value)[:_MAX_STEPS])


def joined_traces(kind: str, first: Value, second: Value) -> tuple[Trace, ...]:
    """Give the traces of two values joined, number by number, from what both are functions of."""
    with np.errstate(all="ignore"):
        found = [
            (source, _JOINS[kind](numbers, others))
            for source, numbers in _traces(first)
            for other, others in _traces(second)
            if is_same(source, other)
        ]
    return tuple(found[:_MAX_STEPS])


def _traces(value: Value) -> list[Trace]:
    return [] if value.scaling is not None else [(value, points()), *value.traces]


def recognized(found: tuple[Trace, ...]) -> tuple[str, Value] | None:
    """Find an activation of Keras by its values, and what it is an activation of."""
    for source, numbers in found:
        for name, expected in _known_activations():
            if np.abs(numbers - expected).max() < _ROUNDING:
                return name, source
    return None


@cache
def _known_activations() -> list[tuple[str, "np.ndarray"]]:
    return [(name, activation(name)(points())) for name in _ACTIVATIONS]


def activation(name: str) -> Callable[["np.ndarray"], "np.ndarray"]:
    """Give one of Keras' activations as a function of arrays."""
    function = keras.activations.get(name)
    return lambda numbers: keras.ops.convert_to_numpy(function(keras.ops.convert_to_tensor(numbers, "float32")))


def elementwise(name: str) -> Callable[["np.ndarray"], "np.ndarray"]:
    """Give a function of ``toolkit.layers.Elementwise`` as one of arrays; not a number where it has no answer."""
    function = getattr(keras.ops, name)
    return lambda numbers: keras.ops.convert_to_numpy(function(keras.ops.convert_to_tensor(numbers, "float32")))


def is_same(one: Value, other: Value) -> bool:
    """Tell if two values are the same numbers in the same order of axes."""
    return one.tensor is other.tensor and (one.axes, one.flat) == (other.axes, other.flat)


def of_joined(kind: str, values: Sequence[Value]) -> tuple[str, tuple[Any, ...]] | None:
    """Give the formula of values joined, where it may be part of a normalisation: a square, or x less its mean."""
    if len(values) != 2:
        return None
    first, second = values
    if kind == "multiply" and is_same(first, second):
        return "square", (first,)
    match second.formula:
        case ("Average", (source, axes)) if kind == "subtract" and is_same(source, first):
            return "centred", (first, axes)
    return None


def is_length(divisor: Value, value: Value) -> bool:
    """Tell if a divisor is the length of the vectors that it divides: √max(Σx², c), for a small c or none."""
    match divisor.formula:
        case ("sqrt", (Value(formula=("maximum", (squares, smallest))),)):
            bounded = smallest <= _MAX_SMALLEST
        case ("sqrt", (squares,)):
            bounded = True
        case _:
            return False
    match squares.formula:
        case ("Sum", (Value(formula=("square", (source,))), (1,))):
            return bounded and value.rank == 2 and is_same(source, value)
    return False


def deviation(divisor: Value, value: Value) -> tuple[Value, int, float] | None:
    """Find what is normalised where x less its mean is divided by √(mean of its square + ε): x, the axis, and ε."""
    match value.formula, divisor.formula:
        case (
            ("centred", (source, (axis,))),
            ("sqrt", (Value(formula=("plus", (Value(formula=("Average", (squares, (same,)))), epsilon))),)),
        ) if same == axis and squares.formula is not None:
            kind, (given, *_) = squares.formula
            return (source, axis, epsilon) if kind == "square" and is_same(given, value) else None
    return None
