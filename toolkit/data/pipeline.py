"""Batches for training and evaluation as ``tf.data`` pipelines.

The order of a training epoch depends on the seed and the epoch's number alone, so a resumed run sees what the
unbroken run would have seen. Evaluation sees every picture exactly once, in order.
"""

from typing import Literal

import numpy as np
import tensorflow as tf

from toolkit.data import graph
from toolkit.data.split import Subset
from toolkit.spec import Preprocessing

Augment = Literal["none", "shift", "shift_flip"]


def training_batches(
    subset: Subset,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    seed: int,
    first_epoch: int = 0,
    augment: Augment = "none",
) -> tf.data.Dataset:
    """Endless shuffled batches ``(inputs, labels)``: float32 (batch, height, width, channels) and int32 (batch,).

    Take ``steps_per_epoch(subset, batch_size)`` batches for an epoch; its last batch holds what is left over.

    Args:
        subset: pictures and labels.
        preprocessing: from file to input.
        batch_size: pictures per batch.
        seed: with the epoch's number decides order and augmentation.
        first_epoch: where to go on from.
        augment: ``"shift"`` moves the picture by up to an eighth, edges filled with zeros (CIFAR's pad and crop, He
            et al. 2015 section 4.2); ``"shift_flip"`` also mirrors half of them.
    """
    paths, labels = tf.constant(subset.paths), tf.constant(subset.labels, tf.int32)

    def load(key):
        index = tf.cast(key[1], tf.int32)
        pixels = graph.decode_pixels(tf.io.read_file(paths[index]), preprocessing)
        if augment != "none":
            example_seed = tf.stack([key[0] * 1_000_003 + seed, key[1]])
            pixels = shift_pixels(pixels, example_seed, flip=augment == "shift_flip")
        return graph.normalize(pixels, preprocessing), labels[index]

    def epoch_batches(epoch):
        order = tf.random.experimental.index_shuffle(
            tf.range(len(subset), dtype=tf.int64),
            seed=tf.stack([tf.constant(seed, tf.int64), epoch]),
            max_index=tf.constant(len(subset) - 1, tf.int64),
        )
        keys = tf.stack([tf.fill([len(subset)], epoch), order], axis=1)
        examples = tf.data.Dataset.from_tensor_slices(keys).map(load, num_parallel_calls=tf.data.AUTOTUNE)
        return examples.batch(batch_size)

    epochs = tf.data.Dataset.range(first_epoch, np.iinfo(np.int64).max)
    return epochs.flat_map(epoch_batches).prefetch(tf.data.AUTOTUNE)


def evaluation_batches(subset: Subset, preprocessing: Preprocessing, *, batch_size: int) -> tf.data.Dataset:
    """Every picture once, in order, as batches ``(inputs, labels)``."""

    def load(path, label):
        return graph.normalize(graph.decode_pixels(tf.io.read_file(path), preprocessing), preprocessing), label

    slices = tf.data.Dataset.from_tensor_slices((list(subset.paths), np.asarray(subset.labels, np.int32)))
    return slices.map(load, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size).prefetch(tf.data.AUTOTUNE)


def steps_per_epoch(subset: Subset, batch_size: int) -> int:
    """Batches that show each picture once."""
    return -(-len(subset) // batch_size)


def shift_pixels(pixels: tf.Tensor, seed: tf.Tensor, *, flip: bool) -> tf.Tensor:
    """Shift uint8 (height, width, 3) by up to an eighth each way, and mirror half the time if ``flip``."""
    height, width = pixels.shape[0], pixels.shape[1]
    pad_height, pad_width = max(1, height // 8), max(1, width // 8)
    padded = tf.pad(pixels, [[pad_height, pad_height], [pad_width, pad_width], [0, 0]])
    shifted = tf.image.stateless_random_crop(padded, [height, width, 3], seed=seed)
    if not flip:
        return shifted
    return tf.image.stateless_random_flip_left_right(shifted, seed=seed + 1)
