"""How long an engine takes."""

import time

import numpy as np

from toolkit.engines.runtimes import Engine


def latency(engine: Engine, pixels: np.ndarray, *, max_runs: int = 50, max_seconds: float = 1.0) -> tuple[float, float]:
    """Median and 95th percentile in milliseconds of one call on ``pixels``, after a warm-up of two calls.

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
