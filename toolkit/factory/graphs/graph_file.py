"""A network in another framework's file, as it was built here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.spec import Preprocessing

if TYPE_CHECKING:
    import keras
    import numpy as np

#: The side of pictures at most; one of noise goes through the network to compare it with the file.
MAX_SIDE = 2048


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
        preprocessing: where the file tells it, what makes the network's input of pixels.
    """

    network: "keras.Model"
    names: frozenset[str]
    answers: Callable[["np.ndarray"], "np.ndarray"]
    runtime: str
    quantized: bool = False
    preprocessing: Preprocessing | None = None
