"""Answers for the page from the bundles in a directory, without a word of HTML."""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.bundle import Example, Manifest, read_examples, read_manifest, shipped_folder_in_words
from toolkit.data.pixels.decode import decode_pixels
from toolkit.data.pixels.ground import exchange_ground, has_opposite_ground
from toolkit.engines import available_engines
from toolkit.errors import UserError, unknown_name
from toolkit.inference.choice import CHOICES, require_engine, resolve_engine
from toolkit.inference.compare import engine_bytes
from toolkit.inference.predictor import Decoded, Prediction, Predictor
from toolkit.inference.shelf import Shelf

#: Beginning of the names of visitors' own bundles.
YOURS = "yours/"
#: Networks kept in memory, counted per bundle and engine.
MAX_LOADED = 4
#: Example pictures shown of those a bundle brings.
MAX_EXAMPLES = 12


@dataclass(frozen=True)
class Answer:
    """A network's answer to one picture, best prediction first.

    ``milliseconds`` are for decoding the picture and running the network, without loading it. ``reason`` says why the
    picture is of none of the classes, where it is not, see ``Predictor.reason``. ``true_label`` is known of the
    bundle's own examples. ``seen`` are the pixels that the network saw, uint8 (height, width, 3), of several crops the
    one it would see alone; ``turned`` are the same, where light and dark had to be exchanged in them, see
    ``toolkit.data.pixels.ground``. ``crops`` of the picture were seen and their answers averaged.
    """

    bundle: str
    engine: str
    milliseconds: float
    predictions: tuple[Prediction, ...]
    reason: str = ""
    true_label: str | None = None
    turned: np.ndarray | None = None
    crops: int = 1
    seen: np.ndarray | None = None

    @property
    def rejected(self) -> bool:
        """True where the picture is of none of the classes, by the thresholds that the bundle brings."""
        return bool(self.reason)

    @property
    def is_right(self) -> bool:
        """True where the best label is the true one, however improbable."""
        return self.predictions[0].label == self.true_label

    def judged(self, reject_below: float | None) -> "Answer":
        """Refuse the answer as unsure below another probability than the bundle's; None leaves it as it is."""
        if reject_below is None or self.reason == "unfamiliar":
            return self
        return replace(self, reason="unsure" if self.predictions[0].probability < reject_below else "")

    def as_document(self) -> dict[str, Any]:
        """Plain JSON-ready values, without pixels; ``turned`` tells only whether light and dark were exchanged."""
        predictions = [asdict(prediction) for prediction in self.predictions]
        changed = {"predictions": predictions, "rejected": self.rejected, "turned": self.turned is not None}
        return {name: value for name, value in (vars(self) | changed).items() if name != "seen"}


class Classifier:
    """Every bundle below a directory, looked up afresh at each call so that new ones appear. Thread-safe.

    A visitor's own bundle is in no list: its name, ``yours/SECRET/VERSION``, is known to who taught it.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        engine: str = "auto",
        max_loaded: int = MAX_LOADED,
        visitors: "Callable[[str], Classifier | None] | None" = None,
    ) -> None:
        """Look for bundles; load none yet. Arguments and errors are those of ``toolkit.demo.build_demo``.

        Args:
            directory: holds bundles.
            engine: see ``toolkit.demo.build_demo``.
            max_loaded: networks kept in memory.
            visitors: finds the classifier over a visitor's own bundle by its name; None where it is gone.
        """
        self._root = Path(directory).resolve()
        self._given_root = str(directory)
        self._preferred = engine
        self._shelf = Shelf(directory, max_loaded=max_loaded)
        self._visitors = visitors
        bundles = self.bundles()
        require_engine(engine)
        if engine not in CHOICES and not any(engine in self.engines(bundle) for bundle in bundles):
            raise UserError(
                f"engine {engine!r} cannot run any bundle in {directory} on this machine; "
                f"available for {bundles[0]}: {', '.join(self.engines(bundles[0]))}"
            )

    def bundles(self) -> list[str]:
        """List ``NAME/VERSION`` of every bundle, the one written to last first, newest version first.

        Raises:
            UserError: there is none.
        """
        return list(self._directories())

    def engines(self, bundle: str) -> list[str]:
        """List the engines that this machine has installed and ``bundle`` has a file for."""
        return available_engines(self.directory(bundle))

    def preferred_engine(self, bundle: str) -> str:
        """Choose the engine to start ``bundle`` with: the one asked for, where the bundle has it, else ``auto``."""
        if self._preferred in ("auto-bf16", "recommended"):
            return self.resolve_engine(bundle, self._preferred)
        return self._preferred if self._preferred in self.engines(bundle) else "auto"

    def resolve_engine(self, bundle: str, engine: str) -> str:
        """Name the engine that ``auto`` or ``recommended`` means for ``bundle``; any other name stays as it is."""
        return resolve_engine(engine, self.directory(bundle), self.manifest(bundle))

    def manifest(self, bundle: str) -> Manifest:
        """Read what ``bundle`` says of itself."""
        return read_manifest(self.directory(bundle))

    def manifests(self) -> dict[str, Manifest]:
        """Read what all bundles say of themselves, but for damaged ones, which are told of where they are chosen."""
        found = {}
        for bundle in self.bundles():
            with suppress(UserError):
                found[bundle] = self.manifest(bundle)
        return found

    def examples(self, bundle: str) -> list[Example]:
        """List the example pictures that ``bundle`` brings, with their true labels where it tells them."""
        return read_examples(self.directory(bundle))[:MAX_EXAMPLES]

    def classify(self, picture: bytes, bundle: str, engine: str = "auto", crops: int = 1) -> Answer:
        """Name the most probable classes of an encoded picture.

        Args:
            picture: an encoded picture.
            bundle: ``NAME/VERSION``, or ``NAME`` for its newest version.
            engine: see ``toolkit.inference.Predictor.load``.
            crops: of the picture, see ``toolkit.ensemble.crops.plan_crops``; an ensemble brings its own.

        Raises:
            ImageError: the picture cannot be read.
            UserError: no such bundle, engine or scheme of crops, or the bundle is damaged.
        """
        name = self.newest(bundle)
        predictor = self.predictor(name, engine)
        if crops != 1:
            predictor = predictor.with_crops(crops)
        start = time.perf_counter()
        decoded, seen, is_turned = decode(picture, predictor)
        (answer,) = predictor.answer_decoded([decoded])
        milliseconds = 1000 * (time.perf_counter() - start)
        best, reason = tuple(predictor.top(answer.probabilities)), predictor.reason(answer)
        manifest, truth = predictor.manifest, self._true_label(picture, name)
        shown = manifest.crops if manifest.members else crops
        turned = seen if is_turned else None
        return Answer(name, predictor.engine_name, milliseconds, best, reason, truth, turned, shown, seen)

    def newest(self, bundle: str) -> str:
        """Write ``NAME`` as its newest version; anything else stays as it is."""
        return next((found for found in self.bundles() if found.rpartition("/")[0] == bundle), bundle)

    def predictor(self, bundle: str, engine: str) -> Predictor:
        """Take a network, loaded if it is not yet."""
        resolved = self.resolve_engine(bundle, engine)  # so that ``auto`` and what it means are loaded once
        if is_own(bundle):
            own = self._own(bundle)
            try:
                return own.predictor(own.bundles()[0], resolved)
            except UserError as error:
                raise UserError(own.without_paths(error)) from None
        name, _, version = bundle.rpartition("/")
        return self._shelf.get(name, int(version), resolved)[1]

    def engine_bytes(self, bundle: str, engine: str) -> int:
        """Measure the files that ``engine`` reads of ``bundle``, in bytes."""
        return engine_bytes(self.directory(bundle), engine)

    def without_paths(self, error: UserError) -> str:
        """Word an error as visitors may read it: where the bundles lie is not their business."""
        return str(error).replace(f"{self._root}/", "").replace(str(self._root), "the bundles' folder")

    def _own(self, bundle: str) -> "Classifier":
        own = self._visitors(bundle) if self._visitors else None
        if own is None:
            raise UserError("your network is gone: it was taught anew, or its page was closed; choose another one")
        return own

    def _true_label(self, picture: bytes, bundle: str) -> str | None:
        """Look a picture up among the examples, by its bytes."""
        alike = (e for e in self.examples(bundle) if e.path.stat().st_size == len(picture))
        return next((e.label for e in alike if e.path.read_bytes() == picture), None)

    def directory(self, bundle: str) -> Path:
        """Find the version directory of ``bundle``: looked up, never joined, so that visitors name no path of theirs.

        Raises:
            UserError: no such bundle.
        """
        if is_own(bundle):
            own = self._own(bundle)
            return own.directory(own.bundles()[0])
        directories = self._directories()
        if bundle not in directories:
            raise UserError(unknown_name("bundle", str(bundle), list(directories)))
        return directories[bundle]

    def _directories(self) -> dict[str, Path]:
        bundles = self._shelf.bundles()
        latest = sorted(bundles, key=lambda name: _written(bundles[name]), reverse=True)
        found = {f"{name}/{v}": bundles[name][v] for name in latest for v in reversed(bundles[name])}
        if not found:
            raise UserError(
                f"{self._given_root}: no bundles there; make one with "
                "`toolkit train DATA --model lenet5 --out runs/x --export saved_models/x`"
                f"{shipped_folder_in_words()}"
            )
        return found


def _written(versions: Mapping[int, Path]) -> float:
    """Tell when a bundle's last version was written; 0 where it is just being taken away."""
    try:
        return versions[max(versions)].stat().st_mtime
    except OSError:
        return 0.0


def is_own(bundle: object) -> bool:
    """Tell the name of a visitor's own bundle: those of a directory have one slash.

    >>> is_own("yours/x7_k/1"), is_own("yours/1")
    (True, False)
    """
    return isinstance(bundle, str) and bundle.startswith(YOURS) and bundle.count("/") == 2


def decode(picture: bytes, predictor: Predictor) -> tuple[Decoded, np.ndarray, bool]:
    """Decode a picture as a network is to see it, with light and dark as its training pictures had them.

    Returns:
        What ``predictor.answer_decoded`` takes; what one crop shows of it, uint8 (height, width, 3); and whether light
        and dark were exchanged.

    Raises:
        ImageError: the picture cannot be read.
    """
    decoded, manifest = predictor.decode(picture), predictor.manifest
    seen = decoded if isinstance(decoded, np.ndarray) else decode_pixels(picture, manifest.preprocessing)
    if manifest.ground is None or not has_opposite_ground(seen, manifest.ground):
        return decoded, seen, False
    return _exchange_ground(decoded, manifest.ground), exchange_ground(seen, manifest.ground), True


def _exchange_ground(decoded: Decoded, ground: float) -> Decoded:
    """Exchange light and dark in one picture, or in every crop of it."""
    if isinstance(decoded, np.ndarray):
        return exchange_ground(decoded, ground)
    return tuple(np.stack([exchange_ground(crop, ground) for crop in crops]) for crops in decoded)
