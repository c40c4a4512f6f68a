"""Pictures in, labels with probabilities out, through whichever engine."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image

from toolkit.bundle import EXTRA, Manifest, find_bundle, read_manifest, verify_files
from toolkit.data.arrays import load_pixels
from toolkit.data.decode import ImageSource
from toolkit.engines import ENGINES, FLOAT_ENGINES, Engine, available_engines, open_engine


@dataclass(frozen=True)
class Prediction:
    """A class name and its probability in 0…1."""

    label: str
    probability: float


class Predictor:
    """A bundle loaded into one engine. Safe to call from several threads.

    Attributes:
        version_dir: the bundle's version directory.
        manifest: what the bundle says of itself.
        engine_name: the engine that answers.
    """

    def __init__(self, version_dir: Path, manifest: Manifest, engine_name: str, engine: Engine) -> None:
        self.version_dir = version_dir
        self.manifest = manifest
        self.engine_name = engine_name
        self._engine = engine

    @classmethod
    def load(cls, bundle: str | Path, engine: str = "auto") -> "Predictor":
        """Open a bundle.

        Args:
            bundle: ``…/NAME/VERSION``, or ``…/NAME`` for its highest version.
            engine: ``savedmodel``, ``litert``, ``litert-int8``, ``openvino``, ``openvino-int8``; ``auto`` is the
                fastest installed engine that runs the network in float32, so its answers are the SavedModel's
                within 1e-4. An int8 engine answers slightly differently and is only used by name, or as
                ``recommended``: the fastest that passed the accuracy budget at export, where it is installed.

        Raises:
            UserError: not a bundle, a file is missing or fails its checksum, or the engine is not available.
        """
        version_dir = find_bundle(bundle)
        manifest = read_manifest(version_dir)
        name = resolve_engine(engine, version_dir, manifest)
        verify_files(version_dir, manifest, _files_of(name))
        return cls(version_dir, manifest, name, open_engine(name, version_dir, manifest.preprocessing))

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in output order."""
        return self.manifest.labels

    def predict(self, images: Sequence[ImageSource] | ImageSource, *, top_k: int = 5) -> list[list[Prediction]]:
        """The ``top_k`` most probable classes of each picture, best first.

        Args:
            images: one or several of: a path, encoded bytes, a Pillow image, a uint8 array (height, width, 3).
            top_k: capped at the number of classes.

        Raises:
            ImageError: a picture cannot be read.
        """
        single = isinstance(images, str | Path | bytes | Image.Image | np.ndarray)
        pictures = [cast(ImageSource, images)] if single else cast(Sequence[ImageSource], images)
        return [self.top(row, top_k) for row in self.probabilities(pictures)]

    def probabilities(self, images: Sequence[ImageSource], *, batch_size: int = 32) -> np.ndarray:
        """float32 probabilities (len(images), classes)."""
        batches = list(self.iter_probabilities(images, batch_size=batch_size))
        return np.concatenate(batches) if batches else np.empty((0, len(self.labels)), np.float32)

    def iter_probabilities(self, images: Sequence[ImageSource], *, batch_size: int = 32) -> Iterator[np.ndarray]:
        """Probabilities in batches, holding the pixels of one batch at a time."""
        for start in range(0, len(images), batch_size):
            yield self.from_pixels(load_pixels(images[start : start + batch_size], self.manifest.preprocessing))

    def from_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Probabilities for uint8 RGB (batch, height, width, 3) that already has the network's size."""
        return self._engine.probabilities(pixels)

    def top(self, probabilities: np.ndarray, top_k: int = 5) -> list[Prediction]:
        """The best classes of one row of probabilities."""
        best = np.argsort(-probabilities, kind="stable")[:top_k]
        return [Prediction(self.labels[i], float(probabilities[i])) for i in best]


def resolve_engine(engine: str, version_dir: Path, manifest: Manifest) -> str:
    """The engine that ``auto`` or ``recommended`` means on this machine; any other name is returned as it is."""
    if engine not in ("auto", "recommended"):
        return engine
    available = available_engines(version_dir)
    if engine == "recommended" and manifest.recommended_engine in available:
        return manifest.recommended_engine
    return next((name for name in FLOAT_ENGINES if name in available), "savedmodel")


def _files_of(engine: str) -> tuple[str, ...]:
    file = ENGINES[engine][1] if engine in ENGINES else ""
    return (file,) if file else ("saved_model.pb", "variables/", "assets/", f"{EXTRA}/tf_serving")
