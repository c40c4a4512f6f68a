"""Crops cut out of a picture by TensorFlow operations, for the served graph.

The plan of them is ``toolkit.ensemble.crops``. The twin of ``toolkit.ensemble.cut``.
"""

from collections.abc import Sequence
from dataclasses import replace

import tensorflow as tf

from toolkit.data.pixels import graph
from toolkit.ensemble.crops import Crop, crop_start, is_plain, region_start, resized_to
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
    size, box = preprocessing.size, resized_to(preprocessing, crop.shorter_side).size
    shape = tf.shape(resized)
    if crop.place is None:
        return graph.resize_rgb(_region(resized, shape, box, crop), replace(preprocessing, resize="stretch"))
    top, left = (crop_start(shape[i], box[i], size[i], crop.region, crop.place[i]) for i in (0, 1))
    return tf.ensure_shape(resized[top : top + size[0], left : left + size[1]], [*size, 3])


def _region(resized: tf.Tensor, shape: tf.Tensor, box: tuple[int, int], crop: Crop) -> tf.Tensor:
    if crop.region == "all":
        return resized
    top, left = (region_start(shape[i], box[i], crop.region) for i in (0, 1))
    return resized[top : top + box[0], left : left + box[1]]
