"""A request's way through the server, over a table that a test made up."""

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from toolkit.serving import protocol
from toolkit.serving.models import Question
from toolkit.serving.options import ServerOptions
from toolkit.serving.protocol import RequestError
from toolkit.serving.service import Service


class Table:
    """One bundle, ``a``, with a version 1 until it is gone."""

    def __init__(self) -> None:
        self.is_gone = False
        self.outcome = Future()
        self.outcome.set_result(SimpleNamespace(pictures_at_once=32, answer_pixels=lambda pixels: [7] * len(pixels)))

    def require(self, name, version):
        self.answering(name, version)

    def versions(self, name):
        return [] if self.is_gone else [1]

    def answering(self, name, version, position=0.0):
        if self.is_gone:
            raise protocol.not_found(name, version)
        return 1, self.outcome, True


@pytest.fixture
def run():
    """Run a coroutine; a browser's tests leave a loop running in this thread."""
    with ThreadPoolExecutor(1) as pool:
        yield lambda coroutine: pool.submit(asyncio.run, coroutine).result()


def test_a_bundle_that_is_gone_costs_no_request_that_was_under_way(run):
    service = Service(table := Table(), ServerOptions())
    has_begun, go_on = threading.Event(), threading.Event()

    def parse(content, predictor):
        return Question("pixels", np.zeros((1, 2, 2, 3), np.uint8), str)

    def wait(content, predictor):
        has_begun.set()
        assert go_on.wait(30)
        return parse(content, predictor)

    async def ask():
        assert (await service.answer_content("a", None, b"", parse)).answers == [7]
        slow = asyncio.create_task(service.answer_content("a", None, b"", wait))
        assert await asyncio.to_thread(has_begun.wait, 30)
        table.is_gone = True
        with pytest.raises(RequestError, match="Latest\\(a\\)"):
            await service.answer_content("a", None, b"", parse)
        go_on.set()
        assert (await slow).answers == [7]
        with pytest.raises(RequestError, match="Latest\\(a\\)"):
            await service.answer_content("a", None, b"", parse)
        assert not service._lanes  # now that nobody uses it

    run(ask())
