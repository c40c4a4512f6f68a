"""Filters to look at: edge detectors of image processing as ready convolution layers.

A layer answers one map per input channel, without padding, and correlates as all convolution layers do: the filter is
not flipped. Bright left of dark is positive for the vertical ones, bright above dark for ``horizontal``.
"""

from pathlib import Path
from typing import Any

from toolkit.draw.picture import check_path, page
from toolkit.errors import UserError, unknown_name
from toolkit.lazy import keras, lazy_module

np = lazy_module("numpy")

FILTERS: dict[str, tuple[tuple[int, ...], ...]] = {
    "vertical": ((1, 0, -1), (1, 0, -1), (1, 0, -1)),
    "horizontal": ((1, 1, 1), (0, 0, 0), (-1, -1, -1)),
    "sobel": ((1, 0, -1), (2, 0, -2), (1, 0, -1)),
    "scharr": ((3, 0, -3), (10, 0, -10), (3, 0, -3)),
    # Of a quiz in the notes: vertical edges, in the middle of four rows above all.
    "quiz": ((0, 1, -1, 0), (1, 3, -3, -1), (1, 3, -3, -1), (0, 1, -1, 0)),
}
# Bright at the upper left and the lower right: it has edges both ways.
_PICTURE = ((10, 10, 10, 0, 0, 0),) * 3 + ((0, 0, 0, 10, 10, 10),) * 3


def filter_layer(name: str) -> "keras.Layer":
    """A frozen depthwise convolution with the filter ``name`` of ``FILTERS``.

    Raises:
        UserError: no such filter.

    >>> layer = filter_layer("vertical")
    >>> step = np.repeat(np.array([10.0, 10, 10, 0, 0, 0])[None, :], 6, axis=0)
    >>> [float(value) for value in layer(step[None, :, :, None])[0, 0, :, 0]]
    [0.0, 30.0, 30.0, 0.0]
    """
    if name not in FILTERS:
        raise UserError(unknown_name("filter", name, list(FILTERS)))

    def same_for_all_channels(shape: tuple[int, ...], dtype: Any = None) -> Any:
        kernel = np.asarray(FILTERS[name], "float32")[:, :, None, None]
        return keras.ops.cast(np.broadcast_to(kernel, shape), dtype or "float32")

    return keras.layers.DepthwiseConv2D(
        len(FILTERS[name]), use_bias=False, depthwise_initializer=same_for_all_channels, trainable=False, name=name
    )


def draw_filters(path: Path) -> None:
    """Draw every filter, a small picture, and what the filter answers for it, all with their numbers.

    Args:
        path: where to; its suffix, ``.svg`` or ``.png``, is the format.

    Raises:
        UserError: another suffix, or a folder that is not there.
    """
    check_path(path)
    picture = np.array(_PICTURE, "float32")
    with page(path, 7.5, 2.4 * len(FILTERS)) as figure:
        figure.subplots_adjust(0.03, 0.02, 0.97, 0.96)
        rows = figure.subplots(len(FILTERS), 3)
        for row, (name, kernel) in zip(rows, FILTERS.items(), strict=True):
            answer = keras.ops.convert_to_numpy(filter_layer(name)(picture[None, :, :, None]))[0, :, :, 0]
            panels = {name: np.array(kernel), "picture": picture, "answer": answer}
            for axes, (title, numbers) in zip(row, panels.items(), strict=True):
                _draw_numbers(axes, title, numbers)


def _draw_numbers(axes: Any, title: str, numbers: Any) -> None:
    """Draw an array as shades of grey, its values in them."""
    axes.imshow(numbers, cmap="gray")
    axes.set_title(title, fontsize=10)
    axes.axis("off")
    middle = (numbers.min() + numbers.max()) / 2
    for (down, across), value in np.ndenumerate(numbers):
        ink = "black" if value > middle else "white"
        axes.text(across, down, f"{value:g}", ha="center", va="center", fontsize=8, color=ink)
