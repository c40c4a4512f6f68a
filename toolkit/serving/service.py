"""A request's way through the server, whatever protocol it came in: a turn, a version, pixels, answers."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
from anyio import to_thread
from starlette.requests import ClientDisconnect, Request

from toolkit.errors import UserError
from toolkit.inference import Predictor
from toolkit.inference.predictor import Answer, Decoded
from toolkit.inference.shelf import Outcome
from toolkit.serving.bodies import Bodies, Body
from toolkit.serving.lanes import MAX_BATCH, Lane
from toolkit.serving.models import ModelTable, Question, count_pixels, decode_picture, ranked
from toolkit.serving.operation.metrics import Metrics
from toolkit.serving.operation.middleware import INTERNAL
from toolkit.serving.options import ServerOptions
from toolkit.serving.protocol import RequestError
from toolkit.serving.traffic import KEY_HEADER, position_of

log = logging.getLogger(__name__)

#: Pictures of a request that are decoded and run at once.
BATCH_SIZE = 32
#: A picture of more pixels is decoded in a thread of its own kind, so that small ones need not wait for it.
LARGE_PIXELS = 25_000_000
#: Figures that are no counters are at most so old, where several processes tell of each other.
OBSERVE_SECONDS = 1.0

#: Reads a request's content for a predictor, in a decoding thread; more pictures than are taken it refuses.
Parse = Callable[[bytes, Predictor], Question]
T = TypeVar("T")


@dataclass(frozen=True)
class Reply:
    """An answered request.

    Attributes:
        version: that answered.
        predictor: that answered.
        question: the request.
        answers: one per picture; for the signature ``features`` arrays (width,).
    """

    version: int
    predictor: Predictor
    question: Question
    answers: list[Any]

    def outputs(self) -> dict[str, Any]:
        """Give the signature's outputs by name, each an array or a list with one item per picture."""
        if self.question.signature == "features":
            return {"features": np.stack(self.answers)}
        return ranked(self.predictor, self.answers)


class _Target(NamedTuple):
    """Target of a request: a version, or None and a place among those that name none; how it is read; its sender."""

    version: int | None
    position: float
    parse: Parse
    client: object = None


@dataclass(frozen=True)
class _Prepared:
    version: int
    is_default: bool  # see ``ModelTable.answering``
    predictor: Predictor
    question: Question
    counts: list[int]  # of pixels
    decoded: Decoded | None = None  # of a single small picture, which one visit to a thread is enough for


class Service:
    """The bundles of a table, answering. One for an application, used on its event loop."""

    def __init__(self, table: ModelTable, options: ServerOptions) -> None:
        self.table = table
        self.options = options
        self.metrics = Metrics()
        self._bodies = Bodies(options)
        self._lanes: dict[str, Lane] = {}
        self._observed: set[str] = set()  # bundles that were in memory at any time

    async def answer(self, request: Request, name: str, version: int | None, parse: Parse) -> Reply:
        """Answer a request's pictures.

        Raises:
            RequestError: with the status and the words for it.
        """
        lane = await self._lane(name, version)
        request.state.model = name
        position = position_of(name, request.headers.get(KEY_HEADER, ""))
        # Sent again it has the same id, if its client gives any, or comes by the same connection.
        target = _Target(version, position, parse, request.headers.get("x-request-id") or request.client)
        reply = await self._guarded(lane, target, self._bodies.read(request))
        request.state.version = reply.version
        return reply

    async def answer_content(
        self, name: str, version: int | None, content: bytes, parse: Parse, *, key: str = ""
    ) -> Reply:
        """Answer a request that has come by another way than HTTP.

        Args:
            name: the bundle's.
            version: that is meant, if one is.
            content: the request, whose bytes are counted.
            parse: may know what is in it already.
            key: of ``KEY_HEADER``.

        Raises:
            RequestError: with the status and the words for it.
        """
        lane = await self._lane(name, version)
        return await self._guarded(lane, _Target(version, position_of(name, key), parse), self._bodies.hold(content))

    async def _guarded(self, lane: Lane, target: _Target, reading: AbstractAsyncContextManager[Body]) -> Reply:
        name, start = lane.name, time.perf_counter()
        lane.users += 1
        try:
            lane.refuse_if_full(target.client)  # before its body is read
            async with reading as body:
                self._observe(name, "body", start)
                return await self._answer(lane, target, body)
        except RequestError as error:
            if error.status == 429:
                self.metrics.refused.labels(name).inc()
            elif error.status == 404 and not await to_thread.run_sync(self.table.versions, name):
                self._close_unused(lane)
            raise
        except (ClientDisconnect, asyncio.CancelledError):  # by gRPC it is the latter
            self.metrics.abandoned.labels(name).inc()
            raise
        except Exception as error:
            raise internal_error(error) from None
        finally:
            lane.users -= 1

    def _close_unused(self, lane: Lane) -> None:
        """Close the lane of a bundle that is gone, unless another request than the one that says so still uses it."""
        if lane.users == 1 and self._lanes.get(lane.name) is lane:
            del self._lanes[lane.name]
            lane.close()

    def observe(self) -> None:
        """Write what stands in no counter into the figures."""
        for name, lane in self._lanes.items():
            self.metrics.admitted.labels(name).set(lane.admitted)
        loaded = self.table.loaded()
        for name in self._observed.union(loaded):
            self.metrics.loaded.labels(name).set(len(loaded.get(name, [])))
            self.metrics.places.labels(name).set(self.options.places if name in loaded else 0)
        # Figures of what is gone are zeros: several processes' cannot be taken back.
        for name in self._observed.difference(loaded, self._lanes):
            self.metrics.admitted.labels(name).set(0)
        self._observed.update(loaded)

    async def keep_observing(self) -> None:
        """Write them again and again: another process behind the port may be the one that is asked for all figures."""
        while True:
            self.observe()
            await asyncio.sleep(OBSERVE_SECONDS)

    def close(self) -> None:
        """End all threads, once they have done what they were given."""
        while self._lanes:
            self._lanes.popitem()[1].close()

    async def _lane(self, name: str, version: int | None) -> Lane:
        if name not in self._lanes:
            await to_thread.run_sync(self.table.require, name, version)
            self._lanes.setdefault(name, Lane(name, self.options.places, one_of_many=self.options.workers > 1))
        return self._lanes[name]

    async def _answer(self, lane: Lane, target: _Target, body: Body) -> Reply:
        begin = start = time.perf_counter()
        async with lane.place(target.client):
            while True:
                async with lane.turns:
                    start = self._observe(lane.name, "queue", start)
                    prepared = await lane.run(partial(self._prepare, lane.name, target, body))
                    if not isinstance(prepared, Future):
                        return await self._reply(lane, prepared, begin, start)
                # Without a turn, for those who ask for a version that is loaded need not wait. Shielded, for one who
                # gives up must not cancel what all wait for.
                await asyncio.shield(asyncio.wrap_future(prepared))
                start = time.perf_counter()

    def _prepare(self, name: str, target: _Target, body: Body) -> _Prepared | Outcome:
        """Find the version, read the request, count its pixels; or give what has to be waited for."""
        number, outcome, is_default = self.table.answering(name, target.version, target.position)
        if not outcome.done():
            return outcome
        predictor = outcome.result()
        if isinstance(predictor, str):  # failed just now; asked again, the table knows
            return outcome
        question = target.parse(body.unpack(), predictor)
        counts = count_pixels(question, self.options.max_pixels)
        prepared = _Prepared(number, is_default, predictor, question, counts)
        if len(counts) == 1 and counts[0] <= LARGE_PIXELS and question.signature != "features":
            return replace(prepared, decoded=decode_picture(predictor, question, 0))
        return prepared

    async def _reply(self, lane: Lane, prepared: _Prepared, begin: float, start: float) -> Reply:
        question, version = prepared.question, str(prepared.version)
        if prepared.is_default:
            self.metrics.version.labels(lane.name).set(prepared.version)
        work = self._features if question.signature == "features" else self._classified
        try:
            answers: list[Any] = await work(lane, prepared, start)
        except RequestError:
            raise
        except Exception:
            self.metrics.failures.labels(lane.name, version).inc()
            raise
        self.metrics.answers.labels(lane.name, version).observe(time.perf_counter() - begin)
        self.metrics.pictures.labels(lane.name).inc(len(question))
        return Reply(prepared.version, prepared.predictor, question, answers)

    async def _classified(self, lane: Lane, prepared: _Prepared, start: float) -> list[Answer]:
        predictor, pictures = prepared.predictor, prepared.question.pictures
        answers: list[Answer] = []
        given_pixels = isinstance(pictures, np.ndarray)
        for chunk in _chunks(len(pictures), predictor):
            if given_pixels:
                decoded: list[Any] = list(pictures[chunk.start : chunk.stop])
            elif prepared.decoded is not None:
                decoded = [prepared.decoded]
            else:
                decoded = await self._decode(lane, prepared, chunk)
            start = self._observe(lane.name, "decode", start)
            run = _from_pixels(predictor) if given_pixels else predictor.answer_decoded
            answers += await self._run(lane, "pixels" if given_pixels else "predict", predictor, run, decoded)
            start = self._observe(lane.name, "engine", start)
        return answers

    async def _features(self, lane: Lane, prepared: _Prepared, start: float) -> list[np.ndarray]:
        predictor, pictures = prepared.predictor, prepared.question.pictures
        features: list[np.ndarray] = []
        for chunk in _chunks(len(pictures), predictor):
            # The graph decodes for itself. Decoding here first refuses what every other signature refuses, oversized
            # pictures among it, and can name the one at fault.
            await self._decode(lane, prepared, chunk)
            start = self._observe(lane.name, "decode", start)
            encoded = [pictures[index] for index in chunk]
            features += await self._run(lane, "features", predictor, _features_of(predictor), encoded)
            start = self._observe(lane.name, "engine", start)
        return features

    async def _decode(self, lane: Lane, prepared: _Prepared, chunk: range) -> list[Decoded]:
        work = [partial(decode_picture, prepared.predictor, prepared.question, index) for index in chunk]
        large = [prepared.counts[index] > LARGE_PIXELS for index in chunk]
        running = [lane.run(each, large=is_large) for each, is_large in zip(work, large, strict=True)]
        await asyncio.gather(*running, return_exceptions=True)
        return [picture.result() for picture in running]  # raises the first in their order, whichever failed first

    async def _run(
        self, lane: Lane, kind: str, predictor: Predictor, run: Callable[[list[Any]], Sequence[T]], items: list[Any]
    ) -> list[T]:
        def counted(batch: list[Any]) -> Sequence[T]:
            self.metrics.batches.labels(lane.name).observe(len(batch))
            return run(batch)

        # Crops are many for a picture: a batch of several requests' would be too much at once.
        owner = predictor if predictor.pictures_at_once >= MAX_BATCH else object()
        return await lane.answer(kind, owner, counted, items)

    def _observe(self, name: str, stage: str, start: float) -> float:
        now = time.perf_counter()
        self.metrics.stages.labels(name, stage).observe(now - start)
        return now


def internal_error(error: Exception) -> RequestError:
    """Log an error that is not the request's fault, and make the one that is answered; call it where it was caught."""
    if isinstance(error, UserError):
        log.error("%s", error)
        return RequestError(str(error), 503)
    log.exception("a prediction failed")
    return RequestError(INTERNAL, 500)


def _from_pixels(predictor: Predictor) -> Callable[[list[Any]], list[Answer]]:
    return lambda pixels: predictor.answer_pixels(np.stack(pixels))


def _features_of(predictor: Predictor) -> Callable[[list[bytes]], list[np.ndarray]]:
    return lambda pictures: list(predictor.features(pictures))


def _chunks(number: int, predictor: Predictor) -> Iterator[range]:
    size = min(BATCH_SIZE, predictor.pictures_at_once)
    return (range(start, min(start + size, number)) for start in range(0, number, size))
