"""Linear classifiers of pooled maps, taken apart: which cell of which map gave how much of a logit.

A logit that is a weighted sum of averaged maps is as well an average over cells of weighted sums (class activation
maps, Zhou et al., CVPR 2016). That is no approximation, and holds for each of several maps that a classifier reads.
Where the averages are scaled to unit length first, each cell is divided by the length of its picture's.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from toolkit.lazy import keras
from toolkit.network import producers_of

_PASSING = ("Dropout", "Identity", "SpatialDropout2D", "GaussianDropout", "GaussianNoise", "AlphaDropout")
_RESHAPING = ("GlobalAveragePooling2D", "Flatten", "Reshape")  # which leave a map of one cell as it is


@dataclass(frozen=True)
class Tap:
    """A map that a classifier reads.

    Attributes:
        name: of the layer that computes the map.
        tensor: the map, (batch, rows, columns, channels).
        kernel: weights (rows, columns, channels, classes) of a flattened map, or (1, 1, channels, classes) of an
            averaged one, divided by the number of cells.
        is_unit: the average is scaled to unit length before it is weighted.
    """

    name: str
    tensor: Any
    kernel: np.ndarray
    is_unit: bool = False

    def evidence(self, cells: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Split a weighted sum of logits, bias aside, among the cells.

        Args:
            cells: the map of one picture, (rows, columns, channels).
            weights: one per class.

        Returns:
            float32 (rows, columns), whose sum is the map's part of the weighted sum.
        """
        kernel = self.kernel @ weights.astype(np.float32)
        evidence = (cells * kernel).sum(axis=-1)
        if self.is_unit:
            from toolkit.layers import UnitLength

            length = np.linalg.norm(cells.mean(axis=(0, 1)))
            evidence = evidence / max(float(length), UnitLength.smallest**0.5)
        return evidence.astype(np.float32)


@dataclass(frozen=True)
class ReadOut:
    """A classifier that is linear in maps: ``taps`` in the order in which it reads them, and its ``bias``."""

    taps: tuple[Tap, ...]
    bias: np.ndarray


def read_out(model: "keras.Model") -> ReadOut | None:
    """Take a network's classifier apart; None where it is not linear in maps of several cells, as with hidden layers.

    Args:
        model: a flat functional network that answers logits.
    """
    producers = producers_of(model)
    last = producers[id(model.outputs[0])]
    num_classes = model.outputs[0].shape[-1]
    if isinstance(last, keras.layers.GlobalAveragePooling2D):  # of class maps (Network in Network)
        kernel, bias = np.eye(num_classes, dtype=np.float32), np.zeros(num_classes, np.float32)
        vector = last.output
    elif isinstance(last, keras.layers.Dense) and last.activation is keras.activations.linear:
        kernel, *biases = (keras.ops.convert_to_numpy(weight) for weight in last.weights)
        bias = biases[0] if biases else np.zeros(num_classes, np.float32)
        vector = last.input
    else:
        return None
    taps = _taps(vector, kernel, producers)
    if taps is None or all(tap.tensor.shape[1:3] == (1, 1) for tap in taps):  # one cell is no place in a picture
        return None
    return ReadOut(tuple(taps), bias)


def _taps(vector: Any, kernel: np.ndarray, producers: dict[int, Any]) -> list[Tap] | None:
    """Follow a vector back to the maps that it is made of; None where it is made otherwise."""
    from toolkit.layers import UnitLength

    layer: Any = producers.get(id(vector))
    kind = type(layer).__name__
    if kind in _PASSING:
        return _taps(layer.input, kernel, producers)
    if kind in _RESHAPING and _is_cell(layer.input) and (found := _taps(layer.input, kernel, producers)):
        return found
    if kind == "Concatenate":
        return _joined(layer.input, kernel, producers)
    if isinstance(layer, UnitLength):
        match _taps(layer.input, kernel, producers):
            case [Tap(is_unit=False) as tap] if tap.kernel.shape[:2] == (1, 1):  # of an averaged map
                return [replace(tap, is_unit=True)]
        return None
    is_vector = layer is not None and (len(layer.output.shape) == 2 or _is_cell(layer.output))
    if kind in ("GlobalAveragePooling2D", "Flatten") and len(layer.input.shape) == 4 and is_vector:
        rows, columns, channels = layer.input.shape[1:]
        is_flat = kind == "Flatten"
        shape = (rows, columns) if is_flat else (1, 1)
        weights = kernel.reshape(*shape, channels, -1) / (1 if is_flat else rows * columns)
        return [Tap(producers[id(layer.input)].name, layer.input, weights)]
    return None


def _is_cell(tensor: Any) -> bool:
    """Tell a vector that still has the shape of a map, of one cell."""
    return len(tensor.shape) == 4 and tuple(tensor.shape[1:3]) == (1, 1)


def _joined(vectors: Sequence[Any], kernel: np.ndarray, producers: dict[int, Any]) -> list[Tap] | None:
    ends = np.cumsum([vector.shape[-1] for vector in vectors])[:-1]
    parts = [_taps(*pair, producers) for pair in zip(vectors, np.split(kernel, ends), strict=True)]
    if any(part is None for part in parts):
        return None
    return [tap for part in parts for tap in part or ()]
