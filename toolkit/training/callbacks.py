"""Keras callbacks of a run: checkpoints, metrics on disk, the learning rate of an epoch, stopping.

``StopAtNotFinite()`` and ``TellProgress()`` serve in any ``model.fit``, too. ``SaveProgress`` is of a run alone: what
it keeps is of use only with the run's order of pictures; elsewhere ``keras.callbacks.BackupAndRestore`` does it.
"""

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from toolkit.lazy import keras
from toolkit.progress import Step, step
from toolkit.training.config import TrainConfig
from toolkit.training.losses import LOGITS
from toolkit.training.optimizers import best_epoch, build_schedule, epoch_rate
from toolkit.training.run_dir import GRADIENT_NORMS, METRICS, Position, RunDirectory

# Reading the loss waits for the device.
_LOOK_EVERY = 25
# As often as a display is drawn.
_SECONDS_BETWEEN_TELLING = 0.1

Row = dict[str, Any]


@dataclass(frozen=True)
class Progress:
    """Progress of a run: its position, metrics of the parts, so far, of the epoch it is in, and of all finished epochs.

    The history grows with the run.
    """

    position: Position
    segments: list[Row]
    history: list[Row]


class NotFiniteError(Exception):
    """The loss is no longer a number; ``position`` is the first step known to be wrong."""

    def __init__(self, position: Position, loss: float) -> None:
        super().__init__(f"loss {loss} in epoch {position.epoch + 1}, by step {position.step}")
        self.position = position
        self.loss = loss


class StopAtNotFinite(keras.callbacks.Callback):
    """Raise ``NotFiniteError`` soon after the loss stops being a number, and before it gets into a checkpoint.

    Unlike ``keras.callbacks.TerminateOnNaN`` it does not wait for the device at each step, sees the loss of validation,
    and lets callbacks behind it see nothing of an epoch that went wrong.

    Args:
        start: where training begins.
        every: steps between two checkpoints within an epoch, where there are some.
    """

    def __init__(self, start: Position | None = None, every: int | None = None) -> None:
        super().__init__()
        self._start = start = start or Position()
        self._position = start
        self._every = every or _LOOK_EVERY

    def on_epoch_begin(self, epoch: int, logs: Row | None = None) -> None:
        self._position = self._start if epoch == self._start.epoch else Position(epoch)

    def on_train_batch_end(self, batch: int, logs: Row | None = None) -> None:
        self._position = Position(self._position.epoch, self._position.step + 1)
        if self._position.step % _LOOK_EVERY == 0 or self._position.step % self._every == 0:
            self._look(logs or {})

    def on_epoch_end(self, epoch: int, logs: Row | None = None) -> None:
        self._look(logs or {})

    def _look(self, logs: Row) -> None:
        # The last step's harm shows in validation first.
        for name in ("loss", "val_loss"):
            loss = float(logs.get(name, 0.0))
            if not math.isfinite(loss):
                raise NotFiniteError(self._position, loss)


class TellProgress(keras.callbacks.Callback):
    """Tell how far an epoch and its validation have come, see ``toolkit.progress``.

    In a ``with``, what is under way ends with it, also where training fails.

    Args:
        start: where training goes on.
        epochs: of the whole run; by default as Keras tells.
        num_steps: training batches of an epoch, and batches of a validation; by default as Keras tells, of a
            validation nothing.
    """

    def __init__(
        self,
        start: Position | None = None,
        epochs: int | None = None,
        num_steps: tuple[int | None, int | None] = (None, None),
    ) -> None:
        super().__init__()
        self._start = start or Position()
        self._epochs = epochs
        self._num_steps, self._num_validation_steps = num_steps
        self._compiling, self._epoch, self._validation = ExitStack(), ExitStack(), ExitStack()
        self._told = self._told_validation = Step(None, 0)
        self._first = 0
        self._last_time = 0.0

    def __enter__(self) -> "TellProgress":
        return self

    def __exit__(self, *error: object) -> None:
        for under_way in (self._validation, self._compiling, self._epoch):
            under_way.close()

    def on_train_begin(self, logs: Row | None = None) -> None:
        self._compiling.enter_context(step("compiling the training step"))

    def on_epoch_begin(self, epoch: int, logs: Row | None = None) -> None:
        self._first = self._start.step if epoch == self._start.epoch else 0
        epochs, steps = self._epochs or self.params.get("epochs"), self._num_steps or self.params.get("steps")
        self._told = self._epoch.enter_context(step(f"epoch {epoch + 1}/{epochs}", steps))

    def on_train_batch_end(self, batch: int, logs: Row | None = None) -> None:
        if not batch:
            self._compiling.close()
        self._tell(self._told, self._first + batch + 1)

    def on_test_begin(self, logs: Row | None = None) -> None:
        self._told_validation = self._validation.enter_context(step("validating", self._num_validation_steps))

    def on_test_batch_end(self, batch: int, logs: Row | None = None) -> None:
        self._tell(self._told_validation, batch + 1)

    def on_test_end(self, logs: Row | None = None) -> None:
        self._validation.close()

    def on_epoch_end(self, epoch: int, logs: Row | None = None) -> None:
        self._epoch.close()

    def on_train_end(self, logs: Row | None = None) -> None:
        self.__exit__()

    def _tell(self, told: Step, done: int) -> None:
        now = time.monotonic()
        if now - self._last_time >= _SECONDS_BETWEEN_TELLING:
            self._last_time = now
            told(done)


class SaveProgress(keras.callbacks.Callback):
    """Note every epoch's metrics and keep a checkpoint after it, and within it where that is asked for.

    An epoch's metrics are put together from those of its segments, the steps between two checkpoints, whether or not
    it was ever interrupted: then both ways give the same figures. What ``gradient_norms`` gives is noted too.
    """

    def __init__(
        self,
        run: RunDirectory,
        config: TrainConfig,
        progress: Progress,
        *,
        num_examples: int,
        gradient_norms: Callable[[], Row] | None,
        on_epoch: Callable[[Row], None] | None,
    ) -> None:
        super().__init__()
        self._run = run
        self._config = config
        self._num_examples = num_examples
        self._start = progress.position
        self._position = progress.position
        self._segments = progress.segments
        self._history = progress.history
        self._gradient_norms = gradient_norms
        self._on_epoch = on_epoch

    def on_epoch_begin(self, epoch: int, logs: Row | None = None) -> None:
        if epoch != self._start.epoch:
            self._position, self._segments = Position(epoch), []
        if self._config.optimizer.schedule == "plateau":
            self.model.optimizer.learning_rate = epoch_rate(self._config.optimizer, self._history)

    def on_train_batch_end(self, batch: int, logs: Row | None = None) -> None:
        self._position = Position(self._position.epoch, self._position.step + 1)
        every = self._config.run.checkpoint_every_steps
        steps = -(-self._num_examples // self._config.run.batch_size)
        if every and self._position.step % every == 0 and self._position.step < steps:
            self._close_segment(logs or {})
            self.model.reset_metrics()
            self._save()

    def on_epoch_end(self, epoch: int, logs: Row | None = None) -> None:
        self._position = Position(epoch + 1)
        row: Row = {"epoch": epoch + 1} | self._joined(_plain(logs or {}))
        row["lr"] = self._last_rate(epoch)
        self._history.append(row)
        if self._gradient_norms:
            with step("measuring gradients"):
                norms = self._gradient_norms()
            self._run.append_row(GRADIENT_NORMS, {"epoch": epoch + 1, "norms": norms})
        self._run.append_row(METRICS, row)
        self._segments = []
        self._save()
        if self._on_epoch:
            self._on_epoch({"epochs": self._config.run.epochs} | row)
        if is_over(self._config, self._history):
            self.model.stop_training = True

    def _last_rate(self, epoch: int) -> float:
        """Give the learning rate of an epoch's last step; the optimizer already stands at the next one's."""
        steps, config = -(-self._num_examples // self._config.run.batch_size), self._config
        rate = build_schedule(config.optimizer, total_steps=config.run.epochs * steps, steps_per_epoch=steps)
        last = rate((epoch + 1) * steps - 1) if callable(rate) else self.model.optimizer.learning_rate
        return float(keras.ops.convert_to_numpy(last))

    def _save(self) -> None:
        keep = self._config.run.early_stopping and self._history
        best = best_epoch(self._config.optimizer, self._history) if keep else None
        with step("writing a checkpoint"):
            self._run.save(self.model, self._position, segments=self._segments, best_epoch=best)

    def _close_segment(self, logs: Row) -> None:
        done = sum(segment["examples"] for segment in self._segments)
        examples = min(self._position.step * self._config.run.batch_size, self._num_examples) - done
        self._segments = [*self._segments, {"examples": examples} | _plain(logs)]

    def _joined(self, row: Row) -> Row:
        """Average training metrics over all segments; ``row`` has those of the last one, and of validation."""
        done = sum(segment["examples"] for segment in self._segments)
        if not done:
            return row
        parts = [*self._segments, {"examples": self._num_examples - done} | row]
        names = [name for name in self._segments[0] if name != "examples"]
        return row | {n: sum(part["examples"] * part[n] for part in parts) / self._num_examples for n in names}


class GoOnFromRun(keras.callbacks.Callback):
    """Begin with the run's own checkpoint, whatever callbacks before this one restored.

    ``keras.callbacks.BackupAndRestore`` loads weights when training begins, and lets it begin with their epoch. The
    order of pictures and the metrics on disk go on from the run's checkpoint, which may be of another step.
    """

    def __init__(self, run: RunDirectory) -> None:
        super().__init__()
        self._run = run

    def on_train_begin(self, logs: Row | None = None) -> None:
        self._run.restore(self.model)
        self.model._initial_epoch = None  # fit begins with the epoch that it was told


def is_over(config: TrainConfig, history: list[Row]) -> bool:
    """Return whether all epochs are done, or so many without a better one that early stopping ends the run."""
    if len(history) >= config.run.epochs:
        return True
    patience = config.run.early_stopping
    return bool(patience and history and len(history) - best_epoch(config.optimizer, history) >= patience)


def _plain(logs: Row) -> Row:
    """Convert to floats, and call the accuracy of the output that classifies as it is called in other networks."""
    return {
        name.replace(f"{LOGITS}_accuracy", "accuracy").replace(f"{LOGITS}_top5", "top5"): float(value)
        for name, value in logs.items()
    }
