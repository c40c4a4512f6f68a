"""Batches for training and evaluation as ``tf.data`` pipelines.

Order and augmentation of a training epoch depend on the seed and the epoch's number alone, so a resumed run sees what
the unbroken run would have seen. Evaluation sees every picture exactly once, in order.
"""

import atexit
import functools
import gc
import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from toolkit.data.feed.arrays import BatchOptions, cached_pixels, training_recipe
from toolkit.data.feed.order import epoch_plan
from toolkit.data.feed.split import Subset
from toolkit.data.pixels import graph
from toolkit.spec import Preprocessing


def training_batches(subset: Subset, preprocessing: Preprocessing, options: BatchOptions) -> tf.data.Dataset:
    """Make endless shuffled batches ``(inputs, labels)``: float32 (batch, height, width, channels) and int32 (batch,).

    Take ``steps_per_epoch(subset, batch_size)`` batches for an epoch; its last batch holds what is left over.
    ``toolkit.data.feed.arrays.array_batches`` gives the same without TensorFlow.
    """
    recipe = training_recipe(subset, preprocessing, options)
    paths, labels = _as_bytes(subset.paths), np.asarray(subset.labels, np.int32)
    cache = cached_pixels(subset, recipe.canvas, options.cache_bytes)
    label_shape, label_dtype = ([None, recipe.num_classes], tf.float32) if recipe.is_mixed else ([None], tf.int32)

    def plan(epoch) -> tuple[np.ndarray, np.ndarray]:
        start = options.first_step * options.batch_size if epoch == options.first_epoch else 0
        own = epoch_plan(
            subset.labels, seed=options.seed, epoch=int(epoch), first_position=start, balanced=options.balanced
        )
        return own.positions, own.examples

    def decode(position, example):
        return position, example, graph.decode_pixels(tf.io.read_file(paths[example]), recipe.canvas)

    def finish(epoch, positions, examples, *pixels):
        def on_host(epoch, positions, examples, *pixels):
            own = cache[examples] if cache is not None else pixels[0]
            return recipe.finish(own, labels[examples], epoch, positions)

        inputs, targets = _on_host(on_host, [epoch, positions, examples, *pixels], [tf.float32, label_dtype])
        return tf.ensure_shape(inputs, [None, *preprocessing.input_shape]), tf.ensure_shape(targets, label_shape)

    def epoch_batches(epoch):
        positions, examples = _on_host(plan, [epoch], [tf.int64, tf.int64])
        plans = tf.ensure_shape(positions, [None]), tf.ensure_shape(examples, [None])
        order = tf.data.Dataset.from_tensor_slices(plans)
        if cache is None:
            order = order.map(decode, num_parallel_calls=tf.data.AUTOTUNE)
        batches = order.batch(options.batch_size)
        return batches.map(lambda *batch: finish(epoch, *batch), num_parallel_calls=tf.data.AUTOTUNE)

    epochs = tf.data.Dataset.range(options.first_epoch, tf.int64.max)
    return epochs.flat_map(epoch_batches).prefetch(tf.data.AUTOTUNE)


def evaluation_batches(
    subset: Subset, preprocessing: Preprocessing, *, batch_size: int, cache_bytes: int = 0
) -> tf.data.Dataset:
    """Every picture once, in order, as batches ``(inputs, labels)``.

    For subsets that are evaluated again and again, pixels of up to ``cache_bytes`` are decoded once and kept.
    """
    paths, labels = _as_bytes(subset.paths), tf.constant(subset.labels, tf.int32)
    cache = cached_pixels(subset, preprocessing, cache_bytes)

    def decode(index):
        return graph.decode_pixels(tf.io.read_file(paths[index]), preprocessing), labels[index]

    def look_up(index):
        pixels = _on_host(lambda own: cache[own], [index], tf.uint8)
        return tf.ensure_shape(pixels, [None, *preprocessing.size, 3]), tf.gather(labels, index)

    indices = tf.data.Dataset.range(len(subset))
    if cache is None:
        batches = indices.map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size)
    else:
        batches = indices.batch(batch_size).map(look_up, num_parallel_calls=tf.data.AUTOTUNE)
    return batches.map(
        lambda pixels, own: (graph.normalize(pixels, preprocessing), own), num_parallel_calls=tf.data.AUTOTUNE
    ).prefetch(tf.data.AUTOTUNE)


def computed_batches(batch: Callable[[int], tuple[np.ndarray, ...]], num_batches: int | None = None) -> tf.data.Dataset:
    """Batches that NumPy computes one at a time, each while the one before it is used.

    ``tf.data.Dataset.from_generator`` would serve, but under Python 3.11 it has glibc map and unmap, and the system
    fill with zeros, every allocation of 128 KiB in the process from then on: up to twice the time of a training step.

    Args:
        batch: from a batch's number, counted from 0, to its arrays; only their first dimension may differ between
            batches. Called for batch 0 at once.
        num_batches: ``None`` for endless ones.
    """
    first = batch(0)

    def compute(number):
        arrays = _on_host(batch, [number], [array.dtype for array in first])
        return tuple(tf.ensure_shape(own, [None, *array.shape[1:]]) for own, array in zip(arrays, first, strict=True))

    return tf.data.Dataset.range(num_batches or tf.int64.max).map(compute).prefetch(tf.data.AUTOTUNE)


def steps_per_epoch(subset: Subset, batch_size: int) -> int:
    """Batches that show each picture once."""
    return -(-len(subset) // batch_size)


def _as_bytes(paths: Sequence[str]) -> tf.Tensor:
    """Paths as the file system has them, which need not be UTF-8."""
    return tf.constant([os.fsencode(path) for path in paths], tf.string)


def _on_host(function: Callable, inputs: list, dtype):
    """Augmentation and the cache are NumPy's; both are pure, so several batches may be on their way at once."""
    _stop_iterators_at_exit()
    return tf.numpy_function(function, inputs, dtype, stateful=False)


@functools.cache  # once in a process
def _stop_iterators_at_exit() -> None:
    atexit.register(_stop_iterators)


def _stop_iterators() -> None:
    # A thread that needs Python's lock for a function above never gets it once the interpreter shuts down, and an
    # iterator that is taken down then waits for its threads: a script that still held one would never end.
    # At every process's end, so quickly: issubclass asks an abstract class and takes three times as long.
    iterator = tf.data.Iterator
    for thing in gc.get_objects():
        if iterator in type(thing).__mro__:
            thing._iterator_resource = None
