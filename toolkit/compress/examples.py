"""Pictures for compression methods to learn from: as files, arrays or batches, here and in the worker."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.data.feed.arrays import CACHE_BYTES, BatchOptions, SubsetPixels, load_pixels, training_recipe
from toolkit.data.feed.order import Plan, epoch_plan
from toolkit.data.feed.split import Subset
from toolkit.data.pixels.decode import normalize
from toolkit.errors import UserError
from toolkit.lazy import lazy_module
from toolkit.spec import Preprocessing

if TYPE_CHECKING:
    import tensorflow as tf

    from toolkit.data.feed import pipeline
else:
    pipeline = lazy_module("toolkit.data.feed.pipeline")

#: Files with labels; arrays ``(inputs, labels)``; or a finite iterable of such batches. Inputs in uint8 are pixels
#: ``(N, height, width, 3)``, which the preprocessing normalises; in float they are taken as normalised already.
Examples = Subset | tuple[np.ndarray, np.ndarray] | Iterable[tuple[np.ndarray, np.ndarray]]

#: Examples without labels: files, or arrays like ``inputs`` above, in one piece or in batches.
Pictures = Sequence[str | Path] | np.ndarray | Iterable[np.ndarray]

_BATCH_SIZE = 32
_OVERSHOOT = 0.2  # of the range of normalised pixels, that floats may lie outside of it
_FILLED = 0.6  # of that range: real pictures, some of them with dark and light places, fill more

log = logging.getLogger("toolkit")


def batches_of(examples: Examples, preprocessing: Preprocessing) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield inputs and labels in order: uint8 pixels where pictures are files, otherwise the batches given.

    Raises:
        UserError: empty, of another kind, or not of the size that ``preprocessing`` gives.
    """
    batch = None
    for batch in _batches(examples, preprocessing):
        _check(*batch, preprocessing)
        yield batch
    if batch is None:
        raise UserError("got no pictures; give training pictures with their labels")


def normalized(inputs: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Turn pixels, or inputs that are normalised already, into a network's float32 input."""
    return normalize(inputs, preprocessing) if inputs.dtype == np.uint8 else np.asarray(inputs, np.float32)


def spread(examples: "Examples | Pictures", preprocessing: Preprocessing, count: int) -> np.ndarray:
    """Take ``count`` normalised inputs, or all there are, evenly from files and arrays, from a stream its first.

    Labels are not looked at, and need not be there.

    Raises:
        UserError: as ``batches_of``, or floats that pixels cannot have been normalised to.
    """
    alike = _labelled_alike(examples)
    if isinstance(alike, Subset):
        alike = alike.picked(evenly(len(alike), count))
    elif isinstance(alike, tuple):
        chosen = evenly(len(alike[0]), count)
        alike = (alike[0][chosen], alike[1][chosen])
    taken: list[np.ndarray] = []
    for inputs, _ in batches_of(alike, preprocessing):
        if inputs.dtype != np.uint8:
            _require_range(inputs, preprocessing)
        taken.extend(normalized(inputs, preprocessing))
        if len(taken) >= count:
            break
    return np.stack(taken[:count])


def _labelled_alike(examples: "Examples | Pictures") -> Examples:
    """Give every example the label 0."""
    if isinstance(examples, Subset):
        return Subset(examples.paths, (0,) * len(examples.paths))
    if isinstance(examples, np.ndarray):
        return examples, np.zeros(len(examples), int)
    if isinstance(examples, tuple | list) and examples and all(isinstance(path, str | Path) for path in examples):
        return Subset(tuple(map(str, examples)), (0,) * len(examples))
    if isinstance(examples, tuple) and len(examples) == 2:
        return _labelled_alike(np.asarray(examples[0]))
    if not isinstance(examples, Iterable):
        raise UserError(f"expected pictures as files, an array or batches of them, got {type(examples).__name__}")
    batches = (np.asarray(batch[0] if isinstance(batch, tuple | list) else batch) for batch in examples)
    return ((inputs, np.zeros(len(inputs), int)) for inputs in batches)


def _require_range(inputs: np.ndarray, preprocessing: Preprocessing) -> None:
    """Refuse floats outside of what pixels are normalised to, and warn of those that fill little of it."""
    factor, offset = map(np.asarray, preprocessing.affine())
    ends = np.stack([offset, 255 * factor + offset])
    low, high = float(ends.min()) + 0.0, float(ends.max()) + 0.0  # never -0
    least, most = float(inputs.min()), float(inputs.max())
    fault = f"float inputs of {least:.3g}…{most:.3g}, and pixels of 0…255 are normalised to {low:.3g}…{high:.3g} here"
    # What was resized after it was normalised overshoots a little.
    if not (least >= low - _OVERSHOOT * (high - low) and most <= high + _OVERSHOOT * (high - low)):
        raise UserError(f"got {fault}: give uint8 pixels, or floats as the network was trained on")
    if most - least < _FILLED * (high - low):
        log.warning("got %s: activation ranges will be too narrow if the network was not trained on such", fault)


def evenly(total: int, count: int) -> list[int]:
    """Spread ``count`` indices, or all, evenly over ``total``.

    >>> evenly(10, 3), evenly(2, 3)
    ([0, 3, 6], [0, 1])
    """
    count = min(total, count)
    return [index * total // count for index in range(count)]


def write_examples(examples: Examples, preprocessing: Preprocessing, directory: Path, name: str) -> dict[str, Any]:
    """Write examples where another process can read them.

    Returns:
        What to hand over: the paths and labels of files, or that ``NAME-inputs.npy`` and ``NAME-labels.npy`` hold them.
    """
    if isinstance(examples, Subset):
        if not len(examples):
            raise UserError("got no pictures; give training pictures with their labels")
        return {"paths": list(examples.paths), "labels": [int(label) for label in examples.labels]}
    batches = list(batches_of(examples, preprocessing))
    np.save(directory / f"{name}-inputs.npy", np.concatenate([inputs for inputs, _ in batches]))
    np.save(directory / f"{name}-labels.npy", np.concatenate([labels for _, labels in batches]).astype(np.int32))
    return {"arrays": name}


class StoredExamples:
    """Examples by ``write_examples``, read in the other process."""

    def __init__(self, directory: Path, name: str, described: dict[str, Any], preprocessing: Preprocessing) -> None:
        self._preprocessing = preprocessing
        self._subset: Subset | None = None
        if "paths" in described:
            self._subset = Subset(tuple(described["paths"]), tuple(described["labels"]))
            self._labels = np.asarray(described["labels"], np.int32)
        else:
            self._inputs = np.load(directory / f"{name}-inputs.npy", mmap_mode="r")
            self._labels = np.load(directory / f"{name}-labels.npy")

    def __len__(self) -> int:
        return len(self._labels)

    def in_order(self, batch_size: int) -> "tf.data.Dataset":
        """Give every example once, as normalised float32 inputs and int32 labels."""
        read = self._reader(self._preprocessing)

        def batch(number: int) -> tuple[np.ndarray, np.ndarray]:
            chosen = np.arange(number * batch_size, min((number + 1) * batch_size, len(self)))
            return normalized(read(chosen), self._preprocessing), self._labels[chosen]

        return pipeline.computed_batches(batch, -(-len(self) // batch_size))

    def shuffled(self, batch_size: int, *, seed: int, augment: str) -> "tf.data.Dataset":
        """Give epoch after epoch in the order, and with the augmentation, of training.

        Raises:
            UserError: normalised inputs are to be augmented, or pixels would have to be read with a margin.
        """
        recipe = training_recipe(Subset((), ()), self._preprocessing, BatchOptions(batch_size, seed, augment=augment))
        if recipe.augmentations and not self._can_augment(recipe.canvas):
            raise UserError(f"augmentation {augment!r} needs pictures as files, or others than crops uint8 pixels")
        read, labels, steps = self._reader(recipe.canvas), self._labels.tolist(), -(-len(self) // batch_size)

        @lru_cache(maxsize=1)
        def plan_of(epoch: int) -> Plan:
            return epoch_plan(labels, seed=seed, epoch=epoch)

        def batch(number: int) -> tuple[np.ndarray, np.ndarray]:
            epoch, step = divmod(number, steps)
            plan, part = plan_of(epoch), slice(step * batch_size, (step + 1) * batch_size)
            chosen = plan.examples[part]
            inputs = read(chosen)
            if recipe.augmentations:
                inputs = recipe.augment(inputs, epoch, plan.positions[part])
            return normalized(inputs, self._preprocessing), self._labels[chosen]

        return pipeline.computed_batches(batch)

    def _can_augment(self, canvas: Preprocessing) -> bool:
        return self._subset is not None or (self._inputs.dtype == np.uint8 and canvas.size == self._preprocessing.size)

    def _reader(self, canvas: Preprocessing) -> Callable[[np.ndarray], np.ndarray]:
        """From indices to inputs as they are stored, or to pixels of the canvas's size."""
        if self._subset is None:
            return lambda chosen: self._inputs[chosen]
        pixels_of = SubsetPixels(replace(self._subset, skip_bad=False), canvas, CACHE_BYTES)
        return lambda chosen: pixels_of(chosen)[0]


def _batches(examples: Examples, preprocessing: Preprocessing) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if isinstance(examples, Subset):
        for start in range(0, len(examples), _BATCH_SIZE):
            part = slice(start, start + _BATCH_SIZE)
            yield load_pixels(examples.paths[part], preprocessing), np.asarray(examples.labels[part])
    elif isinstance(examples, tuple) and len(examples) == 2:
        inputs, labels = np.asarray(examples[0]), np.asarray(examples[1])
        if len(inputs) != len(labels):
            raise UserError(f"got {len(inputs)} pictures and {len(labels)} labels; give one label for each")
        for start in range(0, len(inputs), _BATCH_SIZE):
            yield inputs[start : start + _BATCH_SIZE], labels[start : start + _BATCH_SIZE]
    elif isinstance(examples, Iterable):
        for batch in examples:
            if not isinstance(batch, tuple | list) or len(batch) != 2:
                raise UserError(f"expected batches (inputs, labels), got {type(batch).__name__}")
            yield np.asarray(batch[0]), np.asarray(batch[1])
    else:
        raise UserError(f"expected a Subset, arrays (inputs, labels) or batches of them, got {type(examples).__name__}")


def _check(inputs: np.ndarray, labels: np.ndarray, preprocessing: Preprocessing) -> None:
    expected = (*preprocessing.size, 3) if inputs.dtype == np.uint8 else preprocessing.input_shape
    if inputs.shape[1:] != expected or (inputs.dtype != np.uint8 and not np.issubdtype(inputs.dtype, np.floating)):
        raise UserError(
            f"expected uint8 pixels (N, {preprocessing.size[0]}, {preprocessing.size[1]}, 3) or normalised float "
            f"inputs (N, {', '.join(map(str, preprocessing.input_shape))}), got {inputs.dtype} {inputs.shape}"
        )
    if labels.shape != (len(inputs),) or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"expected one integer label per picture, got {labels.dtype} {labels.shape}")
