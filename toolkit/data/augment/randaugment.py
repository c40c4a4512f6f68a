"""RandAugment (Cubuk et al. 2019, section 3): for each picture a few of fourteen changes, all of one magnitude."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from toolkit.data.augment.draws import Draws
from toolkit.data.augment.limits import limited
from toolkit.data.augment.spatial import Size, affine

#: The magnitude that stands for the most; the paper's scale.
MAX_MAGNITUDE = 30


@dataclass(frozen=True)
class RandAugment:
    """``changes`` of fourteen one after the other, of ``magnitude`` 0 to 30."""

    changes: int = limited(2, 1, 14)
    magnitude: float = limited(9.0, 0, MAX_MAGNITUDE)

    def __call__(self, pixels: np.ndarray, draws: Draws, size: Size) -> np.ndarray:
        chosen = draws.integers(0, len(CHANGES) - 1, shape=(self.changes,))
        signs = np.where(draws.uniform(shape=(self.changes,)) < 0.5, -1, 1)
        level, changes = self.magnitude / MAX_MAGNITUDE, list(CHANGES.values())
        out = np.empty_like(pixels)
        for i in range(len(pixels)):
            image = Image.fromarray(pixels[i])
            for number, sign in zip(chosen[i], signs[i], strict=True):
                image = changes[number](image, sign * level)
            out[i] = np.asarray(image)
        return out


def _rotate(image: Image.Image, level: float) -> Image.Image:
    angle = np.radians(30 * level)
    return _affine(image, [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def _translate(image: Image.Image, right: float, down: float) -> Image.Image:
    # 150 of 331 pixels in AutoAugment, whose ranges RandAugment takes over.
    return _affine(image, [[1, 0], [0, 1]], (150 / 331 * right * image.width, 150 / 331 * down * image.height))


def _affine(image: Image.Image, matrix: list[list[float]], offset: tuple[float, float] = (0, 0)) -> Image.Image:
    pixels = affine(np.asarray(image)[None], np.array([matrix], float), np.array([offset], float))
    return Image.fromarray(pixels[0])


#: The fourteen changes. Each takes a picture and a level from -1 to 1, or 0 to 1 where a sign has no meaning; 1 is the
#: strongest.
CHANGES: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda image, level: image,
    "autocontrast": lambda image, level: ImageOps.autocontrast(image),
    "equalize": lambda image, level: ImageOps.equalize(image),
    "rotate": _rotate,
    "shear_x": lambda image, level: _affine(image, [[1, 0.3 * level], [0, 1]]),
    "shear_y": lambda image, level: _affine(image, [[1, 0], [0.3 * level, 1]]),
    "translate_x": lambda image, level: _translate(image, level, 0),
    "translate_y": lambda image, level: _translate(image, 0, level),
    "posterize": lambda image, level: ImageOps.posterize(image, 8 - round(4 * abs(level))),
    "solarize": lambda image, level: ImageOps.solarize(image, round(256 * (1 - abs(level)))),
    "colour": lambda image, level: ImageEnhance.Color(image).enhance(1 + 0.9 * level),
    "contrast": lambda image, level: ImageEnhance.Contrast(image).enhance(1 + 0.9 * level),
    "brightness": lambda image, level: ImageEnhance.Brightness(image).enhance(1 + 0.9 * level),
    "sharpness": lambda image, level: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * level),
}
