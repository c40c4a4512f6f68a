"""Parts of a picture: the one that a network sees, and the smallest that is answered as the whole is.

For the smallest, parts are cut out and prepared as any picture is, so that whoever cuts the same part and asks the
network gets the same answer. Smaller and smaller windows are tried where the evidence lies, a few at each size.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from toolkit.data.pixels.sizes import resized_size
from toolkit.progress import step
from toolkit.spec import Preprocessing

#: An answer is kept where the class is the likeliest and has at least this share of its probability for the whole.
KEPT = 0.9

_SHRINK = 0.8  # a window's side to the next larger one's
_SMALLEST = 0.1  # side, in sides of what the network sees
_TRIED = 8  # windows of each size
_POSITIONS = 9  # along each side, of which the best are tried
_FAILURES = 2  # sizes in a row without any, after which smaller ones are not tried


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of a picture; they need not be whole."""

    top: float
    left: float
    height: float
    width: float

    def inner(self, part: "Box", size: tuple[int, int]) -> "Box":
        """Translate ``part``, in pixels of a grid of ``size`` laid over this box, to the picture's own."""
        down, across = self.height / size[0], self.width / size[1]
        return Box(self.top + part.top * down, self.left + part.left * across, part.height * down, part.width * across)

    def pixels(self, shape: tuple[int, ...]) -> tuple[slice, slice]:
        """Find rows and columns of this box in a picture of ``shape``, at least one of each.

        >>> Box(0.6, 2.5, 0.2, 2).pixels((4, 4, 3))
        (slice(1, 2, None), slice(3, 4, None))
        """
        top, bottom = _whole(self.top, self.height, shape[0])
        left, right = _whole(self.left, self.width, shape[1])
        return slice(top, bottom), slice(left, right)

    def __str__(self) -> str:
        return f"{round(self.width)}×{round(self.height)} pixels at {round(self.left)}, {round(self.top)}"


def _whole(start: float, length: float, end: int) -> tuple[int, int]:
    # Half a pixel is always rounded up, so that boxes of one size stay of one size.
    first, last = math.floor(start + 0.5), math.floor(start + length + 0.5)
    first = min(first, end - 1)
    return first, min(max(last, first + 1), end)


def seen_box(height: int, width: int, preprocessing: Preprocessing) -> Box:
    """Find the part of a picture of this size that is left after resizing and cropping.

    >>> seen_box(448, 896, Preprocessing((224, 224)))
    Box(top=0.0, left=224.0, height=448.0, width=448.0)
    """
    resized = resized_size(height, width, preprocessing)
    down, across = height / resized[0], width / resized[1]
    top, left = ((whole - side) // 2 for whole, side in zip(resized, preprocessing.size, strict=True))
    return Box(top * down, left * across, preprocessing.size[0] * down, preprocessing.size[1] * across)


@dataclass(frozen=True)
class Region:
    """A part of a picture that keeps the answer.

    Attributes:
        box: in pixels of the network's view.
        share: of the view's area, 0…1.
        probability: of the class, where this part is the whole picture.
    """

    box: Box
    share: float
    probability: float


def smallest_region(
    heat: np.ndarray, answer: Callable[[list[Box]], np.ndarray], index: int, probability: float
) -> Region | None:
    """Search for the smallest window of a picture that keeps its answer.

    Args:
        heat: where evidence lies, (height, width) of what the network sees, at least 0.
        answer: gives the probabilities (windows, classes) of windows of ``heat``, each a picture of its own.
        index: of the class.
        probability: of the class in the whole picture.

    Returns:
        The window; None where no smaller one than the whole keeps the answer.
    """
    height, width = heat.shape
    sums = np.pad(heat.astype(np.float64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    found, failures, scale = None, 0, _SHRINK
    sizes = int(np.log(_SMALLEST) / np.log(_SHRINK))
    with step("looking for the smallest part that keeps the answer", sizes) as told:
        for number in range(1, sizes + 1):
            sides = max(1, round(scale * height)), max(1, round(scale * width))
            boxes = _best(sums, sides)
            answers = answer(boxes)
            keeps = (answers.argmax(axis=1) == index) & (answers[:, index] >= KEPT * probability)
            if keeps.any():
                best = int(np.where(keeps, answers[:, index], -1).argmax())
                share = sides[0] * sides[1] / (height * width)
                found, failures = Region(boxes[best], share, float(answers[best, index])), 0
            else:
                failures += 1
            told(number)
            if failures == _FAILURES:
                break
            scale *= _SHRINK
    return found


def _best(sums: np.ndarray, sides: tuple[int, int]) -> list[Box]:
    """List the windows of one size that hold the most evidence."""
    height, width = sums.shape[0] - 1, sums.shape[1] - 1
    tops, lefts = (
        np.unique(np.linspace(0, n - side, _POSITIONS).round().astype(int))
        for n, side in zip((height, width), sides, strict=True)
    )
    top, left = (grid.ravel() for grid in np.meshgrid(tops, lefts, indexing="ij"))
    bottom, right = top + sides[0], left + sides[1]
    held = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    return [Box(int(top[i]), int(left[i]), *sides) for i in np.argsort(-held, kind="stable")[:_TRIED]]
