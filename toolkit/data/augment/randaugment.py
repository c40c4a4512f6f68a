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

# Each takes a picture and a level from -1 to 1, or 0 to 1 where a sign has no meaning; 1 is the strongest.
_Change = Callable[[Image.Image, float], Image.Image]


@dataclass(frozen=True)
class RandAugment:
    """``changes`` of fourteen one after the other, of ``magnitude`` 0 to 30."""

    changes: int = limited(2, 1, 14)
    magnitude: float = limited(9.0, 0, MAX_MAGNITUDE)

    def __call__(self, pixels: np.ndarray, draws: Draws, size: Size) -> np.ndarray:
        chosen = draws.integers(0, len(CHANGES) - 1, shape=(self.changes,))
        signs = np.where(draws.uniform(shape=(self.changes,)) < 0.5, -1, 1)
        level = self.magnitude / MAX_MAGNITUDE
        out = np.empty_like(pixels)
        for i in range(len(pixels)):
            image = Image.fromarray(pixels[i])
            for number, sign in zip(chosen[i], signs[i], strict=True):
                image = _CHANGES[number](image, sign * level)
            out[i] = np.asarray(image)
        return out


def _rotate(image: Image.Image, level: float) -> Image.Image:
    angle = np.radians(30 * level)
    return _affine(image, [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def _shear_x(image: Image.Image, level: float) -> Image.Image:
    return _affine(image, [[1, 0.3 * level], [0, 1]])


def _shear_y(image: Image.Image, level: float) -> Image.Image:
    return _affine(image, [[1, 0], [0.3 * level, 1]])


# 150 of 331 pixels in AutoAugment, whose ranges RandAugment takes over.
def _translate_x(image: Image.Image, level: float) -> Image.Image:
    return _affine(image, [[1, 0], [0, 1]], (150 / 331 * level * image.width, 0))


def _translate_y(image: Image.Image, level: float) -> Image.Image:
    return _affine(image, [[1, 0], [0, 1]], (0, 150 / 331 * level * image.height))


def _affine(image: Image.Image, matrix: list[list[float]], offset: tuple[float, float] = (0, 0)) -> Image.Image:
    pixels = affine(np.asarray(image)[None], np.array([matrix], float), np.array([offset], float))
    return Image.fromarray(pixels[0])


def _posterize(image: Image.Image, level: float) -> Image.Image:
    return ImageOps.posterize(image, 8 - round(4 * abs(level)))


def _solarize(image: Image.Image, level: float) -> Image.Image:
    return ImageOps.solarize(image, round(256 * (1 - abs(level))))


def _enhance(enhancer: type) -> _Change:
    return lambda image, level: enhancer(image).enhance(1 + 0.9 * level)


_TABLE: dict[str, _Change] = {
    "identity": lambda image, level: image,
    "autocontrast": lambda image, level: ImageOps.autocontrast(image),
    "equalize": lambda image, level: ImageOps.equalize(image),
    "rotate": _rotate,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
    "posterize": _posterize,
    "solarize": _solarize,
    "colour": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "brightness": _enhance(ImageEnhance.Brightness),
    "sharpness": _enhance(ImageEnhance.Sharpness),
}
#: Names of the fourteen changes.
CHANGES = tuple(_TABLE)
_CHANGES = tuple(_TABLE.values())
