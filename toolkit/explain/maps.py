"""Maps of a network: which there are, and where in the picture their cells lie."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from toolkit.arithmetic.receptive_field import receptive_fields
from toolkit.errors import UserError, unknown_name
from toolkit.lazy import keras
from toolkit.network import bottlenecks, origin, producers_of, shrinks


def stage_maps(model: "keras.Model") -> dict[str, "keras.Layer"]:
    """Find the last map of each resolution of a network, input to output.

    Args:
        model: a flat functional network.

    Returns:
        Layers by the stage that their names start with, or by their whole names where stages have several; empty for a
        network without maps.
    """
    producers = producers_of(model)
    computed = (origin(layer, producers) for layer in reversed(model.layers) if is_map(layer))
    last = next((layer for layer in computed if is_map(layer)), None)
    if last is None:
        return {}
    # Heads that read several stages tap the network on the way: only up to the last map does it narrow.
    chain = [layer for layer in bottlenecks(keras.Model(model.input, last.output)) if is_map(layer)]
    ends = [
        origin(layer, producers) for layer, after in pairwise(chain) if shrinks(layer.output.shape, after.output.shape)
    ]
    layers = list(dict.fromkeys([layer for layer in ends if is_map(layer)] + [last]))
    counts = Counter(_stage(layer.name) for layer in layers)
    return {_stage(layer.name) if counts[_stage(layer.name)] == 1 else layer.name: layer for layer in layers}


def find_map(model: "keras.Model", known: Mapping[str, "keras.Layer"], name: str) -> "keras.Layer":
    """Find a stage's last map, or the map of a layer, by name.

    Args:
        model: a flat functional network.
        known: its ``stage_maps``.
        name: of a stage or a layer.

    Raises:
        UserError: no such stage or layer, or one without a map.
    """
    if name in known:
        return known[name]
    of_stage = [layer for layer in model.layers if name in (layer.name, _stage(layer.name))]
    found = next((layer for layer in reversed(of_stage) if is_map(layer)), None)
    if found is None:
        if of_stage:
            raise UserError(f"{name!r} has no map to show, only vectors; maps are in {', '.join(known) or 'no stage'}")
        raise UserError(unknown_name("stage", name, list(known), listing="or the name of any layer with a map"))
    return found if found.name == name else origin(found, producers_of(model))


def is_map(layer: "keras.Layer") -> bool:
    """Tell if a layer computes a map of several cells; the picture itself is none."""
    shape: tuple[int, ...] = getattr(layer.output, "shape", ())
    return len(shape) == 4 and shape[1] * shape[2] > 1 and not isinstance(layer, keras.layers.InputLayer)


def spreading(model: "keras.Model", tensor: "keras.KerasTensor") -> tuple[np.ndarray, np.ndarray]:
    """Compute the matrices that spread a map's cells over the pixels that the network takes.

    A cell stands at the middle of what it sees; between cells values are interpolated, beyond the outermost they stay.
    Without padding the outermost stand well inside the picture, so stretching the map over it would be wrong.

    Returns:
        float32 of (height, rows) and (width, columns): ``down @ cells @ across.T`` is as large as the picture. Cells
        give each of their pixels alike, wherever they stand: as much as if all of them covered the step between two.
    """
    size = model.input_shape[1:3]
    centres = _centres(model, tensor, size)
    down, across = (_interpolation(places, side) for places, side in zip(centres, size, strict=True))
    return down, across


def _stage(name: str) -> str:
    return name.split("_")[0]


def _centres(model: "keras.Model", tensor: Any, size: Sequence[int]) -> list[np.ndarray]:
    even = [(np.arange(n) + 0.5) * side / n - 0.5 for n, side in zip(tensor.shape[1:3], size, strict=True)]
    name = next((layer.name for layer in model.layers if layer.output is tensor), "")
    if len(model.layers) < len(model.operations):  # bare operations on tensors, through which nothing is followed
        return even
    try:
        field = receptive_fields(model).get(name)
    except ValueError:  # layers of several outputs
        return even
    if field is None:
        return even
    ends = zip(field.first, field.last, field.jump, tensor.shape[1:3], strict=True)
    centres = [(first + last) / 2 + jump * np.arange(n) for first, last, jump, n in ends]
    is_inside = all(place[0] >= 0 and place[-1] <= side - 1 for place, side in zip(centres, size, strict=True))
    return centres if is_inside else even


def _interpolation(places: np.ndarray, side: int) -> np.ndarray:
    pixels = np.arange(side)
    matrix = np.stack([np.interp(pixels, places, cell) for cell in np.eye(len(places))], axis=1)
    between = places[1] - places[0] if len(places) > 1 else side
    # By its own sum, a cell at the border, which covers fewer pixels, would be the hotter for it.
    return (matrix / between).astype(np.float32)
