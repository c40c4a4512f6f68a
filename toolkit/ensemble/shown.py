"""What an ensemble is made of."""

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.ensemble.crops import Crop
from toolkit.lazy import keras
from toolkit.spec import Preprocessing


@dataclass(frozen=True)
class ShownNetwork:
    """A network in float32, what it takes, and the views it is shown."""

    model: "keras.Model"
    preprocessing: Preprocessing
    crops: tuple[Crop, ...]


def largest_input(preprocessings: Sequence[Preprocessing]) -> Preprocessing:
    """The first of those with the largest input: pixels of this size can be shrunk for all the others.

    >>> largest_input([Preprocessing(size=(8, 8)), Preprocessing(size=(9, 9)), Preprocessing(size=(9, 9))]).size
    (9, 9)
    """
    return max(preprocessings, key=lambda preprocessing: preprocessing.size[0] * preprocessing.size[1])
