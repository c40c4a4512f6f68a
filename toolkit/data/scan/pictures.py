"""One parallel pass over picture files, each decoded once in its life."""

import os
import stat
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from toolkit.data.pixels.decode import ImageError, read_file
from toolkit.data.pixels.sizes import MAX_FILE_BYTES
from toolkit.data.scan.cache import Finding, ScanCache, file_status, is_settled
from toolkit.data.scan.facts import FACTS, content_digest, picture_facts
from toolkit.machine import num_threads
from toolkit.progress import step

_CHUNK = 64  # files per task: a task for each would cost as much as a small picture


def inspect_files(paths: Sequence[Path], *, cache: ScanCache | None = None) -> tuple[np.ndarray, list[str | None]]:
    """Look at every file, or remember having done so; what is no regular file, such as a named pipe, is not opened.

    Returns:
        Facts, dtype ``FACTS`` of shape (len(paths),), and for each file the reason why it cannot be read, or ``None``.
    """
    cache = cache or ScanCache(None)
    facts = np.zeros(len(paths), FACTS)
    reasons: list[str | None] = []
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    pool = ThreadPoolExecutor(num_threads())
    try:
        with step("reading pictures", len(paths)) as told:
            for findings in pool.map(lambda chunk: _inspect_chunk(chunk, cache), chunks):
                for finding in findings:
                    facts[len(reasons)] = finding.as_facts()
                    reasons.append(finding.reason)
                told(len(reasons))
    finally:
        pool.shutdown(cancel_futures=True)
    return facts, reasons


def _inspect_chunk(paths: Sequence[Path], cache: ScanCache) -> list[Finding]:
    findings, fresh = [], []
    for path in paths:
        now = time.time_ns()
        try:
            status = _regular_status(path)
        except ImageError as error:
            findings.append(Finding(b"", None, str(error)))
            continue
        key = file_status(status)
        known = cache.find(path, key)
        findings.append(known or _inspect(path, cache))
        if not known and findings[-1].digest and is_settled(status, now):
            fresh.append((path, key, findings[-1]))
    if fresh:
        cache.add(fresh)
    return findings


def _regular_status(path: Path) -> os.stat_result:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise ImageError("no such file") from None
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror})") from None
    if not stat.S_ISREG(status.st_mode):  # reading a named pipe would wait for ever
        raise ImageError("not a regular file")
    if status.st_size > MAX_FILE_BYTES:
        raise ImageError(f"larger than {MAX_FILE_BYTES >> 20:,} MiB")
    return status


def _inspect(path: Path, cache: ScanCache) -> Finding:
    try:
        data = read_file(path)
    except ImageError as error:
        return Finding(b"", None, error.reason(path))
    digest = content_digest(data).tobytes()
    known = cache.find_content(digest)
    if known:
        return known
    try:
        return Finding(digest, picture_facts(data, path).tobytes(), None)
    except ImageError as error:
        return Finding(digest, None, error.reason(path))
