"""Whole subsets as arrays, decoded on the host by several threads."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from toolkit.data.decode import ImageSource, decode_pixels, normalize
from toolkit.data.split import Subset
from toolkit.spec import Preprocessing


def load_pixels(sources: Sequence[ImageSource], preprocessing: Preprocessing) -> np.ndarray:
    """uint8 RGB of shape (len(sources), height, width, 3).

    Raises:
        ImageError: a picture cannot be read.
    """
    if len(sources) == 1:  # a server's usual request: starting threads would cost more than the picture
        return decode_pixels(sources[0], preprocessing)[None]
    pixels = np.empty((len(sources), *preprocessing.size, 3), np.uint8)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for index, picture in enumerate(pool.map(lambda source: decode_pixels(source, preprocessing), sources)):
            pixels[index] = picture
    return pixels


def calibration_batches(
    subset: Subset, preprocessing: Preprocessing, num_examples: int, *, batch_size: int = 32
) -> Iterator[np.ndarray]:
    """Normalised float32 batches of up to ``num_examples`` pictures spread evenly over ``subset``."""
    count = min(num_examples, len(subset))
    chosen = [subset.paths[i * len(subset) // count] for i in range(count)]
    for start in range(0, count, batch_size):
        yield normalize(load_pixels(chosen[start : start + batch_size], preprocessing), preprocessing)
