"""Several networks, each shown several views of a picture; their answers are averaged."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.data.pixels.decode import ImageSource
from toolkit.engines.runtimes import Engine
from toolkit.ensemble.crops import Crop, geometry
from toolkit.ensemble.cut import decode_views, load_views
from toolkit.spec import Preprocessing

#: Views that an engine is given at once.
_VIEWS_AT_ONCE = 64

#: The views of a picture, uint8 (views, height, width, 3), once for each way of cutting them that members differ in.
Views = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Member:
    """A network, and what it is shown of a picture.

    Attributes:
        engine: what answers.
        preprocessing: the network's.
        crops: from ``toolkit.ensemble.crops.plan_crops``.
    """

    engine: Engine
    preprocessing: Preprocessing
    crops: tuple[Crop, ...]


class Panel:
    """Members whose probabilities are averaged: those of a member's views first, then those of the members.

    Every member counts alike, however many views it is shown. Safe to call from several threads.

    Attributes:
        cuts: the different ways of cutting views that members want: a preprocessing's geometry, and the plan.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = tuple(members)
        self.cuts = tuple(dict.fromkeys((geometry(member.preprocessing), member.crops) for member in members))
        self._cut_of = [self.cuts.index((geometry(member.preprocessing), member.crops)) for member in members]

    @classmethod
    def of(cls, panels: "Sequence[Panel]") -> "Panel":
        """The members of several panels in one, in which every member counts alike."""
        return cls([member for panel in panels for member in panel._members])

    @property
    def num_views(self) -> int:
        """Views of one picture that are held in memory together."""
        return sum(len(crops) for _, crops in self.cuts)

    @property
    def pictures_at_once(self) -> int:
        """Pictures whose views fit into memory as comfortably as a usual batch does."""
        return max(1, 2 * _VIEWS_AT_ONCE // self.num_views)

    def decode(self, source: ImageSource) -> Views:
        """All views that the members want of a picture.

        Raises:
            ImageError: the picture cannot be read.
        """
        return tuple(decode_views(source, preprocessing, crops) for preprocessing, crops in self.cuts)

    def decode_all(self, sources: Sequence[ImageSource]) -> Views:
        """The views of several pictures, each array with an axis more, (pictures, views, height, width, 3)."""
        return tuple(load_views(sources, preprocessing, crops) for preprocessing, crops in self.cuts)

    def probabilities(self, views: Views) -> np.ndarray:
        """float32 (pictures, classes) for what ``decode_all`` gave, or for several of ``decode`` stacked."""
        answers = [
            _mean_over_views(member.engine, views[cut]) for member, cut in zip(self._members, self._cut_of, strict=True)
        ]
        return np.stack(answers).mean(axis=0).astype(np.float32)


def stack(pictures: Sequence[Views]) -> Views:
    """The views of pictures that were decoded one by one, as ``Panel.decode_all`` gives them."""
    return tuple(np.stack(views) for views in zip(*pictures, strict=True))


def _mean_over_views(engine: Engine, views: np.ndarray) -> np.ndarray:
    """uint8 (pictures, views, height, width, 3) to float64 (pictures, classes)."""
    flat = views.reshape(-1, *views.shape[2:])
    parts = [engine.probabilities(flat[i : i + _VIEWS_AT_ONCE]) for i in range(0, len(flat), _VIEWS_AT_ONCE)]
    return np.concatenate(parts).reshape(*views.shape[:2], -1).mean(axis=1, dtype=np.float64)
