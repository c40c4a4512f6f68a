"""Clients of a served bundle, one for threads and one for asyncio."""

import asyncio
import importlib.util
import secrets
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from toolkit.client.exchange import (
    Exchange,
    Reply,
    Result,
    ServerError,
    ask_pictures,
    ask_thresholds,
    bundle_url,
    read_batches,
)
from toolkit.data import ImageError
from toolkit.errors import UserError
from toolkit.inference.predictor import NamedAnswer, Prediction, Thresholds

if TYPE_CHECKING:
    import httpx
    from httpx_retries import Retry

#: Requests of one call that are under way at a time: the server works on one while the next is on its way.
REQUESTS_AT_ONCE = 2
#: Seconds until a connection stands.
CONNECT_SECONDS = 5.0
#: Longest pause before a request is sent again, and longest sum of them, whatever a server asks for; seconds.
MAX_PAUSE, MAX_PAUSES = 30.0, 60.0


class _Connection:
    """The address, limits and retries that both clients are made with."""

    def __init__(
        self,
        url: str,
        bundle: str,
        version: int | str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
        retries: int = 4,
    ) -> None:
        """Note where the bundle is served; nothing is sent yet.

        Args:
            url: the server's address, such as ``http://127.0.0.1:8501``.
            bundle: its name.
            version: a number, or a label such as ``"stable"``; by default what the server answers with, its highest.
            headers: sent with each request, such as ``{"Authorization": "Bearer …"}``.
            timeout: seconds that an answer may take.
            retries: how often a request is sent again where nobody could be reached or the server could not answer
                (502, 503, 504): after the time it names, or else after about 0.5, 1, 2, … seconds. Not after a
                timeout: whoever is slow has enough to do. One that is full (429) is asked again as often as it says,
                for pauses of a minute in all; with 0 nothing is sent again.

        Raises:
            UserError: no such address, or the extra ``client`` is not installed.
        """
        _require("httpx", "httpx_retries")
        if retries < 0 or not timeout > 0:
            raise UserError(f"retries must be at least 0 and timeout above 0, got {retries} and {timeout}")
        self.url = bundle_url(url, bundle, version)
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        self._seconds = timeout
        self._retries = retries
        self._open()

    def _open(self) -> None:
        """Set up the connections, which stand when first used."""
        raise NotImplementedError

    def _proxy(self) -> str | None:
        """Name the environment's proxy for the server; httpx looks for it only where it makes the transport itself."""
        address = urlsplit(self.url)
        proxies = {} if proxy_bypass(address.netloc) else getproxies()
        return proxies.get(address.scheme, proxies.get("all"))

    def _retry(self) -> "Retry":
        import httpx

        from toolkit.client.patience import PatientRetry

        return PatientRetry(
            self._retries,
            allowed_methods=("GET", "POST"),  # asking twice changes nothing
            status_forcelist=(429, 502, 503, 504),
            retry_on_exceptions=(httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout),
            backoff_factor=0.25,
            backoff_jitter=0.5,
            max_backoff_wait=MAX_PAUSE,
            total_timeout=MAX_PAUSES,
        )

    def _timeout(self) -> "httpx.Timeout":
        import httpx

        return httpx.Timeout(self._seconds, connect=min(CONNECT_SECONDS, self._seconds))

    def _in_words(self, error: Exception) -> ServerError:
        import httpx

        if isinstance(error, httpx.ConnectTimeout | httpx.ConnectError):
            again = f" after {self._retries + 1} attempts" if self._retries else ""
            return ServerError(
                f"{self.url}: nobody answers there{again} ({error or 'no connection'}); "
                "`toolkit serve DIR` starts a server"
            )
        if isinstance(error, httpx.TimeoutException):
            return ServerError(f"{self.url}: no answer within {self._seconds:g} seconds; set a longer timeout")
        return ServerError(f"{self.url}: the connection broke ({error or type(error).__name__})")


class Client(_Connection):
    """A served bundle, asked over HTTP. Connections are kept and used again; safe to call from several threads.

    Used as a context manager it closes them at the end.

    >>> client = Client("http://127.0.0.1:8501", "digits", "stable")
    >>> client.url
    'http://127.0.0.1:8501/v1/models/digits/labels/stable'
    >>> client.close()
    """

    def _open(self) -> None:
        import httpx
        from httpx_retries import RetryTransport

        from toolkit.client.patience import Transport

        transport = RetryTransport(Transport(proxy=self._proxy()), self._retry())
        self._http = httpx.Client(transport=transport, headers=self._headers, timeout=self._timeout())

    def predict(self, images: Any, *, top_k: int = 5) -> list[list[Prediction]]:
        """Name the ``top_k`` most probable classes of each picture, best first.

        Args:
            images: one or several pictures, as ``Predictor.predict`` takes them: paths, encoded bytes, uint8 arrays,
                open files or Pillow images. Files are sent as they are, pixels as PNG.
            top_k: at most as many as the server names, five; capped at the number of classes.

        Raises:
            ImageError: a picture cannot be read, here or there.
            ServerError: there is no answer.
        """
        return [_raised(answer).predictions for answer in self._answers(images, None, top_k)]

    def iter_answers(self, images: Any, *, top_k: int = 5) -> Iterator[NamedAnswer | ImageError]:
        """Answer pictures one by one, going on after those that cannot be read.

        However many there are, only a few requests are in memory. Arguments and errors are those of ``predict``.

        Yields:
            For each picture its answer, or the error that says why there is none.
        """
        yield from self._answers(images, self._run(ask_thresholds(self.url)), top_k)

    def _answers(
        self, images: Any, known: dict[str, Thresholds] | None, top_k: int
    ) -> Iterator[NamedAnswer | ImageError]:
        _require_positive(top_k)
        waiting: deque[Future[list[NamedAnswer | ImageError]]] = deque()
        pool = ThreadPoolExecutor(REQUESTS_AT_ONCE, thread_name_prefix="ask")
        try:
            for batch in read_batches(images):
                if len(waiting) == REQUESTS_AT_ONCE:
                    yield from waiting.popleft().result()
                waiting.append(pool.submit(self._run, ask_pictures(self.url, batch, known, top_k)))
            while waiting:
                yield from waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # whoever leaves amid them waits for none

    def _run(self, exchange: Exchange[Result]) -> Result:
        import httpx

        try:
            query = next(exchange)
            while True:
                try:
                    method = "GET" if query.body is None else "POST"
                    response = self._http.request(method, query.url, content=query.body, headers=_new_id())
                except (httpx.HTTPError, httpx.InvalidURL) as error:
                    raise self._in_words(error) from None
                query = exchange.send(_reply(response))
        except StopIteration as end:
            return end.value

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


class AsyncClient(_Connection):
    """The same for asyncio: ``await client.predict(…)``, ``async for answer in client.iter_answers(…)``."""

    def _open(self) -> None:
        import httpx
        from httpx_retries import RetryTransport

        from toolkit.client.patience import AsyncTransport

        transport = RetryTransport(AsyncTransport(proxy=self._proxy()), self._retry())
        self._http = httpx.AsyncClient(transport=transport, headers=self._headers, timeout=self._timeout())

    async def predict(self, images: Any, *, top_k: int = 5) -> list[list[Prediction]]:
        """Do as ``Client.predict``; files are read in another thread."""
        return [_raised(answer).predictions async for answer in self._answers(images, None, top_k)]

    async def iter_answers(self, images: Any, *, top_k: int = 5) -> AsyncIterator[NamedAnswer | ImageError]:
        """Do as ``Client.iter_answers``."""
        known = await self._run(ask_thresholds(self.url))
        async for answer in self._answers(images, known, top_k):
            yield answer

    async def _answers(
        self, images: Any, known: dict[str, Thresholds] | None, top_k: int
    ) -> AsyncIterator[NamedAnswer | ImageError]:
        _require_positive(top_k)
        batches = read_batches(images)
        waiting: deque[asyncio.Task[list[NamedAnswer | ImageError]]] = deque()
        try:
            while (batch := await asyncio.to_thread(next, batches, None)) is not None:
                if len(waiting) == REQUESTS_AT_ONCE:
                    for answer in await waiting.popleft():
                        yield answer
                exchange = ask_pictures(self.url, batch, known, top_k)
                waiting.append(asyncio.create_task(self._run(exchange)))
            while waiting:
                for answer in await waiting.popleft():
                    yield answer
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _run(self, exchange: Exchange[Result]) -> Result:
        import httpx

        try:
            query = next(exchange)
            while True:
                try:
                    method = "GET" if query.body is None else "POST"
                    response = await self._http.request(method, query.url, content=query.body, headers=_new_id())
                except (httpx.HTTPError, httpx.InvalidURL) as error:
                    raise self._in_words(error) from None
                query = exchange.send(_reply(response))
        except StopIteration as end:
            return end.value

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        await self.close()


def _new_id() -> dict[str, str]:
    """Make a request's id, which it keeps when it is sent again, so that a full server knows who has waited."""
    return {"X-Request-ID": secrets.token_hex(8)}


def _reply(response: "httpx.Response") -> Reply:
    return Reply(response.status_code, response.content, response.headers.get("x-model-version", ""))


def _raised(answer: NamedAnswer | ImageError) -> NamedAnswer:
    if isinstance(answer, ImageError):
        raise answer
    return answer


def _require_positive(top_k: int) -> None:
    if top_k < 1:
        raise UserError(f"top_k must be at least 1, got {top_k}")


def _require(*modules: str) -> None:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise UserError(f"a client needs {' and '.join(missing)}, not installed: pip install 'toolkit[client]'")
