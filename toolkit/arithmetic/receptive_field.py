"""Receptive fields: the part of the picture that one pixel of a feature map sees.

Output pixel ``o`` of a layer sees the input pixels ``jump · o + first`` to ``jump · o + last``. A window of ``k``
pixels, ``d`` apart, that moves by ``s`` over an input padded by ``p`` in front adds ``-jump · p`` to ``first`` and
``jump · (d · (k - 1) - p)`` to ``last``, and multiplies ``jump`` by ``s``. Where branches meet, what is seen is all
that any of them sees. This is the field as designed: at a picture's border, part of it is padding.
"""

from dataclasses import dataclass
from typing import Any

from toolkit.lazy import keras
from toolkit.network import inputs_of, sources


@dataclass(frozen=True)
class Field:
    """A receptive field: its first and last pixel relative to ``jump`` times the place; each is (down, across)."""

    first: tuple[int, int] = (0, 0)
    last: tuple[int, int] = (0, 0)
    jump: tuple[int, int] = (1, 1)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the view."""
        return self.last[0] - self.first[0] + 1, self.last[1] - self.first[1] + 1


def receptive_fields(model: "keras.Model") -> dict[str, Field | None]:
    """Find each layer's field by its name; None where there are no pixels or all are mixed.

    Flat vectors have no pixels, global pooling mixes all of them. Layers that keep height and width and have no window
    count as working pixel by pixel; so does normalisation, though its statistics may come from everywhere.
    """
    fields: dict[str, Field | None] = {}
    feeding = sources(model)
    for layer in model.layers:
        before = feeding[layer.name]
        fields[layer.name] = _field(layer, before, [fields[source.name] for source in before])
    return fields


def _field(layer: "keras.Layer", feeding: list["keras.Layer"], seen: list[Field | None]) -> Field | None:
    if len(layer.output.shape) != 4:
        return None
    # What nothing of the model feeds sees the picture itself: its input, or a Sequential model's first layer.
    known = [field for field in seen if field is not None] if feeding else [Field()]
    # A gate of one value per channel adds no pixels; branches of unlike jumps have no common grid.
    if not known or len({field.jump for field in known}) > 1:
        return None
    field = Field(
        first=_both(lambda *ends: min(ends), *(field.first for field in known)),
        last=_both(lambda *ends: max(ends), *(field.last for field in known)),
        jump=known[0].jump,
    )
    given = inputs_of(layer)
    shape = (given[0] if given else layer.output).shape[1:3]
    moved = window(layer, shape)
    if moved is None:
        return field if tuple(layer.output.shape[1:3]) == tuple(shape) else None
    before, extent, stride = moved
    return Field(
        first=_both(lambda first, jump, p: first - jump * p, field.first, field.jump, before),
        last=_both(lambda last, jump, p, k: last + jump * (k - 1 - p), field.last, field.jump, before, extent),
        jump=_both(lambda jump, s: jump * s, field.jump, stride),
    )


def window(layer: "keras.Layer", shape: Any) -> tuple[tuple[int, int], ...] | None:
    """Tell padding in front, extent and stride of a layer that moves a window over its input, each (down, across).

    Args:
        layer: any; None is the answer for one that moves no window.
        shape: height and width of its input.
    """
    kernel = getattr(layer, "kernel_size", None) or getattr(layer, "pool_size", None)
    if kernel is not None:
        extent = _both(lambda k, d: d * (k - 1) + 1, kernel, getattr(layer, "dilation_rate", (1, 1)))
        same = layer.padding == "same"
        before = _both(_same_padding, shape, extent, layer.strides) if same else (0, 0)
        return before, extent, tuple(layer.strides)
    if type(layer).__name__ == "ZeroPadding2D":
        (top, _), (left, _) = layer.padding
        return (top, left), (1, 1), (1, 1)
    if type(layer).__name__ == "Cropping2D":
        (top, _), (left, _) = layer.cropping
        return (-top, -left), (1, 1), (1, 1)
    return getattr(layer, "window", None)  # which a custom layer tells itself


def _same_padding(n: int | None, extent: int, stride: int) -> int:
    if n is None:
        raise ValueError("the padding of 'same' follows from the size; build the model for a fixed input size")
    return max((-(-n // stride) - 1) * stride + extent - n, 0) // 2


def _both(function: Any, *pairs: Any) -> tuple[int, int]:
    down, across = zip(*pairs, strict=True)
    return function(*down), function(*across)
