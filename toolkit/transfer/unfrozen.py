"""The second phase: once the head has converged, train the stages behind the cut as well, at a lower rate."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.feed.split import Split, class_weights
from toolkit.errors import UserError
from toolkit.lazy import keras, lazy_module
from toolkit.spec import Preprocessing
from toolkit.transfer.features import Extraction, FeatureExtractor, Progress, Views
from toolkit.transfer.freeze import cut_tensor, freeze, stages_of, trainable_part, unfreeze

batches = lazy_module("toolkit.transfer.fitting")
rates = lazy_module("toolkit.transfer.rates")
log = logging.getLogger("toolkit")


@dataclass(frozen=True)
class RestOptions:
    """How the unfrozen stages train.

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
class Pictures:
    """What the rest trains on, and how its inputs are made.

    Attributes:
        split: training and validation pictures.
        preprocessing: what the network was trained with.
        cache_dir: of features.
        views: of each training picture.
        extraction: dtype, engine and budgets; the cut is set here.
    """

    split: Split
    preprocessing: Preprocessing
    cache_dir: str | Path
    views: Views
    extraction: Extraction


@dataclass(frozen=True)
class RestResult:
    """What training the unfrozen stages came to.

    Attributes:
        val_accuracy: of the weights that were kept.
        best_epoch: counted from 1; 0 where no epoch beat what there was before.
        reached: the best validation accuracy of any epoch.
        val_logits: of the weights that were kept, float32 (pictures, classes).
    """

    val_accuracy: float
    best_epoch: int
    reached: float
    val_logits: np.ndarray


def train_rest(
    model: Any,
    pictures: Pictures,
    unfreeze_from: str,
    *,
    val_accuracy: float,
    val_loss: float = math.inf,
    options: RestOptions | None = None,
    progress: Progress | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> RestResult:
    """Train the stages from ``unfreeze_from`` on, what stands before them coming from the cache.

    The weights of the best epoch are kept, or those there were if none was better.

    Args:
        model: a flat functional classifier whose head has been fitted; changed in place.
        pictures: to train on.
        unfreeze_from: the first stage to train; the network's first one trains it whole, from the pictures.
        val_accuracy: of the model as it is.
        val_loss: its cross-entropy there.
        options: epochs, rates, schedule.
        progress: called with (done, total) while features are extracted.
        on_epoch: called with the metrics after each epoch.
    """
    options = options or RestOptions()
    stages = stages_of(model)
    first = stages.index(unfreeze_from)
    rest, train, val = _parts(model, pictures, stages[first - 1] if first else None, options, progress)
    keep = batches.KeepBest(val_accuracy, val_loss, rest.weights)
    starts = [stages[index] for index in reversed(range(first, len(stages) - 1))] if options.gradual else []
    epoch = 0
    for start, num_epochs in _phases(starts or [unfreeze_from], options.epochs):
        index = stages.index(start)
        if index:
            report = freeze(model, stages[index - 1], train_batch_norm=options.train_batch_norm)
        else:
            report = unfreeze(model, train_batch_norm=options.train_batch_norm)
        log.info("%s", report)
        rest.compile(
            _optimizer(options, stages[index:], num_epochs * len(train)),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        callbacks = [keep, *([_report(on_epoch, epoch, options.epochs)] if on_epoch else [])]
        rest.fit(
            train.from_epoch(epoch),
            steps_per_epoch=len(train),
            epochs=num_epochs,
            validation_data=val.from_epoch(0),
            validation_steps=len(val),
            callbacks=callbacks,
            shuffle=False,  # the batches come shuffled
            verbose=0,
        )
        epoch += num_epochs
    keep.restore()
    val_logits = rest.predict(val.from_epoch(0), steps=len(val), verbose=0)
    return RestResult(keep.val_accuracy, keep.best_epoch, keep.reached, val_logits)


def _parts(
    model: Any, pictures: Pictures, frozen_upto: str | None, options: RestOptions, progress: Progress | None
) -> tuple[Any, Any, Any]:
    """What trains, and its training and validation batches."""
    split, preprocessing = pictures.split, pictures.preprocessing
    weights = class_weights(split.train.labels, model.output_shape[-1]) if options.balanced else None
    training = split.train.labels, options.batch_size, options.seed, weights
    validation = split.val.labels, options.batch_size, None
    if frozen_upto is None:
        train = batches.PictureBatches(split.train.paths, preprocessing, *training)
        return model, train, batches.PictureBatches(split.val.paths, preprocessing, *validation)
    how = replace(pictures.extraction, stage=frozen_upto)
    with FeatureExtractor(model, preprocessing, cache_dir=pictures.cache_dir, how=how) as extractor:
        train_features = extractor.extract(split.train.paths, views=pictures.views, progress=progress)
        val_features = extractor.extract(split.val.paths, progress=progress)
    train = batches.FeatureBatches(train_features.values, *training)
    val = batches.FeatureBatches(val_features.values, *validation)
    return trainable_part(model, cut_tensor(model, frozen_upto)), train, val


def _phases(starts: list[str], epochs: int) -> list[tuple[str, int]]:
    """Epochs shared out over the starts, the later ones, with more to train, getting what is over.

    >>> _phases(["stage4", "stage3"], 5)
    [('stage4', 2), ('stage3', 3)]
    """
    starts = starts[-epochs:]
    share, over = divmod(epochs, len(starts))
    return [(start, share + (index >= len(starts) - over)) for index, start in enumerate(starts)]


def _optimizer(options: RestOptions, stages: tuple[str, ...], num_steps: int) -> Any:
    schedule = keras.optimizers.schedules.CosineDecay(options.learning_rate, max(1, num_steps))
    factors = rates.stage_factors(stages, options.stage_decay)
    return rates.StageRates(factors, learning_rate=schedule, weight_decay=options.weight_decay)


def _report(on_epoch: Callable[[dict[str, Any]], None], done: int, total: int) -> Any:
    def tell(epoch: int, logs: dict[str, float]) -> None:
        on_epoch({"epoch": done + epoch + 1, "epochs": total, **{name: float(value) for name, value in logs.items()}})

    return keras.callbacks.LambdaCallback(on_epoch_end=tell)
