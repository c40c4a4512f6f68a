"""The training loop: ``model.fit`` with a checkpoint after every epoch, from which a killed run goes on exactly."""

import logging
import math
from collections.abc import Callable
from typing import Any

import keras

from toolkit.data.split import Split
from toolkit.spec import Preprocessing, UserError
from toolkit.training.config import TrainConfig
from toolkit.training.losses import SparseCrossEntropy
from toolkit.training.optimizers import build_optimizer, exclude_vectors_from_decay
from toolkit.training.run_dir import RunDirectory

log = logging.getLogger(__name__)


def compile_model(model: keras.Model, config: TrainConfig, *, steps_per_epoch: int) -> None:
    """Compile for classification from logits."""
    optimizer = build_optimizer(config.optimizer, config.run, steps_per_epoch=steps_per_epoch)
    exclude_vectors_from_decay(optimizer, model)
    model.compile(
        optimizer=optimizer,
        loss=SparseCrossEntropy(config.optimizer.label_smoothing),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=_jit_compile(),
    )


def train(
    model: keras.Model,
    split: Split,
    preprocessing: Preprocessing,
    config: TrainConfig,
    run: RunDirectory,
    *,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> keras.Model:
    """Train ``model`` in place, from the run directory's last checkpoint if it has one.

    The weights after the last epoch are what an unbroken run would have reached: order and augmentation of every
    epoch follow from the seed and its number, and checkpoints hold the optimizer's state.

    Args:
        model: answers logits; compiled here.
        split: pictures to train and to validate on.
        preprocessing: from file to input.
        config: what to do.
        run: where checkpoints and metrics go.
        on_epoch: called with each epoch's metrics once they are on disk.

    Returns:
        ``model``.

    Raises:
        UserError: the loss is no longer a number.
    """
    from toolkit.data.pipeline import evaluation_batches, steps_per_epoch, training_batches

    steps = steps_per_epoch(split.train, config.run.batch_size)
    compile_model(model, config, steps_per_epoch=steps)
    first_epoch = run.restore(model)
    if first_epoch:
        log.info("resuming after epoch %d of %d", first_epoch, config.run.epochs)
    if first_epoch >= config.run.epochs:
        return model
    model.fit(
        training_batches(
            split.train,
            preprocessing,
            batch_size=config.run.batch_size,
            seed=config.run.seed,
            first_epoch=first_epoch,
            augment=config.data.augment,
        ),
        validation_data=evaluation_batches(split.val, preprocessing, batch_size=config.run.batch_size),
        steps_per_epoch=steps,
        epochs=config.run.epochs,
        initial_epoch=first_epoch,
        callbacks=[_SaveEpoch(run, config.run.epochs, on_epoch)],
        verbose=0,
    )
    return model


class _SaveEpoch(keras.callbacks.Callback):
    def __init__(self, run: RunDirectory, num_epochs: int, on_epoch: Callable[[dict[str, Any]], None] | None) -> None:
        super().__init__()
        self._run = run
        self._num_epochs = num_epochs
        self._on_epoch = on_epoch

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        row = {name: float(value) for name, value in (logs or {}).items()}
        if not math.isfinite(row["loss"]):
            raise UserError(
                f"the training loss became {row['loss']} in epoch {epoch + 1}; the last good checkpoint is kept: "
                "lower optimizer.lr or raise optimizer.warmup_epochs"
            )
        row["lr"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self._run.save_epoch(self.model, epoch + 1, row)
        if self._on_epoch:
            self._on_epoch({"epoch": epoch + 1, "epochs": self._num_epochs} | row)


def _jit_compile() -> bool | str:
    # XLA makes TensorFlow train convolutional networks three times slower on CPUs.
    if keras.backend.backend() != "tensorflow":
        return "auto"
    import tensorflow as tf

    return "auto" if tf.config.list_physical_devices("GPU") else False
