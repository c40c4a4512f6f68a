"""What the frozen part of a network answers, computed once per picture and view."""

import random
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.pixels.decode import read_rgb, resize_pixels
from toolkit.engines.extract import Extractor, open_extractor
from toolkit.errors import UserError
from toolkit.lazy import lazy_module
from toolkit.machine import num_threads
from toolkit.network import architecture_digest, as_float32, weights_digest
from toolkit.spec import Preprocessing
from toolkit.transfer.cache import FeatureCache, FeatureContext
from toolkit.transfer.cut import cut_name, cut_tensor, frozen_part
from toolkit.transfer.digests import file_digests
from toolkit.transfer.views import Views

cluster = lazy_module("toolkit.transfer.ray_actors")

Progress = Callable[[int, int], None]

#: Pictures that an engine has to answer as Keras does before it is used.
NUM_TRIALS = 4


@dataclass(frozen=True)
class Extraction:
    """How features are extracted and kept.

    Attributes:
        stage: the last frozen stage, whose output is cached; None for the pooled features before the classifier.
        dtype: ``"float16"`` or ``"float32"``, on disk and in the answer.
        engine: one of ``toolkit.engines.extract.EXTRACTORS``, or ``"auto"`` for the fastest here.
        batch_size: pictures per call of the engine.
        memory_budget: bytes; a larger answer is a file on disk that looks like an array (``numpy.memmap``).
        cluster: address of a Ray cluster that computes what is missing, see ``toolkit.transfer.ray_actors``.
    """

    stage: str | None = None
    dtype: str = "float16"
    engine: str = "auto"
    batch_size: int = 8
    memory_budget: int = 512 << 20
    cluster: str | None = None

    def __post_init__(self) -> None:
        if self.dtype not in ("float16", "float32"):
            raise UserError(f"features are cached as float16 or float32, got dtype {self.dtype!r}")


@dataclass(frozen=True)
class Features:
    """Features of every picture and view.

    Attributes:
        values: (views, pictures, …), the plain pictures first.
        num_computed: how many of them were not in the cache.
        engine: what computed those, in words; empty where all were there.
    """

    values: np.ndarray
    num_computed: int
    engine: str

    @property
    def plain(self) -> np.ndarray:
        """Features of the plain pictures, (pictures, …)."""
        return self.values[0]


def extract_features(
    model: Any,
    paths: Sequence[str | Path],
    preprocessing: Preprocessing,
    *,
    cache_dir: str | Path,
    views: Views | None = None,
    how: Extraction | None = None,
    progress: Progress | None = None,
) -> Features:
    """One ``FeatureExtractor``, used once: see there."""
    with FeatureExtractor(model, preprocessing, cache_dir=cache_dir, how=how) as extractor:
        return extractor.extract(paths, views=views, progress=progress)


def pooled_context(model: Any, preprocessing: Preprocessing) -> FeatureContext:
    """What a network's pooled features, as float16, depend on beside the picture."""
    return _frozen(model, preprocessing, Extraction())[1]


def cached_features(
    context: FeatureContext,
    paths: Sequence[str | Path],
    *,
    cache_dir: str | Path,
    views: Views | None = None,
    how: Extraction | None = None,
) -> Features | None:
    """What a ``FeatureExtractor`` of this context gives where all of it is in the cache: no network is needed then.

    Returns:
        None if any view is missing.
    """
    views, how = views or Views(), how or Extraction()
    with closing(FeatureCache(cache_dir, context)) as cache:
        keys = _keys(cache, file_digests(paths, cache.store), views)
        if cache.missing(keys):
            return None
        return Features(_read(cache, keys, views, how), 0, "")


class FeatureExtractor:
    """The output of a network's frozen part for pictures, from the cache where it is there.

    What is missing is computed by the fastest engine of this machine, while further pictures are decoded, and stored
    batch by batch: whatever ends the process, the next one goes on from there. Several processes that fill one cache
    share the work. The engine is opened when something is missing, and serves until ``close``.

    Args:
        model: a flat functional classifier.
        preprocessing: what the network was trained with.
        cache_dir: see ``FeatureCache``.
        how: cut, dtype, engine.

    Raises:
        UserError: an impossible cut or cache directory.
    """

    def __init__(
        self, model: Any, preprocessing: Preprocessing, *, cache_dir: str | Path, how: Extraction | None = None
    ) -> None:
        self._how = how or Extraction()
        self._preprocessing = preprocessing
        self._frozen, self.context = _frozen(model, preprocessing, self._how)
        self._cache = FeatureCache(cache_dir, self.context)
        self._engine: Extractor | None = None

    def extract(
        self, paths: Sequence[str | Path], *, views: Views | None = None, progress: Progress | None = None
    ) -> Features:
        """Features of every picture and view.

        Args:
            paths: picture files.
            views: by default the plain picture alone.
            progress: called with (done, total) over the missing views.

        Raises:
            ImageError: a picture cannot be read; what was computed before is kept.
            UserError: the engine asked for is not here.
        """
        views = views or Views()
        digests = file_digests(paths, self._cache.store)
        keys = _keys(self._cache, digests, views)
        missing = set(self._cache.missing(keys))
        engine = ""
        if missing:
            fill = self._fill_on_cluster if self._how.cluster else self._fill
            engine = fill(_tasks(paths, digests, keys, missing), views, progress)
        return Features(_read(self._cache, keys, views, self._how), len(missing), engine)

    def close(self) -> None:
        """Release the cache and the engine; closing twice does nothing."""
        self._cache.close()
        self._engine = None

    def __enter__(self) -> "FeatureExtractor":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _fill(self, tasks: list["_Task"], views: Views, progress: Progress | None) -> str:
        """Compute and store what is missing; a few chunks are under way at a time, so that memory stays small.

        Returns:
            What computed it, in words.
        """
        total, num_done = sum(len(task.views) for task in tasks), 0
        waiting = _chunks(tasks, max(1, 2 * self._how.batch_size // views.count))
        running: set[Future[tuple[int, dict[bytes, np.ndarray]]]] = set()
        with ThreadPoolExecutor(num_threads() + 1) as pool:
            engine = pool.submit(self._open, tasks)  # pictures are decoded meanwhile
            try:
                while waiting or running:
                    while waiting and len(running) < num_threads() + 1:
                        running.add(pool.submit(self._compute, waiting.pop(), engine, views))
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        num_views, features = future.result()
                        self._cache.put(features)
                        num_done += num_views
                        if progress:
                            progress(num_done, total)
            finally:
                for future in running:
                    future.cancel()
        return str(self._engine)

    def _fill_on_cluster(self, tasks: list["_Task"], views: Views, progress: Progress | None) -> str:
        """The same by all nodes of a cluster; what they answer is stored here, as it comes."""
        how, engine = self._how, ""
        total, num_done = sum(len(task.views) for task in tasks), 0
        with cluster.connected(how.cluster):
            job = cluster.ExtractionJob(
                cluster.network_to_bytes(self._frozen),
                self._preprocessing,
                self._trial(tasks),
                how.engine,
                how.batch_size,
                views,
            )
            notes = [cluster.Task(str(task.path), cluster.ViewsNote(task.digest, task.views)) for task in tasks]
            for answers in cluster.map_pictures(cluster.ExtractionWorker, job, notes):
                found = {key: row for _, features in answers.values() for key, row in features.items()}
                self._cache.put(found)
                num_done += len(found)
                engine = next(engine for engine, _ in answers.values())
                if progress:
                    progress(num_done, total)
        return engine

    def _open(self, tasks: list["_Task"]) -> Extractor:
        if self._engine is None:
            self._engine = open_extractor(
                self._frozen,
                self._preprocessing,
                self._trial(tasks),
                engine=self._how.engine,
                batch_size=self._how.batch_size,
            )
        return self._engine

    def _trial(self, tasks: list["_Task"]) -> np.ndarray:
        """Pixels of a few pictures to compare the engines on."""
        rgb = [read_rgb(task.path, self._preprocessing) for task in tasks[:NUM_TRIALS]]
        return np.stack([resize_pixels(picture, self._preprocessing) for picture in rgb])

    def _compute(
        self, chunk: list["_Task"], engine: Future[Extractor], views: Views
    ) -> tuple[int, dict[bytes, np.ndarray]]:
        """How many views the chunk has, and the features of those that nobody has stored meanwhile."""
        still_missing = set(self._cache.missing(key for task in chunk for key in task.views))
        keys, pixels = [], []
        for task in chunk:
            wanted = {key: number for key, number in task.views.items() if key in still_missing}
            if not wanted:
                continue
            rgb = read_rgb(task.path, self._preprocessing)
            for key, number in wanted.items():
                keys.append(key)
                pixels.append(views.pixels(rgb, self._preprocessing, number, task.digest))
        extractor = engine.result()
        found: dict[bytes, np.ndarray] = {}
        for start in range(0, len(keys), extractor.batch_size):
            stop = start + extractor.batch_size
            found |= dict(zip(keys[start:stop], extractor(np.stack(pixels[start:stop])), strict=True))
        return sum(len(task.views) for task in chunk), found


@dataclass(frozen=True)
class _Task:
    """A picture with those of its views that are missing, by key."""

    path: str | Path
    digest: bytes
    views: dict[bytes, int]


def _frozen(model: Any, preprocessing: Preprocessing, how: Extraction) -> tuple[Any, FeatureContext]:
    """From input to cut in float32, and what its answers depend on."""
    cut = cut_tensor(model, how.stage)
    frozen = as_float32(frozen_part(model, cut))
    context = FeatureContext(
        network=model.name,
        cut=cut_name(model, cut),
        shape=tuple(frozen.output_shape[1:]),
        weights=weights_digest(frozen),
        architecture=architecture_digest(frozen),
        preprocessing=preprocessing,
        dtype=how.dtype,
    )
    return frozen, context


def _keys(cache: FeatureCache, digests: Sequence[bytes], views: Views) -> list[bytes]:
    """View by view, each of all pictures."""
    names = [views.name(number) for number in range(views.count)]
    return [cache.key(digest, name) for name in names for digest in digests]


def _read(cache: FeatureCache, keys: Sequence[bytes], views: Views, how: Extraction) -> np.ndarray:
    shape = cache.context.shape
    values = _empty((len(keys), *shape), how, cache.store.path)
    if cache.read_into(values, keys):
        raise UserError(f"{cache.store.path}: features vanish while they are read; is somebody pruning them?")
    return values.reshape(views.count, len(keys) // views.count, *shape)


def _tasks(
    paths: Sequence[str | Path], digests: Sequence[bytes], keys: Sequence[bytes], missing: set[bytes]
) -> list[_Task]:
    tasks: dict[bytes, _Task] = {}
    for index, key in enumerate(keys):
        if key in missing:
            number, picture = divmod(index, len(paths))
            task = tasks.setdefault(digests[picture], _Task(paths[picture], digests[picture], {}))
            task.views[key] = number
    return list(tasks.values())


def _chunks(tasks: list[_Task], size: int) -> list[list[_Task]]:
    """In an order of this process's own: two that fill one cache seldom meet."""
    chunks = [tasks[start : start + size] for start in range(0, len(tasks), size)]
    random.Random().shuffle(chunks)
    return chunks


def _empty(shape: tuple[int, ...], how: Extraction, directory: Path) -> np.ndarray:
    """Room for the answer: in memory within the budget, else in a file that is gone when the array is."""
    num_bytes = int(np.prod(shape)) * np.dtype(how.dtype).itemsize
    if num_bytes <= how.memory_budget:
        return np.empty(shape, how.dtype)
    with tempfile.TemporaryFile(dir=directory) as file:
        return np.memmap(file, how.dtype, mode="w+", shape=shape)
