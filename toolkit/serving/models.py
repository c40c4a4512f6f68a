"""The bundles below a directory, loaded when first needed, kept up with as versions come and go."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.bundle import MANIFEST, Manifest, list_bundles, list_versions, read_manifest, verify_files
from toolkit.data import ImageError
from toolkit.engines import ENGINES
from toolkit.errors import UserError, unknown_name
from toolkit.inference import Predictor
from toolkit.inference.predictor import Decoded
from toolkit.machine import num_threads
from toolkit.serving import protocol
from toolkit.serving.protocol import PredictRequest, RequestError

log = logging.getLogger(__name__)

#: Pictures that are decoded and run at once.
BATCH_SIZE = 32
#: Versions of one bundle that stay in memory: the newest, and the one it replaces or is compared with.
MAX_LOADED_VERSIONS = 2
#: A version that failed to load is tried again after this long.
RETRY_SECONDS = 30.0


class LoadedModel:
    """One version in memory, warmed up. Safe to call from several threads."""

    def __init__(self, version_dir: Path, engine: str, decoders: Executor) -> None:
        self._predictor = Predictor.load(version_dir, engine)
        self._decoders = decoders
        self._features: Callable[[list[bytes]], np.ndarray] | None = None
        self._features_lock = threading.Lock()
        self._predictor.from_pixels(np.full((1, *self._size, 3), 127, np.uint8))

    @property
    def engine_name(self) -> str:
        """The engine that answers."""
        return self._predictor.engine_name

    def answer(self, request: PredictRequest) -> dict[str, Any]:
        """Outputs by name, one item per picture.

        Raises:
            RequestError: a value is not what the signature takes; the message says which.
        """
        if request.signature == "pixels":
            pixels = protocol.decode_pixels(request, self._size)
            return self._classified(_in_batches(self._predictor.from_pixels, pixels, BATCH_SIZE))
        images = list(enumerate(protocol.decode_images(request)))
        size = min(BATCH_SIZE, self._predictor.pictures_at_once)
        if request.signature == "features":
            return {"features": _in_batches(lambda batch: self._features_of(batch, request), images, size)}
        return self._classified(
            _in_batches(lambda batch: self._predictor.from_decoded(self._decode(batch, request)), images, size)
        )

    @property
    def _size(self) -> tuple[int, int]:
        return self._predictor.manifest.preprocessing.size

    def _classified(self, probabilities: np.ndarray) -> dict[str, Any]:
        best = [self._predictor.top(row, protocol.TOP_K) for row in probabilities]
        return {
            "probabilities": probabilities,
            "top_labels": [[prediction.label for prediction in row] for row in best],
            "top_scores": [[prediction.probability for prediction in row] for row in best],
        }

    def _decode(self, images: Sequence[tuple[int, bytes]], request: PredictRequest) -> list[Decoded]:
        def decode(item: tuple[int, bytes]) -> Decoded:
            index, data = item
            try:
                return self._predictor.decode(data)
            except ImageError as error:
                reason = str(error).removeprefix("the picture: ")
                raise RequestError(f"{request.place(index)}: {reason}") from None

        return list(self._decoders.map(decode, images))

    def _features_of(self, images: Sequence[tuple[int, bytes]], request: PredictRequest) -> np.ndarray:
        # The graph decodes for itself. Decoding here first refuses what every other signature refuses, oversized
        # pictures among it, and can name the one at fault.
        self._decode(images, request)
        with self._features_lock:
            if self._features is None:
                self._features = _load_features(self._predictor.version_dir, self._predictor.manifest)
        return self._features([data for _, data in images])


class ModelTable:
    """The bundles below a directory, by name and version. Safe to call from several threads."""

    def __init__(self, directory: str | Path, engine: str = "auto") -> None:
        """Look for bundles; load none yet.

        Args:
            directory: holds ``NAME/VERSION`` bundles, or is itself one bundle with its versions.
            engine: as in ``Predictor.load``.

        Raises:
            UserError: there is no bundle, or no such engine.
        """
        directory = Path(directory).resolve()
        if engine not in ("auto", "recommended", *ENGINES):
            raise UserError(unknown_name("engine", engine, ["auto", "recommended", *ENGINES]))
        if not directory.is_dir():
            raise UserError(f"{directory}: no such folder of bundles")
        self._directory = directory
        self._is_bundle = bool(_versions(directory))
        self._engine = engine
        self._slots: dict[tuple[str, int], _Slot] = {}
        self._lock = threading.Lock()
        self._decoders = ThreadPoolExecutor(num_threads(), thread_name_prefix="decode")
        if not self.names():
            raise UserError(f"{directory}: no bundles in it; expected NAME/VERSION/{MANIFEST}, as export writes them")

    def names(self) -> list[str]:
        """Names of the bundles there are now."""
        return sorted({name for name, _ in self._refresh()})

    def get(self, name: str, version: int | None = None) -> tuple[int, LoadedModel]:
        """A version and its model, loaded if it is not yet.

        Without ``version`` the highest that loads, so that a damaged new one does not take the bundle down.

        Raises:
            RequestError: not found, or found and not loadable.
        """
        error = ""
        for number, slot in self._candidates(name, version):
            model = slot.load()
            if model is not None:
                self._trim(name)
                return number, model
            error = error or slot.error
        raise RequestError(error, 503)

    def manifest(self, name: str, version: int | None = None) -> tuple[int, Manifest]:
        """A version, by default the highest that has not failed to load, and its manifest.

        Raises:
            RequestError: not found, or its manifest is damaged.
        """
        candidates = self._candidates(name, version)
        number, slot = next(((number, slot) for number, slot in candidates if not slot.error), candidates[0])
        try:
            return number, read_manifest(slot.version_dir)
        except UserError as error:
            raise RequestError(str(error), 503) from None

    def statuses(self, name: str, version: int | None = None) -> dict[int, str]:
        """By version, why it could not be loaded; empty where nothing is known against it.

        Raises:
            RequestError: not found.
        """
        found = {number: slot.error for (bundle, number), slot in self._refresh().items() if bundle == name}
        if not found:
            raise RequestError(f"Could not find any versions of model {name}", 404)
        if version is None:
            return found
        if version not in found:
            raise RequestError(f"Could not find version {version} of model {name}", 404)
        return {version: found[version]}

    def _candidates(self, name: str, version: int | None) -> "list[tuple[int, _Slot]]":
        """Versions that can answer a request, best first; never empty."""
        slots = self._refresh()
        found = sorted(((n, slot) for (bundle, n), slot in slots.items() if bundle == name), reverse=True)
        if version is not None:
            found = [(n, slot) for n, slot in found if n == version]
        if not found:
            raise protocol.not_found(name, version)
        return found

    def _refresh(self) -> "dict[tuple[str, int], _Slot]":
        """Bring the table up to what is on disk, dropping versions that are gone or were written anew."""
        present: dict[tuple[str, int], _Slot] = {}
        root = self._directory
        if self._is_bundle:
            root, bundles = root.parent, {root.name: _versions(root)}
        else:
            bundles = list_bundles(root) if root.is_dir() else {}
        with self._lock:
            for name, versions in bundles.items():
                for version in versions:
                    version_dir = root / name / str(version)
                    stamp = _stamp(version_dir)
                    slot = self._slots.get((name, version))
                    if slot is None or slot.stamp != stamp:
                        slot = _Slot(version_dir, stamp, self._engine, self._decoders)
                    present[name, version] = slot
            self._slots = present
        return present

    def _trim(self, name: str) -> None:
        with self._lock:
            loaded = [slot for (bundle, _), slot in self._slots.items() if bundle == name and slot.model is not None]
            for slot in sorted(loaded, key=lambda slot: slot.last_used)[:-MAX_LOADED_VERSIONS]:
                log.info("%s: unloaded, the least recently used of more than %d", slot.version_dir, MAX_LOADED_VERSIONS)
                slot.model = None


class _Slot:
    """A version on disk and, once asked for, its model or the reason there is none."""

    def __init__(self, version_dir: Path, stamp: int, engine: str, decoders: Executor) -> None:
        self.version_dir = version_dir
        self.stamp = stamp
        self.model: LoadedModel | None = None
        self.error = ""
        self.last_used = 0.0
        self._engine = engine
        self._decoders = decoders
        self._retry_at = 0.0
        self._lock = threading.Lock()

    def load(self) -> LoadedModel | None:
        """The model, loaded once however many threads ask; ``None`` if it cannot be, and then ``error`` says why."""
        with self._lock:
            self.last_used = time.monotonic()
            if self.model is None and self.last_used >= self._retry_at:
                self._try()
            return self.model

    def _try(self) -> None:
        try:
            self.model = LoadedModel(self.version_dir, self._engine, self._decoders)
            self.error = ""
        except UserError as error:
            self.error = str(error)
            log.error("%s", error)
        except Exception:
            self.error = f"{self.version_dir}: cannot be loaded; the server's log says why"
            log.exception("%s: cannot be loaded", self.version_dir)
        if self.error:
            self._retry_at = time.monotonic() + RETRY_SECONDS


def _versions(bundle_dir: Path) -> list[int]:
    return [version for version in list_versions(bundle_dir) if (bundle_dir / str(version) / MANIFEST).is_file()]


def _stamp(version_dir: Path) -> int:
    try:
        return (version_dir / MANIFEST).stat().st_mtime_ns
    except FileNotFoundError:  # removed since it was listed; the next listing lacks it
        return 0


def _load_features(version_dir: Path, manifest: Manifest) -> Callable[[list[bytes]], np.ndarray]:
    """The ``features`` signature, which only the SavedModel has."""
    verify_files(version_dir, manifest, ("saved_model.pb", "variables/", "assets/"))
    import tensorflow as tf

    loaded = tf.saved_model.load(str(version_dir))

    def features(images: list[bytes]) -> np.ndarray:
        # Signatures live only as long as what they came from, so it is looked up anew from what this closure holds.
        return loaded.signatures["features"](image_bytes=tf.constant(images))["features"].numpy()

    return features


def _in_batches(run: Callable[[Any], np.ndarray], values: Sequence[Any] | np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([run(values[i : i + size]) for i in range(0, len(values), size)])
