"""Answers to a picture with parts of it taken away: maps of the loss, and heat maps held to account.

*Occlusion* covers one window after another; it needs no gradients and no maps, and serves any network (Zeiler and
Fergus, Visualizing and understanding convolutional networks, ECCV 2014, section 4.2). *Deletion and insertion* take a
heat map's hottest pixels away, or show them alone (Petsiuk, Das and Saenko, RISE: randomized input sampling for
explanation of black-box models, BMVC 2018, section 4.3). In the place of what is taken away comes the picture's own
mean colour, which stands out less than grey.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from PIL import Image, ImageFilter

from toolkit.progress import step

#: Steps of a curve of deletion or insertion.
STEPS = 28

_WINDOW, _OVERLAP = 0.2, 2  # side of a covered window, in sides of the picture, and windows per side of one
_BLUR = 0.05  # standard deviation in sides of the picture
_BATCH = 16


@dataclass(frozen=True)
class Curves:
    """A class's probability by the share of pixels, from none to all.

    Attributes:
        deletion: the hottest pixels take the picture's mean colour. The faster it falls, the better the map.
        insertion: the hottest pixels come sharp on the blurred picture. The faster it rises, the better.
    """

    deletion: np.ndarray
    insertion: np.ndarray

    @property
    def areas(self) -> tuple[float, float]:
        """Areas under the two curves, in 0…1."""
        deletion, insertion = (
            float(np.trapezoid(curve, dx=1 / (len(curve) - 1))) for curve in (self.deletion, self.insertion)
        )
        return deletion, insertion


def occluded_logits(
    pixels: np.ndarray, logits: Callable[[np.ndarray], np.ndarray]
) -> list[tuple[tuple[slice, slice], np.ndarray]]:
    """Answer a picture again and again, each time with another window covered.

    Args:
        pixels: uint8 (height, width, 3).
        logits: answers (batch, height, width, 3) by (batch, classes).

    Returns:
        Rows and columns of each window, with the logits without what is in it.
    """
    windows = list(_windows(*pixels.shape[:2]))
    colour = _mean_colour(pixels)

    def covered(window: tuple[slice, slice]) -> np.ndarray:
        picture = pixels.copy()
        picture[window] = colour
        return picture

    answers = _answers("covering parts of the picture", map(covered, windows), len(windows), logits)
    return list(zip(windows, answers, strict=True))


def mean_loss(size: tuple[int, int], windows: list[tuple[tuple[slice, slice], float]]) -> np.ndarray:
    """Average, for each pixel, what was lost under the windows that cover it: float32 of ``size``."""
    total, count = np.zeros(size), np.zeros(size)
    for window, loss in windows:
        total[window] += loss
        count[window] += 1
    return (total / count).astype(np.float32)


def faithfulness(
    pixels: np.ndarray,
    heat: np.ndarray,
    probabilities: Callable[[np.ndarray], np.ndarray],
    index: int,
    *,
    steps: int = STEPS,
) -> Curves:
    """Delete and insert a picture's pixels in the order of a heat map.

    Args:
        pixels: uint8 (height, width, 3).
        heat: (height, width); hot is large.
        probabilities: answers (batch, height, width, 3) by (batch, classes).
        index: of the class.
        steps: of both curves.
    """
    order = np.argsort(-heat, axis=None, kind="stable")
    radius = _BLUR * max(pixels.shape[:2])
    blurred = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))

    def curve(label: str, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        ends = (round(share * len(order)) for share in np.linspace(0, 1, steps + 1))
        pictures = (_exchanged(start, end, order[:last]) for last in ends)
        return np.array([answer[index] for answer in _answers(label, pictures, steps + 1, probabilities)])

    mean = np.broadcast_to(_mean_colour(pixels), pixels.shape)
    deletion = curve("deleting the hottest pixels", pixels, mean)
    return Curves(deletion, curve("inserting the hottest pixels", blurred, pixels))


def _exchanged(start: np.ndarray, end: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Copy a picture with the pixels at some places, numbered row by row, from another."""
    picture = start.reshape(-1, 3).copy()
    picture[places] = end.reshape(-1, 3)[places]
    return picture.reshape(start.shape)


def _mean_colour(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)


def _answers(
    label: str, pictures: Iterable[np.ndarray], count: int, answer: Callable[[np.ndarray], np.ndarray]
) -> list[np.ndarray]:
    """Answer pictures some at a time, each of which is made when it is needed."""
    waiting = iter(pictures)
    answers: list[np.ndarray] = []
    with step(label, count) as told:
        while batch := list(islice(waiting, _BATCH)):
            answers.extend(answer(np.stack(batch)))
            told(len(answers))
    return answers


def _windows(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Yield windows that overlap, some over the borders so that every pixel is under as many."""
    sides = [max(1, round(_WINDOW * length)) for length in (height, width)]
    steps = [max(1, side // _OVERLAP) for side in sides]
    for top in range(steps[0] - sides[0], height, steps[0]):
        for left in range(steps[1] - sides[1], width, steps[1]):
            yield slice(max(top, 0), top + sides[0]), slice(max(left, 0), left + sides[1])
