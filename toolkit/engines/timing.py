"""Latency of engines, measured in turns so that they can be compared, and the choice of one by it."""

import hashlib
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from toolkit.engines.runtimes import FLOAT_ENGINES, Engine
from toolkit.machine import num_threads

#: Below this share of the processors' time a machine counts as busy, and times on it say little.
BUSY = 0.8
#: One engine takes the place of another that is preferred where its time is less than this share of the other's.
CLEARLY = 0.8

_ROUNDS = 5


class Latency(NamedTuple):
    """Milliseconds of one call."""

    median: float
    p95: float


def latencies(
    engines: Mapping[str, Engine],
    pixels: np.ndarray,
    *,
    max_runs: int = 50,
    max_seconds: float = 1.0,
    min_rounds: int = _ROUNDS,
) -> dict[str, Latency]:
    """Measure how long one call on ``pixels`` takes in each engine, after a warm-up.

    Engines take turns, in up to five rounds of a few calls each: whatever else the machine does meets all of them.

    Args:
        engines: by name.
        pixels: uint8 RGB (batch, height, width, 3).
        max_runs: calls of each engine that are measured at most.
        max_seconds: for each engine, after which there are no more rounds.
        min_rounds: rounds there are in any case, from 1 to 5.
    """
    for engine in engines.values():
        engine.probabilities(pixels)
    bursts: dict[str, list[list[float]]] = {name: [] for name in engines}
    end = time.perf_counter() + max_seconds * len(engines)
    for number in range(_ROUNDS):
        if number >= min_rounds and time.perf_counter() > end:
            break
        for name, engine in engines.items():
            bursts[name].append(_burst(engine, pixels, max_runs // _ROUNDS, max_seconds / _ROUNDS))
    return {name: _latency(own) for name, own in bursts.items()}


def _latency(bursts: list[list[float]]) -> Latency:
    # Of each round, then of the rounds: a slow engine makes fewer calls in a round, which must not count for less.
    median = np.median([np.median(burst) for burst in bursts])
    return Latency(float(median * 1e3), float(np.percentile(np.concatenate(bursts), 95) * 1e3))


def latency(engine: Engine, pixels: np.ndarray, *, max_runs: int = 50, max_seconds: float = 1.0) -> Latency:
    """Measure one engine alone, see ``latencies``."""
    return latencies({"": engine}, pixels, max_runs=max_runs, max_seconds=max_seconds)[""]


def _burst(engine: Engine, pixels: np.ndarray, max_runs: int, max_seconds: float) -> list[float]:
    """Seconds of a few calls; of several, without the first, which finds the caches full of another engine's data."""
    times: list[float] = []
    while not times or (len(times) <= max_runs and sum(times) < max_seconds):
        start = time.perf_counter()
        engine.probabilities(pixels)
        times.append(time.perf_counter() - start)
    return times[1:] or times


def processor_share(seconds: float = 0.03) -> float:
    """Measure the share, 0…1, of the processors' time that this process gets now.

    Every processor is given work for ``seconds``. The rest of the time goes to other programs, or is withheld by a
    container's limit.
    """
    block = bytes(1 << 17)

    def work(_: int) -> float:
        start, used = time.perf_counter(), time.thread_time()
        while (passed := time.perf_counter() - start) < seconds:
            hashlib.sha256(block)  # without the interpreter's lock, so that threads do not wait for each other
        return min(1.0, (time.thread_time() - used) / passed)

    threads = num_threads()
    with ThreadPoolExecutor(threads) as pool:
        return float(np.mean(list(pool.map(work, range(threads)))))


def recommend(medians: Mapping[str, float]) -> str:
    """Choose the engine to use by median milliseconds, of those whose answers are trusted.

    The fastest; but a quantized one, whose answers differ a little, has to be clearly faster than the best float one.

    >>> recommend({"litert": 5.0, "litert-int8": 4.5}), recommend({"litert": 5.0, "litert-int8": 1.0})
    ('litert', 'litert-int8')
    """
    floats = {name: median for name, median in medians.items() if name in FLOAT_ENGINES}
    fastest = min(medians, key=medians.__getitem__)
    if floats and medians[fastest] > CLEARLY * min(floats.values()):
        return min(floats, key=floats.__getitem__)
    return fastest
