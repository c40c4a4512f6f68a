"""Disk space that all visitors share: their uploads, and what is taught of their pictures."""

import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from anyio import CancelScope, to_thread
from gradio.utils import get_upload_folder
from starlette.responses import PlainTextResponse

from toolkit.demo import uploads
from toolkit.errors import UserError

_MEGABYTE = 1_000_000
_MEASURED_EVERY = 1.0  # seconds
_TOO_LARGE, _FULL = 413, 507  # statuses of HTTP

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Quota:
    """A bound on the files of all visitors together. Safe for several threads.

    Where it is reached, old uploads make room, those of closed pages first; see ``uploads.dispensable``.
    """

    def __init__(self, num_bytes: int) -> None:
        self.num_bytes = num_bytes
        self._folders: list[Path] = []
        self._lock = threading.Lock()
        self._coming = 0  # bytes of uploads that are on their way
        self._measured: tuple[float, int] | None = None  # when, and how much

    def include(self, folder: Path) -> None:
        """Count what is in a folder, too, beside the uploads."""
        with self._lock:
            self._folders.append(folder)
            self._measured = None

    def require(self, num_bytes: int = 0) -> None:
        """Make sure that there is room for so many bytes more.

        Raises:
            UserError: there is none, even without what could be removed.
        """
        with self._lock:
            self._make_room(num_bytes)

    @contextmanager
    def taking(self, num_bytes: int) -> Iterator[None]:
        """Keep room for so many bytes while they arrive.

        Raises:
            UserError: see ``require``.
        """
        with self._lock:
            self._make_room(num_bytes)
            self._coming += num_bytes
        try:
            yield
        finally:
            with self._lock:
                self._coming -= num_bytes
                self._measured = None

    def _make_room(self, num_bytes: int) -> None:
        if self._used() + num_bytes <= self.num_bytes:
            return
        self._measured = None
        over = self._used() + num_bytes - self.num_bytes
        for path in uploads.dispensable():
            if over <= 0:
                break
            with suppress(OSError):
                size = path.stat().st_size
                path.unlink()
                over -= size
        self._measured = None
        if over > 0:
            raise UserError(
                f"this server's room for visitors' files, {self.num_bytes / _MEGABYTE:,.0f} MB, is full; "
                "try again in a few minutes"
            )

    def _used(self) -> int:
        now = time.monotonic()
        if self._measured is None or now - self._measured[0] > _MEASURED_EVERY:
            self._measured = now, sum(map(_size, [Path(get_upload_folder()), *self._folders]))
        return self._measured[1] + self._coming


class Gate:
    """Middleware of the server: files for which there is no room are refused before they are sent."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], quota: Quota, largest: int) -> None:
        """Guard ``app``; a request that does not say its length is taken for one of ``largest`` bytes."""
        self._app = app
        self._quota = quota
        self._largest = largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope.get("headers", ()))
        kind = headers.get(b"content-type", b"").strip().lower()
        if scope["type"] != "http" or not kind.startswith(b"multipart/form-data"):
            return await self._app(scope, receive, send)
        given = headers.get(b"content-length", b"")
        length = int(given) if given.isdigit() else self._largest
        if length > self._largest + _MEGABYTE:  # the frame around a file is much smaller
            text = f"at most {self._largest / _MEGABYTE:,.0f} MB are taken at once"
            return await PlainTextResponse(text, _TOO_LARGE)(scope, receive, send)
        taking = self._quota.taking(length)
        try:
            await to_thread.run_sync(taking.__enter__)
        except UserError as error:
            return await PlainTextResponse(str(error), _FULL)(scope, receive, send)
        try:
            return await self._app(scope, receive, send)
        finally:
            # The lock may be held for long by whoever makes room. A request that was given up gives back, too.
            with CancelScope(shield=True):
                await to_thread.run_sync(taking.__exit__, None, None, None)


def _size(folder: str | Path) -> int:
    """Bytes of all files below a folder, which others may be removing."""
    total = 0
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                is_folder = entry.is_dir(follow_symlinks=False)
                total += _size(entry.path) if is_folder else entry.stat(follow_symlinks=False).st_size
    return total
