"""Pictures of three textures, whole and in halves."""

import numpy as np

LABELS = ("across", "down", "checked")


def texture(kind, height, width, rng, stroke=None):
    """Stripes across, stripes down, or squares, of random phase, width, contrast and colour, with noise."""
    stroke = stroke or rng.integers(2, 5)
    down, across = np.mgrid[:height, :width] + rng.integers(0, 8, (2, 1, 1))
    pattern = {
        "across": down // stroke % 2,
        "down": across // stroke % 2,
        "checked": (down // stroke + across // stroke) % 2,
    }[kind]
    colour = rng.uniform(0.5, 1, 3)
    values = 128 + 90 * (pattern[..., None] - 0.5) * colour + rng.normal(0, 12, (height, width, 3))
    return values.clip(0, 255).astype(np.uint8)


def two_halves(first, second, rng):
    return np.concatenate([texture(first, 48, 24, rng), texture(second, 48, 24, rng)], axis=1)
