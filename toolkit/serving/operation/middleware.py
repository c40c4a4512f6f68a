"""The middleware of every request, before and after its protocol: an id, a key, figures, a line in the log."""

import asyncio
import contextvars
import logging
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from toolkit.serving import protocol
from toolkit.serving.operation.metrics import Metrics
from toolkit.serving.operation.security import ApiKeys

log = logging.getLogger(__name__)
access = logging.getLogger("toolkit.serving.access")

#: Paths that answer without a key: whoever watches the server needs to know no secret.
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
#: Of a body that is refused so much is read and thrown away, so that its sender gets to read the answer.
DISCARDED_BYTES = 8 << 20

#: The answer's header that says which version of the bundle it is from, in every protocol.
VERSION_HEADER = "x-model-version"

INTERNAL = "internal error; the server's log has the details"

_KEY_NEEDED = "an API key is needed: send it as Authorization: Bearer KEY or as X-API-Key: KEY"
_request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
_CLIENTS_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)


class EveryRequest:
    """ASGI middleware: gives each request an id, asks for a key, counts and times, and logs."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, keys: ApiKeys | None, log_requests: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._keys = keys
        self._log_requests = log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        start = time.perf_counter()
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _CLIENTS_ID.fullmatch(given) else secrets.token_hex(8)
        token = _request_id.set(request_id)
        body, status = _Body(receive, headers), 0

        async def tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                answered = MutableHeaders(scope=message)
                answered["x-request-id"] = request_id
                if version := scope.get("state", {}).get("version"):
                    answered[VERSION_HEADER] = str(version)
                if status >= 400:
                    await body.discard()
            await send(message)

        try:
            if self._keys is not None and scope["path"] not in OPEN_PATHS and not self._keys.admit(headers):
                await _answer(tagged, 401, _KEY_NEEDED, (b"www-authenticate", b"Bearer"))
            else:
                await self._app(scope, body.receive, tagged)
        except Exception:
            log.exception("a request failed")
            if status:  # an answer has begun: cut off, it is seen to be no whole one
                raise
            await _answer(tagged, 500, INTERNAL)
        finally:
            seconds = time.perf_counter() - start
            spoken, model = _protocol_of(scope["path"]), scope.get("state", {}).get("model", "")
            self._metrics.requests.labels(spoken, model, str(status)).inc()
            self._metrics.seconds.labels(spoken).observe(seconds)
            if self._log_requests:
                facts = {
                    "method": scope["method"],
                    "path": scope["path"][:200],
                    "status": status,
                    "ms": round(seconds * 1e3, 1),
                    "client": (scope.get("client") or ("",))[0],
                }
                access.info("%(method)s %(path)r %(status)s in %(ms)s ms for %(client)s", facts, extra={"facts": facts})
            _request_id.reset(token)
        return None


class _Body:
    """A request's body on its way; what nobody has read of a refused one can be thrown away."""

    def __init__(self, receive: Receive, headers: Headers) -> None:
        self._receive = receive
        self._is_over = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
        # Whoever waits to be told to go on will not send it now.
        self._is_held_back = "100-continue" in headers.get("expect", "").lower()

    async def receive(self) -> Message:
        message = await self._receive()
        self._is_held_back = False
        if message["type"] != "http.request" or not message.get("more_body"):
            self._is_over = True
        return message

    async def discard(self) -> None:
        """Read the rest, within bounds: closing a connection on a client that still sends loses the answer."""
        left = DISCARDED_BYTES
        try:
            async with asyncio.timeout(1):
                while left > 0 and not self._is_over and not self._is_held_back:
                    left -= len((await self.receive()).get("body", b""))
        except TimeoutError:
            return


async def _answer(send: Send, status: int, message: str, *headers: tuple[bytes, bytes]) -> None:
    content = protocol.encode_error(message)
    length = (b"content-length", str(len(content)).encode())
    all_headers = [(b"content-type", b"application/json"), length, *headers]
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send({"type": "http.response.body", "body": content})


def current_request_id() -> str:
    """Give the id of the request that is worked on here; empty outside of any."""
    return _request_id.get()


def _protocol_of(path: str) -> str:
    """Name the protocol that a path belongs to, for a label: one of a few, whatever is asked for.

    >>> _protocol_of("/v2/models/digits/infer"), _protocol_of("/../etc/passwd")
    ('v2', 'other')
    """
    first = path.split("/", 2)[1] if path.startswith("/") else ""
    return first if first in ("v1", "v2", "predict") else "other"
