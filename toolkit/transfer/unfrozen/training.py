"""The second phase: once the head has been fitted, train the stages behind the cut as well, at lower rates."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.data.feed.augmented import AugmentedViews
from toolkit.data.feed.split import Subset, class_weights
from toolkit.errors import UserError
from toolkit.lazy import keras
from toolkit.network.fused import fused_batch_norm, spare_grouped_convolutions
from toolkit.progress import step
from toolkit.transfer.features import Pictures
from toolkit.transfer.freeze import cut_tensors, freeze, stages_of, trainable_part, unfreeze

if TYPE_CHECKING:
    from toolkit.transfer.fitting import Batches

log = logging.getLogger("toolkit")

_MEASURED = 3  # steps, of which the first is traced


@dataclass(frozen=True)
class UnfrozenOptions:
    """Options of training the unfrozen stages.

    Attributes:
        epochs: passes over the training pictures; within a time budget the most there may be.
        batch_size: pictures per step.
        learning_rate: of the last stage at its height; it rises for a tenth of the steps, then falls to zero along a
            cosine.
        stage_decay: each earlier stage learns at this much of the rate of the one behind it.
        gradual: begin with the last two stages and let one more join at a time.
        train_batch_norm: also train batch normalisation, statistics included.
        weight_decay: decoupled, of all weights.
        balanced: weigh every class alike.
        seed: of order and views.
    """

    epochs: int = 5
    batch_size: int = 16
    learning_rate: float = 3e-3
    stage_decay: float = 0.9
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
class StepTime:
    """Seconds of a training step, and of what comes before the first: tracing."""

    step: float
    start: float


class StageTraining:
    """A network whose stages train from one on: on the pictures, or on the cached output of the stages before it.

    What the training leaves is the average of the weights over about the last epoch, which answers better than the
    last step's (Izmailov et al., UAI 2018). Batch normalisation that trains keeps the last step's weights: its
    statistics are of those.

    Args:
        model: a flat functional classifier whose head has been fitted; changed in place.
        pictures: ``split.train`` is trained on.
        first: the first stage to train; the network's first one trains it whole, on augmented pictures.
        options: rates, batches.
    """

    def __init__(self, model: "keras.Model", pictures: Pictures, first: str, options: UnfrozenOptions) -> None:
        self._model = model
        self._pictures = pictures
        self._options = options
        self._stages = stages_of(model)
        self._first = self._stages.index(first)
        self._part = model
        if self._first:
            self._part = trainable_part(model, cut_tensors(model, self._stages[self._first - 1]))
        train = pictures.split.train
        weights = class_weights(train.labels, model.output_shape[-1]) if options.balanced else None
        self._train = self._batches(train, options.seed, weights)
        self._compiled: int | None = None

    def __len__(self) -> int:
        """Steps of an epoch."""
        return len(self._train)

    def measure(self) -> StepTime:
        """Time training steps that change no weight."""
        self._compile(self._first)
        self._part.optimizer.learning_rate = 0.0
        ends = [time.monotonic()]

        def note(batch: int, logs: Any = None) -> None:
            ends.append(time.monotonic())

        with step("timing a training step"):
            self._fit(0, 1, _MEASURED, [keras.callbacks.LambdaCallback(on_train_batch_end=note)])
        seconds = np.diff(ends)
        return StepTime(float(seconds[1:].mean()), float(seconds[0]))

    def train(
        self,
        epochs: int,
        *,
        deadline: float = math.inf,
        on_epoch: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """Train for so many epochs, or until the deadline, by which the learning rate will have fallen to zero.

        Args:
            epochs: passes over the pictures.
            deadline: of ``time.monotonic()``.
            on_epoch: called with the metrics after each epoch.
        """
        from toolkit.transfer.fitting import Annealing, TellSteps

        gradual = list(reversed(range(self._first, len(self._stages) - 1))) if self._options.gradual else []
        done = 0
        name = self._stages[self._first]
        with step(f"training from {name} on", epochs * len(self)) as told:
            for first, share in _phases(gradual or [self._first], epochs):
                self._compile(first)
                until = time.monotonic() + (deadline - time.monotonic()) * share / (epochs - done)
                callbacks = [
                    Annealing(self._options.learning_rate, share * len(self), until),
                    TellSteps(told, done * len(self)),
                    *([_epoch_callback(on_epoch, done, epochs)] if on_epoch else []),
                ]
                self._fit(done, share, len(self), callbacks)
                done += share

    def logits(self, subset: Subset) -> np.ndarray:
        """Compute float32 logits (pictures, classes)."""
        batches = self._batches(subset, None, None)
        with step("judging what was trained"):
            return self._part.predict(batches.from_epoch(0), steps=len(batches), verbose=0)

    def _compile(self, first: int) -> None:
        """Let the stages from this one on train; the optimizer is a new one where it was another before."""
        from toolkit.transfer.fitting import StageRates, stage_factors

        if self._compiled == first:
            return
        options, self._compiled = self._options, first
        if first:
            report = freeze(self._model, self._stages[first - 1], train_batch_norm=options.train_batch_norm)
        else:
            report = unfreeze(self._model, train_batch_norm=options.train_batch_norm)
        log.info("%s", report)
        optimizer = StageRates(
            stage_factors(self._stages[first:], options.stage_decay),
            learning_rate=options.learning_rate,
            momentum=0.9,
            nesterov=True,
            weight_decay=options.weight_decay,
            use_ema=not options.train_batch_norm,
            ema_momentum=math.exp(-1 / len(self)),
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        spare_grouped_convolutions(self._part)
        self._part.compile(optimizer, loss, metrics=["accuracy"])

    def _fit(self, epoch: int, epochs: int, steps: int, callbacks: list["keras.callbacks.Callback"]) -> None:
        with fused_batch_norm(self._part):
            self._part.fit(
                self._train.from_epoch(epoch),
                steps_per_epoch=steps,
                epochs=epochs,
                callbacks=callbacks,
                shuffle=False,  # the batches come shuffled
                verbose=0,
            )

    def _batches(self, subset: Subset, seed: int | None, weights: dict[int, float] | None) -> "Batches":
        from toolkit.transfer.fitting import FeatureBatches, PictureBatches

        pictures, given = self._pictures, (subset.labels, self._options.batch_size, seed, weights)
        if not self._first:
            return PictureBatches(subset.paths, pictures.preprocessing, *given)
        views = AugmentedViews() if seed is None else pictures.views
        features = pictures.cut_features(self._model, self._stages[self._first - 1], subset.paths, views)
        return FeatureBatches(features, *given)


def _phases(starts: list[int], epochs: int) -> list[tuple[int, int]]:
    """Share epochs out over the starts, the later ones, with more to train, getting what is over.

    >>> _phases([4, 3], 5)
    [(4, 2), (3, 3)]
    """
    starts = starts[-epochs:]
    share, over = divmod(epochs, len(starts))
    return [(start, share + (index >= len(starts) - over)) for index, start in enumerate(starts)]


def _epoch_callback(on_epoch: Callable[[dict[str, Any]], None], done: int, total: int) -> "keras.callbacks.Callback":
    def report(epoch: int, logs: dict[str, float]) -> None:
        on_epoch({"epoch": done + epoch + 1, "epochs": total, **{name: float(value) for name, value in logs.items()}})

    return keras.callbacks.LambdaCallback(on_epoch_end=report)
