"""A flat functional model as a graph, read through its public attributes: no framework is imported for it."""

from collections.abc import Sequence
from math import prod
from typing import Any


def sources(model: Any) -> dict[str, list[Any]]:
    """The layers that feed each layer, by its name, in the order of its inputs.

    Raises:
        ValueError: a layer has several outputs or is used twice; neither is flat.
    """
    producer = {id(_only(layer)): layer for layer in model.layers}
    feeding = {}
    for layer in model.layers:
        inputs = layer.input if isinstance(layer.input, list | tuple) else [layer.input]
        # An input layer names its own output as its input.
        feeding[layer.name] = [producer[id(x)] for x in inputs if id(x) in producer and producer[id(x)] is not layer]
    return feeding


def size(shape: Sequence[int | None]) -> int:
    """Values in an array of that shape.

    Raises:
        ValueError: a side is unknown.
    """
    if None in shape:
        raise ValueError(f"shape {tuple(shape)} is not fully known; build the model for a fixed input size")
    return prod(side for side in shape if side is not None)


def _only(layer: Any) -> Any:
    if isinstance(layer.output, list | tuple):
        raise ValueError(f"layer {layer.name!r} has several outputs; the arithmetic knows layers of one")
    return layer.output
