"""Crops cut out of a picture by TensorFlow operations, for the served graph.

The plan of them is ``toolkit.ensemble.crops``. The twin of ``toolkit.ensemble.cut``.
"""

from collections.abc import Sequence
from dataclasses import replace

import tensorflow as tf

from toolkit.data.pixels import graph
from toolkit.ensemble.crops import Crop, is_plain, resized_to, window
from toolkit.spec import Preprocessing


def decode_crops(image_bytes: tf.Tensor, preprocessing: Preprocessing, crops: Sequence[Crop]) -> tf.Tensor:
    """Cut crops out of a scalar string of encoded bytes: uint8 RGB, shape ``(len(crops), *preprocessing.size, 3)``."""
    if is_plain(preprocessing, crops):
        return graph.decode_pixels(image_bytes, preprocessing)[None]
    sides = sorted({crop.shorter_side for crop in crops})
    rgb = graph.decode_rgb(image_bytes, resized_to(preprocessing, sides[-1]))
    scales = {side: graph.resize_rgb(rgb, resized_to(preprocessing, side)) for side in sides}
    # Mirrors are taken of all at once: a node per crop would make a large graph twice as large.
    upright = list(dict.fromkeys(replace(crop, mirror=False) for crop in crops))
    cut = tf.stack([_cut(scales[crop.shorter_side], preprocessing, crop) for crop in upright])
    cut = tf.concat([cut, tf.reverse(cut, axis=[2])], axis=0)
    places = [upright.index(replace(crop, mirror=False)) + crop.mirror * len(upright) for crop in crops]
    return tf.ensure_shape(tf.gather(cut, places), [len(crops), *preprocessing.size, 3])


def _cut(resized: tf.Tensor, preprocessing: Preprocessing, crop: Crop) -> tf.Tensor:
    pixels = resized[window(tf.shape(resized), preprocessing, crop)]
    if crop.place is None:
        return graph.resize_rgb(pixels, replace(preprocessing, resize="stretch"))
    return tf.ensure_shape(pixels, [*preprocessing.size, 3])
