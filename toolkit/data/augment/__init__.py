"""Augmentation: a list of named changes, each a function of the pictures and of numbers drawn from a seed.

They work on batches of uint8 pictures with NumPy and Pillow, outside any framework, so TensorFlow's pipeline, a plain
generator and an eager call give the same bits. A list is written as text, names with their parameters in order::

    mirror, resized_crop:0.25/1, pca_colour:0.1, mixup
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from toolkit.data.augment.colour import ColourShift, Erase, PcaColour, RandomColourShift
from toolkit.data.augment.draws import Draws
from toolkit.data.augment.limits import read_limited
from toolkit.data.augment.mix import CutMix, MixUp
from toolkit.data.augment.randaugment import RandAugment
from toolkit.data.augment.spatial import Mirror, RandomCrop, ResizedCrop, Rotate, Shear, Shift, Size, Warp
from toolkit.errors import UserError, unknown_name

__all__ = ["AUGMENTATIONS", "Augmentation", "apply", "canvas_size", "mix", "mixing_of", "parse"]

#: Every augmentation by name. The last two mix a batch, after all others.
AUGMENTATIONS: dict[str, type] = {
    "mirror": Mirror,
    "shift": Shift,
    "random_crop": RandomCrop,
    "resized_crop": ResizedCrop,
    "rotate": Rotate,
    "shear": Shear,
    "warp": Warp,
    "colour_shift": ColourShift,
    "random_colour_shift": RandomColourShift,
    "pca_colour": PcaColour,
    "erase": Erase,
    "randaugment": RandAugment,
    "mixup": MixUp,
    "cutmix": CutMix,
}

_SHORTHAND = {"none": (), "shift_flip": ("shift", "mirror")}
_MIXING = (MixUp, CutMix)
_MIX_BRANCH = 1 << 32  # far from the places in a list

#: One of the classes in ``AUGMENTATIONS``, with its parameters.
Augmentation = Any


def parse(spec: str | Sequence[str]) -> tuple[Augmentation, ...]:
    """Read a list of augmentations.

    >>> parse("shift:0.1, mirror")
    (Shift(share=0.1), Mirror(probability=0.5))

    Args:
        spec: names with parameters, in one text with commas between them or one by one. ``"none"`` is none,
            ``"shift_flip"`` is ``"shift,mirror"``.

    Raises:
        UserError: an unknown name (the nearest is suggested), or a parameter that is no number or too many.
    """
    texts = [text.strip() for part in ([spec] if isinstance(spec, str) else spec) for text in part.split(",")]
    return tuple(_parse_one(text) for given in texts if given for text in _SHORTHAND.get(given, (given,)))


def canvas_size(augmentations: Sequence[Augmentation], size: Size) -> Size:
    """Height and width of the pictures to start from, for a network's input of ``size``: crops need a margin.

    >>> canvas_size(parse("random_crop:0.875"), (224, 224))
    (256, 256)
    """
    margin = max([getattr(augmentation, "margin", 1.0) for augmentation in augmentations], default=1.0)
    return round(size[0] * margin), round(size[1] * margin)


def apply(augmentations: Sequence[Augmentation], pixels: np.ndarray, keys: np.ndarray, size: Size) -> np.ndarray:
    """Augment a batch, uint8 (n, *canvas_size, 3) to (n, *size, 3); those that mix are left to ``mix``.

    Args:
        augmentations: from ``parse``.
        pixels: the batch.
        keys: of ``toolkit.data.augment.draws.example_keys``, one per picture.
        size: the network's input.
    """
    draws = Draws(keys)
    for place, augmentation in enumerate(augmentations):
        if not isinstance(augmentation, _MIXING):
            pixels = augmentation(pixels, draws.branch(place), size)
    return pixels


def mix(
    augmentations: Sequence[Augmentation], inputs: np.ndarray, labels: np.ndarray, keys: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mix a batch by the one of ``augmentations`` that mixes; of several, one is drawn for each batch.

    Args:
        augmentations: from ``parse``.
        inputs: float32 (n, height, width, channels).
        labels: float32 (n, classes), one-hot.
        keys: one per picture, as for ``apply``; the first decides.
    """
    mixing = mixing_of(augmentations)
    if not mixing or not len(inputs):
        return inputs, labels
    draws = Draws(keys[:1]).branch(_MIX_BRANCH)
    return mixing[int(draws.integers(0, len(mixing) - 1)[0])](inputs, labels, draws)


def mixing_of(augmentations: Sequence[Augmentation]) -> tuple[Augmentation, ...]:
    """Those that mix a batch, and so need one-hot labels."""
    return tuple(augmentation for augmentation in augmentations if isinstance(augmentation, _MIXING))


def _parse_one(text: str) -> Augmentation:
    name, colon, rest = text.partition(":")
    if name not in AUGMENTATIONS:
        raise UserError(unknown_name("augmentation", name, [*AUGMENTATIONS, *_SHORTHAND]))
    fields = dataclasses.fields(AUGMENTATIONS[name])
    values = rest.split("/") if colon else []
    names = "/".join(field.name for field in fields)
    if len(values) > len(fields):
        raise UserError(f"augmentation {text!r}: {len(values)} parameters, expected {name}:{names}")
    try:
        return AUGMENTATIONS[name](*map(read_limited, fields, values))
    except ValueError as error:
        raise UserError(f"augmentation {text!r}: {error}; expected {name}:{names}") from None
