"""The bundles below a directory, loaded when first asked for, kept up with as versions come and go."""

import logging
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import numpy as np

from toolkit.bundle import MANIFEST, list_bundles
from toolkit.errors import UserError
from toolkit.inference.predictor import Predictor

log = logging.getLogger(__name__)

#: A bundle's name, a version of it, and the engine it is opened in.
Key = tuple[str, int, str]
#: A predictor, or the reason why there is none, as soon as one of them is known.
Outcome = Future[Predictor | str]


class UnknownBundle(UserError):
    """There is no such bundle or version now."""


class Shelf:
    """Bundles below a directory; each version is opened in an engine when first asked for. Safe for several threads.

    A version is loaded and warmed up once, however many threads ask for it at the same time, and no lock is held
    meanwhile: nobody waits for another bundle. It is dropped when it is gone from disk or was written anew, and when
    more were loaded than are kept; whoever works with it may go on. Why a version could not be loaded is remembered.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        max_loaded: int | None = None,
        max_versions: int | None = None,
        retry_seconds: float = 0.0,
    ) -> None:
        """Set the bounds; nothing is looked for or loaded yet.

        Args:
            directory: holds ``NAME/VERSION`` bundles, or is itself one bundle with its versions. It may come later.
            max_loaded: predictors kept in memory; beyond, the least recently used is dropped.
            max_versions: predictors kept of each bundle.
            retry_seconds: a version that failed to load is tried again by whoever asks for it after this long.
        """
        self._directory = Path(directory).resolve()
        self._max_loaded = max_loaded
        self._max_versions = max_versions
        self._retry_seconds = retry_seconds
        self._slots: dict[Key, _Slot] = {}
        self._lock = threading.Lock()

    def bundles(self) -> dict[str, dict[int, Path]]:
        """List the bundles there are now, by name: complete versions, ascending, with their directories."""
        found = list_bundles(self._directory) if self._directory.is_dir() else {}
        with self._lock:
            for (name, version, engine), slot in list(self._slots.items()):
                version_dir = found.get(name, {}).get(version)
                if version_dir is None or slot.stamp != _stamp(version_dir):
                    del self._slots[name, version, engine]
        return found

    def get(self, name: str, version: int | None = None, engine: str = "auto") -> tuple[int, Predictor]:
        """Take a version and its predictor, loaded if it is not yet.

        Args:
            name: the bundle's.
            version: by default the highest that loads, so that a damaged new one does not take the bundle down.
            engine: as in ``Predictor.load``. ``auto`` and the engine it means are loaded apart.

        Raises:
            UnknownBundle: there is no such bundle or version.
            UserError: it cannot be loaded, for the reason given; of several versions, the highest one's.
        """
        found = self.bundles().get(name, {})
        wanted = [number for number in sorted(found, reverse=True) if version in (None, number)]
        if not wanted:
            raise UnknownBundle(f"no bundle {name}" if version is None else f"no version {version} of bundle {name}")
        reasons = []
        for number in wanted:
            outcome = self._outcome((name, number, engine), found[number])
            if not isinstance(outcome, str):
                return number, outcome
            reasons.append(outcome)
        raise UserError(reasons[0])

    def errors(self, name: str, engine: str = "auto") -> dict[int, str]:
        """Give the reason why each version could not be loaded; empty where nothing is known against it."""
        versions = self.bundles().get(name, {})
        with self._lock:
            slots = {version: self._slots.get((name, version, engine)) for version in versions}
            return {version: slot.error if slot else "" for version, slot in slots.items()}

    def _outcome(self, key: Key, version_dir: Path) -> Predictor | str:
        """The predictor, or the reason why there is none."""
        with self._lock:
            slot = self._slots.setdefault(key, _Slot(version_dir, key[2], self._retry_seconds))
            outcome, is_ours = slot.claim()
        if is_ours:
            slot.load(outcome)
            self._trim(key[0])
        return outcome.result()

    def _trim(self, name: str) -> None:
        with self._lock:
            of_bundle = [slot for (bundle, _, _), slot in self._slots.items() if bundle == name]
            for slots, limit in ((of_bundle, self._max_versions), (self._slots.values(), self._max_loaded)):
                loaded = sorted((slot for slot in slots if slot.is_loaded), key=lambda slot: slot.last_used)
                for slot in loaded[:-limit] if limit else []:
                    log.info("%s: unloaded, the least recently used of more than %d", slot.version_dir, limit)
                    slot.outcome = None


class _Slot:
    """A place for one version in one engine: not asked for, when ``outcome`` is None, loading, loaded or failed.

    ``error`` is the reason of the failure, also while it is tried again.
    """

    def __init__(self, version_dir: Path, engine: str, retry_seconds: float) -> None:
        self.version_dir = version_dir
        self.stamp = _stamp(version_dir)
        self.outcome: Outcome | None = None
        self.error = ""
        self.last_used = 0.0
        self._engine = engine
        self._retry_seconds = retry_seconds
        self._retry_at = 0.0

    @property
    def is_loaded(self) -> bool:
        return self.outcome is not None and self.outcome.done() and not self.error

    def claim(self) -> tuple[Outcome, bool]:
        """Give the outcome, which may lie ahead, and whether whoever asks has to bring it about by ``load``."""
        self.last_used = time.monotonic()
        may_retry = bool(self.error) and self.last_used >= self._retry_at
        if self.outcome is not None and not (self.outcome.done() and may_retry):
            return self.outcome, False
        self.outcome = Future()
        return self.outcome, True

    def load(self, outcome: Outcome) -> None:
        """Load and warm up the version, and settle the outcome, whatever happens: others wait for it."""
        found: Predictor | str = f"{self.version_dir}: loading was interrupted"
        try:
            found = _load_warm(self.version_dir, self._engine)
        except UserError as error:
            found = str(error)
            log.error("%s", error)
        except Exception:
            found = f"{self.version_dir}: cannot be loaded; the server's log says why"
            log.exception("%s: cannot be loaded", self.version_dir)
        finally:
            self.error = found if isinstance(found, str) else ""
            self.last_used = time.monotonic()
            self._retry_at = self.last_used + self._retry_seconds
            outcome.set_result(found)


def _load_warm(version_dir: Path, engine: str) -> Predictor:
    predictor = Predictor.load(version_dir, engine)
    size = predictor.manifest.preprocessing.size
    predictor.from_pixels(np.full((1, *size, 3), 127, np.uint8))  # an engine's first call takes longer
    return predictor


def _stamp(version_dir: Path) -> int:
    try:
        return (version_dir / MANIFEST).stat().st_mtime_ns
    except FileNotFoundError:  # removed since it was listed; the next listing lacks it
        return 0
