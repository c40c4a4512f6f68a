"""Where a network is cut in two: the frozen part, whose answers are cached, and the rest, which trains on them."""

from typing import Any

from toolkit.errors import UserError, unknown_name
from toolkit.lazy import keras
from toolkit.network import feature_tensor, inputs_of
from toolkit.transfer.freeze import is_input, stage_of, stages_of

#: How the names of hidden layers begin that stand between pooled features and logits.
HIDDEN = "head_hidden"


def cut_tensor(model: Any, stage: str | None = None) -> Any:
    """The symbolic tensor at which the frozen part ends.

    Args:
        model: a flat functional network.
        stage: the last frozen stage; its output, a feature map, is the cut. None cuts before the classifier, at the
            pooled features; hidden layers that fine-tuning put there belong to the classifier.

    Raises:
        UserError: no such stage, nothing behind it, or more than one tensor leads out of it.
    """
    if stage is None:
        return _before_hidden(model, feature_tensor(model))
    stages = stages_of(model)
    if stage not in stages[:-1]:
        raise UserError(unknown_name("stage", stage, list(stages[:-1])))
    frozen = set(stages[: stages.index(stage) + 1])
    inside = {id(layer.output): layer for layer in model.layers if stage_of(layer.name) in frozen or is_input(layer)}
    crossing = {
        id(tensor): tensor
        for layer in model.layers
        if id(layer.output) not in inside
        for tensor in inputs_of(layer)
        if id(tensor) in inside
    }
    if len(crossing) != 1:
        names = ", ".join(sorted(inside[key].name for key in crossing))
        raise UserError(f"{model.name} cannot be cut after {stage!r}: {len(crossing)} tensors leave it ({names})")
    return next(iter(crossing.values()))


def frozen_part(model: Any, cut: Any) -> Any:
    """From the network's input to ``cut``, with the same layers and weights."""
    return keras.Model(model.input, cut, name=model.name)


def trainable_part(model: Any, cut: Any) -> Any:
    """From ``cut`` to the logits, with the same layers and weights: training it trains ``model``."""
    return keras.Model(cut, model.outputs[0], name=f"{model.name}_rest")


def cut_name(model: Any, cut: Any) -> str:
    """Name of the layer that gives ``cut``; the pooling that Network in Network lacks is called ``head_features``."""
    return next((layer.name for layer in model.layers if layer.output is cut), "head_features")


def _before_hidden(model: Any, tensor: Any) -> Any:
    """What the first hidden layer of a classifier of one's own sees, where there are any."""
    producers = {id(layer.output): layer for layer in model.layers}
    while id(tensor) in producers and producers[id(tensor)].name.startswith(HIDDEN):
        tensor = producers[id(tensor)].input
    return tensor
