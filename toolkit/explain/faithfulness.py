"""A heat map held to account: what becomes of the answer while its hottest pixels are taken away, or are all there is.

Petsiuk, Das and Saenko, RISE: randomized input sampling for explanation of black-box models, BMVC 2018, section 4.3.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

#: Steps of a curve.
STEPS = 28
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
        return float(_area(self.deletion)), float(_area(self.insertion))


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
    mean = np.broadcast_to(pixels.reshape(-1, 3).mean(axis=0).round().astype(np.uint8), pixels.shape)
    radius = _BLUR * max(pixels.shape[:2])
    blurred = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))
    return Curves(
        *(_curve(one, other, order, probabilities, index, steps) for one, other in ((pixels, mean), (blurred, pixels)))
    )


def _curve(start, end, order, probabilities, index, steps):
    pictures = []
    for share in np.linspace(0, 1, steps + 1):
        picture = start.reshape(-1, 3).copy()
        changed = order[: round(share * len(order))]
        picture[changed] = end.reshape(-1, 3)[changed]
        pictures.append(picture.reshape(start.shape))
    batches = (np.stack(pictures[first : first + _BATCH]) for first in range(0, len(pictures), _BATCH))
    return np.concatenate([probabilities(batch)[:, index] for batch in batches])


def _area(curve: np.ndarray) -> np.floating:
    return ((curve[1:] + curve[:-1]) / 2).mean()
