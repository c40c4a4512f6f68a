"""A network in another framework's file, as it was built here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import UserError
from toolkit.lazy import lazy_module
from toolkit.spec import Preprocessing

if TYPE_CHECKING:
    import keras
    import numpy as np
else:
    np = lazy_module("numpy")

#: The side of pictures at most; one of noise goes through the network to compare it with the file.
MAX_SIDE = 2048
#: Fields of a preprocessing for a network of one channel, where nothing else is said.
GREY: dict[str, Any] = {"channel_order": "grey", "mean": (0.0,), "std": (1.0,)}


@dataclass(frozen=True)
class GraphFile:
    """A network in another framework's file.

    Attributes:
        network: built anew in Keras; flat, and ending as the file's does, in logits or in probabilities.
        names: of what is in the file, which may tell where the network comes from.
        answers: the file itself, asked through the runtime that it is made for: float32 inputs as ``network`` takes
            them to its answers, float32 (n, classes).
        runtime: that runtime's name.
        quantized: the file computes with rounded numbers, so that it answers only about as ``network`` does.
        halved: it computes in half precision, which is nearer.
        preprocessing: where the file tells it, what makes the network's input of pixels.
    """

    network: "keras.Model"
    names: frozenset[str]
    answers: Callable[["np.ndarray"], "np.ndarray"]
    runtime: str
    quantized: bool = False
    halved: bool = False
    preprocessing: Preprocessing | None = None


def as_they_are(size: tuple[int, int], channels: int) -> Preprocessing:
    """Preprocessing of a network that takes pixels: stretched, as Keras' own reader of folders does."""
    return Preprocessing(size, resize="stretch", scale=1.0, **(GREY if channels == 1 else {}))


def picture_sides(
    path: Path, listed: str, sides: Sequence[int | None], size: tuple[int, int] | None
) -> tuple[int, int]:
    """Height and width of a file's pictures; those of ``size`` where the file, which takes ``listed``, has none."""
    if not all(sides) and size is None:
        raise UserError(
            f"{path}: takes pictures of any size ({listed}); give a preprocessing that has one, such as "
            "--preprocessing '{\"size\": [224, 224], …}', or save it for one size"
        )
    height, width = (own or given for own, given in zip(sides, size or (0, 0), strict=True))
    if not 1 <= min(height, width) <= max(height, width) <= MAX_SIDE:
        raise UserError(f"{path}: takes pictures of {height}×{width}; a side has 1 to {MAX_SIDE} pixels")
    return height, width


def in_batches(ask: Callable[["np.ndarray"], "np.ndarray"], inputs: "np.ndarray", batch: int) -> "np.ndarray":
    """Ask a runtime for as many inputs at once as its file takes, the last again where there are too few.

    Args:
        ask: answers ``batch`` of them.
        inputs: any number.
        batch: 1 where the file takes any number.

    Returns:
        float32 (n, classes).
    """
    found = []
    for start in range(0, len(inputs), batch):
        part = inputs[start : start + batch]
        filled = np.concatenate([part, *[part[-1:]] * (batch - len(part))])
        found.append(np.reshape(ask(filled), (batch, -1)))
    return np.concatenate(found)[: len(inputs)].astype(np.float32)
