"""Keras' own optimizers, put together from an ``OptimizerConfig``, and the two kinds of weight decay."""

import math

from toolkit.lazy import keras
from toolkit.training.config import OptimizerConfig, RunConfig
from toolkit.training.schedules import build_schedule


def build_optimizer(config: OptimizerConfig, run: RunConfig, *, steps_per_epoch: int) -> "keras.optimizers.Optimizer":
    """The optimizer with its schedule; loss scaling is added by Keras under ``mixed_float16``."""
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
