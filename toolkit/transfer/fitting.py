"""Batches, a learning rate for each stage, and the best epoch's weights, for training by Keras on cached features.

Imports Keras, whose classes some of these extend: import it where training starts.
"""

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.data.feed.augmented import AugmentedViews
from toolkit.data.pixels.decode import normalize, read_rgb, resize_pixels
from toolkit.lazy import keras
from toolkit.machine import num_threads
from toolkit.progress import Step
from toolkit.spec import Preprocessing
from toolkit.transfer.freeze import stage_of

if TYPE_CHECKING:
    import tensorflow as tf

# Keras' metric is float32: the same share of right answers may come out a little larger.
_ROUNDING = 1e-6


class Batches:
    """Batches that show every picture once in an epoch, in an order that follows from the seed and the epoch's number.

    Args:
        labels: integer class per picture.
        batch_size: pictures in a batch.
        seed: None keeps the pictures in order and plain, for validation.
        class_weights: of each class in the loss; by default all alike.
    """

    def __init__(
        self, labels: Sequence[int], batch_size: int, seed: int | None, class_weights: dict[int, float] | None = None
    ) -> None:
        self._labels = np.asarray(labels, np.int32)
        self._batch_size = batch_size
        self._seed = seed
        self._weights: np.ndarray | None = None
        if class_weights is not None:
            self._weights = np.array([class_weights[int(label)] for label in labels], np.float32)
        self._order = lru_cache(maxsize=1)(self._epoch_order)  # drawn once an epoch and not once a batch

    def __len__(self) -> int:
        return -(-len(self._labels) // self._batch_size)

    def from_epoch(
        self, first_epoch: int, num_epochs: int | None = None
    ) -> "tf.data.Dataset | Iterator[tuple[np.ndarray, ...]]":
        """Give ``fit`` its batches, ``len(self)`` of them to an epoch, by default without end."""
        first = first_epoch * len(self)
        count = None if num_epochs is None else num_epochs * len(self)
        if keras.backend.backend() != "tensorflow":
            return (self.batch(number) for number in itertools.islice(itertools.count(first), count))
        from toolkit.data.feed.pipeline import computed_batches

        return computed_batches(lambda number: self.batch(first + number), count)

    def batch(self, number: int) -> tuple[np.ndarray, ...]:
        """Inputs, labels and, with class weights, weights of a batch, counted through all epochs."""
        epoch, step = divmod(int(number), len(self))
        chosen = self._order(epoch)[step * self._batch_size : (step + 1) * self._batch_size]
        weights = () if self._weights is None else (self._weights[chosen],)
        return self._inputs(chosen, epoch), self._labels[chosen], *weights

    def _epoch_order(self, epoch: int) -> np.ndarray:
        order = np.arange(len(self._labels))
        if self._seed is not None:
            np.random.default_rng([self._seed, epoch]).shuffle(order)
        return order

    def _inputs(self, chosen: np.ndarray, epoch: int) -> np.ndarray:
        raise NotImplementedError


class FeatureBatches(Batches):
    """Cached features as they are stored, in training of a random view each.

    Args:
        features: (views, pictures, …), the plain one first; may lie on disk.
        options: see ``Batches``.
    """

    def __init__(self, features: np.ndarray, *options: Any) -> None:
        super().__init__(*options)
        self._features = features
        self._views = lru_cache(maxsize=1)(self._epoch_views)

    def _inputs(self, chosen: np.ndarray, epoch: int) -> np.ndarray:
        return self._features[self._views(epoch)[chosen], chosen]

    def _epoch_views(self, epoch: int) -> np.ndarray:
        if self._seed is None:
            return np.zeros(len(self._labels), int)
        return np.random.default_rng([self._seed, epoch, 1]).integers(len(self._features), size=len(self._labels))


class PictureBatches(Batches):
    """Pictures decoded anew, in training each epoch of another view.

    Args:
        paths: picture files.
        preprocessing: what the network was trained with.
        options: see ``Batches``.
    """

    def __init__(self, paths: Sequence[str], preprocessing: Preprocessing, *options: Any) -> None:
        super().__init__(*options)
        self._paths = paths
        self._preprocessing = preprocessing

    def _inputs(self, chosen: np.ndarray, epoch: int) -> np.ndarray:
        with ThreadPoolExecutor(num_threads()) as pool:
            pixels = list(pool.map(lambda index: self._pixels(index, epoch), chosen))
        return normalize(np.stack(pixels), self._preprocessing)

    def _pixels(self, index: int, epoch: int) -> np.ndarray:
        rgb = read_rgb(self._paths[index], self._preprocessing)
        if self._seed is None:
            return resize_pixels(rgb, self._preprocessing)
        picture = int(index).to_bytes(8, "little")
        return AugmentedViews(seed=self._seed).pixels(rgb, self._preprocessing, epoch + 1, picture)


@keras.saving.register_keras_serializable(package="toolkit")
class StageRates(keras.optimizers.AdamW):
    """Discriminative learning rates: an early stage, whose features are general, moves less than a late one.

    Howard and Ruder, *Universal Language Model Fine-tuning* (ACL 2018), section 3.2, who divide the rate by 2.6 from
    layer to layer. Scaling gradients would not do it: Adam divides their scale out again.

    Args:
        factors: on the learning rate, by stage; 1 for stages not named.
        **kwargs: of ``keras.optimizers.AdamW``.
    """

    def __init__(self, factors: dict[str, float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.factors = dict(factors)

    def build(self, variables: list[Any]) -> None:
        super().build(variables)
        stages = [stage_of(variable.path.split("/")[-2]) for variable in variables]
        self._variable_factors = tuple(self.factors.get(stage, 1.0) for stage in stages)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        # The look-up that Keras' guide to optimizers of one's own shows: here TensorFlow hands in its own variables.
        factor = self._variable_factors[self._get_variable_index(variable)]
        super().update_step(gradient, variable, learning_rate * factor)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factors": self.factors}


def stage_factors(stages: tuple[str, ...], decay: float) -> dict[str, float]:
    """Give the last stage the factor 1, and each one before it ``decay`` times as much.

    >>> stage_factors(("stage3", "stage4", "head"), 0.5)
    {'stage3': 0.25, 'stage4': 0.5, 'head': 1.0}
    """
    return {stage: decay ** (len(stages) - 1 - index) for index, stage in enumerate(stages)}


class KeepBest(keras.callbacks.Callback):
    """Remember the weights of the best epoch, if it beats what was there before.

    Better is what gets more validation pictures right and, where as many are right, what has the smaller loss there.

    Args:
        val_accuracy: before the first epoch.
        val_loss: before the first epoch.
        weights: the variables to remember.

    Attributes:
        val_accuracy: of what is remembered.
        best_epoch: when it was reached, counted from 1; 0 for what was there before.
        reached: the best of any epoch.
    """

    def __init__(self, val_accuracy: float, val_loss: float, weights: list[Any]) -> None:
        super().__init__()
        self.val_accuracy = val_accuracy
        self.best_epoch = 0
        self.reached = 0.0
        self._val_loss = val_loss
        self._num_epochs = 0
        self._weights = weights
        self._best = self._values()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._num_epochs += 1  # Keras counts from 0 again at every call of ``fit``
        accuracy, loss = (float((logs or {})[name]) for name in ("val_accuracy", "val_loss"))
        self.reached = max(self.reached, accuracy)
        as_many_right = abs(accuracy - self.val_accuracy) < _ROUNDING
        if loss < self._val_loss if as_many_right else accuracy > self.val_accuracy:
            self.val_accuracy, self._val_loss, self.best_epoch = accuracy, loss, self._num_epochs
            self._best = self._values()

    def restore(self) -> None:
        """Put the best weights back."""
        for weight, value in zip(self._weights, self._best, strict=True):
            weight.assign(value)

    def _values(self) -> list[np.ndarray]:
        return [keras.ops.convert_to_numpy(weight) for weight in self._weights]


class TellSteps(keras.callbacks.Callback):
    """Tells a ``toolkit.progress.Step`` how many batches have been trained on, ``done`` of them before."""

    def __init__(self, told: Step, done: int = 0) -> None:
        super().__init__()
        self._told = told
        self._done = done

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._done += 1
        self._told(self._done)
