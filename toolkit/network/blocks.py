"""Blocks of flat functional networks: where a graph narrows to one tensor, and what only repeats what is there."""

from collections import Counter
from collections.abc import Mapping

from toolkit.lazy import keras
from toolkit.network.graph import inputs_of, outputs_of

_SHRINKS = 0.7  # a side this much shorter is another resolution; a border lost to an unpadded window is not

# Layers that repeat, drop or pool what is there already.
_REPEATING = (
    "AveragePooling2D",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling2D",
    "MaxPooling2D",
    "SpatialDropout2D",
    "ZeroPadding2D",
)


def bottlenecks(model: "keras.Model") -> list["keras.Layer"]:
    """List the layers, input to output, whose output is all that the layers behind them can see."""
    num_readers = Counter(id(tensor) for layer in model.operations for tensor in inputs_of(layer))
    waiting: dict[int, int] = {}
    found = []
    for layer in model.operations:
        for tensor in inputs_of(layer):
            waiting[id(tensor)] -= 1
            if not waiting[id(tensor)]:
                del waiting[id(tensor)]
        outputs = outputs_of(layer)
        # Of several (a split's), some may lead nowhere.
        read = [tensor for tensor in outputs if num_readers[id(tensor)] or len(outputs) == 1]
        waiting |= {id(tensor): num_readers[id(tensor)] for tensor in read}
        if len(waiting) == 1 and len(outputs) == 1:
            found.append(layer)
    return found


def origin(layer: "keras.Layer", producers: Mapping[int, "keras.Layer"]) -> "keras.Layer":
    """Go back over layers that only repeat or pool to the one that computed."""
    while type(layer).__name__ in _REPEATING:
        layer = producers[id(layer.input)]
    return layer


def shrinks(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Tell if the second of two shapes is of another resolution, or a vector behind a map."""
    sides = zip(before[1:-1], after[1:-1], strict=False)
    return len(after) < len(before) or any(late < _SHRINKS * early for early, late in sides)
