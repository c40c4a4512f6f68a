"""The ground of pictures that are marks on a plain ground, light on dark or dark on light, and its exchange."""

import numpy as np

from toolkit.data.pixels.decode import luma

#: Pictures whose borders differ by more than this share of the whole range have no ground in common.
MAX_SPREAD = 0.25

_BORDER = 1 / 16  # of the shorter side
_MARKS = 0.5  # per cent of a picture's pixels that may be specks


def common_ground(pixels: np.ndarray) -> float | None:
    """Find the brightness that the borders of pictures have in common.

    Args:
        pixels: uint8 RGB (pictures, height, width, 3).

    Returns:
        Their mean, 0 for black to 1 for white; None where the borders of one picture in ten differ from the others'
        by more than ``MAX_SPREAD``, as photographs' do.
    """
    if not len(pixels):
        return None
    levels = np.array([np.median(_border(luma(picture)[..., 0])) for picture in pixels]) / 255
    low, high = np.quantile(levels, (0.05, 0.95))
    return float(levels.mean()) if high - low <= MAX_SPREAD else None


def has_opposite_ground(pixels: np.ndarray, ground: float) -> bool:
    """Tell whether a picture's marks are darker than its border, where ``ground`` has them lighter, or the reverse.

    Args:
        pixels: uint8 RGB (height, width, 3).
        ground: see ``common_ground``; marks are light on what is darker than half, and dark on what is lighter.
    """
    grey = luma(pixels)[..., 0]
    level = np.median(_border(grey))
    darkest, lightest = np.percentile(grey, (_MARKS, 100 - _MARKS))
    marks_are_dark = level - darkest > lightest - level
    marks_are_light = level - darkest < lightest - level
    return bool(marks_are_dark if ground < 0.5 else marks_are_light)


def exchange_ground(pixels: np.ndarray, ground: float) -> np.ndarray:
    """Exchange light and dark of a picture of the opposite ground, its marks as far from ``ground`` as can be.

    What the border's shading covers becomes plain ground: paper is never quite white.

    Args:
        pixels: uint8 RGB (height, width, 3).
        ground: what the result stands on, see ``common_ground``.

    Returns:
        uint8 grey, as RGB of the same shape.
    """
    grey = luma(pixels)[..., 0].astype(np.float32)
    if ground >= 0.5:
        return 255 - exchange_ground(255 - pixels, 1 - ground)
    paper, ink = np.percentile(_border(grey), 10), np.percentile(grey, _MARKS)
    depth = np.clip((paper - grey) / max(paper - ink, 1.0), 0, 1)  # 0 on the paper, 1 where the ink is darkest
    turned = np.rint(255 * (ground + depth * (1 - ground))).astype(np.uint8)
    return np.repeat(turned[..., None], 3, axis=-1)


def _border(grey: np.ndarray) -> np.ndarray:
    """Pixels of (height, width) within a sixteenth of the shorter side from an edge, in a row."""
    height, width = grey.shape
    depth = max(1, round(min(height, width) * _BORDER))
    inside = np.zeros(grey.shape, bool)
    inside[depth : height - depth, depth : width - depth] = True
    return grey[~inside]
