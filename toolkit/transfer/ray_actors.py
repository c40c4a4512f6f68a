"""Pictures worked on past one machine: Ray Data streams them to an actor on every node of a cluster.

The files are read on the driver's machine and travel as the bytes they are on disk, so the nodes share nothing but the
network, and a file is known by its content everywhere. What the actors work with, a network's weights say, is put into
Ray's object store once and brought to each node once. An actor that dies is started again, and its pictures with it:
Ray Data does that by itself.
"""

import importlib.util
import logging
import pickle
import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.feed.augmented import AugmentedViews
from toolkit.data.pixels.decode import ImageError, read_file, read_rgb
from toolkit.engines.extract import open_extractor
from toolkit.errors import UserError, first_line
from toolkit.files import scratch_folder
from toolkit.lazy import keras
from toolkit.machine import num_threads
from toolkit.network import load_network
from toolkit.spec import Preprocessing

#: An address that starts a cluster of this machine alone.
LOCAL = "local"

_PATIENCE = 10  # seconds
_BATCH_SIZE = 16  # pictures in one call of an actor
_RESULTS = ("index", "result")
_MAX_BLOCKS = 2000  # each is an object in the store; more pictures make them larger, not more


@dataclass(frozen=True)
class Task:
    """One picture to work on.

    Attributes:
        path: its file, on the driver's machine.
        note: what the worker is to know of it.
    """

    path: str
    note: Any = None


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect to a Ray cluster, or use the one this process has already.

    Args:
        address: ``HOST:PORT`` of the head node, of which this machine must be a node; ``"auto"`` for the cluster that
            runs on this machine, ``"local"`` to start one.

    Raises:
        UserError: Ray is not installed, or no cluster answers there.
    """
    if importlib.util.find_spec("ray") is None:
        raise UserError("a cluster needs Ray, which is not installed: pip install 'toolkit[ray]'")
    import ray

    if ray.is_initialized():
        yield
        return
    try:
        _require_listener(address)
        ray.init(
            address,
            include_dashboard=False if address == LOCAL else None,
            log_to_driver=False,
            logging_level=logging.WARNING,
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = first_line(error)
        raise UserError(
            f"no Ray cluster at {address!r} ({reason}); `ray start --head` starts one, and --cluster local one of this "
            "machine alone"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Refuse a head node that is not there, for which Ray itself would wait minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()


def map_pictures(
    worker: type, payload: Any, tasks: Sequence[Task], *, batch_size: int = _BATCH_SIZE, keep_bad: bool = False
) -> Iterator[dict[int, Any]]:
    """Have a worker on each node work on pictures, some at a time; results come in the order in which they are done.

    Args:
        worker: a class that Ray's workers can import. ``worker(payload)`` is made once on each node; called with a list
            of encoded pictures and one of the tasks' notes, it gives one result each.
        payload: anything that can be pickled; brought to each node once.
        tasks: pictures.
        batch_size: pictures in one call of a worker.
        keep_bad: give an ``ImageError``, of a file that cannot be read or from the worker, as that picture's result.

    Yields:
        Results by index into ``tasks``.

    Raises:
        UserError: what a worker raised, or a file that cannot be read.
    """
    import ray
    from ray.data import ActorPoolStrategy, DataContext

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    DataContext.get_current().enable_progress_bars = False
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
    rows = [{"index": index, "task": pickle.dumps(task)} for index, task in enumerate(tasks)]
    num_blocks = min(-(-len(rows) // batch_size), _MAX_BLOCKS)
    results = (
        ray.data.from_items(rows, override_num_blocks=num_blocks)
        # No processor is asked for, so reading never waits for an actor to end.
        .map_batches(_read, batch_size=batch_size, batch_format="numpy", num_cpus=0, label_selector=here)
        .map_batches(
            _Actor,
            fn_constructor_args=(worker, ray.put(payload)),
            batch_size=batch_size,
            batch_format="numpy",
            # One actor takes a node whole: it decodes and computes in as many threads as there are processors.
            num_cpus=min(node["CPU"] for node in nodes),
            compute=ActorPoolStrategy(min_size=1, max_size=len(nodes), initial_size=len(nodes)),
        )
    )
    for block in results.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
        found = {int(index): pickle.loads(result) for index, result in zip(*map(block.get, _RESULTS), strict=True)}
        for result in found.values():
            if isinstance(result, UserError) and not (keep_bad and isinstance(result, ImageError)):
                raise result
        yield found


def _read(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Read the files, on the driver's machine. What cannot be read is an answer, not a failure to try again."""

    def content(task: Task) -> bytes | UserError:
        try:
            return read_file(Path(task.path))
        except UserError as error:
            return error

    tasks = [pickle.loads(task) for task in batch["task"]]
    return batch | {"content": _column([content(task) for task in tasks])}


class _Actor:
    """The worker on a node, its results as bytes."""

    def __init__(self, worker: type, payload: Any) -> None:
        import ray

        self._work: Any = None
        try:
            self._work = worker(ray.get(payload))
        except UserError as error:
            self._error = error

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        contents = [pickle.loads(content) for content in batch["content"]]
        notes = [pickle.loads(task).note for task in batch["task"]]
        read = [index for index, content in enumerate(contents) if not isinstance(content, UserError)]
        results = contents  # errors stay in their places
        try:
            answers = self._results([contents[i] for i in read], [notes[i] for i in read]) if read else []
        except UserError as error:
            answers = [error] * len(read)
        for index, answer in zip(read, answers, strict=True):
            results[index] = answer
        return dict(zip(_RESULTS, (batch["index"], _column(results)), strict=True))

    def _results(self, contents: list[bytes], notes: list[Any]) -> list[Any]:
        if self._work is None:
            raise self._error
        return self._work(contents, notes)


def _column(values: list[Any]) -> np.ndarray:
    column = np.empty(len(values), object)
    column[:] = [pickle.dumps(value) for value in values]
    return column


@dataclass(frozen=True)
class ExtractionTask:
    """A picture with those of its views that are missing somewhere: by number, keys by number of the cut."""

    path: str | Path
    digest: bytes
    views: dict[int, dict[int, bytes]]


@dataclass(frozen=True)
class ExtractionJob:
    """All that a node needs to extract features.

    Attributes:
        network: the frozen part, as the bytes of a ``.keras`` archive.
        cuts: numbers of the cuts that it answers, in order.
        preprocessing: what the network was trained with.
        trial: uint8 pixels of a few pictures; each node proves its engine on them.
        engine: see ``toolkit.engines.extract.open_extractor``.
        batch_size: pictures per call of the engine.
        views: what they are.
    """

    network: bytes
    cuts: list[int]
    preprocessing: Preprocessing
    trial: np.ndarray
    engine: str
    batch_size: int
    views: AugmentedViews


class ExtractionWorker:
    """Extract features of views on a node, by cache key; each result comes with the engine in words."""

    def __init__(self, job: ExtractionJob) -> None:
        self._job = job
        self._extractor = open_extractor(
            network_from_bytes(job.network), job.preprocessing, job.trial, engine=job.engine, batch_size=job.batch_size
        )

    def __call__(self, contents: list[bytes], tasks: list[ExtractionTask]) -> list[tuple[str, dict[bytes, np.ndarray]]]:
        with ThreadPoolExecutor(num_threads()) as pool:
            pixels = [view for views in pool.map(self._pixels, contents, tasks) for view in views]
            size = self._extractor.batch_size
            starts = range(0, len(pixels), size)
            answers = pool.map(lambda start: self._extractor.answers(np.stack(pixels[start : start + size])), starts)
            cuts = self._job.cuts
            views = (dict(zip(cuts, rows, strict=True)) for answer in answers for rows in zip(*answer, strict=True))
            features = [_by_key(task, views) for task in tasks]
        return [(f"{self._extractor} over Ray", found) for found in features]

    def _pixels(self, content: bytes, task: ExtractionTask) -> list[np.ndarray]:
        preprocessing = self._job.preprocessing
        rgb = read_rgb(content, preprocessing)
        return [self._job.views.pixels(rgb, preprocessing, number, task.digest) for number in task.views]


def _by_key(task: ExtractionTask, views: Iterator[dict[int, np.ndarray]]) -> dict[bytes, np.ndarray]:
    """Take the features of a task's views, by number of the cut, from an iterator over those of all tasks."""
    found: dict[bytes, np.ndarray] = {}
    for keys, rows in zip(task.views.values(), views, strict=False):
        found |= {key: rows[cut] for cut, key in keys.items()}
    return found


def network_to_bytes(model: "keras.Model") -> bytes:
    """Write a network as a ``.keras`` archive."""
    with scratch_folder() as directory:
        file = directory / "network.keras"
        model.save(file)
        return file.read_bytes()


def network_from_bytes(content: bytes) -> "keras.Model":
    """Read the network of an archive; nothing in it can run."""
    with scratch_folder() as directory:
        file = directory / "network.keras"
        file.write_bytes(content)
        return load_network(file)
