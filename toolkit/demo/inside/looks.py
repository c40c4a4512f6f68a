"""Explanations for visitors: networks opened once, pictures looked at once."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from toolkit.bundle import MANIFEST
from toolkit.data.pixels.decode import decode_pixels, read_rgb
from toolkit.data.pixels.ground import exchange_ground, has_opposite_ground
from toolkit.demo.classifier import Classifier
from toolkit.errors import UserError
from toolkit.explain import Explainer, Explanation, HeatMap, Region, open_explainer
from toolkit.explain.inside import feature_maps, first_filters, strongest

#: Networks kept open, and pictures kept with what was found of them: another class of the same picture is at once.
MAX_NETWORKS, MAX_PICTURES = 2, 4
#: Channels of a map that are shown, the strongest.
MAX_CHANNELS = 48
#: First filters that are shown.
MAX_FILTERS = 96

Made = TypeVar("Made")


class NothingToOpen(UserError):
    """A bundle has no original network to look into; the message says what is missing."""


@dataclass
class Look:
    """A picture and what the network answers to it.

    Attributes:
        explanation: of the picture.
        turned: light and dark are exchanged, since the network learned from pictures the other way round.
        is_searched: the smallest part that keeps the answer was looked for.
        region: that part, where there is one.
    """

    explanation: Explanation
    turned: bool
    is_searched: bool = False
    region: Region | None = None


@dataclass(frozen=True)
class Sheet:
    """Channels of a map.

    Attributes:
        layer: its name.
        shape: (rows, columns, channels).
        channels: numbers of those given, the strongest, in order.
        cells: float32 (rows, columns, len(channels)).
    """

    layer: str
    shape: tuple[int, int, int]
    channels: tuple[int, ...]
    cells: np.ndarray


class Looks:
    """Explanations by the original networks of the bundles that a classifier serves. Thread-safe, one at a time."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._lock = threading.RLock()
        self._networks: OrderedDict[Hashable, Explainer] = OrderedDict()
        self._looks: OrderedDict[Hashable, Look] = OrderedDict()

    def explainer(self, bundle: str) -> Explainer:
        """Open a bundle's original network, or take it where it is open.

        Raises:
            UserError: no such bundle.
            NothingToOpen: the bundle has no Keras network to look into.
        """
        version_dir = self._classifier.directory(bundle)
        key = (bundle, _stamp(version_dir / MANIFEST))
        with self._lock:
            try:
                return _kept(self._networks, key, MAX_NETWORKS, lambda: open_explainer(version_dir))
            except UserError as error:
                raise NothingToOpen(str(error)) from None

    def look(self, picture: bytes, bundle: str) -> Look:
        """Have a network look at an encoded picture.

        Args:
            picture: encoded.
            bundle: ``NAME/VERSION``, or ``NAME`` for its newest version.

        Raises:
            ImageError: the picture cannot be read.
            UserError: see ``explainer``.
        """
        bundle = self._classifier.newest(bundle)
        with self._lock:
            explainer = self.explainer(bundle)
            key = (bundle, id(explainer), hashlib.sha256(picture).digest())
            return _kept(self._looks, key, MAX_PICTURES, lambda: self._look(picture, bundle, explainer))

    def heat_map(self, look: Look, label: str | None, method: str, stage: str | None) -> HeatMap:
        """Find where the evidence for a class lies; see ``Explanation.heat_map``.

        Raises:
            UserError: no such class, method or stage, or a method that this network has no use for.
        """
        with self._lock:
            return look.explanation.heat_map(label, method=method, stage=stage)

    def search(self, look: Look) -> None:
        """Look for the smallest part of a picture that is answered as the whole is, once."""
        with self._lock:
            if not look.is_searched:
                look.region, look.is_searched = look.explanation.smallest_region(), True

    def evidence(self, look: Look, count: int = 5) -> list[HeatMap]:
        """Split the lead of the likeliest classes among the stages that the classifier reads; empty where it cannot be.

        A classifier's evidence can be split where it is linear in maps, see ``HeatMap.method``.
        """
        if look.explanation.explainer.read_out is None:
            return []
        with self._lock:
            labels = [label for label, _ in look.explanation.top(count)]
            return [look.explanation.heat_map(label, method="evidence") for label in labels]

    def sheet(self, look: Look, stage: str | None) -> Sheet:
        """Compute the strongest channels of a stage's last map.

        Raises:
            UserError: no such stage, or a network without maps.
        """
        with self._lock:
            name, cells = feature_maps(look.explanation, stage)
        channels = strongest(cells, MAX_CHANNELS)
        return Sheet(name, cells.shape, tuple(map(int, channels)), cells[..., channels])

    def filters(self, bundle: str) -> tuple[str, int, np.ndarray]:
        """Read a network's first filters: the layer's name, how many it has, and (filters, height, width, 1 or 3).

        Raises:
            UserError: the first layer reads no pixels.
        """
        name, filters = first_filters(self.explainer(bundle))
        return name, len(filters), filters[:MAX_FILTERS]

    def _look(self, picture: bytes, bundle: str, explainer: Explainer) -> Look:
        rgb, pixels = read_rgb(picture), decode_pixels(picture, explainer.preprocessing)
        ground = self._classifier.manifest(bundle).ground
        turned = ground is not None and has_opposite_ground(pixels, ground)
        if turned and ground is not None:
            rgb, pixels = exchange_ground(rgb, ground), exchange_ground(pixels, ground)
        return Look(Explanation(explainer, rgb, pixels), turned)


def _kept(kept: OrderedDict[Hashable, Made], key: Hashable, limit: int, make: Callable[[], Made]) -> Made:
    """Take what is kept, or make it; what was used longest ago makes room."""
    if key not in kept:
        kept[key] = make()
        while len(kept) > limit:
            kept.popitem(last=False)
    kept.move_to_end(key)
    return kept[key]


def _stamp(file: Any) -> int:
    try:
        return int(file.stat().st_mtime_ns)
    except OSError as error:
        raise UserError(f"{file.name}: {error.strerror}") from None
