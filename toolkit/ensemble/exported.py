"""An exported ensemble run by TensorFlow: the networks inside its SavedModel, each on views cut here."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.bundle import Manifest
from toolkit.engines.runtimes import Engine, SavedModelEngine, open_engine
from toolkit.ensemble.crops import plan_crops
from toolkit.ensemble.ensemble import Member, Panel


class ExportedEnsemble(SavedModelEngine):
    """The bundle as it answers ``pixels``; its members can be called one by one."""

    def from_bytes(self, pictures: Sequence[bytes]) -> np.ndarray:
        """Probabilities as whoever serves the bundle gets them: encoded pictures, decoded in the graph."""
        return self._loaded.signatures["serving_default"](image_bytes=self._constant(pictures))["probabilities"].numpy()

    def members(self) -> list[Engine]:
        """An engine per network, in the manifest's order."""
        return [_ExportedMember(self._loaded, index) for index in range(len(self._loaded.members))]


class _ExportedMember:
    """One function of a SavedModel, uint8 pixels of its network's size to probabilities."""

    def __init__(self, loaded: Any, index: int) -> None:
        import tensorflow as tf

        self._loaded = loaded  # its functions live only as long as it does
        self._function = loaded.members[index]
        self._constant = tf.constant

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        return self._function(self._constant(pixels)).numpy()


def open_ensemble(engine: str, version_dir: Path, manifest: Manifest) -> tuple[ExportedEnsemble, Panel]:
    """The engine for one ready view, and the panel for pictures.

    Raises:
        UserError: another engine than ``savedmodel`` was asked for: an ensemble has no file for it.
    """
    if engine != "savedmodel":
        open_engine(engine, version_dir, manifest.preprocessing)  # which says what is missing
    exported = ExportedEnsemble(version_dir, manifest.preprocessing)
    shown = [
        Member(network, member.preprocessing, plan_crops(member.preprocessing, manifest.crops, manifest.scales))
        for network, member in zip(exported.members(), manifest.members, strict=True)
    ]
    return exported, Panel(shown)
