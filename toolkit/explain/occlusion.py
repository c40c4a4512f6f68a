"""What the answer loses where a window of the picture is covered: no gradients, no maps, any network.

Zeiler and Fergus, Visualizing and understanding convolutional networks, ECCV 2014, section 4.2. The cover is the
picture's own mean colour, which stands out less than grey.
"""

from collections.abc import Callable, Iterator

import numpy as np

from toolkit.progress import step

#: Side of the window, in sides of the picture, and windows per side of one.
WINDOW, OVERLAP = 0.2, 2

_BATCH = 16


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
    cover = pixels.reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
    answers: list[np.ndarray] = []
    with step("covering parts of the picture", len(windows)) as told:
        for start in range(0, len(windows), _BATCH):
            batch = np.stack([pixels] * len(windows[start : start + _BATCH]))
            for picture, window in zip(batch, windows[start:], strict=False):
                picture[window] = cover
            answers.extend(logits(batch))
            told(len(answers))
    return list(zip(windows, answers, strict=True))


def mean_loss(size: tuple[int, int], windows: list[tuple[tuple[slice, slice], float]]) -> np.ndarray:
    """Average, for each pixel, what was lost under the windows that cover it: float32 of ``size``."""
    total, count = np.zeros(size), np.zeros(size)
    for window, loss in windows:
        total[window] += loss
        count[window] += 1
    return (total / count).astype(np.float32)


def _windows(height: int, width: int) -> Iterator[tuple[slice, slice]]:
    """Yield windows that overlap, some over the borders so that every pixel is under as many."""
    sides = [max(1, round(WINDOW * length)) for length in (height, width)]
    steps = [max(1, side // OVERLAP) for side in sides]
    for top in range(steps[0] - sides[0], height, steps[0]):
        for left in range(steps[1] - sides[1], width, steps[1]):
            yield slice(max(top, 0), top + sides[0]), slice(max(left, 0), left + sides[1])
