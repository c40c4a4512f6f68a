"""Pictures in, labels with probabilities out, through whichever engine."""

import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image

from toolkit.bundle import (
    EXTRA,
    Manifest,
    find_bundle,
    read_manifest,
    require_same_labels,
    same_network,
    verify_files,
)
from toolkit.data.feed.arrays import load_pixels
from toolkit.data.pixels.decode import ImageSource, decode_pixels
from toolkit.engines import ENGINES, Engine, open_engine
from toolkit.engines.runtimes import SavedModelEngine
from toolkit.ensemble import Ensemble, Member
from toolkit.ensemble.crops import is_plain, plan_crops
from toolkit.ensemble.ensemble import DecodedCrops
from toolkit.ensemble.exported import ExportedEnsemble
from toolkit.errors import UserError
from toolkit.inference.choice import require_engine, resolve_engine
from toolkit.progress import step

log = logging.getLogger(__name__)

#: A picture as an engine takes it, uint8 (height, width, 3), or all its crops.
Decoded = np.ndarray | DecodedCrops

_SAVED_MODEL_FILES = ("saved_model.pb", "variables/", "assets/", f"{EXTRA}/tf_serving")


@dataclass(frozen=True)
class Prediction:
    """A class name and its probability in 0…1."""

    label: str
    probability: float


class Predictor:
    """A bundle opened in one engine, or several bundles whose probabilities are averaged.

    Safe to call from several threads.

    Attributes:
        labels: class names in output order.
        engine_name: what runs the networks.
        reject_below: an answer less probable than this may be refused, see ``is_rejected``; None where no such
            threshold is known.
        bundles: version directories and manifests, one or several.
    """

    def __init__(
        self,
        bundles: Sequence[tuple[Path, Manifest]],
        engine_name: str,
        engine: Engine | Ensemble,
        reject_below: float | None,
    ) -> None:
        self.labels = bundles[0][1].labels
        self.engine_name = engine_name
        self.reject_below = reject_below
        self.bundles = tuple(bundles)
        self._engine = engine
        self._signatures: list[SavedModelEngine] = []
        self._signatures_lock = threading.Lock()

    @classmethod
    def load(
        cls, bundle: str | Path, engine: str = "auto", *, crops: int = 1, scales: Sequence[int] = ()
    ) -> "Predictor":
        """Open a bundle.

        Args:
            bundle: ``…/NAME/VERSION``, or ``…/NAME`` for its highest version.
            engine: one of ``toolkit.engines.ENGINES``; ``auto`` is the engine that was measured to be fastest on this
                machine among those that run the network in float32 (see ``toolkit.inference.choice.resolve_engine``),
                so its answers are the SavedModel's within 1e-4. An int8 engine answers slightly differently and is
                only used by name, or as ``recommended``: the fastest that passed the accuracy budget at export, or
                what was set since, where it is installed.
            crops: of a picture, whose probabilities are averaged, see ``toolkit.ensemble.crops.plan_crops``. The
                bundle's reject threshold was fitted for one crop, and holds for one crop only.
            scales: shorter sides to resize the picture to, each with all of these crops; by default the network's.

        Raises:
            UserError: not a bundle, a file is missing or fails its checksum, the engine is not available, there is
                no such scheme of crops, or the bundle is an ensemble, which brings its own crops.
        """
        require_engine(engine)
        version_dir = find_bundle(bundle)
        manifest = read_manifest(version_dir)
        name = resolve_engine(engine, version_dir, manifest)
        if manifest.members and (crops != 1 or scales):
            raise UserError(
                f"{version_dir}: its crops are built in ({manifest.crops} crops of each of {len(manifest.members)}); "
                "choose others with a bundle of one network"
            )
        preprocessing, reject_below = manifest.preprocessing, manifest.reject_below
        plan = plan_crops(preprocessing, crops, scales)
        opened: Engine | Ensemble
        with step(f"opening {version_dir.parent.name}/{version_dir.name}"):
            verify_files(version_dir, manifest, _files_of(name))
            if manifest.members and name == "savedmodel":
                opened = ExportedEnsemble(version_dir, manifest)
            else:  # or, where an ensemble has no file for the engine, this says what is missing
                opened = open_engine(name, version_dir, preprocessing)
                if not is_plain(preprocessing, plan):
                    opened, reject_below = Ensemble([Member(opened, preprocessing, plan)]), None
        return cls([(version_dir, manifest)], name, opened, reject_below)

    @classmethod
    def load_several(
        cls, bundles: Sequence[str | Path], engine: str = "auto", *, crops: int = 1, scales: Sequence[int] = ()
    ) -> "Predictor":
        """Open several bundles whose networks' probabilities are averaged, each network counting alike.

        The arguments are those of ``load``, for each bundle. Labels must be equal and in the same order. Of a network
        that comes twice, a warning says so.

        Returns:
            What ``load`` gives for one bundle. Several have no reject threshold: none was fitted for their average.

        Raises:
            UserError: as ``load``, or labels differ.
        """
        if len(bundles) == 1:
            return cls.load(bundles[0], engine, crops=crops, scales=scales)
        version_dirs = [find_bundle(bundle) for bundle in bundles]
        manifests = [read_manifest(version_dir) for version_dir in version_dirs]
        require_same_labels(version_dirs, manifests)
        if repeated := same_network(version_dirs, manifests):
            log.warning("%s", repeated)
        loaded = [cls.load(version_dir, engine, crops=crops, scales=scales) for version_dir in version_dirs]
        names = dict.fromkeys(predictor.engine_name for predictor in loaded)
        members = [member for predictor in loaded for member in predictor._members()]
        return cls([predictor.bundles[0] for predictor in loaded], " + ".join(names), Ensemble(members), None)

    @property
    def version_dir(self) -> Path:
        """The bundle's version directory; of several, the first one's."""
        return self.bundles[0][0]

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest; of several, the first one's."""
        return self.bundles[0][1]

    @property
    def pictures_at_once(self) -> int:
        """Pictures that are decoded and answered together at most, whatever the size of a batch."""
        return self._engine.pictures_at_once if isinstance(self._engine, Ensemble) else sys.maxsize

    def predict(self, images: Sequence[ImageSource] | ImageSource, *, top_k: int = 5) -> list[list[Prediction]]:
        """Name the ``top_k`` most probable classes of each picture, best first.

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
        """Answer in batches, holding the pixels of one batch at a time; smaller batches where crops are many."""
        step = min(batch_size, self.pictures_at_once)
        for start in range(0, len(images), step):
            batch = images[start : start + step]
            if isinstance(self._engine, Ensemble):
                yield self._engine.probabilities(self._engine.decode_all(batch))
            else:
                yield self._engine.probabilities(load_pixels(batch, self.manifest.preprocessing))

    def decode(self, source: ImageSource) -> Decoded:
        """Decode a picture for ``from_decoded``, for whoever decodes pictures one by one.

        Raises:
            ImageError: the picture cannot be read.
        """
        if isinstance(self._engine, Ensemble):
            return self._engine.decode(source)
        return decode_pixels(source, self.manifest.preprocessing)

    def from_decoded(self, pictures: Sequence[Decoded]) -> np.ndarray:
        """Answer pictures that ``decode`` has decoded: float32 probabilities (len(pictures), classes)."""
        if isinstance(self._engine, Ensemble):
            return self._engine.from_decoded(cast(Sequence[DecodedCrops], pictures))
        return self._engine.probabilities(np.stack(cast(Sequence[np.ndarray], pictures)))

    def from_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Answer uint8 RGB (batch, height, width, 3) that already has the network's size, without further cropping.

        All networks of an ensemble see these pixels, as in its ``pixels`` signature.

        Raises:
            UserError: several bundles are averaged whose networks differ in size.
        """
        if isinstance(self._engine, Ensemble):
            return self._engine.from_pixels(pixels)
        return self._engine.probabilities(pixels)

    def features(self, images: Sequence[bytes]) -> np.ndarray:
        """Compute the pooled embeddings of encoded pictures: float32 (len(images), width).

        Only the SavedModel has them. It is loaded when they are first asked for, whatever the engine. Those of several
        bundles stand side by side.

        Raises:
            UserError: the SavedModel is damaged.
        """
        with self._signatures_lock:
            if not self._signatures:
                self._signatures = [_open_signatures(*bundle) for bundle in self.bundles]
        return np.concatenate([signatures.features(images) for signatures in self._signatures], axis=1)

    def top(self, probabilities: np.ndarray, top_k: int = 5) -> list[Prediction]:
        """Name the best classes of one row of probabilities."""
        best = np.argsort(-probabilities, kind="stable")[:top_k]
        return [Prediction(self.labels[i], float(probabilities[i])) for i in best]

    def is_rejected(self, probabilities: np.ndarray) -> bool:
        """Tell whether one row of probabilities is too flat to answer: "none of these".

        True where the best of them lies below ``reject_below``; never where there is no threshold.
        """
        return self.reject_below is not None and float(np.max(probabilities)) < self.reject_below

    def _members(self) -> tuple[Member, ...]:
        if isinstance(self._engine, Ensemble):
            return self._engine.members
        preprocessing = self.manifest.preprocessing
        return (Member(self._engine, preprocessing, plan_crops(preprocessing)),)


def _files_of(engine: str) -> tuple[str, ...]:
    file = ENGINES[engine].file if engine in ENGINES else ""
    return (file,) if file else _SAVED_MODEL_FILES


def _open_signatures(version_dir: Path, manifest: Manifest) -> SavedModelEngine:
    verify_files(version_dir, manifest, _SAVED_MODEL_FILES)
    return SavedModelEngine(version_dir, manifest.preprocessing)
