"""Times are what a call took, warmed up."""

import time

import numpy as np

from toolkit.engines.timing import latency


def test_latency_is_in_milliseconds_after_a_warm_up():
    class Sleeper:
        calls = 0

        def probabilities(self, pixels):
            self.calls += 1
            time.sleep(0.2 if self.calls <= 2 else 0.004)

    sleeper = Sleeper()
    median, p95 = latency(sleeper, np.empty(0), max_runs=10)
    assert 4 <= median <= p95 < 100
    assert sleeper.calls == 12
