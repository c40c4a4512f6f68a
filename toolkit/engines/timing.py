"""Latency of engines, and the choice of one by it."""

import time
from collections.abc import Mapping

import numpy as np

from toolkit.engines.runtimes import FLOAT_ENGINES, Engine


def latency(engine: Engine, pixels: np.ndarray, *, max_runs: int = 50, max_seconds: float = 1.0) -> tuple[float, float]:
    """Measure the median and 95th percentile in milliseconds of one call on ``pixels``, after a warm-up of two calls.

    Runs at least five times, then until ``max_runs`` or ``max_seconds``.
    """
    for _ in range(2):
        engine.probabilities(pixels)
    times: list[float] = []
    while len(times) < 5 or (len(times) < max_runs and sum(times) < max_seconds):
        start = time.perf_counter()
        engine.probabilities(pixels)
        times.append(time.perf_counter() - start)
    return float(np.median(times) * 1e3), float(np.percentile(times, 95) * 1e3)


def recommend(medians: Mapping[str, float]) -> str:
    """Choose the engine to use by median milliseconds, of those whose answers are trusted.

    The fastest; but a quantized one, whose answers differ a little, has to be clearly faster than the best float one.

    >>> recommend({"litert": 5.0, "litert-int8": 4.5}), recommend({"litert": 5.0, "litert-int8": 1.0})
    ('litert', 'litert-int8')
    """
    floats = {name: median for name, median in medians.items() if name in FLOAT_ENGINES}
    fastest = min(medians, key=medians.__getitem__)
    if floats and medians[fastest] > 0.8 * min(floats.values()):
        return min(floats, key=floats.__getitem__)
    return fastest
