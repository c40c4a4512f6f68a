"""Stages of a network in the names of its layers, for networks that others named."""

from itertools import groupby, pairwise

from toolkit.lazy import keras
from toolkit.network.blocks import bottlenecks, shrinks
from toolkit.network.flatten import flatten

#: Stage of the classifier and of what is put before it.
_HEAD = "head"


def stage_of(layer_name: str) -> str:
    """Take the stage that a layer's name starts with.

    >>> stage_of("stage2_block1_conv2")
    'stage2'
    """
    return layer_name.split("_")[0]


def name_stages(model: "keras.Model") -> "keras.Model":
    """Put the stage before the names of a network's layers, where they do not tell any.

    Names tell stages where what stands before their first underscore is the same for layers in a row, and there are
    at least two such rows before the classifier. Else a stage is all of one resolution: ``stem``, ``stage1`` …, and
    ``head`` from where maps have become vectors.

    Args:
        model: a flat functional network of one output.

    Returns:
        ``model`` itself where its names tell stages; else a copy, with weights of its own.
    """
    layers = [layer for layer in model.operations if not isinstance(layer, keras.layers.InputLayer)]
    rows = [stage for stage, _ in groupby(stage_of(layer.name) for layer in layers)]
    if len(rows) == len(set(rows)) and len(rows) > 2:
        return model
    stages = _by_resolution(model)
    return flatten(model, rename=lambda name: name if stage_of(name) == _HEAD else f"{stages[name]}_{name}")


def _by_resolution(model: "keras.Model") -> dict[str, str]:
    """The stage of each layer, by its name: a new one begins behind the last tensor of the resolution before."""
    chain = bottlenecks(model)
    last_of_its = {before.name for before, after in pairwise(chain) if shrinks(before.output.shape, after.output.shape)}
    first_vector = next((layer.name for layer in chain if len(layer.output.shape) == 2), None)
    stages: dict[str, str] = {}
    number, stage, begins = 0, "stem", False
    for layer in model.operations:
        if layer.name == first_vector:
            stage, begins = _HEAD, False
        elif begins and stage != _HEAD:
            number += 1
            stage, begins = f"stage{number}", False
        stages[layer.name] = stage
        begins = begins or (layer.name in last_of_its and not isinstance(layer, keras.layers.InputLayer))
    return stages
