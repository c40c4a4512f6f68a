"""Random numbers that follow from a picture's key and nothing else: not from its batch, the thread or the backend."""

from collections.abc import Sequence
from typing import Any

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Draws:
    """A stream of random numbers for each picture of a batch.

    The numbers are a hash of key and counter (SplitMix64: Steele, Lea and Flood, *Fast Splittable Pseudorandom Number
    Generators*, OOPSLA 2014), so any part of any stream can be had at any time.

    Args:
        keys: one per picture, uint64; see ``example_keys``.
    """

    def __init__(self, keys: np.ndarray) -> None:
        self._keys = np.asarray(keys, np.uint64)
        self._counter = 0

    def __getitem__(self, part: slice | np.ndarray) -> "Draws":
        """The streams of some of the pictures, from where they stand."""
        draws = Draws(self._keys[part])
        draws._counter = self._counter
        return draws

    def branch(self, number: int) -> "Draws":
        """Other streams for the same pictures; each number gives others."""
        return Draws(_mix(self._keys ^ _mix(np.uint64(number + 1))))

    def uniform(self, low: float = 0.0, high: float = 1.0, *, shape: Sequence[int] = ()) -> np.ndarray:
        """float64 of shape (pictures, *shape) in [low, high)."""
        count = int(np.prod(shape, dtype=int))
        counters = np.arange(self._counter, self._counter + count, dtype=np.uint64)
        self._counter += count
        with np.errstate(over="ignore"):
            bits = _mix(self._keys[:, None] + (counters + np.uint64(1)) * _GOLDEN)
        values = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return low + (high - low) * values.reshape(len(self._keys), *shape)

    def normal(self, *, shape: Sequence[int] = ()) -> np.ndarray:
        """float64 of shape (pictures, *shape), mean 0 and standard deviation 1 (Box and Muller 1958)."""
        radius = np.sqrt(-2 * np.log1p(-self.uniform(shape=shape)))
        return radius * np.cos(2 * np.pi * self.uniform(shape=shape))

    def integers(self, low: int, high: int, *, shape: Sequence[int] = ()) -> np.ndarray:
        """int64 of shape (pictures, *shape) from ``low`` to ``high``, both included."""
        return np.floor(self.uniform(low, high + 1, shape=shape)).astype(np.int64)

    def happens(self, probability: float) -> np.ndarray:
        """bool of shape (pictures,)."""
        return self.uniform() < probability


def example_keys(seed: int, epoch: int, positions: np.ndarray) -> np.ndarray:
    """A key for each picture shown: seed, epoch and its place in the epoch; uint64 of the shape of ``positions``."""
    key = _mix(_mix(np.uint64(seed % 2**64)) ^ np.uint64(epoch % 2**64))
    return _mix(key ^ _mix(np.asarray(positions).astype(np.uint64) ^ _GOLDEN))


def _mix(bits: Any) -> Any:
    bits = np.asarray(bits, np.uint64)
    with np.errstate(over="ignore"):
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
