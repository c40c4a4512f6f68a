"""Request bodies: read with bounds on their bytes, on all bodies' bytes together, and on the time they take.

Nothing is computed for a client that has hung up.
"""

import asyncio
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from starlette.requests import ClientDisconnect, Request

from toolkit.serving.options import ServerOptions
from toolkit.serving.protocol import RequestError

#: Beyond ``body_seconds``, a body gets a second for so many bytes that have come.
MIN_BYTES_A_SECOND = 32 << 10

_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_STEP = 256 << 10  # bytes unpacked at a time, so that a bomb is noticed early


class Body:
    """A body as it came, ``raw``; ``unpack`` gives its content, from whichever thread."""

    def __init__(self, encoding: str, bodies: "Bodies", raw: bytes = b"") -> None:
        self.raw = raw
        self._encoding = encoding
        self._bodies = bodies
        self.reserved = 0
        self.is_over = False

    def unpack(self) -> bytes:
        """Give the content, unpacked where it came compressed.

        Raises:
            RequestError: it is damaged, or too large once unpacked.
        """
        if not self._encoding:
            return self.raw
        limit = self._bodies.options.max_body_bytes
        unpacker, content = zlib.decompressobj(_WINDOW_BITS[self._encoding]), bytearray()
        try:
            for start in range(0, len(self.raw), _STEP):
                rest = self.raw[start : start + _STEP]
                while rest and not unpacker.eof:
                    piece = unpacker.decompress(rest, 4 * _STEP)
                    rest = unpacker.unconsumed_tail
                    self._bodies.reserve(self, len(piece))
                    content += piece
                    if len(content) > limit:
                        raise _too_large(limit, "once unpacked ")
        except zlib.error:
            raise RequestError(f"the body cannot be unpacked as {self._encoding}") from None
        if not unpacker.eof:
            raise RequestError(f"the body is cut off: its {self._encoding} stream has no end")
        return bytes(content)


class Bodies:
    """All bodies that are held at the moment, with one bound on their bytes."""

    def __init__(self, options: ServerOptions) -> None:
        self.options = options
        self._held = 0
        self._lock = threading.Lock()

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[Body]:
        """Read a request's body, and count it until the context ends; what is done there ends if the client hangs up.

        Raises:
            RequestError: too large, too slow, of an unknown encoding, or too many bytes are held already.
            ClientDisconnect: nobody waits for the answer any more.
        """
        encoding = request.headers.get("content-encoding", "").strip().lower().replace("identity", "")
        if encoding and encoding not in _WINDOW_BITS:
            raise RequestError(f"Content-Encoding {encoding[:40]!r} is not known; send gzip, deflate or none", 415)
        body = Body(encoding, self)
        with self._released(body):
            body.raw = await self._receive(request, body)
            async with _while_connected(request):
                yield body

    @asynccontextmanager
    async def hold(self, content: bytes) -> AsyncIterator[Body]:
        """Count a body that has come by another way than HTTP until the context ends.

        Raises:
            RequestError: too many bytes are held already.
        """
        body = Body("", self, content)
        with self._released(body):
            self.reserve(body, len(content))
            yield body

    @contextmanager
    def _released(self, body: Body) -> Iterator[None]:
        try:
            yield
        finally:
            with self._lock:
                body.is_over = True
                self._held -= body.reserved

    async def _receive(self, request: Request, body: Body) -> bytes:
        limit = self.options.max_body_bytes
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and (len(declared) > 18 or int(declared) > limit):
            raise _too_large(limit)
        content, start = bytearray(), asyncio.get_running_loop().time()
        stream = request.stream().__aiter__()
        try:
            while True:
                deadline = start + self.options.body_seconds + len(content) / MIN_BYTES_A_SECOND
                async with asyncio.timeout_at(deadline):
                    chunk = await anext(stream)
                if len(content) + len(chunk) > limit:
                    raise _too_large(limit)
                self.reserve(body, len(chunk))
                content += chunk
        except StopAsyncIteration:
            return bytes(content)
        except TimeoutError:
            seconds = self.options.body_seconds
            raise RequestError(f"the body came too slowly; {len(content):,} bytes after {seconds:g} s", 408) from None

    def reserve(self, body: Body, num_bytes: int) -> None:
        """Count bytes that are about to be held for ``body``.

        Raises:
            RequestError: too many are held already, or its context has ended.
        """
        with self._lock:
            if body.is_over:  # its client hung up while a thread unpacks it: nobody would give these bytes back
                raise RequestError("the client has hung up")
            if self._held + num_bytes > self.options.max_buffered_bytes:
                problem = "the server holds too many large requests at the moment; try again after 1 s"
                raise RequestError(problem, 429, retry_after=1)
            self._held += num_bytes
            body.reserved += num_bytes


@asynccontextmanager
async def _while_connected(request: Request) -> AsyncIterator[None]:
    """Cancel what is awaited in the context as soon as the client of a request, read to its end, hangs up."""
    working = asyncio.current_task()
    assert working is not None
    has_left = False

    async def watch() -> None:
        nonlocal has_left
        while (await request.receive())["type"] != "http.disconnect":
            pass
        has_left = True
        working.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
        if has_left:  # at the last moment: the cancellation is still to come
            await asyncio.sleep(0)
    except asyncio.CancelledError:
        if not has_left or working.uncancel():  # or it is told to end by somebody else, too
            raise
        raise ClientDisconnect from None
    finally:
        watching.cancel()


def _too_large(limit: int, when: str = "") -> RequestError:
    return RequestError(f"the request body is {when}larger than {limit:,} bytes; send fewer pictures at a time", 413)
