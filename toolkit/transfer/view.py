"""The crop and the size at which a network sees the pictures of a data set.

Published networks crop: a photograph is scaled to more than the network's input and its middle taken, 77 % of the area.
A classifier that is fitted anew need not: here pictures are seen whole. And tiny ones are enlarged about four times at
most: CIFAR-10's of 32 pixels are seen at 128 instead of 224, for a third of the arithmetic. The accuracy that both
together give is measured by ``benchmarks/accuracy.py``.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from toolkit.errors import UserError
from toolkit.factory import create_model, preprocessing_of
from toolkit.lazy import keras
from toolkit.spec import Preprocessing

if TYPE_CHECKING:
    from toolkit.data import ImageFolder

_ENLARGED = 4  # times, at most
_STEP = 32  # that networks of five halvings divide by


def whole_view(preprocessing: Preprocessing) -> Preprocessing:
    """The same preprocessing without a margin that is cut off.

    >>> whole_view(Preprocessing((224, 224), crop_fraction=0.875)).crop_fraction
    1.0
    """
    return replace(preprocessing, crop_fraction=1.0)


def fitting_size(size: tuple[int, int], sides: Sequence[int] | np.ndarray) -> tuple[int, int]:
    """Choose an input size at which pictures are not enlarged too much.

    Args:
        size: ``(height, width)`` of the network's input.
        sides: the shorter side of each picture, in pixels.

    Returns:
        ``size``, or where half of the pictures are tiny a smaller one, of no less than half the sides.

    >>> fitting_size((224, 224), [32, 32, 500]), fitting_size((224, 224), [100, 320])
    ((128, 128), (224, 224))
    """
    wanted = _STEP * max(1, round(_ENLARGED * float(np.median(sides)) / _STEP)) if len(sides) else max(size)
    factor = min(1.0, max(0.5, wanted / max(size)))
    if factor == 1:
        return size
    height, width = (_STEP * -(-round(side * factor) // _STEP) for side in size)
    return (height, width)


def shorter_sides(folder: "ImageFolder") -> np.ndarray:
    """The shorter side of each picture in pixels; empty where the scan did not measure them."""
    facts = folder.facts
    return np.empty(0, int) if facts is None else np.minimum(facts["height"], facts["width"])


def at_size(model: "keras.Model", size: tuple[int, int], *, option: str) -> "keras.Model":
    """Build a registered network anew for pictures of another size, with the same weights.

    Args:
        model: what ``create_model`` built; returned as it is if it has that size.
        size: ``(height, width)`` in pixels.
        option: that asked for it, for the message.

    Raises:
        UserError: its weights are for one size only.
    """
    preprocessing = preprocessing_of(model)
    if size == preprocessing.size:
        return model
    if not takes_any_size(model):
        own = "×".join(map(str, preprocessing.size))
        raise UserError(
            f"{option} {size[0]}: these weights of {model.name} are for {own} pixels; networks that average their "
            "maps, as every resnet does, take other sizes"
        )
    num_classes, shape = model.output_shape[-1], (*size, preprocessing.channels)
    other = create_model(model.name, num_classes=num_classes, input_shape=shape, **model.variant)
    other.set_weights(model.get_weights())
    other.preprocessing = preprocessing.resized(size)
    return other


def takes_any_size(model: "keras.Model") -> bool:
    """Tell whether a network of the same weights takes pictures of another size: nothing flattens its maps."""
    return not any(isinstance(layer, keras.layers.Flatten) for layer in model.layers)
