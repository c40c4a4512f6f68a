"""Pictures in, labels with probabilities out, through whichever engine."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image

from toolkit.bundle import EXTRA, Manifest, find_bundle, read_manifest, verify_files
from toolkit.data.pixels.decode import ImageSource
from toolkit.engines import ENGINES, FLOAT_ENGINES, Engine, available_engines, open_engine
from toolkit.ensemble.crops import is_plain, plan_crops
from toolkit.ensemble.ensemble import Member, Panel, Views, stack
from toolkit.ensemble.exported import open_ensemble
from toolkit.errors import UserError


@dataclass(frozen=True)
class Prediction:
    """A class name and its probability in 0…1."""

    label: str
    probability: float


class PictureClassifier:
    """Networks with the same labels, each shown some views of a picture; the probabilities are averaged.

    Attributes:
        labels: class names in output order.
        engine_name: what runs the networks.
        reject_below: an answer less probable than this may be refused, see ``is_rejected``; None where no such
            threshold is known.
        panel: the networks and their views.
    """

    def __init__(self, labels: tuple[str, ...], engine_name: str, panel: Panel, reject_below: float | None) -> None:
        self.labels = labels
        self.engine_name = engine_name
        self.reject_below = reject_below
        self.panel = panel

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
        """Probabilities in batches, holding the pixels of one batch at a time; smaller batches where views are many."""
        step = min(batch_size, self.panel.pictures_at_once)
        for start in range(0, len(images), step):
            yield self.panel.probabilities(self.panel.decode_all(images[start : start + step]))

    def from_views(self, pictures: Sequence[Views]) -> np.ndarray:
        """Probabilities for pictures that ``panel.decode`` has decoded."""
        return self.panel.probabilities(stack(pictures))

    def top(self, probabilities: np.ndarray, top_k: int = 5) -> list[Prediction]:
        """The best classes of one row of probabilities."""
        best = np.argsort(-probabilities, kind="stable")[:top_k]
        return [Prediction(self.labels[i], float(probabilities[i])) for i in best]

    def is_rejected(self, probabilities: np.ndarray) -> bool:
        """Whether one row of probabilities is too flat to answer: "none of these".

        True where the best of them lies below ``reject_below``; never where there is no threshold.
        """
        return self.reject_below is not None and float(np.max(probabilities)) < self.reject_below


class Predictor(PictureClassifier):
    """A bundle loaded into one engine. Safe to call from several threads.

    Attributes:
        version_dir: the bundle's version directory.
        manifest: what the bundle says of itself.
    """

    def __init__(
        self,
        version_dir: Path,
        manifest: Manifest,
        engine_name: str,
        engine: Engine,
        panel: Panel,
        reject_below: float | None,
    ) -> None:
        super().__init__(manifest.labels, engine_name, panel, reject_below)
        self.version_dir = version_dir
        self.manifest = manifest
        self._engine = engine

    @classmethod
    def load(
        cls, bundle: str | Path, engine: str = "auto", *, crops: int = 1, scales: Sequence[int] = ()
    ) -> "Predictor":
        """Open a bundle.

        Args:
            bundle: ``…/NAME/VERSION``, or ``…/NAME`` for its highest version.
            engine: ``savedmodel``, ``litert``, ``litert-int8``, ``openvino``, ``openvino-int8``; ``auto`` is the
                fastest installed engine that runs the network in float32, so its answers are the SavedModel's
                within 1e-4. An int8 engine answers slightly differently and is only used by name, or as
                ``recommended``: the fastest that passed the accuracy budget at export, where it is installed.
            crops: views of a picture whose probabilities are averaged, see ``toolkit.ensemble.crops.plan_crops``. The
                bundle's reject threshold was fitted for one view, and holds for one view only.
            scales: shorter sides to resize the picture to, each with all of these views; by default the network's.

        Raises:
            UserError: not a bundle, a file is missing or fails its checksum, the engine is not available, there is
                no such scheme of crops, or the bundle is an ensemble, which brings its own views.
        """
        version_dir = find_bundle(bundle)
        manifest = read_manifest(version_dir)
        name = resolve_engine(engine, version_dir, manifest)
        if manifest.members:
            return cls._load_ensemble(version_dir, manifest, name, chosen=crops != 1 or bool(scales))
        plan = plan_crops(manifest.preprocessing, crops, scales)
        verify_files(version_dir, manifest, _files_of(name))
        opened = open_engine(name, version_dir, manifest.preprocessing)
        panel = Panel([Member(opened, manifest.preprocessing, plan)])
        reject_below = manifest.reject_below if is_plain(manifest.preprocessing, plan) else None
        return cls(version_dir, manifest, name, opened, panel, reject_below)

    @classmethod
    def _load_ensemble(cls, version_dir: Path, manifest: Manifest, engine: str, *, chosen: bool) -> "Predictor":
        if chosen:
            raise UserError(
                f"{version_dir}: its views are built in ({manifest.crops} crops of each of {len(manifest.members)}); "
                "choose others with a bundle of one network"
            )
        verify_files(version_dir, manifest, _files_of(engine))
        opened, panel = open_ensemble(engine, version_dir, manifest)
        return cls(version_dir, manifest, engine, opened, panel, manifest.reject_below)

    def from_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Probabilities for uint8 RGB (batch, height, width, 3) that already has the network's size: for one view.

        Where the bundle is an ensemble, all members see this view, as in its ``pixels`` signature.
        """
        return self._engine.probabilities(pixels)


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
