"""Augmentations that mix a batch's pictures and labels among each other."""

from dataclasses import dataclass

import numpy as np

from toolkit.data.augment.draws import Draws
from toolkit.data.augment.limits import limited


@dataclass(frozen=True)
class MixUp:
    """Each picture and its label blended with another's, by one share for the whole batch drawn from the beta
    distribution with both parameters ``alpha`` (Zhang et al. 2017, section 2)."""

    alpha: float = limited(0.2, 0.001, 1000)

    def __call__(self, inputs: np.ndarray, labels: np.ndarray, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
        partner, share = _partners(len(inputs), draws), np.float32(_beta(self.alpha, draws))
        return inputs * share + inputs[partner] * (1 - share), labels * share + labels[partner] * (1 - share)


@dataclass(frozen=True)
class CutMix:
    """A rectangle of each picture replaced by another's, and the labels mixed by the area (Yun et al. 2019, section
    3.1); one rectangle for the whole batch, its area from the beta distribution with both parameters ``alpha``."""

    alpha: float = limited(1.0, 0.001, 1000)

    def __call__(self, inputs: np.ndarray, labels: np.ndarray, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
        height, width = inputs.shape[1:3]
        partner = _partners(len(inputs), draws)
        half = np.sqrt(1 - _beta(self.alpha, draws)) / 2
        centre_y, centre_x = draws.uniform()[0] * height, draws.uniform()[0] * width
        top, bottom = np.clip(np.rint([centre_y - half * height, centre_y + half * height]), 0, height).astype(int)
        left, right = np.clip(np.rint([centre_x - half * width, centre_x + half * width]), 0, width).astype(int)
        mixed = inputs.copy()
        mixed[:, top:bottom, left:right] = inputs[partner, top:bottom, left:right]
        share = np.float32(1 - (bottom - top) * (right - left) / (height * width))
        return mixed, labels * share + labels[partner] * (1 - share)


def _partners(count: int, draws: Draws) -> np.ndarray:
    return np.argsort(draws.uniform(shape=(count,))[0], kind="stable")


def _beta(alpha: float, draws: Draws) -> float:
    # A generator of NumPy's own, seeded by the stream: its sampler for the beta distribution is not worth repeating.
    return float(np.random.default_rng(draws.integers(0, 2**31 - 1)).beta(alpha, alpha))
