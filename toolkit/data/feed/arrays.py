"""Whole subsets and batches as arrays, decoded on the host by several threads: for any backend."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from toolkit.data import augment as augmentation
from toolkit.data.augment.draws import example_keys
from toolkit.data.feed.order import Plan, batch_plans, epoch_plans
from toolkit.data.feed.split import Subset
from toolkit.data.pixels.decode import ImageSource, decode_pixels, normalize
from toolkit.machine import num_threads
from toolkit.progress import step
from toolkit.spec import Preprocessing

#: Decoded pictures are kept in memory if all of a subset's fit into this many bytes.
CACHE_BYTES = 2 << 30

_CHUNK = 64  # pictures per task
_AT_ONCE = 512  # pictures between two tellings of how many there are
# Of up to 16 MiB. Pillow hands every picture's memory back to the system, which fills the next one's with zeros: a
# third of the time that a small JPEG takes.
_KEPT_BLOCKS = 8
# glibc hands freed memory back as well, unless a block of this size, the largest it learns from, was freed before:
# 660 page faults a photograph of 500 pixels, a quarter of its time.
_LARGE_BLOCK = 31 << 20
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
    if Image.core.get_blocks_max() == 0:  # unless PILLOW_BLOCKS_MAX says otherwise
        Image.core.set_blocks_max(_KEPT_BLOCKS)
    np.empty(_LARGE_BLOCK, np.uint8)
    pixels = np.empty((len(sources), *preprocessing.size, 3), np.uint8)

    def fill(start: int) -> None:
        for index in range(start, min(start + chunk, len(sources))):
            pixels[index] = decode_pixels(sources[index], preprocessing)

    some = sources[:: max(1, len(sources) // _NUM_SIZES)]
    num_workers = 1 if sum(map(_num_bytes, some)) < _SMALL_FILE * len(some) else num_threads()
    chunk = max(1, min(_CHUNK, len(sources) // (4 * num_workers)))
    with ThreadPoolExecutor(num_workers) as pool:
        list(pool.map(fill, range(0, len(sources), chunk)))
    return pixels


def _num_bytes(source: ImageSource) -> int:
    if isinstance(source, bytes):
        return len(source)
    if isinstance(source, str | Path):
        try:
            return os.stat(source).st_size
        except OSError:  # decoding it will say what is wrong
            return 0
    return _SMALL_FILE  # decoded already


def cached_pixels(subset: Subset, preprocessing: Preprocessing, cache_bytes: int) -> np.ndarray | None:
    """All pictures of a subset, decoded now, if they take no more than ``cache_bytes``; else ``None``."""
    height, width = preprocessing.size
    if len(subset) * height * width * 3 > cache_bytes:
        return None
    pixels = np.empty((len(subset), height, width, 3), np.uint8)
    with step("decoding pictures", len(subset)) as told:
        for start in range(0, len(subset), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            pixels[part] = load_pixels(subset.paths[part], preprocessing)
            told(min(start + _AT_ONCE, len(subset)))
    return pixels


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
    cache = cached_pixels(subset, recipe.canvas, options.cache_bytes)
    labels = np.asarray(subset.labels, np.int32)

    def make(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
        own = plan.examples
        pixels = load_pixels([subset.paths[i] for i in own], recipe.canvas) if cache is None else cache[own]
        return recipe.finish(pixels, labels[own], plan.epoch, plan.positions)

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
