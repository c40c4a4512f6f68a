"""What the page asks of the bundles in a directory, without a word of HTML."""

import threading
import time
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.bundle import EXAMPLES, MANIFEST, Manifest, list_bundles, list_versions, read_manifest
from toolkit.engines import ENGINES, available_engines
from toolkit.errors import UserError, unknown_name

if TYPE_CHECKING:
    from toolkit.inference.predictor import Prediction, Predictor

#: Networks kept in memory, counted per bundle and engine.
MAX_LOADED = 4
#: Example pictures shown of those a bundle brings.
MAX_EXAMPLES = 12

_AUTOMATIC = ("auto", "recommended")


@dataclass(frozen=True)
class Answer:
    """What a network said of one picture.

    Attributes:
        bundle: ``NAME/VERSION``.
        engine: the engine that answered.
        milliseconds: decoding the picture and running the network; loading the network is not counted.
        predictions: best first.
        rejected: whether the best is too improbable to be an answer, by the threshold the bundle brings.
    """

    bundle: str
    engine: str
    milliseconds: float
    predictions: "tuple[Prediction, ...]"
    rejected: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return asdict(self)


class Classifier:
    """Every bundle below a directory, looked up afresh at each call so that new ones appear. Thread-safe."""

    def __init__(self, directory: str | Path, *, engine: str = "auto", max_loaded: int = MAX_LOADED) -> None:
        """
        Args:
            directory: holds bundles as ``NAME/VERSION``, or is itself one bundle.
            engine: the engine to prefer.
            max_loaded: networks kept in memory.

        Raises:
            UserError: no bundle there, no such engine, or no bundle that can run it.
        """
        self._root = Path(directory).resolve()
        self._shown_root = str(directory)
        self._preferred = engine
        self._predictors = _PredictorCache(max_loaded)
        bundles = self.bundles()
        if engine in _AUTOMATIC:
            return
        if engine not in ENGINES:
            raise UserError(unknown_name("engine", engine, [*_AUTOMATIC, *ENGINES]))
        if not any(engine in self.engines(bundle) for bundle in bundles):
            raise UserError(
                f"engine {engine!r} cannot run any bundle in {directory} on this machine; "
                f"available for {bundles[0]}: {', '.join(self.engines(bundles[0]))}"
            )

    def bundles(self) -> list[str]:
        """``NAME/VERSION`` of every bundle, by name, newest version first.

        Raises:
            UserError: there is none.
        """
        return list(self._directories())

    def engines(self, bundle: str) -> list[str]:
        """Engines that this machine has installed and ``bundle`` has a file for."""
        return available_engines(self._directory(bundle))

    def preferred_engine(self, bundle: str) -> str:
        """The engine to start ``bundle`` with: the one asked for, where the bundle has it, else ``auto``."""
        if self._preferred == "recommended":
            return self.resolve_engine(bundle, "recommended")
        return self._preferred if self._preferred in self.engines(bundle) else "auto"

    def resolve_engine(self, bundle: str, engine: str) -> str:
        """The engine that ``auto`` or ``recommended`` means for ``bundle``; any other name is returned as it is."""
        from toolkit.inference.predictor import resolve_engine

        return resolve_engine(engine, self._directory(bundle), self.manifest(bundle))

    def manifest(self, bundle: str) -> Manifest:
        """What ``bundle`` says of itself."""
        return read_manifest(self._directory(bundle))

    def examples(self, bundle: str) -> list[Path]:
        """Example pictures that ``bundle`` brings, in ``assets.extra/examples``."""
        folder = self._directory(bundle) / EXAMPLES
        if not folder.is_dir():
            return []
        return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))[:MAX_EXAMPLES]

    def classify(self, picture: bytes, bundle: str, engine: str = "auto", *, top_k: int = 5) -> Answer:
        """The most probable classes of an encoded picture.

        Raises:
            ImageError: the picture cannot be read.
            UserError: no such bundle or engine, or the bundle is damaged.
        """
        name = next((b for b in self.bundles() if b.rpartition("/")[0] == bundle), bundle)
        predictor = self._predictors.get(self._directory(name), self.resolve_engine(name, engine))
        start = time.perf_counter()
        probabilities = predictor.probabilities([picture])[0]
        milliseconds = 1000 * (time.perf_counter() - start)
        predictions = tuple(predictor.top(probabilities, top_k))
        rejected = predictor.is_rejected(probabilities)
        return Answer(name, predictor.engine_name, milliseconds, predictions, rejected)

    def warm(self, bundle: str, engine: str) -> None:
        """Load a network ahead of the first picture."""
        self._predictors.get(self._directory(bundle), self.resolve_engine(bundle, engine))

    def without_paths(self, error: UserError) -> str:
        """The error's text as visitors may read it: where the bundles lie is not their business."""
        return str(error).replace(f"{self._root}/", "").replace(str(self._root), "the bundles' folder")

    def _directory(self, bundle: str) -> Path:
        # Looked up, never joined: what a visitor sends must not name a path of its own.
        directories = self._directories()
        if bundle not in directories:
            raise UserError(unknown_name("bundle", str(bundle), list(directories)))
        return directories[bundle]

    def _directories(self) -> dict[str, Path]:
        root = self._root
        bundles = list_bundles(root) if root.is_dir() else {}
        found = {f"{name}/{v}": root / name / str(v) for name, versions in bundles.items() for v in reversed(versions)}
        if not found:
            versions = [v for v in list_versions(root) if (root / str(v) / MANIFEST).is_file()]
            found = {f"{root.name}/{v}": root / str(v) for v in reversed(versions)}
        if not found:
            raise UserError(
                f"{self._shown_root}: no bundles there; make one with "
                "`toolkit train DATA --model lenet5 --out runs/x --export saved_models/x`"
            )
        return found


class _PredictorCache:
    """The most recently used networks, each loaded once however many visitors ask for it at the same time."""

    def __init__(self, max_loaded: int) -> None:
        self._max_loaded = max_loaded
        self._lock = threading.Lock()
        self._loaded: dict[tuple[Path, str], Future[Predictor]] = {}  # least recently used first

    def get(self, version_dir: Path, engine: str) -> "Predictor":
        key = (version_dir, engine)
        with self._lock:
            known = self._loaded.pop(key, None)
            future: Future[Predictor] = known or Future()
            self._loaded[key] = future
            while len(self._loaded) > self._max_loaded:
                del self._loaded[next(iter(self._loaded))]
        if known is None:
            try:
                future.set_result(_load_warm(version_dir, engine))
            except BaseException as error:
                with self._lock:
                    if self._loaded.get(key) is future:
                        del self._loaded[key]  # so that the next visitor tries again
                future.set_exception(error)
        return future.result()


def _load_warm(version_dir: Path, engine: str) -> "Predictor":
    from toolkit.inference.predictor import Predictor

    predictor = Predictor.load(version_dir, engine)
    predictor.from_pixels(np.zeros((1, *predictor.manifest.preprocessing.size, 3), np.uint8))
    return predictor
