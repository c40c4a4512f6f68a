"""The settings of a server's batching, from measured times: pictures at once, and how long one waits for others."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from toolkit.engines.runtimes import Answers, Engine
from toolkit.engines.timing import latencies
from toolkit.machine import num_threads
from toolkit.progress import step

#: Batch sizes that are timed.
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
#: A smaller batch is taken where it answers at least this share of the best one's pictures a second.
ENOUGH = 0.95
#: What waits should be answered within so many milliseconds; more is refused.
QUEUE_MS = 1000.0
#: No picture waits longer for company, in milliseconds.
MAX_WAIT_MS = 10.0


@dataclass(frozen=True)
class Batching:
    """Settings of a server's batching.

    Attributes:
        size: pictures in a batch; 1 where batches gain nothing.
        wait_ms: the longest time that a picture waits for others.
        queue: batches that may wait.
        threads: that run batches.
    """

    size: int
    wait_ms: float
    queue: int
    threads: int


def time_batches(engine: Engine, size: tuple[int, int]) -> dict[int, float]:
    """Measure the milliseconds that each of ``BATCH_SIZES`` takes in an engine, on pixels of this height and width.

    They take turns, so that whatever else the machine does meets all of them.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (max(BATCH_SIZES), *size, 3), np.uint8)
    with step("timing batches"):
        found = latencies({str(count): _First(engine, count) for count in BATCH_SIZES}, pixels, min_rounds=2)
    return {int(count): taken.median for count, taken in found.items()}


class _First(Engine):
    """An engine that answers only the first pictures it is given."""

    def __init__(self, engine: Engine, count: int) -> None:
        self._engine, self._count = engine, count

    def answers(self, pixels: np.ndarray) -> Answers:
        return self._engine.answers(pixels[: self._count])


def choose_batching(milliseconds: Mapping[int, float]) -> Batching:
    """Choose the smallest batch that is about as fast per picture as the fastest.

    A picture waits at most half as long as it takes alone: company that late would gain it nothing.

    >>> choose_batching({1: 10.0, 4: 20.0, 16: 79.0}).size, choose_batching({1: 10.0, 4: 41.0}).size
    (4, 1)
    """
    rates = {count: count / taken for count, taken in milliseconds.items()}
    size = min(count for count, rate in rates.items() if rate >= ENOUGH * max(rates.values()))
    wait = min(milliseconds[1] / 2, MAX_WAIT_MS) if size > 1 else 0.0
    return Batching(size, wait, max(1, int(QUEUE_MS / milliseconds[size])), num_threads())
