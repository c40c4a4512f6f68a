"""The working behind a layer's figures: output size, parameters and multiply-adds, with the numbers put in."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from toolkit.arithmetic.receptive_field import window
from toolkit.lazy import keras
from toolkit.network import inputs_of


@dataclass(frozen=True)
class Working:
    """The working of a layer's figures; each is empty where there is nothing to work out.

    Attributes:
        size: of the output's sides, ``⌊(227 − 11)/4⌋ + 1``; where the sides differ, first down, then across.
        params: of all its weights, frozen ones too, statistics aside: ``(11·11·3 + 1)·96``.
        macs: multiply-adds for one picture, ``55·55·96 · 11·11·3``.
        num_params: the number that ``params`` works out.
    """

    size: str = ""
    params: str = ""
    macs: str = ""
    num_params: int = 0


def working(layer: "keras.Layer") -> Working:
    """Work a layer's figures out, with one picture for a batch.

    >>> inputs = keras.Input((227, 227, 3))
    >>> conv = keras.layers.Conv2D(96, 11, strides=4)
    >>> _ = conv(inputs)
    >>> working(conv)
    Working(size='⌊(227 − 11)/4⌋ + 1', params='(11·11·3 + 1)·96', macs='55·55·96 · 11·11·3', num_params=34944)
    """
    count, text = _params(layer)
    return Working(_size(layer), text, _macs(layer), count)


def _size(layer: "keras.Layer") -> str:
    given = inputs_of(layer)
    shape, output = given[0].shape[1:] if given else (), layer.output.shape[1:]
    if type(layer).__name__ == "Flatten" and len(shape) > 1:
        return _product(shape)
    if len(shape) != 3 or len(output) != 3:
        return ""
    sides = [_side(layer, axis, shape, output[axis]) for axis in (0, 1)]
    return sides[0] if sides[0] == sides[1] else ", ".join(side or "as it is" for side in sides)


def _side(layer: "keras.Layer", axis: int, shape: Sequence[int], left: int) -> str:
    """One side's working; empty where nothing changes it, or no rule is known."""
    kind, n = type(layer).__name__, shape[axis]
    if kind in ("ZeroPadding2D", "Cropping2D"):
        before, after = layer.padding[axis] if kind == "ZeroPadding2D" else layer.cropping[axis]
        sign = "+" if kind == "ZeroPadding2D" else "−"
        return f"{n} {sign} 2·{before}" if before == after else f"{n} {sign} {before} {sign} {after}"
    before, extent, stride = (pair[axis] for pair in window(layer, shape[:2]) or ((0, 0), (1, 1), (1, 1)))
    after = max((left - 1) * stride + extent - n - before, 0) if getattr(layer, "padding", "") == "same" else 0
    if (n + before + after - extent) // stride + 1 != left:
        return ""
    paddings = [f"2·{before}"] if before == after else [before, after]
    padded = " + ".join(f"{part}" for part in [n, *(padding for padding in paddings if before + after and padding)])
    if stride == 1:
        return f"{padded} − {extent} + 1" if extent > 1 else ""
    return f"⌊({padded} − {extent})/{stride}⌋ + 1"


def _params(layer: "keras.Layer") -> tuple[int, str]:
    weights = [weight for weight in layer.weights if _is_parameter(weight)]
    count, kind = sum(prod(weight.shape) for weight in weights), type(layer).__name__
    if not weights:
        return 0, ""
    shapes = [tuple(weight.shape) for weight in weights]
    if kind in ("Conv2D", "Dense") and len(shapes) <= 2:
        *inner, filters = shapes[0]
        return count, f"({_product(inner)} + 1)·{filters}" if len(shapes) == 2 else _product(shapes[0])
    if len(set(shapes)) == 1 and len(shapes[0]) == 1:  # a normalisation's scale and offset
        return count, f"{len(shapes)}·{shapes[0][0]}" if len(shapes) > 1 else ""
    return count, " + ".join(map(_product, shapes))


def _is_parameter(weight: Any) -> bool:
    """True unless training computes it otherwise: running statistics, the state of a generator of random numbers."""
    return not weight.name.startswith("moving_") and "float" in str(weight.dtype)


def _macs(layer: "keras.Layer") -> str:
    kind, output = type(layer).__name__, layer.output.shape[1:]
    if kind == "Conv2D":
        return f"{_product(output)} · {_product(layer.kernel.shape[:-1])}"
    if kind == "DepthwiseConv2D":
        return f"{_product(output)} · {_product(layer.kernel.shape[:2])}"
    if kind == "Dense":
        positions = f"{_product(output[:-1])} · " if len(output) > 1 else ""
        return positions + _product(layer.kernel.shape)
    return ""


def _product(sides: Sequence[int | None]) -> str:
    return "·".join("?" if side is None else f"{side}" for side in sides)
