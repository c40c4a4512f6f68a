"""The one place where ``trainable`` changes: Keras ignores such a change until the model is compiled again."""

import math
from dataclasses import dataclass
from typing import Any

from toolkit.errors import UserError, unknown_name
from toolkit.lazy import keras


@dataclass(frozen=True)
class FreezeReport:
    """Parameters that train and that do not, and the stages the former stand in."""

    trainable: int
    frozen: int
    trainable_stages: tuple[str, ...]

    def __str__(self) -> str:
        stages = ", ".join(self.trainable_stages) or "none"
        return f"{self.trainable:,} of {self.trainable + self.frozen:,} parameters train, in: {stages}"


def stages_of(model: Any) -> tuple[str, ...]:
    """Stage names from input to output: what stands before the first underscore of each layer's name."""
    return tuple(dict.fromkeys(stage_of(layer.name) for layer in model.layers if not is_input(layer)))


def freeze(model: Any, upto: str, *, train_batch_norm: bool = False) -> FreezeReport:
    """Freeze every stage from the input through ``upto``, and train those behind it.

    A compiled model is compiled again, which resets its optimizer. Batch normalisation keeps its statistics *and*
    its gain and shift everywhere, unless ``train_batch_norm``: statistics of small batches of new pictures undo
    what pretraining learned.

    Raises:
        UserError: no such stage.
    """
    stages = stages_of(model)
    if upto not in stages:
        raise UserError(unknown_name("stage", upto, list(stages)))
    return _set_trainable(model, set(stages[stages.index(upto) + 1 :]), train_batch_norm)


def unfreeze(model: Any, from_stage: str | None = None, *, train_batch_norm: bool = False) -> FreezeReport:
    """Train every stage from ``from_stage`` on, by default all; batch normalisation as in ``freeze``."""
    stages = stages_of(model)
    first = stages[0] if from_stage is None else from_stage
    if first not in stages:
        raise UserError(unknown_name("stage", first, list(stages)))
    return _set_trainable(model, set(stages[stages.index(first) :]), train_batch_norm)


def _set_trainable(model: Any, trainable_stages: set[str], train_batch_norm: bool) -> FreezeReport:
    # compile_from_config builds a fresh optimizer, whose variables fit what trains from now on.
    compile_config = model.get_compile_config() if model.compiled else None
    for layer in model.layers:
        is_batch_norm = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = stage_of(layer.name) in trainable_stages and (train_batch_norm or not is_batch_norm)
    if compile_config is not None:
        model.compile_from_config(compile_config)
    trainable = sum(math.prod(variable.shape) for variable in model.trainable_variables)
    stages = tuple(s for s in stages_of(model) if s in trainable_stages)
    return FreezeReport(trainable, model.count_params() - trainable, stages)


def stage_of(layer_name: str) -> str:
    """The stage that a layer's name starts with.

    >>> stage_of("stage2_block1_conv2")
    'stage2'
    """
    return layer_name.split("_")[0]


def is_input(layer: Any) -> bool:
    """Whether a layer stands for the network's input, which is of no stage."""
    return isinstance(layer, keras.layers.InputLayer)
