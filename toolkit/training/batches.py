"""The batches that ``fit`` takes: the pipeline's, divided among devices and hosts, with labels for every output.

TensorFlow reads through ``tf.data``. Other backends read arrays, and need no TensorFlow.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from toolkit.data.feed.arrays import BatchOptions, SubsetPixels, array_batches
from toolkit.data.feed.split import Subset, class_weights
from toolkit.data.pixels.decode import normalize
from toolkit.lazy import keras
from toolkit.spec import Preprocessing
from toolkit.training.config import TrainConfig
from toolkit.training.devices import Shard
from toolkit.training.losses import LOGITS
from toolkit.training.run_dir import Position

_MEBIBYTE = 1 << 20


def num_examples(subset: Subset, shard: Shard) -> int:
    """Count the pictures of an epoch: all but the few of its last batch that do not fill every device."""
    return len(subset) // shard.num_devices * shard.num_devices


def steps_per_epoch(subset: Subset, batch_size: int, shard: Shard) -> int:
    """Count the batches that show each of them once."""
    return -(-num_examples(subset, shard) // batch_size)


def training_data(
    subset: Subset,
    preprocessing: Preprocessing,
    config: TrainConfig,
    *,
    num_classes: int,
    outputs: list[str],
    shard: Shard,
    start: Position,
) -> Any:
    """Make this process's part of the endless batches that follow ``start``, as ``fit`` takes them."""
    options = BatchOptions(
        batch_size=config.run.batch_size,
        seed=config.run.seed,
        first_epoch=start.epoch,
        first_step=start.step,
        augment=config.data.augment,
        num_classes=num_classes,
        balanced=config.data.balanced,
        cache_bytes=config.data.cache_mib * _MEBIBYTE,
    )
    weights = _weights(subset, num_classes) if config.data.class_weights else None

    def finish(inputs: Any, labels: Any) -> tuple[Any, ...]:
        inputs, labels = own_part(shard, inputs, labels)
        weighted = () if weights is None else (_example_weights(weights, labels),)
        return inputs, _for_outputs(labels, outputs), *weighted

    if keras.backend.backend() != "tensorflow":
        finished = (finish(*batch) for batch in array_batches(subset, preprocessing, options))
        return (batch for batch in finished if len(batch[0]))
    from toolkit.data.feed.pipeline import training_batches

    batches = training_batches(subset, preprocessing, options)
    batches = batches.map(finish).filter(lambda inputs, *rest: keras.ops.shape(inputs)[0] > 0)
    batches.as_numpy_iterator = _refuse  # MLflow's autolog goes through all of a data set to describe it
    return batches


def _refuse() -> Any:
    raise ValueError("training batches have no end")


def validation_data(
    subset: Subset, preprocessing: Preprocessing, config: TrainConfig, *, outputs: list[str], shard: Shard
) -> Any:
    """Make batches of this process's part of every picture once; what only fills the last batch up weighs nothing."""
    batch_size, cache_bytes = config.run.batch_size, config.data.cache_mib * _MEBIBYTE
    # Keras counts what fills up among the examples it takes the mean of, so all others weigh a little more.
    weight = 1 + (-(len(subset) % batch_size) % shard.num_devices) / len(subset)

    def finish(inputs: Any, labels: Any) -> tuple[Any, ...]:
        if shard.num_devices == 1:
            return inputs, _for_outputs(labels, outputs)
        inputs, labels, weights = own_part(shard, *padded(shard, inputs, labels))
        return inputs, _for_outputs(labels, outputs), weight * weights

    if keras.backend.backend() != "tensorflow":
        return _ArrayBatches(subset, preprocessing, batch_size, cache_bytes, finish)
    from toolkit.data.feed.pipeline import evaluation_batches

    return evaluation_batches(subset, preprocessing, batch_size=batch_size, cache_bytes=cache_bytes).map(finish)


def picture_errors() -> AbstractContextManager[None]:
    """Let an error about a picture that cannot be read leave ``fit`` as what it is."""
    if keras.backend.backend() != "tensorflow":
        return nullcontext()
    from toolkit.data.feed import pipeline

    return pipeline.picture_errors()


def own_part(shard: Shard, *arrays: Any) -> tuple[Any, ...]:
    """Cut out the rows of a batch that belong to this process, less those that do not fill all devices.

    >>> own_part(Shard(index=1, count=2, num_devices=2), np.arange(9))
    (array([4, 5, 6, 7]),)
    """
    share = keras.ops.shape(arrays[0])[0] // shard.num_devices * (shard.num_devices // shard.count)
    return tuple(array[shard.index * share : (shard.index + 1) * share] for array in arrays)


def padded(shard: Shard, inputs: Any, labels: Any) -> tuple[Any, Any, Any]:
    """Repeat a batch's first rows until it fills all devices, and weigh them: 1, and 0 for what was repeated.

    >>> [float(weight) for weight in padded(Shard(num_devices=2), np.arange(3), np.arange(3))[2]]
    [1.0, 1.0, 1.0, 0.0]
    """
    numbers = _numbers()
    count = keras.ops.shape(inputs)[0]
    total = count + -count % shard.num_devices
    place = numbers.arange(total)
    weights = numbers.where(place < count, 1.0, 0.0)
    return numbers.take(inputs, place % count, axis=0), numbers.take(labels, place % count, axis=0), weights


class _ArrayBatches(keras.utils.PyDataset):
    def __init__(self, subset: Subset, preprocessing: Preprocessing, batch_size: int, cache_bytes: int, finish: Any):
        super().__init__()
        self._labels = np.asarray(subset.labels, np.int32)
        self._preprocessing = preprocessing
        self._batch_size = batch_size
        self._finish = finish
        self._pixels = SubsetPixels(subset, preprocessing, cache_bytes)

    def __len__(self) -> int:
        return -(-len(self._labels) // self._batch_size)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        examples = np.arange(len(self._labels))[index * self._batch_size : (index + 1) * self._batch_size]
        pixels, kept = self._pixels(examples)
        return self._finish(normalize(pixels, self._preprocessing), self._labels[examples[kept]])


def _weights(subset: Subset, num_classes: int) -> np.ndarray:
    by_class = class_weights(subset.labels, num_classes)
    return np.array([by_class.get(label, 0.0) for label in range(num_classes)], np.float32)


def _example_weights(weights: np.ndarray, labels: Any) -> Any:
    if len(labels.shape) == 2:  # mixed pictures
        return _numbers().matmul(labels, weights)
    return _numbers().take(weights, labels, axis=0)


def _numbers() -> Any:
    """Return the library that computes on batches: TensorFlow within its pipeline, NumPy elsewhere."""
    return keras.ops if keras.backend.backend() == "tensorflow" else np


def _for_outputs(labels: Any, outputs: list[str]) -> Any:
    return labels if outputs == [LOGITS] else dict.fromkeys(outputs, labels)
