"""Seeded views of a picture: what augmentation shows, but the same at every repetition, so that it can be cached."""

from dataclasses import dataclass, replace

import numpy as np

from toolkit.data.decode import resize_pixels
from toolkit.spec import Preprocessing, UserError

#: Share of the picture's area that a view shows, and the range of its width to height.
AREA = (0.35, 1.0)
ASPECT = (3 / 4, 4 / 3)

_VERSION = 1  # raise it whenever a view of the same seed and number would look different


@dataclass(frozen=True)
class Views:
    """How many views of each picture there are, the plain one first.

    Attributes:
        count: 1 is the plain picture alone.
        seed: decides the others.
    """

    count: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"views must be at least 1, the plain picture; got {self.count}")

    def name(self, number: int) -> str:
        """What a view is called in cache keys; the plain picture has no seed."""
        return "plain" if number == 0 else f"crop-mirror {_VERSION} seed {self.seed} number {number}"


def view_pixels(
    rgb: np.ndarray, preprocessing: Preprocessing, *, number: int = 0, seed: int = 0, picture: bytes = b""
) -> np.ndarray:
    """View ``number`` of a picture.

    Number 0 is the plain picture as ``resize_pixels`` gives it. Any other is a random crop, stretched to the network's
    size and mirrored half the time (Szegedy et al., CVPR 2015, section 6, with ``AREA`` starting at 0.35 for 0.08:
    a few fixed views had better show the object).

    Args:
        rgb: uint8 RGB of shape (height, width, 3).
        preprocessing: gives the size and the interpolation.
        number: which view.
        seed: decides the views together with ``number`` and ``picture``.
        picture: what tells this picture from others, such as a digest of its bytes.

    Returns:
        uint8 RGB of shape ``(*preprocessing.size, 3)``.
    """
    if number == 0:
        return resize_pixels(rgb, preprocessing)
    rng = np.random.default_rng([seed, number, *picture])
    height, width = rgb.shape[:2]
    area = height * width * rng.uniform(*AREA)
    aspect = np.exp(rng.uniform(*np.log(ASPECT)))
    crop_width = int(np.clip(round(np.sqrt(area * aspect)), 1, width))
    crop_height = int(np.clip(round(np.sqrt(area / aspect)), 1, height))
    top, left = rng.integers(height - crop_height + 1), rng.integers(width - crop_width + 1)
    crop = rgb[top : top + crop_height, left : left + crop_width]
    pixels = resize_pixels(crop, replace(preprocessing, resize="stretch"))
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels
