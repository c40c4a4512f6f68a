"""The second phase: once the head has converged, train the stages behind the cut as well, at a lower rate."""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.data.feed.split import class_weights
from toolkit.errors import UserError
from toolkit.lazy import keras
from toolkit.metrics import softmax, top_k_accuracy
from toolkit.progress import step
from toolkit.transfer.features import Pictures
from toolkit.transfer.freeze import cut_tensor, freeze, stages_of, trainable_part, unfreeze

if TYPE_CHECKING:
    from toolkit.transfer.fitting import Batches

log = logging.getLogger("toolkit")


@dataclass(frozen=True)
class UnfrozenOptions:
    """Options of training the unfrozen stages.

    Attributes:
        epochs: passes over the training pictures.
        batch_size: pictures per step.
        learning_rate: of the last stage at the start; it falls to zero along a cosine.
        stage_decay: each earlier stage learns at this much of the rate of the one behind it.
        gradual: begin with the last two stages and let one more join at a time.
        train_batch_norm: also train batch normalisation, statistics included.
        weight_decay: of AdamW.
        balanced: weigh every class alike.
        seed: of order and views.
    """

    epochs: int = 5
    batch_size: int = 16
    learning_rate: float = 1e-4
    stage_decay: float = 0.4
    gradual: bool = False
    train_batch_norm: bool = False
    weight_decay: float = 1e-4
    balanced: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size) < 1 or self.learning_rate <= 0 or not 0 < self.stage_decay <= 1:
            raise UserError(
                "epochs and batch size must be at least 1, the learning rate positive, the stage decay in (0, 1]; "
                f"got {self.epochs}, {self.batch_size}, {self.learning_rate}, {self.stage_decay}"
            )


@dataclass(frozen=True)
class UnfrozenResult:
    """The outcome of training unfrozen stages.

    Attributes:
        best_epoch: counted from 1; 0 where no epoch beat the model as it was.
        reached: the best validation accuracy of any epoch.
        val_accuracy: of the weights that were kept.
        val_logits: of the weights that were kept, float32 (pictures, classes).
    """

    best_epoch: int
    reached: float
    val_accuracy: float
    val_logits: np.ndarray


def train_unfrozen(
    model: "keras.Model",
    pictures: Pictures,
    unfreeze_from: str,
    *,
    val_logits: np.ndarray | None = None,
    options: UnfrozenOptions | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> UnfrozenResult:
    """Train the stages from ``unfreeze_from`` on, the output of those before it coming from the cache.

    The weights of the best epoch are kept, or those there were if none was better.

    Args:
        model: a flat functional classifier whose head has been fitted; changed in place.
        pictures: to train on.
        unfreeze_from: the first stage to train; the network's first one trains it whole, from the pictures.
        val_logits: of the model as it is; None where its classifier has not been fitted, so that any epoch is better.
        options: epochs, rates, schedule.
        on_epoch: called with the metrics after each epoch.
    """
    from toolkit.transfer.fitting import KeepBest, TellSteps

    options = options or UnfrozenOptions()
    stages = stages_of(model)
    first = stages.index(unfreeze_from)
    part, train, val = _trainable_part(model, pictures, stages[first - 1] if first else None, options)
    keep = KeepBest(*_scores(val_logits, pictures.split.val.labels), part.weights)
    starts = [stages[index] for index in reversed(range(first, len(stages) - 1))] if options.gradual else []
    epoch = 0
    with step(f"training from {unfreeze_from} on", options.epochs * len(train)) as told:
        for start, num_epochs in _phases(starts or [unfreeze_from], options.epochs):
            index = stages.index(start)
            if index:
                report = freeze(model, stages[index - 1], train_batch_norm=options.train_batch_norm)
            else:
                report = unfreeze(model, train_batch_norm=options.train_batch_norm)
            log.info("%s", report)
            part.compile(
                _optimizer(options, stages[index:], num_epochs * len(train)),
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                metrics=["accuracy"],
            )
            callbacks = [keep, TellSteps(told, epoch * len(train))]
            part.fit(
                train.from_epoch(epoch),
                steps_per_epoch=len(train),
                epochs=num_epochs,
                validation_data=val.from_epoch(0),
                validation_steps=len(val),
                callbacks=[*callbacks, *([_epoch_callback(on_epoch, epoch, options.epochs)] if on_epoch else [])],
                shuffle=False,  # the batches come shuffled
                verbose=0,
            )
            epoch += num_epochs
    keep.restore()
    val_logits = part.predict(val.from_epoch(0), steps=len(val), verbose=0)
    return UnfrozenResult(keep.best_epoch, keep.reached, keep.val_accuracy, val_logits)


def _trainable_part(
    model: "keras.Model", pictures: Pictures, frozen_upto: str | None, options: UnfrozenOptions
) -> tuple["keras.Model", "Batches", "Batches"]:
    """Take the part that trains, with its training and validation batches."""
    from toolkit.transfer.fitting import FeatureBatches, PictureBatches

    split = pictures.split
    weights = class_weights(split.train.labels, model.output_shape[-1]) if options.balanced else None
    training = split.train.labels, options.batch_size, options.seed, weights
    validation = split.val.labels, options.batch_size, None
    if frozen_upto is None:
        val_batches = PictureBatches(split.val.paths, pictures.preprocessing, *validation)
        return model, PictureBatches(split.train.paths, pictures.preprocessing, *training), val_batches
    train, val = pictures.features(model, frozen_upto)
    part = trainable_part(model, cut_tensor(model, frozen_upto))
    return part, FeatureBatches(train.values, *training), FeatureBatches(val.values, *validation)


def _scores(logits: np.ndarray | None, labels: Sequence[int]) -> tuple[float, float]:
    """Accuracy and cross-entropy of logits, or the worst there are."""
    if logits is None:
        return 0.0, math.inf
    right = softmax(logits)[np.arange(len(labels)), labels]
    return top_k_accuracy(logits, np.asarray(labels), 1), -float(np.log(np.maximum(right, 1e-30)).mean())


def _phases(starts: list[str], epochs: int) -> list[tuple[str, int]]:
    """Share epochs out over the starts, the later ones, with more to train, getting what is over.

    >>> _phases(["stage4", "stage3"], 5)
    [('stage4', 2), ('stage3', 3)]
    """
    starts = starts[-epochs:]
    share, over = divmod(epochs, len(starts))
    return [(start, share + (index >= len(starts) - over)) for index, start in enumerate(starts)]


def _optimizer(options: UnfrozenOptions, stages: tuple[str, ...], num_steps: int) -> "keras.Optimizer":
    from toolkit.transfer.fitting import StageRates, stage_factors

    schedule = keras.optimizers.schedules.CosineDecay(options.learning_rate, max(1, num_steps))
    factors = stage_factors(stages, options.stage_decay)
    return StageRates(factors, learning_rate=schedule, weight_decay=options.weight_decay)


def _epoch_callback(on_epoch: Callable[[dict[str, Any]], None], done: int, total: int) -> "keras.callbacks.Callback":
    def report(epoch: int, logs: dict[str, float]) -> None:
        on_epoch({"epoch": done + epoch + 1, "epochs": total, **{name: float(value) for name, value in logs.items()}})

    return keras.callbacks.LambdaCallback(on_epoch_end=report)
