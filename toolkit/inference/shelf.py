"""The bundles below a directory, loaded when first asked for, kept up with as versions come and go."""

import logging
import os
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from pathlib import Path

import numpy as np

from toolkit.bundle import MANIFEST, complete_versions, list_bundles
from toolkit.errors import UserError
from toolkit.inference.predictor import Predictor
from toolkit.machine import num_threads, return_memory

log = logging.getLogger(__name__)

#: A bundle's name, a version of it, and the engine it is opened in.
Key = tuple[str, int, str]
#: A predictor, or the reason why there is none, as soon as one of them is known.
Outcome = Future[Predictor | str]


class UnknownBundle(UserError):
    """There is no such bundle or version now."""


class Shelf:
    """Bundles below a directory; each version is opened in an engine when first asked for. Safe for several threads.

    A version is loaded and warmed up once, however many threads ask for it at the same time. Of one bundle as many are
    loaded at once as are kept, so that a slow one holds up no other; nobody waits for another bundle. It is dropped
    when it is gone from disk or was written anew, and when more were loaded than are kept; whoever works with it may go
    on. Why a version could not be loaded is remembered.

    There are two ways to ask. ``get`` gives the version that is meant, and waits until it is loaded. ``answering``
    gives the version that answers now: while a newer one is loaded beside it, the one before.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        max_loaded: int | None = None,
        max_versions: int | None = None,
        retry_seconds: float = 0.0,
        shared: bool = False,
    ) -> None:
        """Set the bounds; nothing is looked for or loaded yet.

        Args:
            directory: holds ``NAME/VERSION`` bundles, or is itself one bundle with its versions. It may come later.
            max_loaded: predictors kept in memory; beyond, the least recently used is dropped.
            max_versions: predictors kept of each bundle.
            retry_seconds: a version that failed to load is tried again by whoever asks for it after this long.
            shared: predictors are for several threads that ask all the time, see ``Predictor.load``.
        """
        self._directory = Path(directory).resolve()
        self._max_loaded = max_loaded
        self._max_versions = max_versions
        self._retry_seconds = retry_seconds
        self._shared = shared
        self._slots: dict[Key, _Slot] = {}
        self._answering: dict[tuple[str, str], tuple[int, Outcome]] = {}
        self._kept: dict[str, frozenset[int]] = {}
        self._loading: dict[str, threading.Semaphore] = {}  # by bundle
        self._has_dropped = False
        self._lock = threading.Lock()

    def bundles(self) -> dict[str, dict[int, Path]]:
        """List the bundles there are now, by name: complete versions, ascending, with their directories."""
        found = list_bundles(self._directory) if self._directory.is_dir() else {}
        self._drop_outdated(found)
        return found

    def versions(self, name: str) -> dict[int, Path]:
        """List one bundle's complete versions there are now, ascending; none where there is no such bundle."""
        own = complete_versions(self._directory)
        if own:
            found = own if name == self._directory.name else {}
        else:  # a name that was sent by anyone is compared with what is there, never made a path of
            is_there = self._directory.is_dir() and name in os.listdir(self._directory)
            found = complete_versions(self._directory / name) if is_there else {}
        self._drop_outdated({name: found}, name)
        return found

    def _drop_outdated(self, found: dict[str, dict[int, Path]], only: str | None = None) -> None:
        with self._lock:
            for (name, version, engine), slot in list(self._slots.items()):
                version_dir = found.get(name, {}).get(version)
                if only in (None, name) and (version_dir is None or slot.stamp != _stamp(version_dir)):
                    del self._slots[name, version, engine]
                    self._has_dropped = True
            for name, engine in list(self._answering):
                if only in (None, name) and not found.get(name):
                    del self._answering[name, engine]

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
        found = self._wanted(name, version)
        reasons = []
        for number, version_dir in found.items():
            outcome = self._outcome((name, number, engine), version_dir)
            if not isinstance(outcome, str):
                return number, outcome
            reasons.append(outcome)
        raise UserError(reasons[0])

    def answering(self, name: str, version: int | None = None, engine: str = "auto") -> tuple[int, Outcome]:
        """Name the version that answers now, at once. Loading is begun in a thread of its own, where it is needed.

        Args:
            name: the bundle's.
            version: by default the highest that is loaded, while higher ones are loaded beside it. Also one that is
                gone from disk, or was written anew, answers until what is there now is loaded, if ever.
            engine: as in ``get``.

        Returns:
            The version, and its outcome, which lies ahead where nothing can answer yet. Where it turns out to be a
            reason, ask again: lower versions follow.

        Raises:
            UnknownBundle: there is no such bundle or version.
            UserError: none can be loaded, for the reason given; of several versions, the highest one's.
        """
        found = self._wanted(name, version)
        loading: tuple[int, Outcome] | None = None
        reasons = []
        with self._lock:
            kept = self._answering.get((name, engine))
            if kept is not None and kept[1].done() and isinstance(kept[1].result(), str):
                del self._answering[name, engine]
                kept = None
            for number, version_dir in found.items():
                slot = self._slots.get((name, number, engine))
                if slot is not None and slot.is_loaded:
                    answer = number, slot.claim()[0]
                    if version is None:
                        self._answering[name, engine] = answer
                    return answer
                if loading is not None:  # lower ones are only looked at
                    continue
                if slot is None:
                    slot = self._slots[name, number, engine] = _Slot(version_dir, engine, self._retry_seconds)
                outcome, is_ours = slot.claim()
                if is_ours:
                    key = name, number, engine
                    work = threading.Thread(target=self._load, args=(key, slot, outcome), name=f"load {name}")
                    work.daemon = True  # whoever ends the process does not wait for it
                    work.start()
                    if version is None and kept is None:
                        kept = self._answering[name, engine] = number, outcome
                if is_ours or not outcome.done():
                    loading = number, outcome
                else:
                    reasons.append(slot.error)
            if version is None and kept is not None:  # also where what is there now cannot be loaded
                return kept
            if loading is None:
                raise UserError(reasons[0])
            return loading

    def errors(self, name: str, engine: str = "auto") -> dict[int, str]:
        """Give the reason why each version could not be loaded; empty where nothing is known against it."""
        versions = self.versions(name)
        with self._lock:
            slots = {version: self._slots.get((name, version, engine)) for version in versions}
            return {version: slot.error if slot else "" for version, slot in slots.items()}

    def keep(self, name: str, versions: Iterable[int]) -> None:
        """Keep these versions of a bundle in memory, once loaded, however many others are asked for."""
        with self._lock:
            self._kept[name] = frozenset(versions)

    def loaded(self, engine: str = "auto") -> dict[str, list[int]]:
        """List the versions in memory of each bundle that has any, ascending."""
        with self._lock:
            keys = sorted(key for key, slot in self._slots.items() if slot.is_loaded and key[2] == engine)
        return {name: [version for other, version, _ in keys if other == name] for name, _, _ in keys}

    def loading(self, name: str, engine: str = "auto") -> list[int]:
        """List the versions of a bundle that are being loaded, ascending."""
        with self._lock:
            slots = [(key, slot.outcome) for key, slot in self._slots.items() if key[0] == name and key[2] == engine]
        return sorted(key[1] for key, outcome in slots if outcome is not None and not outcome.done())

    def _wanted(self, name: str, version: int | None) -> dict[int, Path]:
        """A bundle's versions that are meant, highest first."""
        found = self.versions(name)
        wanted = {number: found[number] for number in sorted(found, reverse=True) if version in (None, number)}
        if not wanted:
            raise UnknownBundle(f"no bundle {name}" if version is None else f"no version {version} of bundle {name}")
        return wanted

    def _outcome(self, key: Key, version_dir: Path) -> Predictor | str:
        """The predictor, or the reason why there is none."""
        with self._lock:
            slot = self._slots.get(key)
            if slot is None:
                slot = self._slots[key] = _Slot(version_dir, key[2], self._retry_seconds)
            outcome, is_ours = slot.claim()
        if is_ours:
            self._load(key, slot, outcome)
        return outcome.result()

    def _load(self, key: Key, slot: "_Slot", outcome: Outcome) -> None:
        try:
            with self._loading.setdefault(key[0], threading.Semaphore(self._max_versions or sys.maxsize)):
                slot.load(shared=self._shared)
        finally:
            with self._lock:  # together, so that whoever waited finds no more than are kept
                slot.settle(outcome)
                self._trim(key)
        with self._lock:
            has_dropped, self._has_dropped = self._has_dropped, False
        if has_dropped:
            threading.Thread(target=return_memory, name="return memory", daemon=True).start()

    def _trim(self, new: Key) -> None:
        """Drop what is more than is kept, now that ``new`` is loaded."""
        of_bundle = {key: slot for key, slot in self._slots.items() if key[0] == new[0]}
        for slots, limit in ((of_bundle, self._max_versions), (self._slots, self._max_loaded)):
            loaded = {key: slot for key, slot in slots.items() if slot.is_loaded}
            spare = [
                slot for key, slot in loaded.items() if key != new and key[1] not in self._kept.get(key[0], frozenset())
            ]
            excess = len(loaded) - limit if limit else 0
            for slot in sorted(spare, key=lambda slot: slot.last_used)[: max(0, excess)]:
                log.info("%s: unloaded, the least recently used of more than %d", slot.version_dir, limit)
                slot.outcome = None
                self._has_dropped = True


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
        self._found: Predictor | str = ""

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
        self._found = f"{self.version_dir}: loading was interrupted"
        return self.outcome, True

    def load(self, *, shared: bool) -> None:
        """Load and warm up the version, for one thread or several, and keep what came of it for ``settle``."""
        try:
            self._found = _load_warm(self.version_dir, self._engine, shared=shared)
        except UserError as error:
            self._found = str(error)
            log.error("%s", error)
        except Exception:
            self._found = f"{self.version_dir}: cannot be loaded; the server's log says why"
            log.exception("%s: cannot be loaded", self.version_dir)

    def settle(self, outcome: Outcome) -> None:
        """Settle the outcome, whatever happened: others wait for it."""
        found, self._found = self._found, ""
        self.error = found if isinstance(found, str) else ""
        self.last_used = time.monotonic()
        self._retry_at = self.last_used + self._retry_seconds
        outcome.set_result(found)


def _load_warm(version_dir: Path, engine: str, *, shared: bool) -> Predictor:
    predictor = Predictor.load(version_dir, engine, shared=shared)
    size = predictor.manifest.preprocessing.size
    # An engine's first call takes longer; where several run at once, that of each, and of each size.
    for number in (1, 4) * num_threads() if shared else (1,):
        predictor.from_pixels(np.full((number, *size, 3), 127, np.uint8))
    return predictor


def _stamp(version_dir: Path) -> int:
    try:
        return (version_dir / MANIFEST).stat().st_mtime_ns
    except FileNotFoundError:  # removed since it was listed; the next listing lacks it
        return 0
