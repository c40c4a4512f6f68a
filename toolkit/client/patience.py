"""Requests sent again: after a failure a few times, while the server is full as often as it says."""

import httpx
from httpx_retries import Retry


class PatientRetry(Retry):
    """``httpx_retries.Retry`` that counts no attempt where the server was full (429), since that is no failure.

    The pauses' sum bounds those. With a ``total`` of 0 nothing is sent again.
    """

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
