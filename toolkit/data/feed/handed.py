"""A data set handed to other people's loops: as ``tf.data``, as NumPy batches, as a dataset of PyTorch."""

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.data.feed.arrays import (
    CACHE_BYTES,
    BatchOptions,
    SubsetPixels,
    TrainingRecipe,
    array_batches,
    training_recipe,
)
from toolkit.data.feed.split import Split, Subset, split_folder
from toolkit.data.pixels.decode import normalize
from toolkit.data.scan.folder import ImageFolder, scan_folder
from toolkit.errors import UserError, unknown_name
from toolkit.spec import Preprocessing

if TYPE_CHECKING:
    import tensorflow as tf
    import torch

_SUBSETS = ("train", "val", "test")


def pipeline(
    data: "str | os.PathLike[str] | ImageFolder",
    subset: str = "train",
    *,
    preprocessing: Preprocessing,
    batch_size: int = 32,
    augment: str = "none",
    seed: int = 0,
    skip_bad: bool = False,
) -> "Pipeline":
    """Hand a part of a data set to a loop of your own, as a network sees it: decoded, resized, normalised.

    >>> train = pipeline("photos", preprocessing=toolkit.model_info("resnet50").preprocessing)  # doctest: +SKIP
    >>> model.fit(train.as_tf(), epochs=3)  # doctest: +SKIP

    Args:
        data: see ``toolkit.scan_folder``, or what that gave.
        subset: ``"train"``, which is shuffled anew each epoch and augmented, or ``"val"`` or ``"test"``, in order. A
            folder that does not come split is divided by ``toolkit.data.split_folder``, 60/20/20 up to 10,000 pictures.
        preprocessing: of the network: ``toolkit.preprocessing_of(model)``, or ``toolkit.model_info(name)``'s.
        batch_size: pictures per batch; the last batch of an epoch holds what is left over.
        augment: such as ``"mirror,resized_crop:0.25/1"``, of training pictures. With ``mixup`` or ``cutmix`` labels are
            float32 (batch, classes), else int32 (batch,).
        seed: of order and augmentation; the same seed gives ``as_tf`` and ``as_numpy`` the same batches.
        skip_bad: leave unreadable pictures out instead of refusing the folder.

    Raises:
        UserError: no such data or subset, or unreadable pictures.
    """
    if subset not in _SUBSETS:
        raise UserError(unknown_name("subset", subset, list(_SUBSETS)))
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}")
    folder = data if isinstance(data, ImageFolder) else scan_folder(data)
    if not skip_bad:
        folder.require_clean()
    split: Split = split_folder(folder).skipping_bad(skip_bad)
    chosen: Subset = getattr(split, subset)
    if not len(chosen):
        raise UserError(f"{folder.source or folder.root}: has no {subset} pictures")
    is_training = subset == "train"
    options = BatchOptions(batch_size, seed, augment=augment if is_training else "none")
    options = replace(options, num_classes=len(folder.class_names))
    training_recipe(chosen, preprocessing, options)  # an augmentation that there is not, is said now
    return Pipeline(folder.class_names, chosen, preprocessing, options, is_training)


@dataclass(frozen=True)
class Pipeline:
    """A part of a data set on its way into a loop, see ``pipeline``.

    Attributes:
        class_names: a label is an index into it.
        pictures: paths and labels.
        preprocessing: of the network.
        options: batch size, seed, augmentation.
        is_training: whether it is shuffled and augmented.
    """

    class_names: tuple[str, ...]
    pictures: Subset
    preprocessing: Preprocessing
    options: BatchOptions
    is_training: bool

    def __len__(self) -> int:
        """Batches of an epoch."""
        return -(-len(self.pictures) // self.options.batch_size)

    def __repr__(self) -> str:
        kind = "shuffled" if self.is_training else "in order"
        size = "×".join(map(str, self.preprocessing.input_shape))
        return f"<{len(self.pictures):,} pictures in {len(self):,} batches, {kind}, each {size}>"

    def as_tf(self) -> "tf.data.Dataset":
        """Make a ``tf.data.Dataset`` of ``(inputs, labels)``; gone through once, it is an epoch, each time another.

        Inputs are float32 (batch, height, width, channels).
        """
        from toolkit.data.feed.pipeline import epoch_batches, evaluation_batches

        if self.is_training:
            return epoch_batches(self.pictures, self.preprocessing, self.options)
        size = self.options.batch_size
        return evaluation_batches(self.pictures, self.preprocessing, batch_size=size, cache_bytes=CACHE_BYTES)

    def as_numpy(self, epochs: int = 1) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the batches of so many epochs as NumPy arrays, the same as ``as_tf``'s, without TensorFlow."""
        if self.is_training:
            batches = array_batches(self.pictures, self.preprocessing, self.options)
            for _ in range(epochs * len(self)):
                yield next(batches)
            return
        pixels_of = SubsetPixels(self.pictures, self.preprocessing, CACHE_BYTES if epochs > 1 else 0)
        labels, size = np.asarray(self.pictures.labels, np.int32), self.options.batch_size
        for _ in range(epochs):
            for start in range(0, len(labels), size):
                examples = np.arange(start, min(start + size, len(labels)))
                pixels, kept = pixels_of(examples)
                yield normalize(pixels, self.preprocessing), labels[examples[kept]]

    def as_torch(self) -> "torch.utils.data.Dataset":
        """Make a ``torch.utils.data.Dataset``, for a ``DataLoader``: a picture and its label by number.

        A picture is a float32 tensor (channels, height, width), augmented where this is for training; its label an int,
        or with ``mixup`` and ``cutmix``, which need a batch, not to be had. Who shuffles is the loader. Call
        ``set_epoch`` before each epoch, or every epoch augments a picture alike; a loader's ``persistent_workers``
        would not hear of it.

        Raises:
            UserError: PyTorch is not installed, or the augmentation mixes pictures.
        """
        if importlib.util.find_spec("torch") is None:
            raise UserError("this needs torch, which is not installed: pip install torch")
        recipe = training_recipe(self.pictures, self.preprocessing, self.options)
        if recipe.is_mixed:
            raise UserError(
                f"augment={self.options.augment!r} mixes the pictures of a batch, and a torch dataset gives them one "
                "by one; leave mixup and cutmix out, and mix in the loop"
            )
        return _torch_dataset(self, recipe)


def _torch_dataset(own: Pipeline, recipe: TrainingRecipe) -> Any:
    import torch

    pixels_of = SubsetPixels(own.pictures, recipe.canvas, 0)  # a loader's workers would copy what is kept

    class Pictures(torch.utils.data.Dataset):
        """Pictures and labels by number."""

        epoch = 0

        def set_epoch(self, epoch: int) -> None:
            """Set the epoch's number, which decides the augmentation."""
            self.epoch = epoch

        def __reduce__(self) -> tuple[Any, ...]:
            # Workers of a loader that are spawned get it by pickle, which finds no class within a function.
            return _torch_dataset, (own, recipe), {"epoch": self.epoch}

        def __len__(self) -> int:
            return len(own.pictures)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            if not 0 <= index < len(self):
                raise IndexError(index)
            pixels, _ = pixels_of(np.array([index]))
            inputs, labels = recipe.finish(
                pixels, np.array([own.pictures.labels[index]]), self.epoch, np.array([index])
            )
            return torch.from_numpy(np.ascontiguousarray(inputs[0].transpose(2, 0, 1))), int(labels[0])

    return Pictures()
