"""Features of pictures: the output of a network's frozen part, computed once per picture and augmented view.

What the cache lacks is computed on this machine or, with an address of one, on the nodes of a Ray cluster.
"""

import math
import random
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from toolkit.data.feed.augmented import AugmentedViews
from toolkit.data.feed.split import Split
from toolkit.data.pixels.decode import read_rgb, resize_pixels
from toolkit.engines.extract import Extractor, default_batch_size, open_extractor
from toolkit.errors import UserError
from toolkit.files import spare_file
from toolkit.lazy import keras
from toolkit.machine import num_threads, return_memory
from toolkit.network import architecture_digest, as_float32, weights_digest
from toolkit.progress import step
from toolkit.spec import Preprocessing
from toolkit.transfer.cache import FeatureCache, FeatureContext, file_digests, put_together
from toolkit.transfer.freeze import cut_name, cut_tensor, cut_tensors, frozen_part
from toolkit.transfer.ray_actors import (
    ExtractionJob,
    ExtractionTask,
    ExtractionWorker,
    Task,
    connected,
    map_pictures,
    network_to_bytes,
)
from toolkit.transfer.stages import Cut

#: Pictures that an engine has to answer as Keras does before it is used.
NUM_TRIALS = 4


@dataclass(frozen=True)
class Extraction:
    """Options of extracting and keeping features.

    Attributes:
        stage: the last frozen stage, whose output is cached; None for the pooled features before the classifier.
        dtype: ``"float16"`` or ``"float32"``, on disk and in the answer.
        engine: one of ``toolkit.engines.extract.EXTRACTORS``, or ``"auto"`` for the fastest here.
        batch_size: pictures per call of the engine; None for as many as its device is fast at.
        memory_budget: bytes; a larger answer, all cuts together, is files on disk that look like arrays
            (``numpy.memmap``).
        ray: address of a Ray cluster that computes what is missing, see ``toolkit.transfer.ray_actors``.
    """

    stage: str | None = None
    dtype: str = "float16"
    engine: str = "auto"
    batch_size: int | None = None
    memory_budget: int = 512 << 20
    ray: str | None = None

    def __post_init__(self) -> None:
        if self.dtype not in ("float16", "float32"):
            raise UserError(f"features are cached as float16 or float32, got dtype {self.dtype!r}")


@dataclass(frozen=True)
class Features:
    """Features of every picture and view.

    Attributes:
        values: (views, pictures, …), the plain pictures first.
        num_computed: views of pictures that were not in the cache.
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
    model: "keras.Model",
    paths: Sequence[str | Path],
    preprocessing: Preprocessing,
    *,
    cache_dir: str | Path,
    views: AugmentedViews | None = None,
    how: Extraction | None = None,
) -> Features:
    """Extract features with a ``FeatureExtractor`` that is used once: see there."""
    with FeatureExtractor(model, preprocessing, cache_dir=cache_dir, how=how) as extractor:
        return extractor.extract(paths, views=views)


@dataclass(frozen=True)
class Pictures:
    """Training and validation pictures, and how their features are extracted.

    Attributes:
        split: the pictures.
        preprocessing: what the network was trained with.
        cache_dir: of features.
        views: of each training picture.
        extraction: dtype, engine and budgets.
    """

    split: Split
    preprocessing: Preprocessing
    cache_dir: str | Path
    views: AugmentedViews = field(default_factory=AugmentedViews)
    extraction: Extraction = field(default_factory=Extraction)

    def cut_features(
        self, model: "keras.Model", stage: str, paths: Sequence[str], views: AugmentedViews
    ) -> tuple[np.ndarray, ...]:
        """Extract features behind ``stage``, of each tensor that leads out of it: (views, pictures, …).

        Args:
            model: a flat functional classifier.
            stage: the last frozen stage.
            paths: picture files.
            views: of each.
        """
        cuts = [Cut(cut_name(model, tensor), tensor, whole=True) for tensor in cut_tensors(model, stage)]
        with self.extractor(model, cuts) as extractor:
            return tuple(own.values for own in extractor.extract_cuts(paths, views=views).values())

    def extractor(self, model: "keras.Model", cuts: Sequence[Cut]) -> "FeatureExtractor":
        """Open an extractor of a network's cuts."""
        return FeatureExtractor(model, self.preprocessing, cache_dir=self.cache_dir, how=self.extraction, cuts=cuts)


class FeatureExtractor:
    """Compute features of pictures, or find them in the cache: of one cut, or of several in one pass.

    What is missing is computed by the fastest engine of this machine, while further pictures are decoded, and stored
    batch by batch: whatever ends the process, the next one goes on from there. Several processes that fill one cache
    share the work. The engine is opened when something is missing, and serves until ``close``.

    Args:
        model: a flat functional classifier.
        preprocessing: what the network was trained with.
        cache_dir: see ``FeatureCache``.
        how: cut, dtype, engine.
        cuts: several of ``pooled_cuts(model)``, in place of the one that ``how`` names.

    Attributes:
        context: of the only or the last cut.

    Raises:
        UserError: an impossible cut or cache directory.
    """

    def __init__(
        self,
        model: "keras.Model",
        preprocessing: Preprocessing,
        *,
        cache_dir: str | Path,
        how: Extraction | None = None,
        cuts: Sequence[Cut] = (),
    ) -> None:
        self._how = how or Extraction()
        self._batch_size = self._how.batch_size or default_batch_size()
        self._preprocessing = preprocessing
        self._cuts = [cut.name for cut in cuts]
        self._frozen, contexts = _frozen(model, preprocessing, self._how, cuts)
        self.context = contexts[-1]
        self._caches = [FeatureCache(cache_dir, context) for context in contexts]
        self._engine: tuple[list[int], Extractor] | None = None

    def extract(self, paths: Sequence[str | Path], *, views: AugmentedViews | None = None) -> Features:
        """Give the features of every picture and view behind the only cut.

        Args:
            paths: picture files.
            views: by default the plain picture alone.

        Raises:
            ImageError: a picture cannot be read; what was computed before is kept.
            UserError: the engine asked for is not here.
        """
        (features,) = self._extract(paths, views or AugmentedViews())
        return features

    def extract_cuts(self, paths: Sequence[str | Path], *, views: AugmentedViews | None = None) -> dict[str, Features]:
        """Give the features behind each cut, by its name; see ``extract``."""
        return dict(zip(self._cuts, self._extract(paths, views or AugmentedViews()), strict=True))

    def _extract(self, paths: Sequence[str | Path], views: AugmentedViews) -> list[Features]:
        digests = file_digests(paths, self._caches[0].store)
        keys = [_keys(cache, digests, views) for cache in self._caches]
        missing = [set(cache.missing(wanted)) for cache, wanted in zip(self._caches, keys, strict=True)]
        engine = ""
        if any(missing):
            tasks = _tasks(paths, digests, keys, missing)
            lacking = [number for number, absent in enumerate(missing) if absent]
            address = self._how.ray
            fill = self._fill_on_ray if address else self._fill
            engine = fill(tasks, lacking, views)
        num_bytes = sum(
            len(wanted) * math.prod(cache.context.shape) * np.dtype(self._how.dtype).itemsize
            for cache, wanted in zip(self._caches, keys, strict=True)
        )
        in_memory = num_bytes <= self._how.memory_budget
        return [
            Features(_read(cache, wanted, views.count, in_memory), len(absent), engine if absent else "")
            for cache, wanted, absent in zip(self._caches, keys, missing, strict=True)
        ]

    def close(self) -> None:
        """Release the caches and the engine; closing twice does nothing."""
        for cache in self._caches:
            cache.close()
        self._engine = None
        return_memory(4 * self._frozen.count_params())

    def __enter__(self) -> "FeatureExtractor":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _fill(self, tasks: list[ExtractionTask], lacking: list[int], views: AugmentedViews) -> str:
        """Compute and store what is missing; a few chunks are under way at a time, so that memory stays small.

        Returns:
            What computed it, in words.
        """
        total, num_done = sum(len(task.views) for task in tasks), 0
        waiting = _chunks(tasks, max(1, 2 * self._batch_size // views.count))
        running: set[Future[tuple[int, dict[bytes, np.ndarray]]]] = set()
        with step("computing features", total) as told, ThreadPoolExecutor(num_threads() + 1) as pool:
            engine = pool.submit(self._open, tasks, lacking)  # pictures are decoded meanwhile
            try:
                while waiting or running:
                    while waiting and len(running) < num_threads() + 1:
                        running.add(pool.submit(self._compute, waiting.pop(), engine, views))
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        num_views, features = future.result()
                        if features:
                            put_together(self._caches, features)
                        num_done += num_views
                        told(num_done)
            finally:
                for future in running:
                    future.cancel()
        return str(engine.result()[1])

    def _fill_on_ray(self, tasks: list[ExtractionTask], lacking: list[int], views: AugmentedViews) -> str:
        """Do the same on all nodes of a Ray cluster; what they answer is stored here, as it comes."""
        how, engine = self._how, ""
        assert how.ray is not None
        total, num_done = sum(len(task.views) for task in tasks), 0
        with step("computing features", total) as told, connected(how.ray):
            job = ExtractionJob(
                network_to_bytes(self._network(lacking)),
                lacking,
                self._preprocessing,
                self._trial(tasks),
                how.engine,
                self._batch_size,
                views,
            )
            for answers in map_pictures(ExtractionWorker, job, [Task(str(task.path), task) for task in tasks]):
                found = {key: row for _, features in answers.values() for key, row in features.items()}
                put_together(self._caches, found)
                num_done += sum(len(tasks[index].views) for index in answers)
                engine = next(engine for engine, _ in answers.values())
                told(num_done)
        return engine

    def _open(self, tasks: list[ExtractionTask], lacking: list[int]) -> tuple[list[int], Extractor]:
        """Open an engine that answers the cuts of these numbers, unless one is open that answers them too."""
        if self._engine is None or not set(lacking).issubset(self._engine[0]):
            extractor = open_extractor(
                self._network(lacking),
                self._preprocessing,
                self._trial(tasks),
                engine=self._how.engine,
                batch_size=self._batch_size,
            )
            self._engine = lacking, extractor
            return_memory(4 * self._frozen.count_params())  # the network as it was handed to the engine
        return self._engine

    def _network(self, lacking: list[int]) -> "keras.Model":
        """Leave out of the frozen part what only cuts need that are not lacking."""
        if len(lacking) == len(self._caches):
            return self._frozen
        return keras.Model(self._frozen.input, [self._frozen.outputs[number] for number in lacking])

    def _trial(self, tasks: list[ExtractionTask]) -> np.ndarray:
        """Read pixels of a few pictures to compare the engines on."""
        rgb = [read_rgb(task.path, self._preprocessing) for task in tasks[:NUM_TRIALS]]
        return np.stack([resize_pixels(picture, self._preprocessing) for picture in rgb])

    def _compute(
        self, chunk: list[ExtractionTask], engine: Future[tuple[list[int], Extractor]], views: AugmentedViews
    ) -> tuple[int, dict[bytes, np.ndarray]]:
        """Count the chunk's views, and compute the features of those that nobody has stored meanwhile."""
        every_key = [key for task in chunk for keys in task.views.values() for key in keys.values()]
        still_missing = set(self._caches[0].missing(every_key))
        wanted: list[dict[int, bytes]] = []
        pixels: list[np.ndarray] = []
        for task in chunk:
            needed = {number: keys for number, keys in task.views.items() if still_missing.intersection(keys.values())}
            if not needed:
                continue
            rgb = read_rgb(task.path, self._preprocessing)
            for number, keys in needed.items():
                wanted.append(keys)
                pixels.append(views.pixels(rgb, self._preprocessing, number, task.digest))
        numbers, extractor = engine.result()
        found: dict[bytes, np.ndarray] = {}
        for start in range(0, len(wanted), extractor.batch_size):
            stop = start + extractor.batch_size
            answers = extractor.answers(np.stack(pixels[start:stop]))
            for number, rows in zip(numbers, answers, strict=True):
                pairs = zip(wanted[start:stop], rows, strict=True)
                found |= {keys[number]: row for keys, row in pairs if keys.get(number) in still_missing}
        return sum(len(task.views) for task in chunk), found


def _frozen(
    model: "keras.Model", preprocessing: Preprocessing, how: Extraction, cuts: Sequence[Cut]
) -> tuple["keras.Model", list[FeatureContext]]:
    """Take the network from input to cuts, in float32, and all that the features of each depend on."""
    if cuts and how.stage is not None:
        raise ValueError(f"features are cut at one stage or at several cuts, got stage={how.stage!r} and cuts")
    names, tensors = [cut.name for cut in cuts], [cut.pooled() for cut in cuts]
    if not cuts:
        tensors = [cut_tensor(model, how.stage)]
        names = [cut_name(model, tensors[0])]
    frozen = as_float32(frozen_part(model, tensors if cuts else tensors[0]))
    contexts = []
    for name, output in zip(names, frozen.outputs, strict=True):
        part = frozen_part(frozen, output) if len(tensors) > 1 else frozen
        context = FeatureContext(
            network=model.name,
            cut=name,
            shape=tuple(output.shape[1:]),
            weights=weights_digest(part),
            architecture=architecture_digest(part),
            preprocessing=preprocessing,
            dtype=how.dtype,
        )
        contexts.append(context)
    return frozen, contexts


def _keys(cache: FeatureCache, digests: Sequence[bytes], views: AugmentedViews) -> list[bytes]:
    """List keys view by view, each of all pictures."""
    names = [views.name(number) for number in range(views.count)]
    return [cache.key(digest, name) for name in names for digest in digests]


def _read(cache: FeatureCache, keys: Sequence[bytes], num_views: int, in_memory: bool) -> np.ndarray:
    shape, dtype = cache.context.shape, cache.context.dtype
    values = _empty((len(keys), *shape), dtype, None if in_memory else cache.store.path)
    if cache.read_into(values, keys):
        raise UserError(f"{cache.store.path}: features vanish while they are read; is somebody pruning them?")
    return values.reshape(num_views, len(keys) // num_views, *shape)


def _tasks(
    paths: Sequence[str | Path], digests: Sequence[bytes], keys: list[list[bytes]], missing: list[set[bytes]]
) -> list[ExtractionTask]:
    """Gather what is missing by picture and view; ``keys`` and ``missing`` are of each cut."""
    tasks: dict[bytes, ExtractionTask] = {}
    for cut, (of_cut, absent) in enumerate(zip(keys, missing, strict=True)):
        for index, key in enumerate(of_cut):
            if key in absent:
                number, picture = divmod(index, len(paths))
                task = tasks.setdefault(digests[picture], ExtractionTask(paths[picture], digests[picture], {}))
                task.views.setdefault(number, {})[cut] = key
    return list(tasks.values())


def _chunks(tasks: list[ExtractionTask], size: int) -> list[list[ExtractionTask]]:
    """Divide tasks, in an order of this process's own: two that fill one cache seldom meet."""
    chunks = [tasks[start : start + size] for start in range(0, len(tasks), size)]
    random.Random().shuffle(chunks)
    return chunks


def _empty(shape: tuple[int, ...], dtype: str, directory: Path | None) -> np.ndarray:
    """Make room for the answer: in memory, or in a file of this directory that is gone when the array is."""
    if directory is None:
        return np.empty(shape, dtype)
    with spare_file(math.prod(shape) * np.dtype(dtype).itemsize, directory) as file:
        return np.memmap(file, dtype, mode="r+", shape=shape)
