"""Keras' optimizers and learning-rate schedules, put together from an ``OptimizerConfig``."""

import math
from collections.abc import Sequence
from typing import Any

from toolkit.lazy import keras
from toolkit.training.config import OptimizerConfig, RunConfig


def build_optimizer(config: OptimizerConfig, run: RunConfig, *, steps_per_epoch: int) -> "keras.optimizers.Optimizer":
    """Build the optimizer with its schedule; Keras adds loss scaling under ``mixed_float16``."""
    schedule = build_schedule(config, total_steps=run.epochs * steps_per_epoch, steps_per_epoch=steps_per_epoch)
    common = {
        "weight_decay": config.weight_decay or None,
        "global_clipnorm": config.clip_norm,
        "use_ema": config.ema_epochs > 0,
        "ema_momentum": math.exp(-1 / (config.ema_epochs * steps_per_epoch)) if config.ema_epochs else 0.0,
    }
    match config.name:
        case "sgd" | "nesterov":
            return keras.optimizers.SGD(schedule, config.momentum, nesterov=config.name == "nesterov", **common)
        case "rmsprop":
            return keras.optimizers.RMSprop(schedule, config.rho, epsilon=config.epsilon, **common)
    # Keras' AdamW is its Adam with a weight decay by default.
    return keras.optimizers.Adam(schedule, config.beta_1, config.beta_2, config.epsilon, **common)


def exclude_vectors_from_decay(optimizer: "keras.optimizers.Optimizer", model: "keras.Model") -> None:
    """Take biases, gains and shifts out of weight decay; needs the optimizer before it is built."""
    if optimizer.weight_decay:
        optimizer.exclude_from_weight_decay(var_list=[v for v in model.trainable_variables if len(v.shape) < 2])


def set_l2(model: "keras.Model", l2: float) -> None:
    """Add ``l2 / 2 · Σ w²`` over the trainable kernels to the loss from now on, or nothing where ``l2`` is 0.

    The gradient is then ``l2 · w``, which is what the papers' update rules and Caffe's ``weight_decay`` have; Keras'
    ``regularizers.L2`` counts without the half. Set on the variables, not the layers, so that nothing of it is saved.
    """
    for variable in model.trainable_variables:
        if len(variable.shape) >= 2:
            variable.regularizer = keras.regularizers.L2(l2 / 2) if l2 else None


_DECAY = {"exponential": 0.95, "inverse_time": 1.0}
_BETTER_BY = 1e-4  # what counts as better, as in Keras' ReduceLROnPlateau


@keras.saving.register_keras_serializable("toolkit")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Rise linearly to ``peak`` in ``warmup_steps`` steps, then follow ``schedule`` from its start down to ``floor``.

    >>> constant = keras.optimizers.schedules.PiecewiseConstantDecay([100], [0.5, 0.5])
    >>> [float(WarmUp(constant, peak=0.5, warmup_steps=2)(step)) for step in range(4)]
    [0.25, 0.5, 0.5, 0.5]
    """

    def __init__(self, schedule: Any, peak: float, warmup_steps: int = 0, floor: float = 0.0) -> None:
        super().__init__()
        self.schedule = schedule
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.floor = floor

    def __call__(self, step: Any) -> Any:
        step = keras.ops.cast(step, "float32")
        rising = self.peak * (step + 1) / max(self.warmup_steps, 1)
        falling = keras.ops.maximum(self.schedule(keras.ops.maximum(step - self.warmup_steps, 0)), self.floor)
        return keras.ops.where(step < self.warmup_steps, rising, falling)

    def get_config(self) -> dict[str, Any]:
        return {
            "schedule": keras.optimizers.schedules.serialize(self.schedule),
            "peak": self.peak,
            "warmup_steps": self.warmup_steps,
            "floor": self.floor,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "WarmUp":
        return cls(**config | {"schedule": keras.optimizers.schedules.deserialize(config["schedule"])})


@keras.saving.register_keras_serializable("toolkit")
class InverseSquareRoot(keras.optimizers.schedules.LearningRateSchedule):
    """``initial_learning_rate`` divided by the root of the number, from 1, of the epoch of ``steps``; 1 to count steps.

    >>> [round(float(InverseSquareRoot(1.0, steps=2)(step)), 4) for step in range(5)]
    [1.0, 1.0, 0.7071, 0.7071, 0.5774]
    """

    def __init__(self, initial_learning_rate: float, steps: int = 1) -> None:
        super().__init__()
        self.initial_learning_rate = initial_learning_rate
        self.steps = steps

    def __call__(self, step: Any) -> Any:
        number = 1 + keras.ops.floor(keras.ops.cast(step, "float32") / self.steps)
        return self.initial_learning_rate * keras.ops.rsqrt(number)

    def get_config(self) -> dict[str, Any]:
        return {"initial_learning_rate": self.initial_learning_rate, "steps": self.steps}


def build_schedule(
    config: OptimizerConfig, *, total_steps: int, steps_per_epoch: int
) -> "float | keras.optimizers.schedules.LearningRateSchedule":
    """Build the learning rate by step; a number where it is constant or, for ``plateau``, set by ``epoch_rate``."""
    if config.schedule == "plateau":
        return epoch_rate(config, [])
    warmup_steps = min(round(config.warmup_epochs * steps_per_epoch), total_steps - 1)
    schedule = _after_warmup(config, total_steps, steps_per_epoch, warmup_steps)
    if config.schedule == "constant" and not warmup_steps:
        return config.lr
    floor = 0.0 if config.schedule == "manual" else config.min_share * config.lr
    return WarmUp(schedule, config.lr, warmup_steps, floor) if warmup_steps or floor else schedule


def _after_warmup(
    config: OptimizerConfig, total_steps: int, steps_per_epoch: int, warmup_steps: int
) -> "keras.optimizers.schedules.LearningRateSchedule":
    lr, decay = config.lr, _decay(config)
    match config.schedule:
        case "cosine":
            return keras.optimizers.schedules.CosineDecay(lr, total_steps - warmup_steps)
        case "inverse_time":
            return keras.optimizers.schedules.InverseTimeDecay(lr, steps_per_epoch, decay, staircase=True)
        case "exponential":
            return keras.optimizers.schedules.ExponentialDecay(lr, steps_per_epoch, decay, staircase=True)
        case "staircase":
            every = max(1, round(config.every * steps_per_epoch))
            return keras.optimizers.schedules.ExponentialDecay(lr, every, decay, staircase=True)
        case "inverse_sqrt_epoch":
            return InverseSquareRoot(lr, steps_per_epoch)
        case "inverse_sqrt_step":
            return InverseSquareRoot(lr)
        case "step":
            boundaries = [share * total_steps for share in config.milestones or (0.5, 0.75)]
            rates = [lr * decay ** (index + 1) for index in range(len(boundaries))]
        case "manual":
            boundaries, rates = [epoch * steps_per_epoch for epoch in config.milestones], list(config.rates)
        case _:
            boundaries, rates = [total_steps], [lr]
    # Keras changes the rate after its boundary; here the step at the boundary is the first with the new one.
    return keras.optimizers.schedules.PiecewiseConstantDecay(
        [round(b) - 1 - warmup_steps for b in boundaries], [lr, *rates]
    )


def epoch_rate(config: OptimizerConfig, history: Sequence[dict[str, float]]) -> float:
    """Compute the rate of the epoch that follows ``history`` under ``plateau``; warm-up rises from epoch to epoch.

    >>> plateau = OptimizerConfig(schedule="plateau", lr=1.0, patience=2, monitor="val_accuracy")
    >>> epoch_rate(plateau, [{"val_accuracy": value} for value in (0.5, 0.6, 0.6, 0.6)])
    0.1
    """
    share, best, waited = 1.0, None, 0
    for row in history:
        if best is None or _better(config.monitor, row[config.monitor], best):
            best, waited = row[config.monitor], 0
            continue
        waited += 1
        if waited == config.patience:
            share, waited = share * _decay(config), 0
    rise = min(1.0, (len(history) + 1) / (config.warmup_epochs + 1))
    return config.lr * rise * max(share, config.min_share)


def best_epoch(config: OptimizerConfig, history: Sequence[dict[str, float]]) -> int:
    """Return the number, from 1, of the first epoch with the best ``monitor``.

    >>> best_epoch(OptimizerConfig(), [{"val_loss": value} for value in (0.5, 0.3, 0.4)])
    2
    """
    values = [row[config.monitor] for row in history]
    return 1 + values.index(max(values) if config.monitor.endswith("accuracy") else min(values))


def _better(monitor: str, value: float, best: float) -> bool:
    return value > best + _BETTER_BY if monitor.endswith("accuracy") else value < best - _BETTER_BY


def _decay(config: OptimizerConfig) -> float:
    return config.decay or _DECAY.get(config.schedule, 0.1)
