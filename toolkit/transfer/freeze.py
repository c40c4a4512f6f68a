"""Freeze stages, choose how many, and cut a network into its frozen and its trainable part.

``trainable`` changes in this module alone: Keras ignores such a change until the model is compiled again.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.errors import UserError, unknown_name
from toolkit.lazy import keras
from toolkit.network import feature_tensor, inputs_of, outputs_of, producers_of, stage_of


@dataclass(frozen=True)
class FreezeReport:
    """Parameters that train and that do not, and the stages the former stand in."""

    trainable: int
    frozen: int
    trainable_stages: tuple[str, ...]

    def __str__(self) -> str:
        stages = ", ".join(self.trainable_stages) or "none"
        return f"{self.trainable:,} of {self.trainable + self.frozen:,} parameters train, in: {stages}"


def stages_of(model: "keras.Model") -> tuple[str, ...]:
    """List stage names from input to output: what stands before the first underscore of each layer's name.

    The classifier's is the last, though it may tap early stages.
    """
    last = stage_of(model.layers[-1].name)
    return (
        *dict.fromkeys(
            name for layer in model.layers if not is_input(layer) and (name := stage_of(layer.name)) != last
        ),
        last,
    )


def freeze(model: "keras.Model", upto: str, *, train_batch_norm: bool = False) -> FreezeReport:
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


def unfreeze(model: "keras.Model", from_stage: str | None = None, *, train_batch_norm: bool = False) -> FreezeReport:
    """Train every stage from ``from_stage`` on, by default all; batch normalisation as in ``freeze``."""
    stages = stages_of(model)
    first = stages[0] if from_stage is None else from_stage
    if first not in stages:
        raise UserError(unknown_name("stage", first, list(stages)))
    return _set_trainable(model, set(stages[stages.index(first) :]), train_batch_norm)


def _set_trainable(model: "keras.Model", trainable_stages: set[str], train_batch_norm: bool) -> FreezeReport:
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


def is_input(layer: "keras.Layer") -> bool:
    """Tell the network's input, which is of no stage, from other layers."""
    return isinstance(layer, keras.layers.InputLayer)


#: Prefix of the names of hidden layers between pooled features and logits.
HIDDEN = "head_hidden"

#: Prefix of the names of layers that ``stages.stitch`` puts between cuts and classifier.
JOINED = "head_cut"


def cut_tensor(model: "keras.Model", stage: str | None = None) -> "keras.KerasTensor":
    """Find the symbolic tensor at which the frozen part ends.

    Args:
        model: a flat functional network.
        stage: the last frozen stage; its output, a feature map, is the cut. None cuts before the classifier, at the
            pooled features; hidden layers that fine-tuning put there belong to the classifier.

    Raises:
        UserError: no such stage, nothing behind it, or more than one tensor leads out of it.
    """
    if stage is None:
        return _before_hidden(model, feature_tensor(model))
    tensors = cut_tensors(model, stage)
    if len(tensors) != 1:
        names = ", ".join(sorted(cut_name(model, tensor) for tensor in tensors))
        raise UserError(f"{model.name} cannot be cut after {stage!r}: {len(tensors)} tensors leave it ({names})")
    return tensors[0]


def cut_tensors(model: "keras.Model", stage: str) -> tuple["keras.KerasTensor", ...]:
    """Find all symbolic tensors that lead out of a network's stages up to this one.

    What a classifier of several cuts pools of those stages is one of them: nothing trains before it.

    Raises:
        UserError: no such stage, or nothing behind it.
    """
    stages = stages_of(model)
    if stage not in stages[:-1]:
        raise UserError(unknown_name("stage", stage, list(stages[:-1])))
    frozen = set(stages[: stages.index(stage) + 1])
    inside: set[int] = set()
    crossing: dict[int, keras.KerasTensor] = {}
    for layer in model.operations:
        inputs = inputs_of(layer)
        is_tap = layer.name.startswith(JOINED) and all(id(tensor) in inside for tensor in inputs)
        if stage_of(layer.name) in frozen or is_input(layer) or is_tap:
            inside.update(map(id, outputs_of(layer)))
        else:
            crossing |= {id(tensor): tensor for tensor in inputs if id(tensor) in inside}
    return tuple(crossing.values())


def frozen_part(model: "keras.Model", cut: "keras.KerasTensor | list[keras.KerasTensor]") -> "keras.Model":
    """Build the model from the network's input to a cut or several, with the same layers and weights."""
    return keras.Model(model.input, cut, name=model.name)


def trainable_part(model: "keras.Model", cut: "keras.KerasTensor | tuple[keras.KerasTensor, ...]") -> "keras.Model":
    """Build the model from a cut to the logits, with the same layers and weights: training it trains ``model``."""
    if isinstance(cut, tuple) and len(cut) == 1:
        cut = cut[0]
    return keras.Model(cut, model.outputs[0], name=f"{model.name}_trainable")


def cut_name(model: "keras.Model", cut: "keras.KerasTensor") -> str:
    """Name the layer that gives ``cut``; the pooling that Network in Network lacks is called ``head_features``."""
    return next((layer.name for layer in model.layers if layer.output is cut), "head_features")


def _before_hidden(model: "keras.Model", tensor: "keras.KerasTensor") -> "keras.KerasTensor":
    """Go back from a tensor to what enters the first hidden layer, where fine-tuning put any."""
    producers = producers_of(model)
    while id(tensor) in producers and producers[id(tensor)].name.startswith(HIDDEN):
        tensor = producers[id(tensor)].input
    return tensor


#: Training pictures from which on the last stage, the last half of the stages, and the whole network train as well.
LAST_STAGE_FROM = 2_000
HALF_FROM = 20_000
ALL_FROM = 200_000


@dataclass(frozen=True)
class FreezePlan:
    """The first stage to train, and the reason.

    Attributes:
        unfreeze_from: the first stage that trains, once the head has been fitted; None where only the head does.
        reason: for people.
    """

    unfreeze_from: str | None
    reason: str

    def __str__(self) -> str:
        trained = f"the stages from {self.unfreeze_from} on" if self.unfreeze_from else "only the classifier"
        return f"{trained} will train ({self.reason})"


def plan_freezing(stages: Sequence[str], num_train: int, wish: str = "auto") -> FreezePlan:
    """Choose the stages to train: the more pictures there are, the fewer layers stay frozen.

    A few hundred pictures cannot move millions of weights without fitting their own noise, and the features of late
    stages are the most particular to what was learned before (Yosinski et al., NIPS 2014, figure 2), so stages are
    freed from the last one back.

    Args:
        stages: of the network, input to output, the classifier's last.
        num_train: training pictures.
        wish: ``"auto"`` to follow their number, ``"none"`` to train the classifier only, or the first stage to train.

    Raises:
        UserError: no such stage.

    >>> plan_freezing(("stem", "stage1", "stage2", "head"), 5_000).unfreeze_from
    'stage2'
    """
    *body, _ = stages
    if wish == "none":
        return FreezePlan(None, "as asked")
    if wish != "auto":
        if wish not in stages:
            raise UserError(unknown_name("stage", wish, ["auto", "none", *stages]))
        return FreezePlan(wish, "as asked")
    if not body or num_train < LAST_STAGE_FROM:
        return FreezePlan(None, f"{num_train:,} training pictures, fewer than {LAST_STAGE_FROM:,}")
    if num_train < HALF_FROM:
        return FreezePlan(body[-1], f"{num_train:,} training pictures, {LAST_STAGE_FROM:,} to {HALF_FROM:,}")
    if num_train < ALL_FROM:
        return FreezePlan(body[len(body) // 2], f"{num_train:,} training pictures, {HALF_FROM:,} to {ALL_FROM:,}")
    return FreezePlan(body[0], f"{num_train:,} training pictures, {ALL_FROM:,} or more")
