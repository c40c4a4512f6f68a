"""One file over HTTP, taken up again where it broke off."""

import errno
import http.client
import json
import logging
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolkit.progress import step

log = logging.getLogger(__name__)

ATTEMPTS = 4  # in a row that bring less than a chunk
BACKOFF = 1.0  # seconds before the second attempt, doubled before each further one
CHUNK = 1 << 20
LONGEST_WAIT = 60.0  # seconds that a server may ask for
TIMEOUT = 20.0  # seconds without a byte; the whole may take as long as it takes

#: What mends a connection that fails.
NO_CONNECTION = "check the network, or name its proxy by HTTPS_PROXY"
_TRANSIENT = {408, 429, 500, 502, 503, 504}


class DownloadError(Exception):
    """A file cannot be had; says why in a few words."""


class _InterruptedError(Exception):
    """An attempt failed in a way that another may not; ``remedy`` is for whoever has tried often enough."""

    def __init__(self, reason: str, wait: float = 0.0, remedy: str = NO_CONNECTION) -> None:
        super().__init__(reason)
        self.wait = wait
        self.remedy = remedy


def download(url: str, part: Path) -> None:
    """Bring the file at ``url`` to ``part``, going on from what an earlier call left there.

    Beside ``part``, a ``.json`` file keeps the version of the file that its bytes are of, as the server names it. A
    server that has another by now, or that cannot continue, sends the whole again. Proxies are those of the
    environment. A bar is drawn while stderr is a terminal.

    Args:
        url: an ``http`` or ``https`` address.
        part: where the bytes go; what is there of an interrupted download stays there.

    Raises:
        DownloadError: the server has no such file, cannot be reached, or broke off too often.
        OSError: ``part`` cannot be written.
    """
    failures = 0
    while True:
        before = _size(part)
        try:
            return _attempt(url, part)
        except _InterruptedError as error:
            failures = 0 if _size(part) - before >= CHUNK else failures + 1
            if failures == ATTEMPTS:
                raise DownloadError(f"{error}, {ATTEMPTS} times in a row; {error.remedy}") from error
            wait = max(error.wait, BACKOFF * 2 ** max(failures - 1, 0))
            log.info("%s: %s; trying again in %.0f s", url, error, wait)
            time.sleep(wait)


def forget(part: Path) -> None:
    """Remove what is there of a download."""
    part.unlink(missing_ok=True)
    _record(part).unlink(missing_ok=True)


def _attempt(url: str, part: Path) -> None:
    version, total = _kept(url, part)
    have = _size(part) if version else 0
    if have and have == total:
        return  # killed after the last byte
    headers = {"Range": f"bytes={have}-", "If-Range": version} if have else {}
    with _open(url, part, headers) as response:
        if have and not _continues(response, part, version):
            have = 0
        if not have or total is None:
            total = _total(response, have)
        _require_room(part, total, have)
        with open(part, "ab" if have else "wb") as file:
            if not have:
                # After truncating: a kill between the two must not leave old bytes under the new version's name.
                record = {"url": url, "version": _version(response), "total": total}
                _record(part).write_text(json.dumps(record), encoding="utf-8")
            with step(f"downloading {part.name.removesuffix('.part')}", total, in_bytes=True) as told:
                for chunk in _chunks(response):
                    file.write(chunk)
                    told(file.tell())
    if total is not None and _size(part) != total:
        raise _InterruptedError(f"the connection broke off after {_size(part):,} of {total:,} bytes")


def _kept(url: str, part: Path) -> tuple[str, int | None]:
    """The version and the size of the file that ``part`` was begun from; no version if that is not known."""
    try:
        record = json.loads(_record(part).read_text(encoding="utf-8"))
        return (record["version"], record["total"]) if record["url"] == url else ("", None)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return "", None


def _record(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _open(url: str, part: Path, headers: dict[str, str]) -> Any:
    if not url.startswith(("https://", "http://")):
        raise DownloadError("not an http address")
    request = urllib.request.Request(url, headers={"User-Agent": "toolkit", **headers})
    try:
        # A new opener each time: the global one would keep the proxies of its first use.
        response = urllib.request.build_opener().open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            _refused(error, part)
    except urllib.error.URLError as error:
        reason = getattr(error.reason, "strerror", None) or str(error.reason)
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise DownloadError(f"{error.reason.verify_message}; SSL_CERT_FILE names a file of certificates") from error
        if isinstance(error.reason, socket.gaierror):
            raise DownloadError(f"{reason}; {NO_CONNECTION}") from error
        raise _InterruptedError(reason) from error
    except (OSError, http.client.HTTPException) as error:
        raise _InterruptedError(str(error) or type(error).__name__) from error
    if url.startswith("https:") and not response.url.startswith("https:"):
        response.close()
        raise DownloadError(f"the server sends on to {response.url}, which is not encrypted")
    if response.headers.get_content_type() == "text/html":
        response.close()
        raise DownloadError("the server answers with a web page, as a log-in or a lost link does")
    return response


def _refused(error: urllib.error.HTTPError, part: Path) -> None:
    reason = f"HTTP {error.code} {error.reason}".strip()
    if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
        forget(part)  # longer than the file is now
        raise _InterruptedError(reason) from error
    if error.code in _TRANSIENT:
        asked = error.headers.get("Retry-After", "")
        wait = min(float(asked), LONGEST_WAIT) if asked.isdigit() else 0.0
        raise _InterruptedError(reason, wait, "try again later") from error
    raise DownloadError(reason) from error


def _continues(response: Any, part: Path, version: str) -> bool:
    """Tell the rest of the same version from the whole of this or another one."""
    if response.status != http.client.PARTIAL_CONTENT:
        return False
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != _size(part) or _version(response) not in ("", version):
        forget(part)
        raise _InterruptedError("the server goes on with another version of the file, or elsewhere in it")
    return True


def _version(response: Any) -> str:
    """The name of a version for ``If-Range``: a strong entity tag, or the date of the last change."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _total(response: Any, have: int) -> int | None:
    length = response.headers.get("Content-Length", "")
    return have + int(length) if length.isdigit() else None


def _require_room(part: Path, total: int | None, have: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - have > free:
        raise OSError(errno.ENOSPC, f"{(total - have) / 1e6:,.0f} MB are missing and {free / 1e6:,.0f} MB free")


def _chunks(response: Any) -> Iterator[bytes]:
    while True:
        try:
            # What has arrived, not a full chunk: a slow server's bytes are kept, whatever comes of the rest.
            chunk = response.read1(CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _InterruptedError(str(error) or type(error).__name__) from error
        if not chunk:
            return
        yield chunk
