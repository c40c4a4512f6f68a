"""Augmentations that change colours and leave pixels where they are."""

import math
from dataclasses import dataclass

import numpy as np

from toolkit.data.augment.draws import Draws
from toolkit.data.augment.limits import limited
from toolkit.data.augment.spatial import Size

#: Eigenvectors (columns) and eigenvalues of the covariance of ImageNet's RGB values in 0…1, as published with
#: fb.resnet.torch (Gross and Wilber 2016, ``datasets/imagenet.lua``); Krizhevsky et al. print none.
IMAGENET_EIGENVECTORS = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
IMAGENET_EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])


@dataclass(frozen=True)
class ColourShift:
    """The same amounts added to red, green and blue of every picture, in grey values."""

    red: int = limited(20, -255, 255)
    green: int = limited(-20, -255, 255)
    blue: int = limited(20, -255, 255)

    def __call__(self, pixels: np.ndarray, draws: Draws, size: Size) -> np.ndarray:
        return _add(pixels, np.tile([self.red, self.green, self.blue], (len(pixels), 1)))


@dataclass(frozen=True)
class RandomColourShift:
    """An amount for each of red, green and blue, up to ``most`` grey values each way."""

    most: int = limited(20, 0, 255)

    def __call__(self, pixels: np.ndarray, draws: Draws, size: Size) -> np.ndarray:
        return _add(pixels, draws.integers(-self.most, self.most, shape=(3,)))


@dataclass(frozen=True)
class PcaColour:
    """Colours moved along the axes in which ImageNet's colours vary, each axis by its variance times a normal number
    of standard deviation ``strength`` (Krizhevsky et al. 2012, section 4.1)."""

    strength: float = limited(0.1, 0, 10)

    def __call__(self, pixels: np.ndarray, draws: Draws, size: Size) -> np.ndarray:
        alphas = self.strength * draws.normal(shape=(3,))
        return _add(pixels, np.rint(255 * (alphas * IMAGENET_EIGENVALUES) @ IMAGENET_EIGENVECTORS.T))


@dataclass(frozen=True)
class Erase:
    """With ``probability``, a rectangle of ``min_area`` to ``max_area`` of the picture filled with noise (Zhong et al.
    2017, algorithm 1, sides 3:10 to 10:3)."""

    probability: float = limited(0.5, 0, 1)
    min_area: float = limited(0.02, 0, 1)
    max_area: float = limited(0.33, 0, 1)

    def __call__(self, pixels: np.ndarray, draws: Draws, size: Size) -> np.ndarray:
        height, width = pixels.shape[1:3]
        happens = draws.happens(self.probability)
        area = draws.uniform(self.min_area, self.max_area)
        aspect = np.exp(draws.uniform(math.log(0.3), math.log(1 / 0.3)))
        box_heights = np.clip(np.rint(np.sqrt(area * aspect) * height), 1, height).astype(int)
        box_widths = np.clip(np.rint(np.sqrt(area / aspect) * width), 1, width).astype(int)
        tops = np.floor(draws.uniform() * (height - box_heights + 1)).astype(int)
        lefts = np.floor(draws.uniform() * (width - box_widths + 1)).astype(int)
        out = pixels.copy()
        for i in np.flatnonzero(happens):
            shape = (int(box_heights[i]), int(box_widths[i]), 3)
            noise = draws[i : i + 1].integers(0, 255, shape=shape)[0]
            out[i, tops[i] : tops[i] + shape[0], lefts[i] : lefts[i] + shape[1]] = noise
        return out


def _add(pixels: np.ndarray, amounts: np.ndarray) -> np.ndarray:
    """Add whole grey values, (n, 3), to uint8 (n, height, width, 3), staying within 0…255."""
    shifted = pixels.astype(np.int16) + amounts.astype(np.int16)[:, None, None, :]
    return np.clip(shifted, 0, 255).astype(np.uint8)
