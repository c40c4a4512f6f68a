"""Crops cut out of a picture by TensorFlow operations, for the served graph.

The plan of them is ``toolkit.ensemble.crops``. The twin of ``toolkit.ensemble.cut``.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import tensorflow as tf

from toolkit.data.pixels import graph
from toolkit.ensemble.crops import Crop, is_plain, resized_to, window
from toolkit.spec import Preprocessing


def decode_crops(image_bytes: tf.Tensor, preprocessing: Preprocessing, crops: Sequence[Crop]) -> tf.Tensor:
    """Cut crops out of a scalar string of encoded bytes: uint8 RGB, shape ``(len(crops), *preprocessing.size, 3)``."""
    if is_plain(preprocessing, crops):
        return graph.decode_pixels(image_bytes, preprocessing)[None]
    largest = resized_to(preprocessing, max(crop.shorter_side for crop in crops))
    rgb = graph.decode_rgb(image_bytes, largest)
    # Mirrors are taken of all at once: a node per crop would make a large graph twice as large.
    upright = sorted({replace(crop, mirror=False): None for crop in crops}, key=lambda crop: crop.shorter_side)
    scales = [tuple(own) for _, own in groupby(upright, key=lambda crop: crop.shorter_side)]
    cut = tf.concat([_of_scale(rgb, preprocessing, own) for own in scales], axis=0)
    cut = tf.concat([cut, tf.reverse(cut, axis=[2])], axis=0)
    places = [upright.index(replace(crop, mirror=False)) + crop.mirror * len(upright) for crop in crops]
    return tf.ensure_shape(tf.gather(cut, places), [len(crops), *preprocessing.size, 3])


def _of_scale(rgb: tf.Tensor, preprocessing: Preprocessing, crops: Sequence[Crop]) -> tf.Tensor:
    target = resized_to(preprocessing, crops[0].shorter_side)

    def out_of_whole():
        resized = graph.resize_rgb(rgb, target)
        cut = [(resized[window(tf.shape(resized), preprocessing, crop)], crop.place is None) for crop in crops]
        return tf.stack([_as_network_takes(pixels, preprocessing, is_region) for pixels, is_region in cut])

    return tf.cond(graph.is_long(rgb, target), lambda: _each_alone(rgb, preprocessing, target, crops), out_of_whole)


def _each_alone(
    rgb: tf.Tensor, preprocessing: Preprocessing, target: Preprocessing, crops: Sequence[Crop]
) -> tf.Tensor:
    """Compute each crop of a picture that is too long to be resized whole."""
    kinds = [(crop.place is None, crop.place is None and crop.region == "all") for crop in crops]
    parts, order = [], []
    for kind in dict.fromkeys(kinds):
        is_region, is_whole = kind
        own = [index for index, other in enumerate(kinds) if other == kind]
        order += own
        if is_whole:
            parts.append(tf.stack([graph.resize_rgb(rgb, replace(preprocessing, resize="stretch"))] * len(own)))
            continue
        shape, size = graph.resized_size(rgb, target), target.size if is_region else preprocessing.size
        places = [window(shape, preprocessing, crops[index]) for index in own]
        starts = tf.stack([tf.stack([rows.start, columns.start]) for rows, columns in places])

        def cut(start, size=size, is_region=is_region):
            pixels = graph.resize_window(rgb, target, tf.unstack(start), size)
            return _as_network_takes(pixels, preprocessing, is_region)

        spec = tf.TensorSpec([*preprocessing.size, 3], tf.uint8)
        parts.append(tf.map_fn(cut, starts, fn_output_signature=spec))
    return tf.gather(tf.concat(parts, axis=0), [order.index(index) for index in range(len(crops))])


def _as_network_takes(pixels: tf.Tensor, preprocessing: Preprocessing, is_region: bool) -> tf.Tensor:
    if is_region:
        pixels = graph.resize_to(pixels, preprocessing.size, preprocessing)
    return tf.ensure_shape(pixels, [*preprocessing.size, 3])
