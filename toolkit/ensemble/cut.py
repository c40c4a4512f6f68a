"""Crops cut out of a picture on the host, with Pillow and NumPy; the plan of them is ``toolkit.ensemble.crops``.

The twin of ``toolkit.ensemble.cut_graph``: the same bytes give the same pixels in both.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from toolkit.data.feed.arrays import load_pixels
from toolkit.data.pixels.decode import ImageSource, decode_pixels, read_rgb, resize_rgb, resize_window
from toolkit.data.pixels.sizes import is_long, resized_size
from toolkit.ensemble.crops import Crop, is_plain, resized_to, window
from toolkit.machine import num_threads
from toolkit.spec import Preprocessing


def decode_crops(source: ImageSource, preprocessing: Preprocessing, crops: Sequence[Crop]) -> np.ndarray:
    """Decode a picture once, resize it to each scale once, and cut: uint8 RGB (len(crops), *preprocessing.size, 3).

    Raises:
        ImageError: the picture cannot be read.
    """
    if is_plain(preprocessing, crops):
        return decode_pixels(source, preprocessing)[None]
    largest = resized_to(preprocessing, max(crop.shorter_side for crop in crops))
    rgb = read_rgb(source, largest)
    scales = {side: _resize(rgb, resized_to(preprocessing, side)) for side in {crop.shorter_side for crop in crops}}
    return np.stack([_cut(rgb, scales[crop.shorter_side], preprocessing, crop) for crop in crops])


def load_crops(sources: Sequence[ImageSource], preprocessing: Preprocessing, crops: Sequence[Crop]) -> np.ndarray:
    """Cut the crops of several pictures by several threads: uint8 (len(sources), len(crops), height, width, 3).

    Raises:
        ImageError: a picture cannot be read.
    """
    if is_plain(preprocessing, crops):
        return load_pixels(sources, preprocessing)[:, None]
    with ThreadPoolExecutor(num_threads()) as pool:
        return np.stack(list(pool.map(lambda source: decode_crops(source, preprocessing, crops), sources)))


def _resize(rgb: np.ndarray, target: Preprocessing) -> np.ndarray | None:
    """The resized picture that crops are cut out of; ``None`` of one too long to be resized whole."""
    if is_long(rgb.shape[0], rgb.shape[1], target):
        return None
    return resize_rgb(rgb, *resized_size(rgb.shape[0], rgb.shape[1], target), target.interpolation)


def _cut(rgb: np.ndarray, resized: np.ndarray | None, preprocessing: Preprocessing, crop: Crop) -> np.ndarray:
    if resized is not None:
        pixels = resized[window(resized.shape, preprocessing, crop)]
    elif crop.place is None and crop.region == "all":
        pixels = rgb
    else:
        target = resized_to(preprocessing, crop.shorter_side)
        shape = resized_size(rgb.shape[0], rgb.shape[1], target)
        pixels = resize_window(rgb, target, window(shape, preprocessing, crop))
    if crop.place is None:
        pixels = resize_rgb(pixels, *preprocessing.size, preprocessing.interpolation)
    return pixels[:, ::-1] if crop.mirror else pixels
