"""Bodies that are too large, too slow, compressed, or not what they say."""

import asyncio
import gzip
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.requests import Request

from toolkit.serving import bodies
from toolkit.serving.bodies import Bodies, Body
from toolkit.serving.options import ServerOptions
from toolkit.serving.protocol import RequestError

OPTIONS = ServerOptions(max_body_bytes=1000, max_buffered_bytes=1500, body_seconds=0.2)


def request(*chunks: bytes, pause: float = 0.0, **headers: str) -> Request:
    messages = iter(chunks)

    async def receive() -> dict:
        await asyncio.sleep(pause)
        chunk = next(messages, None)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": raw}, receive)


def read(*requests: Request, options: ServerOptions = OPTIONS) -> list[bytes]:
    """Read bodies, held together."""
    held = Bodies(options)

    async def all_of(left: tuple[Request, ...]) -> list[bytes]:
        if not left:
            return []
        async with held.read(left[0]) as body:
            return [body.unpack(), *(await all_of(left[1:]))]

    try:
        with ThreadPoolExecutor(1) as pool:  # a browser's tests leave a loop running in this thread
            return pool.submit(asyncio.run, all_of(requests)).result()
    finally:
        assert held._held == 0


def refused(*requests: Request) -> tuple[int, str]:
    with pytest.raises(RequestError) as error:
        read(*requests)
    return error.value.status, str(error.value)


def test_bodies_are_put_together_and_unpacked():
    text = b"pictures " * 50
    assert read(request(b"a", b"b", b"")) == [b"ab"]
    assert read(request(gzip.compress(text), content_encoding="gzip")) == [text]
    assert read(request(zlib.compress(text), content_encoding="deflate")) == [text]
    assert read(request(text, content_encoding="identity"), request(text)) == [text, text]


def test_too_large():
    assert refused(request(b"", content_length="1001"))[0] == 413
    assert refused(request(b"", content_length="9" * 5000))[0] == 413
    assert refused(request(b"x" * 600, b"x" * 600)) == (
        413,
        "the request body is larger than 1,000 bytes; send fewer pictures at a time",
    )


def test_what_unpacks_to_too_much_is_refused_before_it_has():
    bomb = gzip.compress(bytes(10**8))  # 100 kB of 100 MB
    options = ServerOptions(max_body_bytes=1 << 20, max_buffered_bytes=4 << 20)
    with pytest.raises(RequestError, match="once unpacked larger than 1,048,576 bytes") as error:
        read(request(bomb, content_encoding="gzip"), options=options)
    assert error.value.status == 413


@pytest.mark.parametrize(
    ("raw", "message"),
    [(b"no gzip", "cannot be unpacked as gzip"), (gzip.compress(b"x" * 99)[:-9], "has no end"), (b"", "has no end")],
    ids=["other", "cut", "empty"],  # a gzip file holds the time
)
def test_damaged_gzip(raw, message):
    status, said = refused(request(raw, content_encoding="gzip"))
    assert status == 400
    assert message in said


def test_unknown_encodings():
    assert refused(request(b"", content_encoding="br")) == (
        415,
        "Content-Encoding 'br' is not known; send gzip, deflate or none",
    )


def test_all_bodies_together_are_bounded():
    assert len(read(request(b"x" * 700), request(b"x" * 700))) == 2
    assert refused(request(b"x" * 800), request(b"x" * 800))[0] == 429


def test_a_body_that_is_still_unpacked_when_its_client_has_left_counts_no_more():
    held = Bodies(ServerOptions())
    raw = gzip.compress(bytes(2 * bodies._STEP))

    async def leave() -> Body:
        async with held.read(request(raw, content_encoding="gzip")) as body:
            return body

    with ThreadPoolExecutor(1) as pool:
        body = pool.submit(asyncio.run, leave()).result()
    with pytest.raises(RequestError, match="the client has hung up"):
        body.unpack()
    assert held._held == 0


def test_slow_senders_are_given_up(monkeypatch):
    monkeypatch.setattr(bodies, "MIN_BYTES_A_SECOND", 100)
    status, message = refused(request(*[b"x"] * 100, pause=0.05))
    assert status == 408
    assert "too slowly" in message
    assert read(request(*[b"x" * 90] * 5, pause=0.06)) == [b"x" * 450]  # slow, but fast enough for its size
