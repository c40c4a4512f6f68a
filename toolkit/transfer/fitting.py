"""Batches, learning rates by stage and by time, for training by Keras on pictures or cached features.

Imports Keras, whose classes some of these extend: import it where training starts.
"""

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.data.augment import parse
from toolkit.data.feed.arrays import CACHE_BYTES, SubsetPixels, TrainingRecipe
from toolkit.data.feed.split import Subset
from toolkit.data.pixels.decode import normalize
from toolkit.lazy import keras
from toolkit.network import stage_of
from toolkit.progress import Step
from toolkit.spec import Preprocessing

if TYPE_CHECKING:
    import tensorflow as tf

#: Augmentation of pictures that stages train on, another view in each epoch.
AUGMENT = "resized_crop:0.8/1, mirror"

_WARM_UP = 0.1  # of a training


class Batches:
    """Batches that show every picture once in an epoch, in an order that follows from the seed and the epoch's number.

    Args:
        labels: integer class per picture.
        batch_size: pictures in a batch.
        seed: None keeps the pictures in order and plain, for validation.
        class_weights: of each class in the loss; by default all alike.
    """

    _num_inputs = 1

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

        def flat(number: int) -> tuple[np.ndarray, ...]:
            inputs, *others = self.batch(first + number)
            return (*inputs, *others) if isinstance(inputs, tuple) else (inputs, *others)

        batches = computed_batches(flat, count)
        num_inputs = self._num_inputs
        return batches if num_inputs == 1 else batches.map(lambda *own: (own[:num_inputs], *own[num_inputs:]))

    def batch(self, number: int) -> tuple[Any, ...]:
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

    def _inputs(self, chosen: np.ndarray, epoch: int) -> "np.ndarray | tuple[np.ndarray, ...]":
        raise NotImplementedError


class FeatureBatches(Batches):
    """Cached features as they are stored, in training of a random view each.

    Args:
        features: (views, pictures, …), the plain one first; may lie on disk. Several such arrays are several inputs.
        options: see ``Batches``.
    """

    def __init__(self, features: np.ndarray | tuple[np.ndarray, ...], *options: Any) -> None:
        super().__init__(*options)
        self._features = features if isinstance(features, tuple) else (features,)
        self._num_inputs = len(self._features)
        self._views = lru_cache(maxsize=1)(self._epoch_views)

    def _inputs(self, chosen: np.ndarray, epoch: int) -> "np.ndarray | tuple[np.ndarray, ...]":
        views = self._views(epoch)[chosen]
        inputs = tuple(features[views, chosen] for features in self._features)
        return inputs if len(inputs) > 1 else inputs[0]

    def _epoch_views(self, epoch: int) -> np.ndarray:
        if self._seed is None:
            return np.zeros(len(self._labels), int)
        num_views = len(self._features[0])
        return np.random.default_rng([self._seed, epoch, 1]).integers(num_views, size=len(self._labels))


class PictureBatches(Batches):
    """Pictures, in training another view of each in every epoch; decoded once, if they fit into memory.

    Args:
        paths: picture files.
        preprocessing: what the network was trained with.
        options: see ``Batches``.
    """

    def __init__(self, paths: Sequence[str], preprocessing: Preprocessing, *options: Any) -> None:
        super().__init__(*options)
        augmentations = () if self._seed is None else parse(AUGMENT)
        self._recipe = TrainingRecipe(preprocessing, augmentations, self._seed or 0, num_classes=0)
        subset = Subset(tuple(paths), tuple(self._labels.tolist()))
        self._pixels_of = SubsetPixels(subset, self._recipe.canvas, CACHE_BYTES)

    def _inputs(self, chosen: np.ndarray, epoch: int) -> np.ndarray:
        pixels, _ = self._pixels_of(chosen)
        return normalize(self._recipe.augment(pixels, epoch, chosen), self._recipe.preprocessing)


@keras.saving.register_keras_serializable(package="toolkit")
class StageRates(keras.optimizers.SGD):
    """Discriminative learning rates: an early stage, whose features are general, moves less than a late one.

    Howard and Ruder, *Universal Language Model Fine-tuning* (ACL 2018), section 3.2, who divide the rate by 2.6 from
    layer to layer. By SGD, because AdamW, tried at 1e-4 with smoothed labels, lost what the start had.

    Args:
        factors: on the learning rate, by stage; 1 for stages not named.
        **kwargs: of ``keras.optimizers.SGD``.
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


class Annealing(keras.callbacks.Callback):
    """Learning rate that rises for a tenth of a training and falls to zero along a cosine, in steps or in time.

    Of the two the one that is further on counts. So a machine that slows down ends the training in time, and as it
    should end: at a rate of zero (Li et al., Budgeted Training, ICLR 2020).

    Args:
        peak: the height of the rate.
        num_steps: batches of the training.
        deadline: of ``time.monotonic()``, when it must end.
    """

    def __init__(self, peak: float, num_steps: int, deadline: float = math.inf) -> None:
        super().__init__()
        self._peak = peak
        self._num_steps = num_steps
        self._deadline = deadline
        self._start = time.monotonic()
        self._step = 0

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._start = time.monotonic()

    def on_train_batch_begin(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if hasattr(self.model, "jax_state_sync"):  # JAX keeps the variables' values to itself while it trains
            self.model.jax_state_sync()
        self.model.optimizer.learning_rate = self.rate(time.monotonic())

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._step += 1
        if time.monotonic() >= self._deadline:
            self.model.stop_training = True

    def rate(self, now: float) -> float:
        """Compute the learning rate of the next step."""
        allowed = max(self._deadline - self._start, 1e-9)
        progress = min(1.0, max((self._step + 0.5) / self._num_steps, (now - self._start) / allowed))
        return self._peak * min(progress / _WARM_UP, (1 + math.cos(math.pi * progress)) / 2)


class TellSteps(keras.callbacks.Callback):
    """Tells a ``toolkit.progress.Step`` how many batches have been trained on, ``done`` of them before."""

    def __init__(self, told: Step, done: int = 0) -> None:
        super().__init__()
        self._told = told
        self._done = done

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._done += 1
        self._told(self._done)
