"""The training loop: ``model.fit`` with checkpoints from which a killed run goes on exactly."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from toolkit.data.feed.split import Split
from toolkit.engines.extract import on_gpu
from toolkit.errors import UserError
from toolkit.lazy import keras
from toolkit.network.fused import fused_batch_norm, spare_grouped_convolutions
from toolkit.spec import Preprocessing
from toolkit.training.batches import num_examples, picture_errors, steps_per_epoch, training_data, validation_data
from toolkit.training.callbacks import (
    NotFiniteError,
    Progress,
    Row,
    SaveProgress,
    StopAtNotFinite,
    TellProgress,
    is_over,
)
from toolkit.training.config import ModelConfig, TrainConfig
from toolkit.training.devices import Shard, shared_batch_statistics
from toolkit.training.gradients import layer_norms, loss_functions, replay, values
from toolkit.training.hosts import require_same_position
from toolkit.training.losses import (
    LOGITS,
    SparseCrossEntropy,
    accuracy_metrics,
    classifier,
    num_classes,
    output_names,
    total_loss,
)
from toolkit.training.optimizers import best_epoch, build_optimizer, exclude_vectors_from_decay, set_l2
from toolkit.training.run_dir import Position, RunDirectory

log = logging.getLogger(__name__)

# Pictures whose gradients are looked at after every epoch.
_NORM_EXAMPLES = 32


class _Listeners(NamedTuple):
    """The callback and the Keras callbacks that are told of a run's epochs, beside its directory."""

    on_epoch: Callable[[Row], None] | None
    callbacks: "Sequence[keras.callbacks.Callback]"


@dataclass(frozen=True)
class _Job:
    """Network, data, settings and directory of a training run."""

    model: "keras.Model"
    split: Split
    preprocessing: Preprocessing
    config: TrainConfig
    run: RunDirectory
    shard: Shard

    @property
    def steps(self) -> int:
        return steps_per_epoch(self.split.train, self.config.run.batch_size, self.shard)

    def batches(self, start: Position) -> Any:
        return training_data(
            self.split.train,
            self.preprocessing,
            self.config,
            num_classes=num_classes(self.model),
            outputs=output_names(self.model),
            shard=self.shard,
            start=start,
        )


def prepare(model: "keras.Model", config: ModelConfig, *, seed: int) -> None:
    """Draw kernels anew and set dropout rates, where ``config`` asks for it.

    Raises:
        UserError: a loss weight for an output, or a dropout rate for dropout layers, that the network has not.
    """
    unknown = set(config.loss_weights) - set(output_names(model))
    if unknown:
        raise UserError(
            f"model.loss_weights names {min(unknown)!r}; {model.name} has the outputs {', '.join(output_names(model))}"
        )
    if config.initializer != "own":
        initializer = type(keras.initializers.get(config.initializer))
        kernels = [variable for variable in model.trainable_variables if len(variable.shape) >= 2]
        for index, kernel in enumerate(kernels):
            kernel.assign(initializer(seed=seed + index)(kernel.shape, kernel.dtype))
    if config.dropout is not None:
        _set_dropout(model, config.dropout)


def _set_dropout(model: "keras.Model", rate: float) -> None:
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    if not layers:
        raise UserError(f"model.dropout={rate}: {model.name} has no dropout layers")
    for layer in layers:
        layer.rate = rate


def compile_model(model: "keras.Model", config: TrainConfig, *, steps_per_epoch: int, padded: bool = False) -> None:
    """Compile for classification from logits, with the same loss at every output.

    Accuracy counts every picture alike, also where the loss does not; of ``padded`` batches it counts by the weights,
    which leave out what only fills them.
    """
    optimizer = build_optimizer(config.optimizer, config.run, steps_per_epoch=steps_per_epoch)
    exclude_vectors_from_decay(optimizer, model)
    set_l2(model, config.optimizer.l2)
    spare_grouped_convolutions(model)
    outputs = output_names(model)
    loss = SparseCrossEntropy(config.optimizer.label_smoothing)
    metrics = accuracy_metrics(num_classes(model))
    single = not isinstance(model.output, dict)
    counted = metrics if single else {LOGITS: metrics}
    model.compile(
        optimizer=optimizer,
        loss=loss if single else dict.fromkeys(outputs, loss),
        loss_weights=None if single else {name: config.model.loss_weights.get(name, 1.0) for name in outputs},
        **{"weighted_metrics" if padded else "metrics": counted},
        # XLA makes TensorFlow train convolutional networks three times slower on CPUs.
        jit_compile="auto" if keras.backend.backend() != "tensorflow" or on_gpu() else False,
    )


def train(
    model: "keras.Model",
    split: Split,
    preprocessing: Preprocessing,
    config: TrainConfig,
    run: RunDirectory,
    *,
    shard: Shard | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    callbacks: "Sequence[keras.callbacks.Callback]" = (),
) -> "keras.Model":
    """Train ``model`` in place, from the run directory's last checkpoint if it has one.

    The weights after the last epoch are what an unbroken run would have reached: order and augmentation of every
    epoch follow from the seed and its number, the learning rate from the step and the metrics of the epochs before,
    and checkpoints hold the optimizer's state and that of random layers.

    Args:
        model: answers logits, or a dictionary of outputs with ``"logits"`` among them; compiled here.
        split: its training part is trained on, its validation part measured after each epoch.
        preprocessing: from file to input.
        config: what to do.
        run: where checkpoints and metrics go.
        shard: where ``model`` was built within ``all_devices``, what that gave.
        on_epoch: called with each epoch's metrics once they are on disk.
        callbacks: of Keras, called after the run's own.

    Returns:
        ``model``, or of a network with several outputs the part that answers logits.

    Raises:
        UserError: the loss is no longer a number.
    """
    shard = shard or Shard()
    shard.require_divisible(config.run.batch_size)
    job = _Job(model, split, preprocessing, config, run, shard)
    prepare(model, config.model, seed=config.run.seed)
    compile_model(model, config, steps_per_epoch=job.steps, padded=shard.num_devices > 1)
    model.optimizer.build(model.trainable_variables)  # its state is only loaded into variables that exist
    position, segments = run.restore(model)
    if shard.count > 1:
        require_same_position(position)
    if position > Position():
        log.info("resuming after epoch %d of %d, step %d", position.epoch, config.run.epochs, position.step)
    else:
        run.save(model, position)
    history = run.history()
    was_over = is_over(config, history)
    try:
        if not was_over:
            _fit(job, Progress(position, segments, history), _Listeners(on_epoch, callbacks))
    except NotFiniteError as error:
        raise _diagnosis(job, error) from None
    if was_over or config.run.early_stopping:
        last = best_epoch(config.optimizer, history) if config.run.early_stopping else len(history)
        run.load(model, Position(last))
        model.optimizer.finalize_variable_values(model.trainable_variables)  # as fit does at its end
    set_l2(model, 0.0)
    return classifier(model)


def _fit(job: _Job, progress: Progress, listeners: "_Listeners") -> None:
    """Go on from ``progress`` to the end, adding to its history."""
    if progress.position.step:
        _fit_epochs(job, progress, progress.position.epoch + 1, listeners)
        if is_over(job.config, progress.history):
            return
        position, _ = job.run.restore(job.model)  # fit has put averaged weights in the place of its own
        progress = Progress(position, [], progress.history)
    _fit_epochs(job, progress, job.config.run.epochs, listeners)


def _fit_epochs(job: _Job, progress: Progress, end: int, listeners: "_Listeners") -> None:
    model, config, start = job.model, job.config, progress.position
    save = SaveProgress(
        job.run,
        config,
        progress,
        num_examples=num_examples(job.split.train, job.shard),
        gradient_norms=_gradient_norms(job) if config.run.gradient_norms else None,
        on_epoch=listeners.on_epoch,
    )
    num_validation_steps = -(-len(job.split.val) // config.run.batch_size)
    telling = TellProgress(start, config.run.epochs, (job.steps, num_validation_steps))
    callbacks = [telling, StopAtNotFinite(start, config.run.checkpoint_every_steps), save]
    if config.optimizer.ema_epochs:
        callbacks.insert(0, keras.callbacks.SwapEMAWeights())  # validation sees the average
    if config.run.tensorboard and job.run.writer:
        callbacks.append(_tensorboard(job.run))
    callbacks += listeners.callbacks
    validation = validation_data(job.split.val, job.preprocessing, config, outputs=output_names(model), shard=job.shard)
    with picture_errors(), shared_batch_statistics(model, job.shard), fused_batch_norm(model), telling:
        model.fit(
            job.batches(start),
            validation_data=validation,
            steps_per_epoch=job.steps - start.step,
            initial_epoch=start.epoch,
            epochs=end,
            callbacks=callbacks,
            shuffle=False,  # the batches come shuffled
            verbose=0,
        )


def _gradient_norms(job: _Job) -> Callable[[], dict[str, float]]:
    """Make a function that gives gradient norms by layer, of the network as it then is, on a few training pictures."""
    from toolkit.data.feed.arrays import load_pixels
    from toolkit.data.pixels.decode import normalize

    labels = job.split.train.labels[:_NORM_EXAMPLES]
    inputs = normalize(load_pixels(job.split.train.paths[:_NORM_EXAMPLES], job.preprocessing), job.preprocessing)
    functions = loss_functions(job.model, total_loss(job.config), training=True)

    def norms() -> dict[str, float]:
        return layer_norms(job.model, functions.gradients(*values(job.model), inputs, np.asarray(labels, np.int32)))

    return norms


def _tensorboard(run: RunDirectory) -> "keras.callbacks.Callback":
    try:
        import tensorboard  # noqa: F401  (without it, TensorFlow has nothing to write a scalar with)
    except ImportError:
        raise UserError("run.tensorboard=true needs TensorBoard: pip install 'toolkit[tensorboard]'") from None
    return keras.callbacks.TensorBoard(run.path / "tensorboard", write_graph=False)


def _diagnosis(job: _Job, error: NotFiniteError) -> UserError:
    """Name the layer at fault, found by doing again what was done since the last checkpoint."""
    epoch, step = error.position.epoch, error.position.step
    where = ""
    if job.shard.count == 1:
        start, _ = job.run.restore(job.model)
        steps = (epoch - start.epoch) * job.steps + step - start.step
        with fused_batch_norm(job.model):
            where = ", first " + replay(job.model, islice(job.batches(start), steps), total_loss(job.config))
    return UserError(
        f"the training loss became {error.loss} in epoch {epoch + 1}{where}; the last good checkpoint is kept: "
        "lower optimizer.lr, raise optimizer.warmup_epochs or set optimizer.clip_norm"
    )
