"""An exported ensemble run by TensorFlow: the networks inside its SavedModel, each on crops cut here."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from toolkit.bundle import Manifest
from toolkit.engines.runtimes import Answers, Engine, SavedModelEngine
from toolkit.ensemble.crops import plan_crops
from toolkit.ensemble.ensemble import Ensemble, Member


class ExportedEnsemble(Ensemble):
    """An ensemble's bundle, opened. Crops are cut on the host; ``from_pixels`` and ``from_bytes`` ask the graph."""

    def __init__(self, version_dir: Path, manifest: Manifest) -> None:
        self._whole = SavedModelEngine(version_dir, manifest.preprocessing)
        preprocessings = [member.preprocessing for member in manifest.members]
        plans = [plan_crops(preprocessing, manifest.crops, manifest.scales) for preprocessing in preprocessings]
        engines = [_ExportedMember(self._whole, index) for index in range(len(plans))]
        super().__init__([Member(*parts) for parts in zip(engines, preprocessings, plans, strict=True)])

    def from_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Answer ready pixels of the largest member's size, which the graph shrinks for the others."""
        return self._whole.probabilities(pixels)

    def from_bytes(self, pictures: Sequence[bytes]) -> np.ndarray:
        """Answer encoded pictures, decoded and cut in the graph, as for whoever serves the bundle."""
        return self._whole.from_bytes(pictures).probabilities


class _ExportedMember(Engine):
    """One function of a SavedModel, uint8 pixels of its network's size to probabilities."""

    def __init__(self, whole: SavedModelEngine, index: int) -> None:
        import tensorflow as tf

        self._whole = whole
        self._index = index
        self._constant = tf.constant

    def answers(self, pixels: np.ndarray) -> Answers:
        return Answers(self._whole.loaded.members[self._index](self._constant(pixels)).numpy())
