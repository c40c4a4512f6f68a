"""Requests sent again: after a failure a few times, while the server is full as often as it says."""

import random

import httpx
from httpx_retries import Retry


class PatientRetry(Retry):
    """``httpx_retries.Retry`` that counts no attempt where the server was full (429), since that is no failure.

    The pauses' sum bounds those. With a ``total`` of 0 nothing is sent again.
    """

    def parse_retry_after(self, retry_after: str) -> float:
        """Read how long to wait, and lengthen it by up to a half, so that those refused together return one by one."""
        return super().parse_retry_after(retry_after) * random.uniform(1.0, 1.5)

    def sleep(self, response: httpx.Response | Exception) -> None:
        """Pause before the next attempt."""
        super().sleep(response)
        self._forgive(response)

    async def asleep(self, response: httpx.Response | Exception) -> None:
        """Do as ``sleep``."""
        await super().asleep(response)
        self._forgive(response)

    def _forgive(self, response: httpx.Response | Exception) -> None:
        if isinstance(response, httpx.Response) and response.status_code == httpx.codes.TOO_MANY_REQUESTS:
            self.attempts_made -= 1


class Transport(httpx.HTTPTransport):
    """A transport that keeps the connection of a request that is sent again; an unread answer would have it closed."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and read the answer at once where it is an error."""
        response = super().handle_request(request)
        if response.is_error:
            response.read()
        return response


class AsyncTransport(httpx.AsyncHTTPTransport):
    """The same for asyncio."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and read the answer at once where it is an error."""
        response = await super().handle_async_request(request)
        if response.is_error:
            await response.aread()
        return response
