"""Times are what a call took, warmed up; engines that are compared take turns."""

import time

import numpy as np
import pytest

from toolkit.engines.timing import latencies, latency, processor_share


class Clock:
    """Stands in for ``time``: it moves when an engine works, ten times as far from the second ``slow_from`` on."""

    def __init__(self):
        self.now = 0.0
        self.slow_from = float("inf")

    def perf_counter(self):
        return self.now

    def pass_by(self, seconds):
        self.now += seconds * (1 if self.now < self.slow_from else 10)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("toolkit.engines.timing.time", clock)
    return clock


class Worker:
    """Takes as long as the first of ``seconds`` says, then the next …; the last one counts for all that follow."""

    def __init__(self, clock, *seconds):
        self.clock = clock
        self.seconds = list(seconds)
        self.calls = 0

    def probabilities(self, pixels):
        self.calls += 1
        self.clock.pass_by(self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0])


def test_latency_is_in_milliseconds_after_a_warm_up(clock):
    worker = Worker(clock, 0.2, 0.004)
    assert latency(worker, np.empty(0), max_runs=10) == pytest.approx((4, 4))
    assert worker.calls == 1 + 5 * 3  # of each burst's calls the first counts not


def test_a_machine_that_turns_busy_meets_all_engines_alike(clock):
    """Measured one after the other, the second engine would look slow."""
    clock.slow_from = 0.1
    engines = {"slower": Worker(clock, 0.003), "faster": Worker(clock, 0.001)}
    found = latencies(engines, np.empty(0), max_runs=50)
    assert clock.now > 1  # most of it was slow
    assert found["faster"].median * 3 == pytest.approx(found["slower"].median)


def test_slow_engines_are_called_no_more_than_asked(clock):
    engines = {"a": Worker(clock, 0.03), "b": Worker(clock, 0.03)}
    latencies(engines, np.empty(0), max_seconds=0.02, min_rounds=1)
    assert [worker.calls for worker in engines.values()] == [2, 2]
    latencies(engines, np.empty(0), max_seconds=0.02)
    assert [worker.calls for worker in engines.values()] == [8, 8]


def test_processor_share_falls_when_others_work(monkeypatch):
    assert 0 < processor_share(0.01) <= 1
    clock = time.thread_time
    monkeypatch.setattr(time, "thread_time", lambda: clock() / 2)  # every other moment was someone else's
    assert processor_share(0.01) <= 0.51
