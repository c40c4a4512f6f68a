"""Pictures in, labels with probabilities out, through whichever engine."""

import logging
import os
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np

from toolkit.bundle import (
    SAVED_MODEL,
    Manifest,
    find_bundle,
    read_manifest,
    require_same_labels,
    same_network,
    verify_files,
)
from toolkit.data.feed.arrays import decode_ahead
from toolkit.data.pixels.decode import ImageError, ImageSource, as_graph_reads, decode_pixels
from toolkit.engines import ENGINES, Engine, open_engine
from toolkit.engines.runtimes import Answers, SavedModelEngine
from toolkit.ensemble import Ensemble, Member
from toolkit.ensemble.crops import Crop, is_plain, plan_crops
from toolkit.ensemble.ensemble import DecodedCrops
from toolkit.ensemble.exported import ExportedEnsemble
from toolkit.errors import UserError
from toolkit.hub.address import is_address
from toolkit.inference.choice import answered_by, require_engine, resolve_engine
from toolkit.inference.images import encoded, image_source, iter_images
from toolkit.progress import step

log = logging.getLogger(__name__)

#: A picture as an engine takes it, uint8 (height, width, 3), or all its crops.
Decoded = np.ndarray | DecodedCrops


@dataclass(frozen=True)
class Prediction:
    """A class name and its probability in 0…1."""

    label: str
    probability: float


@dataclass(frozen=True)
class Answer:
    """A bundle's answer to one picture.

    Attributes:
        probabilities: float32 (classes,).
        novelty: how far the picture is from those of the classes; None where the bundle does not tell. Above the
            bundle's threshold, it is of none of the classes, see ``Predictor.reason``.
    """

    probabilities: np.ndarray
    novelty: float | None = None


@dataclass(frozen=True)
class NamedAnswer:
    """An answer with the likeliest classes' names, as it is printed and sent.

    Attributes:
        predictions: the likeliest classes, best first.
        reason: why it means "none of these", see ``Predictor.reason``; empty where it does not.
        novelty: see ``Answer``.
    """

    predictions: list[Prediction]
    reason: str
    novelty: float | None = None


@dataclass(frozen=True)
class Thresholds:
    """Bounds beyond which an answer means "none of these"; None where a bundle has no such bound."""

    reject_below: float | None = None
    novelty_above: float | None = None

    def reason(self, best: float, novelty: float | None) -> str:
        """Say why an answer of this best probability and novelty is rejected, see ``Predictor.reason``."""
        if self.novelty_above is not None and novelty is not None and not novelty <= self.novelty_above:
            return "unfamiliar"
        if self.reject_below is not None and best < self.reject_below:
            return "unsure"
        return ""


class Predictor:
    """A bundle opened in one engine, or several bundles whose probabilities are averaged.

    Safe to call from several threads.

    >>> predictor = Predictor.load("lenet5-mnist", "litert")
    >>> stroke = np.zeros((28, 28), np.uint8)
    >>> stroke[4:24, 13:15] = 255
    >>> predictor.predict(stroke, top_k=1)[0][0].label
    '1'

    Attributes:
        labels: class names in output order.
        engine_name: what runs the networks.
        reject_below: an answer less probable than this may be refused, see ``reason``; None where no such threshold
            is known.
        novelty_above: the same for pictures of a larger novelty.
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
        facts = bundles[0][1].novelty
        self.novelty_above = facts.above if facts is not None and not isinstance(engine, Ensemble) else None
        self.bundles = tuple(bundles)
        self._engine = engine
        self._signatures: list[SavedModelEngine] = []
        self._signatures_lock = threading.Lock()

    @classmethod
    def load(
        cls,
        bundle: str | os.PathLike[str],
        engine: str = "auto",
        *,
        crops: int = 1,
        scales: Sequence[int] = (),
        shared: bool = False,
    ) -> "Predictor":
        """Open a bundle.

        Args:
            bundle: ``…/NAME/VERSION``, or ``…/NAME`` for its highest version; or one on the hub, such as
                ``hf://user/name@v2``, which is brought into the user's cache first.
            engine: one of ``toolkit.engines.ENGINES``; ``auto`` is the engine that was measured to be fastest on this
                machine among those that run the network in float32 (see ``toolkit.inference.choice.resolve_engine``),
                so its answers are the SavedModel's within 1e-4; ``auto-bf16`` allows bfloat16 as well, where the export
                found it within 0.01. An int8 engine answers slightly differently and is only used by name, or as
                ``recommended``: the fastest that passed the accuracy budget at export, or what was set since, where it
                is installed.
            crops: of a picture, whose probabilities are averaged, see ``toolkit.ensemble.crops.plan_crops``. The
                bundle's reject threshold was fitted for one crop, and holds for one crop only.
            scales: shorter sides to resize the picture to, each with all of these crops; by default the network's.
            shared: several threads will ask it all the time, see ``toolkit.engines.open_engine``.

        Raises:
            UserError: not a bundle, a file is missing or fails its checksum, the engine is not available, there is
                no such scheme of crops, or the bundle is an ensemble, which brings its own crops.
        """
        require_engine(engine)
        version_dir = locate_bundle(bundle)
        manifest = read_manifest(version_dir)
        name = resolve_engine(engine, version_dir, manifest)
        _require_choice_of_crops(version_dir, manifest, crops, scales)
        plan = plan_crops(manifest.preprocessing, crops, scales)
        opened: Engine | Ensemble
        with step(f"opening {version_dir.parent.name}/{version_dir.name}"):
            verify_files(version_dir, manifest, _files_of(name))
            if manifest.members and name == "savedmodel":
                opened = ExportedEnsemble(version_dir, manifest)
            else:  # or, where an ensemble has no file for the engine, this says what is missing
                opened = open_engine(name, version_dir, manifest.preprocessing, shared=shared)
        answered = answered_by(manifest, name)
        return cls([(version_dir, answered)], name, opened, manifest.reject_below)._seeing(plan)

    @classmethod
    def load_several(
        cls,
        bundles: Sequence[str | os.PathLike[str]],
        engine: str = "auto",
        *,
        crops: int = 1,
        scales: Sequence[int] = (),
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
        version_dirs = [locate_bundle(bundle) for bundle in bundles]
        manifests = [read_manifest(version_dir) for version_dir in version_dirs]
        require_same_labels(version_dirs, manifests)
        if repeated := same_network(version_dirs, manifests):
            log.warning("%s", repeated)
        loaded = [cls.load(version_dir, engine, crops=crops, scales=scales) for version_dir in version_dirs]
        names = dict.fromkeys(predictor.engine_name for predictor in loaded)
        members = [member for predictor in loaded for member in predictor._members()]
        return cls([predictor.bundles[0] for predictor in loaded], " + ".join(names), Ensemble(members), None)

    def with_crops(self, crops: int, scales: Sequence[int] = ()) -> "Predictor":
        """Show the opened network of one bundle several crops of a picture, as ``load`` does; nothing is opened again.

        Raises:
            UserError: there is no such scheme of crops, or the bundle is an ensemble, which brings its own crops.
        """
        _require_choice_of_crops(*self.bundles[0], crops, scales)
        return self._seeing(plan_crops(self.manifest.preprocessing, crops, scales))

    def _seeing(self, plan: tuple[Crop, ...]) -> "Predictor":
        preprocessing = self.manifest.preprocessing
        if is_plain(preprocessing, plan) or isinstance(self._engine, Ensemble):
            return self
        seeing = Ensemble([Member(self._engine, preprocessing, plan)])
        return Predictor(self.bundles, self.engine_name, seeing, None)

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

    def predict(self, images: Any, *, top_k: int = 5) -> list[list[Prediction]]:
        """Name the ``top_k`` most probable classes of each picture, best first.

        Args:
            images: one or several pictures. A picture is a path, encoded bytes (or a bytearray or memoryview of them),
                a file opened with mode ``"rb"`` or ``io.BytesIO``, a Pillow image of any mode, or a uint8 array of
                shape (height, width, 3), also (height, width), (…, 1) or (…, 4), or whatever NumPy reads as one, such
                as a tensor. Several are any iterable of these, or an array (pictures, height, width, 3).
            top_k: capped at the number of classes.

        Raises:
            ImageError: a picture cannot be read, or is none of these.
        """
        if top_k < 1:
            raise UserError(f"top_k must be at least 1, got {top_k}")
        return [self.top(row, top_k) for row in self.probabilities(images)]

    def probabilities(self, images: Any, *, batch_size: int = 32) -> np.ndarray:
        """Answer pictures as ``predict`` takes them: float32 probabilities (pictures, classes)."""
        batches = list(self.iter_probabilities(images, batch_size=batch_size))
        return np.concatenate(batches) if batches else np.empty((0, len(self.labels)), np.float32)

    def iter_probabilities(self, images: Any, *, batch_size: int = 32) -> Iterator[np.ndarray]:
        """Answer in batches of (batch, classes), holding the pixels of a few batches at a time.

        Batches are smaller where crops are many. The next ones are decoded while the engine answers one.
        """
        for rows in self._answer_batches(images, batch_size):
            yield np.stack([answer.probabilities for answer in _readable(rows)])

    def answers(self, images: Any, *, batch_size: int = 32) -> Iterator[Answer]:
        """Answer pictures one by one, with all that tells whether they are of the classes.

        Raises:
            ImageError: a picture cannot be read.
        """
        return _readable(self.iter_answers(images, batch_size=batch_size))

    def iter_answers(self, images: Any, *, batch_size: int = 16) -> Iterator[Answer | ImageError]:
        """Answer pictures one by one, going on after those that cannot be read.

        However many there are, only a few batches are in memory.

        Yields:
            For each picture its answer, or the error that says why there is none.
        """
        for rows in self._answer_batches(images, batch_size):
            yield from rows

    def _answer_batches(self, images: Any, batch_size: int) -> Iterator[list[Answer | ImageError]]:
        pictures, name_of = iter_images(images)

        def decode(index: int, picture: Any) -> Decoded:
            return self._decode(picture, name_of(index))

        size = min(batch_size, self.pictures_at_once)
        for batch in decode_ahead(pictures, decode, batch_size=size):
            decoded = [picture for picture in batch if not isinstance(picture, ImageError)]
            answers = iter(self.answer_decoded(decoded) if decoded else ())
            yield [picture if isinstance(picture, ImageError) else next(answers) for picture in batch]

    def decode(self, source: Any) -> Decoded:
        """Decode a picture, as ``predict`` takes it, for ``answer_decoded``: for whoever decodes pictures one by one.

        Raises:
            ImageError: the picture cannot be read.
        """
        return self._decode(source, "the picture")

    def _decode(self, picture: Any, name: str) -> Decoded:
        source = image_source(picture, name)
        try:
            if isinstance(self._engine, Ensemble):
                return self._engine.decode(source)
            return decode_pixels(source, self.manifest.preprocessing)
        except ImageError as error:
            if isinstance(source, str):  # it names the file
                raise
            raise ImageError(f"{name}: {error.reason('the picture')}") from None

    def from_decoded(self, pictures: Sequence[Decoded]) -> np.ndarray:
        """Answer pictures that ``decode`` has decoded: float32 probabilities (len(pictures), classes)."""
        return self._from_decoded(pictures).probabilities

    def answer_decoded(self, pictures: Sequence[Decoded]) -> list[Answer]:
        """Answer pictures that ``decode`` has decoded, with all that tells whether they are of the classes."""
        return _one_by_one(self._from_decoded(pictures))

    def _from_decoded(self, pictures: Sequence[Decoded]) -> Answers:
        if isinstance(self._engine, Ensemble):
            return Answers(self._engine.from_decoded(cast(Sequence[DecodedCrops], pictures)))
        return self._engine.answers(np.stack(cast(Sequence[np.ndarray], pictures)))

    def from_pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Answer uint8 RGB (batch, height, width, 3) that already has the network's size, without further cropping.

        All networks of an ensemble see these pixels, as in its ``pixels`` signature.

        Raises:
            UserError: several bundles are averaged whose networks differ in size.
        """
        return self._from_pixels(pixels).probabilities

    def answer_pixels(self, pixels: np.ndarray) -> list[Answer]:
        """Do as ``from_pixels``, with all that tells whether the pictures are of the classes."""
        return _one_by_one(self._from_pixels(pixels))

    def _from_pixels(self, pixels: np.ndarray) -> Answers:
        if isinstance(self._engine, Ensemble):
            return Answers(self._engine.from_pixels(pixels))
        return self._engine.answers(pixels)

    def features(self, images: Any, *, batch_size: int = 32) -> np.ndarray:
        """Compute the pooled embeddings of pictures as ``predict`` takes them: float32 (pictures, width).

        Only the SavedModel has them. It is loaded when they are first asked for, whatever the engine. Those of several
        bundles stand side by side.

        Raises:
            ImageError: a picture cannot be read, or is none of what ``predict`` takes.
            UserError: the SavedModel is damaged.
        """
        with self._signatures_lock:
            if not self._signatures:
                self._signatures = [_open_signatures(*bundle) for bundle in self.bundles]
        pictures, name_of = iter_images(images)
        named = ((name_of(index), picture) for index, picture in enumerate(pictures))
        sources = ((name, image_source(picture, name)) for name, picture in named)
        batches: list[np.ndarray] = []
        while batch := dict(islice(sources, batch_size)):
            batches.append(self._features(batch))
        return np.concatenate(batches) if batches else self._features({"": np.zeros((1, 1, 3), np.uint8)})[:0]

    def _features(self, sources: dict[str, ImageSource]) -> np.ndarray:
        try:
            contents = [as_graph_reads(encoded(source)) for source in sources.values()]
            return np.concatenate([signatures.features(contents) for signatures in self._signatures], axis=1)
        except Exception:  # TensorFlow's, which does not say which picture
            for name, source in sources.items():
                self._decode(source, name)
            raise

    def top(self, probabilities: np.ndarray, top_k: int = 5) -> list[Prediction]:
        """Name the best classes of one row of probabilities."""
        best = np.argsort(-probabilities, kind="stable")[:top_k]
        return [Prediction(self.labels[i], float(probabilities[i])) for i in best]

    def named(self, answer: Answer, top_k: int = 5) -> NamedAnswer:
        """Name the best classes of an answer, and say whether it means "none of these"."""
        return NamedAnswer(self.top(answer.probabilities, top_k), self.reason(answer), answer.novelty)

    def reason(self, answer: Answer | np.ndarray) -> str:
        """Say why an answer means "none of these"; empty where it does not, as where there is no threshold.

        Args:
            answer: of one picture; of its probabilities alone, nothing is known of novelty.

        Returns:
            ``"unfamiliar"``: far from the pictures of every class. ``"unsure"``: the best probability lies below
            ``reject_below``.
        """
        if not isinstance(answer, Answer):
            answer = Answer(answer)
        thresholds = Thresholds(self.reject_below, self.novelty_above)
        return thresholds.reason(float(np.max(answer.probabilities)), answer.novelty)

    def is_rejected(self, answer: Answer | np.ndarray) -> bool:
        """Tell whether an answer means "none of these", see ``reason``."""
        return bool(self.reason(answer))

    def _members(self) -> tuple[Member, ...]:
        if isinstance(self._engine, Ensemble):
            return self._engine.members
        preprocessing = self.manifest.preprocessing
        return (Member(self._engine, preprocessing, plan_crops(preprocessing)),)


def locate_bundle(bundle: str | os.PathLike[str]) -> Path:
    """Find the version's directory that ``Predictor.load`` means by a path, a shipped bundle's name or an address.

    Raises:
        UserError: no such bundle.
    """
    if not is_address(bundle):
        return find_bundle(bundle, shipped=True)
    from toolkit.hub.pull import fetch_bundle

    return fetch_bundle(os.fspath(bundle))


def _require_choice_of_crops(version_dir: Path, manifest: Manifest, crops: int, scales: Sequence[int]) -> None:
    if manifest.members and (crops != 1 or scales):
        raise UserError(
            f"{version_dir}: its crops are built in ({manifest.crops} crops of each of {len(manifest.members)}); "
            "choose others with a bundle of one network"
        )


def _one_by_one(answers: Answers) -> list[Answer]:
    probabilities, novelty = answers
    if novelty is None:
        return [Answer(row) for row in probabilities]
    return [Answer(row, float(value)) for row, value in zip(probabilities, novelty, strict=True)]


def _readable(answers: Iterable[Answer | ImageError]) -> Iterator[Answer]:
    """Take answers until one is an error, which is raised."""
    for answer in answers:
        if isinstance(answer, ImageError):
            raise answer
        yield answer


def _files_of(engine: str) -> tuple[str, ...]:
    file = ENGINES[engine].file if engine in ENGINES else ""
    return (file,) if file else SAVED_MODEL


def _open_signatures(version_dir: Path, manifest: Manifest) -> SavedModelEngine:
    verify_files(version_dir, manifest, SAVED_MODEL)
    return SavedModelEngine(version_dir, manifest.preprocessing)
