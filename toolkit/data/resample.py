"""Antialiased resizing of pixels on the host: products of narrow matrices, in float32, rounded once at the end.

Pillow's 8-bit resize rounds between its two passes, which no graph operation reproduces, and its float resize takes
two to six times as long as this.
"""

import os
import threading
from functools import lru_cache

import numpy as np

from toolkit.spec import Interpolation

# Rows or columns of the result that one product makes. Each is a mean of a few neighbours of the source: for more at a
# time the matrices would be mostly zeros.
_BAND = 8
# OpenBLAS, on which NumPy stands, gives larger products (rows × columns × depth) to several threads. Pictures are
# decoded by several threads already, and those would wait for each other.
_LARGEST_PRODUCT = 1 << 18
# Each of a hundred short products gives Python's lock up and takes it back. Threads that all do so wait for it; while
# half of them decode, in one long call each, photographs of 500 pixels come from two threads a tenth faster.
_TURNS = threading.BoundedSemaphore(max(1, (os.cpu_count() or 1) // 2))


def resample(pixels: np.ndarray, height: int, width: int, interpolation: Interpolation) -> np.ndarray:
    """Resize, averaging over what a pixel of the result covers.

    What Pillow's and TensorFlow's antialiased filters compute.

    Args:
        pixels: uint8 (…, …, channels).
        height: of the result.
        width: of the result.
        interpolation: the filter, stretched by the factor of a reduction.

    Returns:
        uint8 (height, width, channels).
    """
    with _TURNS:
        return _resampled(pixels, height, width, interpolation)


def _resampled(pixels: np.ndarray, height: int, width: int, interpolation: Interpolation) -> np.ndarray:
    channels = pixels.shape[2]
    rows = np.empty((height, pixels.shape[1] * channels), np.float32)
    starts, matrices = _bands(pixels.shape[0], height, interpolation)
    for band, (start, matrix) in enumerate(zip(starts, matrices, strict=True)):
        part = rows[band * _BAND : (band + 1) * _BAND]
        source = pixels[start : start + matrix.shape[1]].astype(np.float32, order="C").reshape(matrix.shape[1], -1)
        _multiply(matrix[: len(part)], source, part)
    values = np.empty((height, width * channels), np.float32)
    starts, matrices = _channel_bands(pixels.shape[1], width, interpolation, channels)
    for band, (start, matrix) in enumerate(zip(starts, matrices, strict=True)):
        part = values[:, band * _BAND * channels : (band + 1) * _BAND * channels]
        _multiply(rows[:, start * channels :][:, : len(matrix)], matrix[:, : part.shape[1]], part)
    np.clip(np.rint(values, out=values), 0, 255, out=values)
    return values.astype(np.uint8).reshape(height, width, channels)


def _multiply(left: np.ndarray, right: np.ndarray, out: np.ndarray) -> None:
    """``left @ right``, in products that stay in this thread."""
    (height, depth), width = left.shape, right.shape[1]
    step = max(1, _LARGEST_PRODUCT // (depth * min(height, width)))
    for start in range(0, max(height, width), step):
        part = slice(start, start + step)
        if width >= height:
            np.matmul(left, right[:, part], out=out[:, part])
        else:
            np.matmul(left[part], right, out=out[part])


@lru_cache(maxsize=32)
def _bands(size: int, resized: int, interpolation: Interpolation) -> tuple[list[int], np.ndarray]:
    """For each band of the result: where its source begins, and the weights, float32 (bands, _BAND, depth)."""
    places, weights = _weights(size, resized, interpolation)
    starts, ends = places[::_BAND, 0], np.append(places[_BAND - 1 :: _BAND, -1], places[-1, -1])[: -(-resized // _BAND)]
    depth = int((ends - starts).max()) + 1
    starts = np.minimum(starts, size - depth)
    matrices = np.zeros((len(starts), _BAND, depth), np.float32)
    result, tap = np.nonzero(weights)
    band, row = np.divmod(result, _BAND)
    matrices[band, row, places[result, tap] - starts[band]] = weights[result, tap]
    return starts.tolist(), matrices


@lru_cache(maxsize=32)
def _channel_bands(
    size: int, resized: int, interpolation: Interpolation, channels: int
) -> tuple[list[int], np.ndarray]:
    """The same transposed, each weight once for every channel: (bands, depth × channels, _BAND × channels)."""
    starts, matrices = _bands(size, resized, interpolation)
    bands, _, depth = matrices.shape
    spread = np.zeros((bands, depth, channels, _BAND, channels), np.float32)
    for channel in range(channels):
        spread[:, :, channel, :, channel] = matrices.transpose(0, 2, 1)
    return starts, spread.reshape(bands, depth * channels, _BAND * channels)


def _weights(size: int, resized: int, interpolation: Interpolation) -> tuple[np.ndarray, np.ndarray]:
    """Places in the source and their weights, (resized, places), for each place of the result."""
    scale = size / resized
    stretch = max(scale, 1.0)
    reach = stretch * (1 if interpolation == "bilinear" else 2)
    centres = (np.arange(resized)[:, None] + 0.5) * scale
    places = np.floor(centres - reach + 0.5).astype(int) + np.arange(int(2 * reach) + 2)
    distances = np.abs(places + 0.5 - centres) / stretch
    weights = _triangle(distances) if interpolation == "bilinear" else _cubic(distances)
    weights[(places < 0) | (places >= size)] = 0
    # What lies beyond the border weighs nothing, and may as well lie on it.
    return places.clip(0, size - 1), weights / weights.sum(axis=1, keepdims=True)


def _triangle(distances: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, 1 - distances)


def _cubic(distances: np.ndarray) -> np.ndarray:
    """R. Keys, Cubic Convolution Interpolation for Digital Image Processing (1981), with a = -1/2."""
    x = distances
    return np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, np.where(x < 2, ((2.5 - 0.5 * x) * x - 4) * x + 2, 0))
