"""Whole subsets and batches as arrays, decoded on the host by several threads: for any backend."""

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from toolkit.data import augment as augmentation
from toolkit.data.augment.draws import example_keys
from toolkit.data.feed.order import Plan, batch_plans, epoch_plans
from toolkit.data.feed.split import Subset
from toolkit.data.pixels.decode import ImageError, ImageSource, decode_pixels, normalize
from toolkit.machine import num_threads
from toolkit.progress import step
from toolkit.spec import Preprocessing

log = logging.getLogger("toolkit")

#: Decoded pictures are kept in memory if all of a subset's fit into this many bytes.
CACHE_BYTES = 2 << 30

Source = TypeVar("Source")
Picture = TypeVar("Picture")

_CHUNK = 64  # pictures per task
# Of up to 16 MiB. Pillow hands every picture's memory back to the system, which fills the next one's with zeros: a
# third of the time that a small JPEG takes.
_KEPT_BLOCKS = 8
# glibc hands freed memory back as well, unless a block of this size, the largest it learns from, was freed before:
# 660 page faults a photograph of 500 pixels, a quarter of its time.
_LARGE_BLOCK = 31 << 20
_AT_ONCE = 256  # pictures of a subset between two reports of progress
_AHEAD = 2  # batches prepared while one is used
# Files of fewer bytes on average are decoded one after the other: most of their time is Python's, of which one thread
# runs at a time, and two threads that take turns need half as long again.
_SMALL_FILE = 4 << 10
_NUM_SIZES = 16  # files looked at to tell


def load_pixels(sources: Sequence[ImageSource], preprocessing: Preprocessing) -> np.ndarray:
    """uint8 RGB of shape (len(sources), height, width, 3).

    Raises:
        ImageError: a picture cannot be read.
    """
    if len(sources) == 1:  # a server's usual request: starting threads would cost more than the picture
        return decode_pixels(sources[0], preprocessing)[None]
    _keep_memory()
    pixels = np.empty((len(sources), *preprocessing.size, 3), np.uint8)

    def fill(start: int) -> None:
        for index in range(start, min(start + chunk, len(sources))):
            pixels[index] = decode_pixels(sources[index], preprocessing)

    num_workers = _num_workers(sources)
    chunk = max(1, min(_CHUNK, len(sources) // (4 * num_workers)))
    with ThreadPoolExecutor(num_workers) as pool:
        list(pool.map(fill, range(0, len(sources), chunk)))
    return pixels


def decode_ahead(
    sources: Iterable[Source], decode: Callable[[int, Source], Picture], *, batch_size: int
) -> Iterator[list[Picture | ImageError]]:
    """Decode batches of pictures in other threads, while the caller works on the batch before.

    Args:
        sources: as many as there are; no more than a few batches are taken at a time, in this thread.
        decode: called with the number, from 0, of each and itself.
        batch_size: of all batches but the last.

    Yields:
        Batches in order; in the place of a picture for which ``decode`` raised an ``ImageError``, that error.
    """

    def attempt(part: Sequence[tuple[int, Source]]) -> list[Picture | ImageError]:
        return [_or_error(decode, *item) for item in part]

    remaining: Iterator[tuple[int, Source]] = enumerate(sources)
    first = list(islice(remaining, max(batch_size, 2)))
    if len(first) < 2:
        if first:
            yield attempt(first)
        return
    remaining = chain(first, remaining)
    _keep_memory()
    num_workers = _num_workers([source for _, source in first])

    def submit(batch: list[tuple[int, Source]]) -> list[Future]:
        chunk = max(1, len(batch) // (2 * num_workers))
        return [pool.submit(attempt, batch[start : start + chunk]) for start in range(0, len(batch), chunk)]

    pool = ThreadPoolExecutor(num_workers)
    try:
        upcoming: deque[list[Future]] = deque()
        while batch := list(islice(remaining, batch_size)):
            upcoming.append(submit(batch))
            if len(upcoming) > _AHEAD:
                yield [picture for part in upcoming.popleft() for picture in part.result()]
        while upcoming:
            yield [picture for part in upcoming.popleft() for picture in part.result()]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class SubsetPixels:
    """Pixels of a subset's pictures, decoded when they are asked for, or all of them now if they fit into memory.

    Args:
        subset: the pictures. A file that has become unreadable since it was scanned is an error that names it, or is
            left out with a warning, where ``subset.skip_bad``.
        preprocessing: gives the size and the way to it.
        cache_bytes: what all of them may take to be kept.

    Raises:
        ImageError: a picture cannot be read.
    """

    def __init__(self, subset: Subset, preprocessing: Preprocessing, cache_bytes: int) -> None:
        self._subset = subset
        self._preprocessing = preprocessing
        self._left_out: set[str] = set()
        self._error: ImageError | None = None
        self._cache: tuple[np.ndarray, np.ndarray] | None = None
        height, width = preprocessing.size
        if len(subset) * height * width * 3 <= cache_bytes:
            self._cache = self._load_all()

    def __call__(self, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give the pixels of the pictures that can be read, and which of ``examples`` those are, as booleans.

        Raises:
            ImageError: none of them, or one of them where none may be left out.
        """
        if self._cache is None:
            return self._require_some(*self._load(examples))
        pixels, is_there = self._cache
        kept = is_there[examples]
        # What is left out takes no place in the cache, so the ones before it tell where a picture is.
        return pixels[(np.cumsum(is_there) - 1)[examples[kept]]] if not is_there.all() else pixels[examples], kept

    def _load_all(self) -> tuple[np.ndarray, np.ndarray]:
        pixels = np.empty((len(self._subset), *self._preprocessing.size, 3), np.uint8)
        is_there = np.empty(len(self._subset), bool)
        num_read = 0
        with step("decoding pictures", len(self._subset)) as told:
            for start in range(0, len(self._subset), _AT_ONCE):
                examples = np.arange(start, min(start + _AT_ONCE, len(self._subset)))
                part, is_there[examples] = self._load(examples)
                pixels[num_read : num_read + len(part)] = part
                num_read += len(part)
                told(int(examples[-1]) + 1)
        return self._require_some(pixels[:num_read], is_there)

    def _require_some(self, pixels: np.ndarray, is_there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self._error is not None and not len(pixels):
            raise self._error
        return pixels, is_there

    def _load(self, examples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        paths = [self._subset.paths[index] for index in examples]
        try:
            return load_pixels(paths, self._preprocessing), np.ones(len(paths), bool)
        except ImageError as error:
            if not self._subset.skip_bad:
                raise
            self._error = error
        found = [self._readable(path) for path in paths]
        pixels = [picture for picture in found if picture is not None]
        is_there = np.array([picture is not None for picture in found])
        return np.stack(pixels) if pixels else np.empty((0, *self._preprocessing.size, 3), np.uint8), is_there

    def _readable(self, path: str) -> np.ndarray | None:
        try:
            return decode_pixels(path, self._preprocessing)
        except ImageError as error:
            if path not in self._left_out:
                self._left_out.add(path)
                log.warning("left out %s", error)
            return None


def _or_error(decode: Callable[[int, Source], Picture], number: int, source: Source) -> Picture | ImageError:
    try:
        return decode(number, source)
    except ImageError as error:
        return error


def _keep_memory() -> None:
    if Image.core.get_blocks_max() == 0:  # unless PILLOW_BLOCKS_MAX says otherwise
        Image.core.set_blocks_max(_KEPT_BLOCKS)
    np.empty(_LARGE_BLOCK, np.uint8)


def _num_workers(sources: Sequence[Any]) -> int:
    some = sources[:: max(1, len(sources) // _NUM_SIZES)]
    return 1 if sum(map(_num_bytes, some)) < _SMALL_FILE * len(some) else num_threads()


def _num_bytes(source: Any) -> int:
    if isinstance(source, bytes):
        return len(source)
    if isinstance(source, str | Path):
        try:
            return os.stat(source).st_size
        except OSError:  # decoding it will say what is wrong
            return 0
    return _SMALL_FILE  # decoded already


@dataclass(frozen=True)
class BatchOptions:
    """Options of training batches.

    Attributes:
        batch_size: pictures per batch.
        seed: with the epoch's number decides order and augmentation.
        first_epoch: the epoch to go on from.
        first_step: the batch of that epoch to go on from; those before it are not read.
        augment: names of augmentations with their parameters, see ``toolkit.data.augment.parse``. With ``mixup`` or
            ``cutmix`` labels are float32 (batch, num_classes).
        num_classes: width of such labels; by default the largest label and one.
        balanced: show every class equally often, see ``toolkit.data.feed.order.epoch_order``.
        cache_bytes: decode every picture once, before the first batch, and keep the pixels in memory, if they take no
            more than this.
    """

    batch_size: int
    seed: int
    first_epoch: int = 0
    first_step: int = 0
    augment: str | Sequence[str] = "none"
    num_classes: int | None = None
    balanced: bool = False
    cache_bytes: int = CACHE_BYTES


@dataclass(frozen=True)
class TrainingRecipe:
    """The way from a plan of a batch to the batch, on the host. One recipe serves every backend."""

    preprocessing: Preprocessing
    augmentations: tuple[augmentation.Augmentation, ...]
    seed: int
    num_classes: int

    @property
    def canvas(self) -> Preprocessing:
        """From file to the pixels that augmentation starts from: with a margin where a crop needs one."""
        size = augmentation.canvas_size(self.augmentations, self.preprocessing.size)
        if size == self.preprocessing.size:
            return self.preprocessing
        return replace(self.preprocessing, size=size, crop_fraction=1.0)

    @property
    def is_mixed(self) -> bool:
        """True where labels are one-hot float32 instead of int32 indices."""
        return bool(augmentation.mixing_of(self.augmentations))

    def augment(self, pixels: np.ndarray, epoch: int, positions: np.ndarray) -> np.ndarray:
        """uint8 (n, *canvas.size, 3) to uint8 (n, *preprocessing.size, 3)."""
        return augmentation.apply(self.augmentations, pixels, self._keys(epoch, positions), self.preprocessing.size)

    def mix(
        self, inputs: np.ndarray, labels: np.ndarray, epoch: int, positions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Normalised inputs and label indices to mixed inputs and float32 (n, num_classes) labels."""
        one_hot = np.eye(self.num_classes, dtype=np.float32)[labels]
        return augmentation.mix(self.augmentations, inputs, one_hot, self._keys(epoch, positions))

    def finish(
        self, pixels: np.ndarray, labels: np.ndarray, epoch: int, positions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Augment, normalise and mix: uint8 (n, *canvas.size, 3) and int32 (n,) to what the network is trained on."""
        inputs = normalize(self.augment(pixels, epoch, positions), self.preprocessing)
        return self.mix(inputs, labels, epoch, positions) if self.is_mixed else (inputs, labels)

    def _keys(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        return example_keys(self.seed, int(epoch), positions)


def training_recipe(subset: Subset, preprocessing: Preprocessing, options: BatchOptions) -> TrainingRecipe:
    num_classes = options.num_classes or max(subset.labels, default=0) + 1
    return TrainingRecipe(preprocessing, augmentation.parse(options.augment), options.seed, num_classes)


def array_batches(
    subset: Subset, preprocessing: Preprocessing, options: BatchOptions
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the batches of ``toolkit.data.feed.pipeline.training_batches`` as NumPy arrays, without TensorFlow.

    The same pictures in the same order with the same augmentation. The next batches are made while one is used.

    Yields:
        float32 (n, height, width, channels) and int32 (n,), or float32 (n, num_classes) where batches are mixed.
    """
    recipe = training_recipe(subset, preprocessing, options)
    pixels_of = SubsetPixels(subset, recipe.canvas, options.cache_bytes)
    labels = np.asarray(subset.labels, np.int32)

    def make(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
        pixels, kept = pixels_of(plan.examples)
        return recipe.finish(pixels, labels[plan.examples[kept]], plan.epoch, plan.positions[kept])

    epochs = epoch_plans(
        subset.labels,
        seed=options.seed,
        first_epoch=options.first_epoch,
        first_position=options.first_step * options.batch_size,
        balanced=options.balanced,
    )
    yield from _ahead(make, batch_plans(epochs, options.batch_size))


def _ahead(make: Callable, plans: Iterable) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    pool = ThreadPoolExecutor(max_workers=_AHEAD)
    try:
        upcoming: deque = deque()
        for plan in plans:
            upcoming.append(pool.submit(make, plan))
            if len(upcoming) > _AHEAD:
                yield upcoming.popleft().result()
        while upcoming:
            yield upcoming.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
