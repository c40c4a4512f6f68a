"""Seeded views of a picture: what augmentation shows, but the same at every repetition, so that it can be cached."""

from dataclasses import dataclass

import numpy as np

from toolkit.data.augment import mixing_of, parse
from toolkit.data.feed.arrays import TrainingRecipe
from toolkit.data.pixels.decode import resize_pixels
from toolkit.errors import UserError
from toolkit.spec import Preprocessing

#: Szegedy et al. (CVPR 2015), section 6, but from 0.35 of the area on for 0.08: a few fixed views had better show the
#: object.
AUGMENT = "resized_crop:0.35/1, mirror"

_VERSION = 2  # raise it whenever a view of the same name would look different


@dataclass(frozen=True)
class AugmentedViews:
    """Seeded views of each picture, the plain one first: augmentation that a repetition finds in the cache.

    Attributes:
        count: 1 is the plain picture alone.
        seed: decides the others.
        augment: what makes them, see ``toolkit.data.augment``; none that mixes pictures.
    """

    count: int = 1
    seed: int = 0
    augment: str = AUGMENT

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"views must be at least 1, the plain picture; got {self.count}")
        if mixing_of(parse(self.augment)):
            raise UserError(f"views are of one picture each, so nothing can be mixed; got {self.augment!r}")

    def name(self, number: int) -> str:
        """Name a view for cache keys; the plain picture has no seed."""
        return "plain" if number == 0 else f"{parse(self.augment)} {_VERSION} seed {self.seed} number {number}"

    def pixels(self, rgb: np.ndarray, preprocessing: Preprocessing, number: int, picture: bytes) -> np.ndarray:
        """Cut out view ``number`` of a picture; 0 is the plain one, as ``resize_pixels`` gives it.

        Args:
            rgb: uint8 RGB of shape (height, width, 3).
            preprocessing: gives the size and the interpolation.
            number: which view.
            picture: what tells this picture from others, such as a digest of its bytes.

        Returns:
            uint8 RGB of shape ``(*preprocessing.size, 3)``.
        """
        if number == 0:
            return resize_pixels(rgb, preprocessing)
        recipe = TrainingRecipe(preprocessing, parse(self.augment), self.seed, num_classes=0)
        place = np.array([int.from_bytes(picture[:8], "little")], np.uint64)
        return recipe.augment(resize_pixels(rgb, recipe.canvas)[None], number, place)[0]
