"""Times are what a call took, warmed up; engines that are compared take turns."""

import time

import numpy as np

from toolkit.engines.timing import free_share, latencies, latency


class Sleeper:
    """Sleeps as long as the first of ``seconds`` says, then the next …; the last one counts for all that follow."""

    def __init__(self, *seconds):
        self.seconds = list(seconds)
        self.calls = 0

    def probabilities(self, pixels):
        self.calls += 1
        time.sleep(self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0])


def test_latency_is_in_milliseconds_after_a_warm_up():
    sleeper = Sleeper(0.2, 0.004)
    median, p95 = latency(sleeper, np.empty(0), max_runs=10)
    assert 4 <= median <= p95 < 100
    assert sleeper.calls == 1 + 5 * 3  # of each burst's calls the first counts not


def test_a_machine_that_turns_busy_meets_all_engines_alike():
    """From some moment on calls take ten times as long: one after the other, the second engine would look slow."""
    start = time.perf_counter()

    class Slowed:
        def __init__(self, seconds):
            self.seconds = seconds

        def probabilities(self, pixels):
            time.sleep(self.seconds * (1 if time.perf_counter() - start < 0.05 else 10))

    found = latencies({"slower": Slowed(0.003), "faster": Slowed(0.001)}, np.empty(0), max_runs=10)
    assert found["faster"].median < found["slower"].median


def test_slow_engines_are_called_no_more_than_asked():
    slow = {"a": Sleeper(0.03), "b": Sleeper(0.03)}
    latencies(slow, np.empty(0), max_seconds=0.02, min_rounds=1)
    assert [sleeper.calls for sleeper in slow.values()] == [2, 2]
    latencies(slow, np.empty(0), max_seconds=0.02)
    assert [sleeper.calls for sleeper in slow.values()] == [8, 8]


def test_free_share_is_a_share_and_falls_when_others_work(monkeypatch):
    assert 0 < free_share(0.01) <= 1
    clock = time.thread_time
    monkeypatch.setattr(time, "thread_time", lambda: clock() / 2)  # every other moment was someone else's
    assert free_share(0.01) <= 0.51
