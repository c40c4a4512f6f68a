"""Augmentations that move pixels. What comes in from outside the picture is black."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from toolkit.data.augment.draws import Draws
from toolkit.data.augment.limits import limited

Size = tuple[int, int]


@dataclass(frozen=True)
class Mirror:
    """Left and right exchanged, with ``probability``."""

    probability: float = limited(0.5, 0, 1)

    def __call__(self, pixels: np.ndarray, draws: Draws, size: Size) -> np.ndarray:
        return np.where(draws.happens(self.probability)[:, None, None, None], pixels[:, :, ::-1], pixels)


@dataclass(frozen=True)
class Shift:
    """Moved by whole pixels, up to ``share`` of the side each way (He et al. 2015, section 4.2)."""

    share: float = limited(0.125, 0, 1)

    def __call__(self, pixels: np.ndarray, draws: Draws, size: Size) -> np.ndarray:
        height, width = pixels.shape[1:3]
        least = 1 if self.share else 0
        most_down, most_right = max(least, int(height * self.share)), max(least, int(width * self.share))
        padded = np.pad(pixels, ((0, 0), (most_down, most_down), (most_right, most_right), (0, 0)))
        tops, lefts = draws.integers(0, 2 * most_down), draws.integers(0, 2 * most_right)
        return _windows(padded, tops, lefts, (height, width))


@dataclass(frozen=True)
class RandomCrop:
    """A window at a random place of a picture that is larger by ``1 / share``: with 0.875, AlexNet's 224 out of 256
    (Krizhevsky et al. 2012, section 4.1)."""

    share: float = limited(0.875, 0.25, 1)

    @property
    def margin(self) -> float:
        """Factor by which its pictures must be larger than the network's input."""
        return 1 / self.share

    def __call__(self, pixels: np.ndarray, draws: Draws, size: Size) -> np.ndarray:
        tops = draws.integers(0, pixels.shape[1] - size[0])
        lefts = draws.integers(0, pixels.shape[2] - size[1])
        return _windows(pixels, tops, lefts, size)


@dataclass(frozen=True)
class ResizedCrop:
    """A window of ``min_area`` to ``max_area`` of the picture, sides 3:4 to 4:3, scaled to the input's size (Szegedy et
    al. 2014, section 6). It is cut out of a picture 8/7 of the input's size."""

    min_area: float = limited(0.08, 0.001, 1)
    max_area: float = limited(1.0, 0.001, 1)

    margin: ClassVar[float] = 8 / 7

    def __call__(self, pixels: np.ndarray, draws: Draws, size: Size) -> np.ndarray:
        count, height, width = pixels.shape[:3]
        area = draws.uniform(self.min_area, self.max_area)
        aspect = np.exp(draws.uniform(math.log(3 / 4), math.log(4 / 3)))
        box_heights = np.minimum(np.sqrt(area / aspect), 1.0) * height
        box_widths = np.minimum(np.sqrt(area * aspect), 1.0) * width
        tops, lefts = draws.uniform() * (height - box_heights), draws.uniform() * (width - box_widths)
        out = np.empty((count, *size, 3), np.uint8)
        for i in range(count):
            box = (lefts[i], tops[i], lefts[i] + box_widths[i], tops[i] + box_heights[i])
            image = Image.fromarray(pixels[i]).resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box)
            out[i] = np.asarray(image)
        return out


@dataclass(frozen=True)
class Rotate:
    """Turned about the centre by up to ``degrees`` each way."""

    degrees: float = limited(15.0, 0, 180)

    def __call__(self, pixels: np.ndarray, draws: Draws, size: Size) -> np.ndarray:
        angles = np.radians(draws.uniform(-self.degrees, self.degrees))
        cosines, sines = np.cos(angles), np.sin(angles)
        return affine(pixels, np.stack([cosines, sines, -sines, cosines], axis=1).reshape(-1, 2, 2))


@dataclass(frozen=True)
class Shear:
    """Rows slid sideways so that uprights lean by up to ``degrees`` each way."""

    degrees: float = limited(10.0, 0, 80)

    def __call__(self, pixels: np.ndarray, draws: Draws, size: Size) -> np.ndarray:
        slopes = np.tan(np.radians(draws.uniform(-self.degrees, self.degrees)))
        matrices = np.tile(np.eye(2), (len(pixels), 1, 1))
        matrices[:, 0, 1] = slopes
        return affine(pixels, matrices)


@dataclass(frozen=True)
class Warp:
    """Local warping: the inner knots of a ``cells`` × ``cells`` grid move by up to ``strength`` of a cell each way, and
    what lies between them follows. A coarse form of elastic distortion (Simard et al. 2003, section 2)."""

    cells: int = limited(4, 2, 64)
    strength: float = limited(0.25, 0, 0.5)

    def __call__(self, pixels: np.ndarray, draws: Draws, size: Size) -> np.ndarray:
        count, height, width = pixels.shape[:3]
        rows = np.linspace(0, height, self.cells + 1).round().astype(int)
        columns = np.linspace(0, width, self.cells + 1).round().astype(int)
        knots = np.stack(np.meshgrid(columns, rows), axis=-1)[None].astype(float)
        moves = draws.uniform(-self.strength, self.strength, shape=(self.cells + 1, self.cells + 1, 2))
        moves[:, [0, -1]] = moves[:, :, [0, -1]] = 0
        sources = knots + moves * (width / self.cells, height / self.cells)
        out = np.empty_like(pixels)
        for i in range(count):
            mesh = [
                (
                    (columns[c], rows[r], columns[c + 1], rows[r + 1]),
                    # Pillow's order of a quadrilateral's corners: upper left, lower left, lower right, upper right.
                    (*sources[i, r, c], *sources[i, r + 1, c], *sources[i, r + 1, c + 1], *sources[i, r, c + 1]),
                )
                for r in range(self.cells)
                for c in range(self.cells)
            ]
            image = Image.fromarray(pixels[i])
            out[i] = np.asarray(image.transform(image.size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR))
        return out


def affine(pixels: np.ndarray, matrices: np.ndarray, offsets: np.ndarray | None = None) -> np.ndarray:
    """Each picture's pixel at centre + v taken from its centre + ``matrix`` · v + ``offset``, bilinearly.

    Args:
        pixels: uint8 (n, height, width, 3).
        matrices: (n, 2, 2), on (x, y).
        offsets: (n, 2) pixels, (x, y); by default none.
    """
    height, width = pixels.shape[1:3]
    centre = np.array([width / 2, height / 2])
    starts = centre - matrices @ centre + (0 if offsets is None else offsets)
    out = np.empty_like(pixels)
    for i, (matrix, start) in enumerate(zip(matrices, starts, strict=True)):
        data: Any = (*matrix[0], start[0], *matrix[1], start[1])
        image = Image.fromarray(pixels[i])
        out[i] = np.asarray(image.transform(image.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR))
    return out


def _windows(pixels: np.ndarray, tops: np.ndarray, lefts: np.ndarray, size: Size) -> np.ndarray:
    out = np.empty((len(pixels), *size, 3), np.uint8)
    for i, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        out[i] = pixels[i, top : top + size[0], left : left + size[1]]
    return out
