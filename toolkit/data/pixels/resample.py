"""Antialiased resizing of pixels on the host: products of narrow matrices, in float32, rounded once at the end.

Pillow's 8-bit resize rounds between its two passes, which no graph operation reproduces, and its float resize takes
two to six times as long as this.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from toolkit.spec import Interpolation

# Rows or columns of the result that one matrix makes. Each is a mean of a few neighbours of the source: for more at a
# time the matrices would be mostly zeros.
_BAND = 8
# OpenBLAS, on which NumPy stands, gives larger products (rows × columns × depth) to several threads. Pictures are
# decoded by several threads already, and those would wait for each other.
_LARGEST_PRODUCT = 1 << 18
# Values of the source worked on at a time, so that they stay in the processor's cache. Fewer would mean more calls,
# between which threads wait for Python's lock.
_LARGEST_GROUP = 1 << 19


#: First and one past the last line of a resized picture that is wanted.
Span = tuple[int, int]

# A source of more columns than this and than 16 times its rows is turned first: matrices across its channels would
# take 360 bytes a column and more time than all else.
_WIDEST = 1 << 13
# Matrices of a longer source are not kept.
_LONGEST_KEPT = 1 << 13


def resample(
    pixels: np.ndarray,
    height: int,
    width: int,
    interpolation: Interpolation,
    rows: Span | None = None,
    columns: Span | None = None,
) -> np.ndarray:
    """Resize uint8 (…, …, channels) to (height, width, channels), averaging over what a pixel of the result covers.

    What Pillow's and TensorFlow's antialiased filters compute: the filter is stretched by the factor of a reduction.
    Of the result only ``rows`` and ``columns`` are computed, and only what they cover of the source is looked at: the
    rest may be of any size.

    Args:
        pixels: the source.
        height: of the whole result.
        width: of the whole result.
        interpolation: the filter.
        rows: first and one past the last that is wanted; by default all.
        columns: the same.
    """
    rows, columns = rows or (0, height), columns or (0, width)
    num_covered = pixels.shape[1] * (columns[1] - columns[0]) // width
    if num_covered > max(_WIDEST, 16 * pixels.shape[0]):
        turned = pixels.transpose(1, 0, 2)
        return resample(turned, width, height, interpolation, columns, rows).transpose(1, 0, 2)
    channels = pixels.shape[2]
    tops, down = _kept(_bands, pixels.shape[0], height, interpolation, rows)
    lefts, across = _kept(_channel_bands, pixels.shape[1], width, interpolation, columns, channels)
    first, lefts = lefts[0], lefts - lefts[0]
    lines = pixels.reshape(len(pixels), -1)[:, first : first + lefts[-1] + across.shape[1]]
    values = np.empty((len(down), _BAND, len(across), _BAND * channels), np.float32)
    group = _bands_at_once(down, across, lines.shape[1])
    for start in range(0, len(down), group):
        part = slice(start, start + group)
        shrunk = _multiply(down[part], lines[tops[part, None] + np.arange(down.shape[2])].astype(np.float32))
        windows = sliding_window_view(shrunk.reshape(-1, lines.shape[1]), across.shape[1], axis=1)[:, lefts]
        products = values[part].reshape(len(windows), len(across), -1)
        np.matmul(windows.swapaxes(0, 1), across, out=products.swapaxes(0, 1))
    np.clip(np.rint(values, out=values), 0, 255, out=values)
    resized = values.astype(np.uint8).reshape(len(down) * _BAND, len(across) * _BAND, channels)
    return resized[: rows[1] - rows[0], : columns[1] - columns[0]]


def _bands_at_once(down: np.ndarray, across: np.ndarray, width: int) -> int:
    by_product = _LARGEST_PRODUCT // (_BAND * across[0].size)
    by_group = _LARGEST_GROUP // (down.shape[2] * width)
    return max(1, min(by_product, by_group))


def _multiply(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """``left @ right``, float32 (bands, …, …), in products that stay in this thread."""
    product = np.empty((*left.shape[:2], right.shape[2]), np.float32)
    step = max(1, _LARGEST_PRODUCT // left[0].size)
    for start in range(0, right.shape[2], step):
        part = slice(start, start + step)
        np.matmul(left, right[..., part], out=product[..., part])
    return product


def _kept(make: Any, size: int, resized: int, interpolation: Interpolation, span: Span, *more: int) -> Any:
    """Call ``make`` through its cache; for a long source without it, so that those do not fill memory."""
    is_small = size * (span[1] - span[0]) <= _LONGEST_KEPT * resized
    return (make if is_small else make.__wrapped__)(size, resized, interpolation, span, *more)


@lru_cache(maxsize=32)
def _bands(size: int, resized: int, interpolation: Interpolation, span: Span) -> tuple[np.ndarray, np.ndarray]:
    """First source line of each band of the result, and the weights, float32 (bands, _BAND, depth)."""
    places, weights = _weights(size, resized, interpolation, span)
    starts, ends = places[::_BAND, 0], np.append(places[_BAND - 1 :: _BAND, -1], places[-1, -1])
    depth = int((ends[: len(starts)] - starts).max()) + 1
    starts = np.minimum(starts, size - depth)
    matrices = np.zeros((len(starts), _BAND, depth), np.float32)
    result, tap = np.nonzero(weights)
    band, row = np.divmod(result, _BAND)
    matrices[band, row, places[result, tap] - starts[band]] = weights[result, tap]
    return starts, matrices


@lru_cache(maxsize=32)
def _channel_bands(
    size: int, resized: int, interpolation: Interpolation, span: Span, channels: int
) -> tuple[np.ndarray, np.ndarray]:
    """``_bands`` for interleaved channels, transposed: the weights are (bands, depth × channels, _BAND × channels)."""
    starts, matrices = _kept(_bands, size, resized, interpolation, span)
    bands, _, depth = matrices.shape
    spread = np.zeros((bands, depth, channels, _BAND, channels), np.float32)
    for channel in range(channels):
        spread[:, :, channel, :, channel] = matrices.transpose(0, 2, 1)
    return starts * channels, spread.reshape(bands, depth * channels, _BAND * channels)


def _weights(size: int, resized: int, interpolation: Interpolation, span: Span) -> tuple[np.ndarray, np.ndarray]:
    """Places in the source and their weights, (lines, places), for each line of the result within ``span``."""
    scale = size / resized
    stretch = max(scale, 1.0)
    reach = stretch * (1 if interpolation == "bilinear" else 2)
    centres = (np.arange(*span)[:, None] + 0.5) * scale
    places = np.floor(centres - reach + 0.5).astype(int) + np.arange(int(2 * reach) + 2)
    distances = np.abs(places + 0.5 - centres) / stretch
    weights = np.maximum(0.0, 1 - distances) if interpolation == "bilinear" else _cubic(distances)
    weights[(places < 0) | (places >= size)] = 0
    # What lies beyond the border weighs nothing, and may as well lie on it.
    return places.clip(0, size - 1), weights / weights.sum(axis=1, keepdims=True)


def _cubic(x: np.ndarray) -> np.ndarray:
    """R. Keys, Cubic Convolution Interpolation for Digital Image Processing (1981), with a = -1/2."""
    return np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, np.where(x < 2, ((2.5 - 0.5 * x) * x - 4) * x + 2, 0))
