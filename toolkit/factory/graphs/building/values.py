"""Tensors of another framework's graph as a Keras graph holds them, and their axes brought in order."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from toolkit.lazy import lazy_module

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy_module("numpy")


class UnreadableError(Exception):
    """A part of a graph that cannot be built here; the message names it, and says what to do."""


@dataclass(frozen=True)
class Scaling:
    """Channels of the picture, each times a factor and moved by an offset: not built yet.

    What prepares pictures at a network's input is gathered here, whatever operators it is written with, and becomes one
    layer that ``split_rescaling`` moves into the preprocessing.

    Attributes:
        channels: of the picture, in the order of the value's.
        factor: float64, one for each of them.
        offset: the same, added behind.
    """

    channels: tuple[int, ...]
    factor: "np.ndarray"
    offset: "np.ndarray"

    def then(self, factor: Any, offset: Any) -> "Scaling":
        """Scale once more."""
        return replace(self, factor=self.factor * factor, offset=self.offset * factor + offset)

    def picked(self, positions: Iterable[int]) -> "Scaling":
        """Take some of the channels."""
        chosen = list(positions)
        return Scaling(tuple(self.channels[n] for n in chosen), self.factor[chosen], self.offset[chosen])

    @property
    def changes_nothing(self) -> bool:
        in_order = self.channels == tuple(range(len(self.channels)))
        return in_order and bool((self.factor == 1).all() and (self.offset == 0).all())


@dataclass(frozen=True)
class Value:
    """A tensor of the file.

    Attributes:
        tensor: of the Keras graph, batch first.
        axes: the axis in the file that each axis of ``tensor`` is; None for one of size 1 that the file has not.
            Turning axes round in the file only renames them here, so that channels stay last.
        scaling: the value is channels of ``tensor``, which is the picture, scaled.
        flat: height, width and channels of the maps that were flattened to the columns of ``tensor``, where the file
            flattened them channels first.
        made_by: the operation that made it, by name, and what that was given: some pairs of operations are one layer.
        nonnegative: no entry is below nought.
        formula: the reckoning that made it, by name, and the values and axes that it was given: perhaps a part of a
            normalisation.
        traces: the values that this one is a function of, number by number, with what the function answers at the
            places of ``toolkit.factory.graphs.building.formulas``.
    """

    tensor: Any
    axes: tuple[int | None, ...]
    scaling: Scaling | None = None
    flat: tuple[int, int, int] | None = None
    made_by: tuple[str, Any] | None = None
    nonnegative: bool = False
    formula: tuple[str, tuple[Any, ...]] | None = None
    traces: tuple["Trace", ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes in the file's order of axes, that of the batch as 0."""
        known = {axis: size for axis, size in zip(self.axes, self.sizes, strict=True) if axis is not None}
        return tuple(known[axis] for axis in sorted(known))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes in the order of ``axes``, that of the batch as 0."""
        sizes = (0, *self.tensor.shape[1:])
        return sizes if self.scaling is None else (*sizes[:-1], len(self.scaling.channels))

    @property
    def rank(self) -> int:
        return len(self.axes) - self.axes.count(None)

    def transposed(self, order: Iterable[int]) -> "Value":
        """Rename the axes: the file's axis ``n`` becomes what ``order[n]`` was."""
        places = [*order]
        if sorted(places) != list(range(self.rank)):
            raise UnreadableError(f"turns {self.rank} axes into the order {places}")
        return self.renamed(tuple(None if axis is None else places.index(axis) for axis in self.axes))

    def renamed(self, axes: tuple[int | None, ...]) -> "Value":
        """Give the axes other names."""
        return replace(self, axes=axes, formula=None, traces=())

    def becomes(self, tensor: Any, *, nonnegative: bool = False) -> "Value":
        """Give what is computed of each number by itself: another tensor of the same axes."""
        return replace(self, tensor=tensor, made_by=None, nonnegative=nonnegative, formula=None, traces=())

    def columns(self) -> "np.ndarray":
        """For each of the file's columns, the column of ``tensor`` that it is; of a value that is ``flat``."""
        assert self.flat is not None
        return np.arange(np.prod(self.flat)).reshape(self.flat).transpose(2, 0, 1).ravel()


#: A value, and what a function of each of its numbers answers at some places.
Trace = tuple[Value, "np.ndarray"]


@dataclass(frozen=True)
class Operands:
    """An operator's inputs.

    Attributes:
        inputs: by place: values, arrays that stand in the file, None where one is left out.
    """

    inputs: Sequence["Value | np.ndarray | None"]

    def value(self, place: int = 0) -> Value:
        """An input that is computed from the picture."""
        found = self.inputs[place] if place < len(self.inputs) else None
        if not isinstance(found, Value):
            raise UnreadableError("computes with constants where something of the picture is expected")
        return found

    def constant(self, place: int, default: Any = None) -> Any:
        """An input that stands in the file, or ``default`` where it is left out."""
        found = self.inputs[place] if place < len(self.inputs) else None
        if isinstance(found, Value):
            raise UnreadableError(f"computes its input {place + 1} from the picture, where a constant is expected")
        return default if found is None else found

    def required(self, place: int) -> Any:
        """An input that stands in the file, and must."""
        found = self.constant(place)
        if found is None:
            raise UnreadableError(f"lacks its input {place + 1}")
        return found
