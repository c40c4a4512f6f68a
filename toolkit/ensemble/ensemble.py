"""Several networks, each shown several crops of a picture; their answers are averaged."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toolkit.data.pixels.decode import ImageSource
from toolkit.engines.runtimes import Engine
from toolkit.ensemble.crops import Crop, without_normalization
from toolkit.ensemble.cut import decode_crops, load_crops
from toolkit.errors import UserError
from toolkit.spec import Preprocessing

#: Crops that an engine is given at once.
_CROPS_AT_ONCE = 64

#: The crops of a picture, uint8 (crops, height, width, 3), once for each way of cutting them that members differ in.
DecodedCrops = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Member:
    """A network, and the crops that it is shown of a picture, by ``toolkit.ensemble.crops.plan_crops``."""

    engine: Engine
    preprocessing: Preprocessing
    crops: tuple[Crop, ...]


class Ensemble:
    """Members whose probabilities are averaged: those of a member's crops first, then those of the members.

    Every member counts alike, however many crops it is shown. Safe to call from several threads.

    Attributes:
        members: the networks and their crops.
        cuts: the different ways of cutting that members want: a preprocessing without its normalisation, and the plan.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = tuple(members)
        wanted = [(without_normalization(member.preprocessing), member.crops) for member in members]
        self.cuts = tuple(dict.fromkeys(wanted))
        self._cut_of = [self.cuts.index(cut) for cut in wanted]

    @property
    def num_crops(self) -> int:
        """Crops of one picture that are held in memory together."""
        return sum(len(crops) for _, crops in self.cuts)

    @property
    def pictures_at_once(self) -> int:
        """Pictures whose crops fit into memory as comfortably as a usual batch does."""
        return max(1, 2 * _CROPS_AT_ONCE // self.num_crops)

    @property
    def largest_input(self) -> Preprocessing:
        """The preprocessing of the first member with the largest input, which can be shrunk for all the others."""
        preprocessings = [member.preprocessing for member in self.members]
        return max(preprocessings, key=lambda preprocessing: preprocessing.size[0] * preprocessing.size[1])

    def decode(self, source: ImageSource) -> DecodedCrops:
        """Cut all crops that the members want of a picture.

        Raises:
            ImageError: the picture cannot be read.
        """
        return tuple(decode_crops(source, preprocessing, crops) for preprocessing, crops in self.cuts)

    def decode_all(self, sources: Sequence[ImageSource]) -> DecodedCrops:
        """Cut the crops of several pictures: each array has an axis more, (pictures, crops, height, width, 3)."""
        return tuple(load_crops(sources, preprocessing, crops) for preprocessing, crops in self.cuts)

    def probabilities(self, crops: DecodedCrops) -> np.ndarray:
        """Average the members' answers to what ``decode_all`` gave: float32 (pictures, classes)."""
        pairs = zip(self.members, self.by_member(crops), strict=True)
        return _mean([_mean_over_crops(member.engine, own) for member, own in pairs])

    def from_decoded(self, pictures: Sequence[DecodedCrops]) -> np.ndarray:
        """Average the members' answers to pictures that were decoded one by one."""
        return self.probabilities(tuple(np.stack(crops) for crops in zip(*pictures, strict=True)))

    def from_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Average the members' answers to ready pixels, uint8 (n, height, width, 3), which all of them see.

        Raises:
            UserError: the members take pixels of different sizes.
        """
        if len({member.preprocessing.size for member in self.members}) > 1:
            raise UserError("the networks take pixels of different sizes; give them pictures")
        return _mean([member.engine.probabilities(pixels) for member in self.members])

    def by_member(self, by_cut: Sequence[Any]) -> list[Any]:
        """Give every member the crops that were cut its way, arrays or tensors in the order of ``cuts``."""
        return [by_cut[index] for index in self._cut_of]


def _mean(answers: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack(answers).mean(axis=0).astype(np.float32)


def _mean_over_crops(engine: Engine, crops: np.ndarray) -> np.ndarray:
    """uint8 (pictures, crops, height, width, 3) to float64 (pictures, classes)."""
    flat = crops.reshape(-1, *crops.shape[2:])
    parts = [engine.probabilities(flat[i : i + _CROPS_AT_ONCE]) for i in range(0, len(flat), _CROPS_AT_ONCE)]
    return np.concatenate(parts).reshape(*crops.shape[:2], -1).mean(axis=1, dtype=np.float64)
