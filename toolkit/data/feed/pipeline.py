"""Batches for training and evaluation as ``tf.data`` pipelines.

Order and augmentation of a training epoch depend on the seed and the epoch's number alone, so a resumed run sees what
the unbroken run would have seen. Evaluation sees every picture exactly once, in order. Pictures are read by the decoder
that scans read with, so what a scan calls readable is read here.
"""

import atexit
import functools
import gc
import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import tensorflow as tf

from toolkit.data.feed.arrays import BatchOptions, SubsetPixels, training_recipe
from toolkit.data.feed.order import epoch_plan
from toolkit.data.feed.split import Subset
from toolkit.data.pixels import graph
from toolkit.data.pixels.decode import ImageError
from toolkit.spec import Preprocessing


def training_batches(subset: Subset, preprocessing: Preprocessing, options: BatchOptions) -> tf.data.Dataset:
    """Make endless shuffled batches ``(inputs, labels)``: float32 (batch, height, width, channels) and int32 (batch,).

    Take ``steps_per_epoch(subset, batch_size)`` batches for an epoch; its last batch holds what is left over.
    ``toolkit.data.feed.arrays.array_batches`` gives the same without TensorFlow.
    """
    epochs = tf.data.Dataset.range(options.first_epoch, tf.int64.max)
    return epochs.flat_map(_epoch_batches(subset, preprocessing, options)).prefetch(tf.data.AUTOTUNE)


def epoch_batches(subset: Subset, preprocessing: Preprocessing, options: BatchOptions) -> tf.data.Dataset:
    """Make the batches of one epoch, of the next one each time that they are gone through.

    For a loop that counts epochs by itself, such as ``fit`` without ``steps_per_epoch``.
    """
    numbers = itertools.count(options.first_epoch)
    # Stateful, so that it is asked again each time.
    begun = tf.data.Dataset.range(1).map(lambda _: tf.numpy_function(lambda: np.int64(next(numbers)), [], tf.int64))
    own = begun.flat_map(_epoch_batches(subset, preprocessing, options))
    num_batches = steps_per_epoch(subset, options.batch_size)
    return own.apply(tf.data.experimental.assert_cardinality(num_batches)).prefetch(tf.data.AUTOTUNE)


def _epoch_batches(subset: Subset, preprocessing: Preprocessing, options: BatchOptions) -> Callable:
    """Make the function from an epoch's number to its batches."""
    recipe = training_recipe(subset, preprocessing, options)
    labels = np.asarray(subset.labels, np.int32)
    pixels_of = SubsetPixels(subset, recipe.canvas, options.cache_bytes)
    label_shape, label_dtype = ([None, recipe.num_classes], tf.float32) if recipe.is_mixed else ([None], tf.int32)

    def plan(epoch) -> tuple[np.ndarray, np.ndarray]:
        start = options.first_step * options.batch_size if epoch == options.first_epoch else 0
        own = epoch_plan(
            subset.labels, seed=options.seed, epoch=int(epoch), first_position=start, balanced=options.balanced
        )
        return own.positions, own.examples

    def finish(epoch, positions, examples):
        def on_host(epoch, positions, examples):
            pixels, kept = pixels_of(examples)
            return recipe.finish(pixels, labels[examples[kept]], epoch, positions[kept])

        inputs, targets = _on_host(on_host, [epoch, positions, examples], [tf.float32, label_dtype])
        return tf.ensure_shape(inputs, [None, *preprocessing.input_shape]), tf.ensure_shape(targets, label_shape)

    def batches_of(epoch):
        epoch = tf.ensure_shape(epoch, [])
        positions, examples = _on_host(plan, [epoch], [tf.int64, tf.int64])
        plans = tf.ensure_shape(positions, [None]), tf.ensure_shape(examples, [None])
        batches = tf.data.Dataset.from_tensor_slices(plans).batch(options.batch_size)
        return batches.map(lambda *batch: finish(epoch, *batch), num_parallel_calls=tf.data.AUTOTUNE)

    return batches_of


def evaluation_batches(
    subset: Subset, preprocessing: Preprocessing, *, batch_size: int, cache_bytes: int = 0
) -> tf.data.Dataset:
    """Every picture once, in order, as batches ``(inputs, labels)``.

    For subsets that are evaluated again and again, pixels of up to ``cache_bytes`` are decoded once and kept.
    """
    labels = np.asarray(subset.labels, np.int32)
    pixels_of = SubsetPixels(subset, preprocessing, cache_bytes)

    def look_up(examples):
        def on_host(examples):
            pixels, kept = pixels_of(examples)
            return pixels, labels[examples[kept]]

        pixels, own = _on_host(on_host, [examples], [tf.uint8, tf.int32])
        pixels, own = tf.ensure_shape(pixels, [None, *preprocessing.size, 3]), tf.ensure_shape(own, [None])
        return graph.normalize(pixels, preprocessing), own

    batches = tf.data.Dataset.range(len(subset)).batch(batch_size)
    return batches.map(look_up, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


@contextmanager
def picture_errors() -> Iterator[None]:
    """Turn an error about a picture, which TensorFlow passes on with a traceback in it, back into an ``ImageError``."""
    try:
        yield
    except tf.errors.OpError as error:
        found = re.search(r"ImageError: (.+?)\nTraceback", error.message or "", re.DOTALL)
        if not found:
            raise
        raise ImageError(found[1]) from None


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
