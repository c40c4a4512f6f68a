"""A flat Keras graph under construction: its ends, its axes, the memory that it takes, and its layers by name."""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from toolkit.factory.graphs.building.values import Scaling, UnreadableError, Value
from toolkit.lazy import keras, layers, lazy_module

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy_module("numpy")

#: Numbers in a map at most, of as many pictures as the file takes at once: 1 GiB.
MAX_NUMBERS = 1 << 28
#: Numbers in all weights and constants at most: 4 GiB. A bias or a factor of its own makes weights once more.
MAX_HELD = 1 << 30
#: Of a value, that it is global pooling of maps.
GLOBAL = ("GlobalAverage", "GlobalMax")


class Graph:
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
        self._scaled: dict[tuple[object, ...], Any] = {}
        self._taken: set[str] = set()
        self._numbers: dict[str, int] = {}  # behind the names of layers, the last by each wish
        self._held = 0
        self._picture: Any = None

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
            return keras.Model(self._picture, answers, name=plain_name(name) or "network")
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

    def _scaled_picture(self, value: Value) -> Any:
        scaling, tensor = value.scaling, value.tensor
        assert scaling is not None
        if scaling.changes_nothing:
            return tensor
        seen = (id(tensor), scaling.channels, scaling.factor.tobytes(), scaling.offset.tobytes())
        if seen in self._scaled:  # one layer for all that read it
            return self._scaled[seen]
        wish, self.wish = self.wish, "input_scaling"
        if scaling.channels != tuple(range(tensor.shape[-1])):
            tensor = self._picked(tensor, scaling.channels)
        if not ((scaling.factor == 1).all() and (scaling.offset == 0).all()):
            tensor = self.layer("Rescaling", tensor, scaling.factor.tolist(), scaling.offset.tolist())
        self.wish = wish
        self._scaled[seen] = tensor
        return tensor

    def _picked(self, maps: Any, channels: Sequence[int | None]) -> Any:
        self._require_room((*maps.shape[1:3], len(channels)))
        self.hold(maps.shape[-1] * len(channels))
        kernel = np.zeros((1, 1, maps.shape[-1], len(channels)), np.float32)
        for place, channel in enumerate(channels):
            if channel is not None:
                kernel[0, 0, channel, place] = 1
        return self.layer("Conv2D", maps, len(channels), 1, use_bias=False, trainable=False, weights=[kernel])

    def reshaped(self, value: Value, shape: Sequence[int]) -> Value:
        """Give the value another shape in the file; the batch stays first, of whatever size it is said to be."""
        own, target = value.shape[1:], tuple(shape)[1:]
        if math.prod(own) != math.prod(target):
            raise UnreadableError(f"makes {times(target)} numbers a picture of {times(own)}")
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
        if kind in GLOBAL and len(target) == 1:
            return self._global(source, kind, keep=False, nonnegative=value.nonnegative)
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

    def _global(self, maps: Any, kind: str, *, keep: bool, nonnegative: bool = False) -> Value:
        tensor = self.layer(f"{kind}Pooling2D", maps, keepdims=keep)
        return Value(tensor, self.map_axes if keep else (0, 1), made_by=(kind, maps), nonnegative=nonnegative)

    # Memory

    def hold(self, numbers: int) -> None:
        """Count numbers that weights or constants will keep in memory: what a file repeats, it need not contain."""
        self._held += numbers
        if not 0 <= numbers <= self._held <= MAX_HELD:
            raise UnreadableError(f"makes a constant of {numbers:,} numbers, more than there is memory for")

    def _require_room(self, sizes: Sequence[int]) -> None:
        if self.batch * math.prod(sizes) > MAX_NUMBERS:
            pictures = f" for {self.batch:,} pictures at once" if self.batch > 1 else ""
            raise UnreadableError(f"makes maps of {times(sizes)} numbers{pictures}, more than there is memory for")

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

    def name(self, kind: str) -> str:
        wish = plain_name(self.wish) or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind).lower()
        name, number = wish, self._numbers.get(wish, 1)
        while name in self._taken:
            number += 1
            name = f"{wish}_{number}"
        self._numbers[wish] = number
        self._taken.add(name)
        return name


def plain_name(name: str) -> str:
    """A name that Keras and TensorFlow take for a layer's."""
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[-80:].strip("_")


def times(sizes: Sequence[int]) -> str:
    return "×".join(str(size) for size in sizes) or "1"
