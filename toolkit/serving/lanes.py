"""A bundle's own share of the server: a bounded queue, threads that decode, and threads that run its engine.

A request passes through its bundle's lane alone, so that a bundle that loads, or is given huge pictures, holds nobody
else's threads.
"""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from toolkit.machine import num_threads
from toolkit.serving.protocol import RequestError

T = TypeVar("T")

#: Requests of one bundle that are decoded, or whose pictures wait for the engine, at once; others wait their turn.
MAX_ACTIVE = 32
#: Pictures of several requests that the engine is given at once: beyond, a picture costs no less.
MAX_BATCH = 4
#: Share of the places that are kept, at most, for clients that were refused and are about to come again as told: those
#: who ask again as soon as they are answered would take every place before them.
KEPT_SHARE = 0.25
#: Refused clients whose connection is closed in a second, at most, where several processes share a port: a new one may
#: reach a process that has room. Where all are full, new connections are only more work.
SENT_ELSEWHERE = 3
#: A client that does not come within so many seconds after it should is not expected any more.
FORGOTTEN_SECONDS = 1.0


class Lane:
    """The queue and threads that one bundle's requests share; threads are started when they are first needed.

    Attributes:
        name: the bundle's.
        places: requests that are worked on or wait, at most.
        admitted: requests that have a place.
        users: requests that have one or are on their way to it, as those whose bodies are being read.
        one_of_many: other processes behind the port have places of their own.
        turns: held by requests that are worked on.
    """

    def __init__(self, name: str, places: int, *, one_of_many: bool = False) -> None:
        self.name = name
        self.places = places
        self.one_of_many = one_of_many
        self.admitted = 0
        self.users = 0
        self.turns = asyncio.Semaphore(MAX_ACTIVE)
        self._typical_seconds = 0.0
        self._sent_away: dict[object, float] = {}  # clients, by when they were told to come again
        self._sent_elsewhere = (0, 0)  # in which second, and how many
        self._decoders = ThreadPoolExecutor(num_threads(), thread_name_prefix=f"decode {name}")
        # One picture at a time that is so large that others would wait long for its thread.
        self._large = ThreadPoolExecutor(1, thread_name_prefix=f"decode large {name}")
        self._batchers: dict[str, Batcher] = {}

    def refuse_if_full(self, client: object = None) -> None:
        """Refuse a request for which there is no place.

        Args:
            client: whose request it is, if that is known: one who was refused and waits as told goes before others.

        Raises:
            RequestError: with status 429, and the seconds after which there should be one.
        """
        now = time.monotonic()
        while self._sent_away and next(iter(self._sent_away.values())) < now - FORGOTTEN_SECONDS:
            del self._sent_away[next(iter(self._sent_away))]
        kept = 0
        if self._sent_away.get(client, math.inf) > now:  # it has not waited, and leaves room for those who soon have
            soonest = islice(self._sent_away.values(), int(KEPT_SHARE * self.places))
            kept = sum(due <= now + self._typical_seconds for due in soonest)
        if self.admitted < self.places - kept:
            return
        wait = min(60, max(1, math.ceil(self._typical_seconds)))
        elsewhere = self.one_of_many and self._may_send_elsewhere(int(now))
        self._sent_away.pop(client, None)
        if client is not None and not elsewhere:
            self._sent_away[client] = now + wait
        message = f"{self.admitted} requests for {self.name} are waiting already; try again after {wait} s"
        raise RequestError(message, 429, retry_after=wait, elsewhere=elsewhere)

    def _may_send_elsewhere(self, second: int) -> bool:
        number = self._sent_elsewhere[1] + 1 if self._sent_elsewhere[0] == second else 1
        self._sent_elsewhere = second, number
        return number <= SENT_ELSEWHERE

    @asynccontextmanager
    async def place(self, client: object = None) -> AsyncIterator[None]:
        """Take a place for a request until the context ends; its turn it has to wait for, and take, by itself.

        Arguments and errors are those of ``refuse_if_full``.
        """
        self.refuse_if_full(client)
        self._sent_away.pop(client, None)
        self.admitted += 1
        start = time.perf_counter()
        try:
            yield
        finally:
            self.admitted -= 1
            self._typical_seconds += 0.1 * (time.perf_counter() - start - self._typical_seconds)

    def run(self, work: Callable[[], T], *, large: bool = False) -> "asyncio.Future[T]":
        """Run something in a thread of this lane's."""
        return asyncio.get_running_loop().run_in_executor(self._large if large else self._decoders, work)

    async def answer(
        self, kind: str, owner: object, run: Callable[[list[Any]], Sequence[T]], items: list[Any]
    ) -> list[T]:
        """Answer items together with those of other requests that have the same kind and owner.

        Args:
            kind: each has a thread of its own.
            owner: of ``run``: the predictor.
            run: answers a list of items, one by one.
            items: of this request.
        """
        if kind not in self._batchers:
            self._batchers[kind] = Batcher(f"{kind} {self.name}")
        return await asyncio.wrap_future(self._batchers[kind].submit(owner, run, items))

    def close(self) -> None:
        """End the threads, once they have done what they were given."""
        self._decoders.shutdown(wait=False)
        self._large.shutdown(wait=False)
        for batcher in self._batchers.values():
            batcher.close()


class _Job(NamedTuple):
    owner: object
    run: Callable[[list[Any]], Sequence[Any]]
    items: list[Any]
    outcome: "Future[list[Any]]"


class Batcher:
    """Threads that answer what many requests handed in: whatever has gathered while they were busy goes in one batch.

    Nobody waits for a batch to fill: alone, a request is answered at once. There are as many threads as processors, for
    an engine that answers several calls at once, and two at least: one prepares a batch while the other is inside.
    """

    def __init__(self, name: str, num_workers: int = 0) -> None:
        self._jobs: deque[_Job] = deque()
        self._wake = threading.Condition()
        self._closed = False
        for _ in range(num_workers or max(2, num_threads())):
            threading.Thread(target=self._work, name=name, daemon=True).start()

    def submit(self, owner: object, run: Callable[[list[Any]], Sequence[T]], items: list[Any]) -> "Future[list[T]]":
        """Hand items in; the future gives their answers, in order."""
        outcome: Future[list[T]] = Future()
        with self._wake:
            if self._closed:
                raise RequestError("the server is shutting down", 503)
            self._jobs.append(_Job(owner, run, items, outcome))
            self._wake.notify()
        return outcome

    def close(self) -> None:
        """End the threads, once everything is answered."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()

    def _work(self) -> None:
        while self._answer_batch():  # a frame of its own: while it waits, this thread holds no dropped predictor
            pass

    def _answer_batch(self) -> bool:
        batch = self._take()
        jobs = [job for job in batch if job.outcome.set_running_or_notify_cancel()]
        if not jobs:
            return bool(batch)
        try:
            answers = list(jobs[0].run([item for job in jobs for item in job.items]))
        except BaseException as error:
            for job in jobs:
                job.outcome.set_exception(error)
            return True
        start = 0
        for job in jobs:
            job.outcome.set_result(answers[start : start + len(job.items)])
            start += len(job.items)
        return True

    def _take(self) -> list[_Job]:
        """Wait for jobs, and take those that make one batch; none once closed."""
        with self._wake:
            while not self._jobs:
                if self._closed:
                    return []
                self._wake.wait()
            batch = [self._jobs.popleft()]
            room = MAX_BATCH - len(batch[0].items)
            while self._jobs and self._jobs[0].owner is batch[0].owner and len(self._jobs[0].items) <= room:
                batch.append(self._jobs.popleft())
                room -= len(batch[-1].items)
            return batch
