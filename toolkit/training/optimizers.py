"""Keras' own optimizers and schedules, put together from an ``OptimizerConfig``."""

import keras

from toolkit.training.config import OptimizerConfig, RunConfig


def build_optimizer(config: OptimizerConfig, run: RunConfig, *, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """The optimizer with its schedule; loss scaling is added by Keras under ``mixed_float16``.

    Weight decay leaves biases and normalisation alone: they have one dimension.
    """
    schedule = build_schedule(config, total_steps=run.epochs * steps_per_epoch, steps_per_epoch=steps_per_epoch)
    decay = config.weight_decay or None
    if config.name == "sgd":
        return keras.optimizers.SGD(schedule, momentum=config.momentum, nesterov=False, weight_decay=decay)
    if config.name == "adam":
        return keras.optimizers.Adam(schedule, weight_decay=decay)
    return keras.optimizers.AdamW(schedule, weight_decay=config.weight_decay)


def exclude_vectors_from_decay(optimizer: keras.optimizers.Optimizer, model: keras.Model) -> None:
    """Take biases, gains and shifts out of weight decay; needs the optimizer before it is built."""
    if optimizer.weight_decay:
        optimizer.exclude_from_weight_decay(var_list=[v for v in model.trainable_variables if len(v.shape) < 2])


def build_schedule(
    config: OptimizerConfig, *, total_steps: int, steps_per_epoch: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """Learning rate by step: warm-up first, then the schedule over what is left."""
    warmup_steps = min(round(config.warmup_epochs * steps_per_epoch), total_steps - 1)
    if config.schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=config.lr / 100 if warmup_steps else config.lr,
            decay_steps=total_steps - warmup_steps,
            warmup_target=config.lr if warmup_steps else None,
            warmup_steps=warmup_steps,
        )
    if warmup_steps:
        boundaries, values = _warmup_staircase(config, warmup_steps)
    else:
        boundaries, values = [], [config.lr]
    if config.schedule == "step":
        boundaries += [total_steps // 2, total_steps * 3 // 4]
        values += [config.lr / 10, config.lr / 100]
    if not boundaries:
        return config.lr
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, values)


def _warmup_staircase(config: OptimizerConfig, warmup_steps: int) -> tuple[list[int], list[float]]:
    # Ten stairs: Keras has a linear warm-up only inside its cosine schedule.
    stairs = min(10, warmup_steps)
    boundaries = [warmup_steps * (i + 1) // stairs for i in range(stairs)]
    return boundaries, [config.lr * (i + 1) / (stairs + 1) for i in range(stairs)] + [config.lr]
