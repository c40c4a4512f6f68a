"""A bundle's queue and its threads, without networks."""

import asyncio
import contextlib
import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from toolkit.serving import lanes
from toolkit.serving.lanes import Batcher, Lane
from toolkit.serving.protocol import RequestError


class Engine:
    """Stands in for a predictor: doubles numbers, remembers batches, and waits where told to."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, batch: list[int]) -> list[int]:
        self.batches.append(batch)
        assert self.go_on.wait(30)
        return [2 * item for item in batch]


def test_what_gathers_while_the_engine_is_busy_goes_in_one_batch():
    engine = Engine()
    engine.go_on.clear()
    batcher = Batcher("test", num_workers=1)
    first = batcher.submit(engine, engine, [0])
    while not engine.batches:
        time.sleep(0.001)
    rest = [batcher.submit(engine, engine, [number]) for number in range(1, 8)]
    engine.go_on.set()
    assert [outcome.result(30) for outcome in (first, *rest)] == [[0], [2], [4], [6], [8], [10], [12], [14]]
    assert engine.batches == [[0], [1, 2, 3, 4], [5, 6, 7]]


def test_only_items_of_one_owner_share_a_batch_and_a_large_request_stays_whole():
    one, other = Engine(), Engine()
    one.go_on.clear()
    batcher = Batcher("test", num_workers=1)
    outcomes = [batcher.submit(one, one, [0])]
    while not one.batches:
        time.sleep(0.001)
    jobs = ((one, [1, 2, 3]), (one, [4, 5]), (other, [6]), (other, [*range(10)]), (one, [7]))
    outcomes += [batcher.submit(owner, owner, items) for owner, items in jobs]
    one.go_on.set()
    assert [len(outcome.result(30)) for outcome in outcomes] == [1, 3, 2, 1, 10, 1]
    assert one.batches == [[0], [1, 2, 3], [4, 5], [7]]
    assert other.batches == [[6], [*range(10)]]


def test_an_engines_failure_is_told_and_the_next_request_answered():
    def fail(batch: list[int]) -> list[int]:
        raise ZeroDivisionError

    engine, batcher = Engine(), Batcher("test")
    with pytest.raises(ZeroDivisionError):
        batcher.submit(fail, fail, [1]).result(30)
    assert batcher.submit(engine, engine, [1]).result(30) == [2]


def test_idle_threads_keep_nothing_of_a_dropped_predictor():
    engine = Engine()
    batcher = Batcher("test")
    assert batcher.submit(engine, engine, [1]).result(30) == [2]
    kept = weakref.ref(engine)
    del engine
    deadline = time.monotonic() + 10
    while kept() is not None and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert kept() is None


def test_a_closed_one_answers_what_it_has_and_takes_nothing_more():
    engine, batcher = Engine(), Batcher("test")
    outcome = batcher.submit(engine, engine, [1])
    batcher.close()
    assert outcome.result(30) == [2]
    with pytest.raises(RequestError, match="shutting down"):
        batcher.submit(engine, engine, [1])


def test_a_full_queue_refuses_and_says_when_to_come_again(monkeypatch):
    monkeypatch.setattr(lanes, "MAX_ACTIVE", 1)

    async def main() -> None:
        lane = Lane("digits", places=2)
        order: list[int] = []
        release = asyncio.Event()

        async def request(number: int) -> None:
            async with lane.place(), lane.turns:
                order.append(number)
                await release.wait()

        running = [asyncio.create_task(request(number)) for number in range(2)]
        await asyncio.sleep(0)
        assert (lane.admitted, order) == (2, [0])  # the second waits its turn
        with pytest.raises(RequestError, match="2 requests for digits are waiting already") as refused:
            await request(2)
        assert (refused.value.status, refused.value.retry_after) == (429, 1)
        release.set()
        await asyncio.gather(*running)
        assert (lane.admitted, order) == (0, [0, 1])
        await request(3)
        lane.close()

    with ThreadPoolExecutor(1) as pool:  # a browser's tests leave a loop running in this thread
        pool.submit(asyncio.run, main()).result()


def test_one_who_waits_as_told_goes_before_those_who_never_do(monkeypatch):
    clock = SimpleNamespace(monotonic=lambda: now, perf_counter=time.perf_counter)
    monkeypatch.setattr(lanes, "time", clock)

    def is_refused(client: object) -> bool:
        try:
            lane.refuse_if_full(client)
        except RequestError:
            return True
        return False

    async def main() -> None:
        nonlocal now
        async with contextlib.AsyncExitStack() as others:
            for _ in range(7):
                await others.enter_async_context(lane.place())
            async with lane.place():
                assert is_refused("patient")
                assert is_refused("hasty")
            assert not is_refused("new")
            now = 0.5
            assert not is_refused("hasty")
            async with lane.place():
                assert is_refused("hasty")
            now = 1.1
            assert is_refused("new")  # the last place is kept for who has waited
            assert is_refused("hasty")  # it was to wait for a second from the last time
            assert is_refused(None)
            async with lane.place("patient"):
                assert lane.admitted == 8
            assert not is_refused("new")
            now = 2.2
            assert is_refused("patient")  # the next request is like any other's
            now = 9.0  # nobody has come again
            assert not is_refused("another")

    now, lane = 0.0, Lane("digits", places=8)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, main()).result()
    lane.close()
