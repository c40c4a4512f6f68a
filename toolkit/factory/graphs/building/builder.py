"""A flat Keras graph, channels last, built operation by operation in the order of another framework's file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from toolkit.factory.graphs.building.elementwise import LINEAR, ElementwiseGraph
from toolkit.factory.graphs.building.graph import times
from toolkit.factory.graphs.building.values import Scaling, UnreadableError, Value
from toolkit.lazy import keras, lazy_module

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy_module("numpy")

#: Channels that an operator adds, or numbers that tell it what to do, at most.
MAX_CHANNELS = 1 << 16
#: The formula of a picture's luma before it is rounded down, ITU-R 601 in 16-bit fixed point as Pillow has it.
_LUMA = "luma"
_LUMA_WEIGHTS = (19595 / 65536, 38470 / 65536, 7471 / 65536)

Pads = tuple[tuple[int, int], tuple[int, int]]  # rows above and below, columns left and right
NO_PADS: Pads = ((0, 0), (0, 0))


class Builder(ElementwiseGraph):
    """A graph that grows by convolutions, products, pooling, and parts taken, joined and put around.

    Rules for a file's operators call it, one after the other.
    """

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
            raise UnreadableError(f"has a kernel of {times(kernel.shape)} in {groups} groups for {channels} channels")
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
        return Value(found, self.map_axes, made_by=(LINEAR, again), formula=(_LUMA, ()) if first else None)

    def dense(self, value: Value, kernel: Any, bias: Any = None) -> Value:
        """Multiply the last axis by a matrix (columns in, columns out)."""
        if kernel.ndim != 2 or value.shape[-1] != kernel.shape[0]:
            raise UnreadableError(f"multiplies {value.shape[-1]} columns by a matrix of {times(kernel.shape)}")
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

        return Value(made, order, made_by=(LINEAR, again))

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
            raise UnreadableError(f"pools {times(size)} with a border of {pads} that is not counted")
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
