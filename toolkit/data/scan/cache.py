"""A cache of what scans found, so that a file is decoded once and not at every scan.

A row is found by path and file status, or else by content: a file that was moved, copied or touched is read again,
but not decoded. Nothing depends on the cache: where it cannot be kept, every scan is a first one.
"""

import hashlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import PIL

from toolkit.data.scan.facts import FACTS, FACTS_VERSION

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS pictures (path BLOB PRIMARY KEY, status BLOB, digest BLOB, facts BLOB, reason TEXT);
CREATE INDEX IF NOT EXISTS by_digest ON pictures (digest);
"""
# The unnoticed change of a file is one within the clock's tick after it was read: such a file is not remembered.
_SETTLED_NS = 2_000_000_000


@dataclass(frozen=True)
class Finding:
    """Result of scanning one file: its facts, or the reason why it cannot be read."""

    digest: bytes
    facts: bytes | None
    reason: str | None

    def as_facts(self) -> np.ndarray:
        """A scalar of dtype ``FACTS``, all zero for an unreadable picture."""
        return np.frombuffer(self.facts, FACTS)[0] if self.facts else np.zeros((), FACTS)


def file_status(status: os.stat_result) -> bytes:
    """Fingerprint that changes whenever a file's content may have: size, both times, and the file itself."""
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_dev} {status.st_ino}".encode()


def is_settled(status: os.stat_result, now_ns: int) -> bool:
    """Tell if a later change would show in the file's times."""
    return max(status.st_mtime_ns, status.st_ctime_ns) < now_ns - _SETTLED_NS


class ScanCache:
    """An SQLite file shared by all scans of this user: whole after a kill, safe for several processes and threads.

    Without a directory, nothing is remembered.
    """

    def __init__(self, directory: str | Path | None) -> None:
        self._lock = threading.RLock()
        self._database: sqlite3.Connection | None = None
        if directory is not None:
            # Another version of Pillow may read what this one cannot, and so may this one with its extension.
            heif = "-heif" if find_spec("pillow_heif") else ""
            self._open(Path(directory) / f"pictures-{FACTS_VERSION}-pillow{PIL.__version__}{heif}.sqlite")

    def find(self, path: Path, status: bytes) -> Finding | None:
        """Look up a file, unless it has changed since."""
        return self._first("path = ? AND status = ?", (os.fsencode(path), status))

    def find_content(self, digest: bytes) -> Finding | None:
        """Look up a file by its content, wherever it was."""
        return self._first("digest = ?", (digest,))

    def add(self, rows: Iterable[tuple[Path, bytes, Finding]]) -> None:
        """Remember findings by path and status, all of them or none."""
        values = [(os.fsencode(path), status, f.digest, f.facts, f.reason) for path, status, f in rows]
        with self._lock:
            if self._database:
                try:
                    with self._database:
                        self._database.executemany("INSERT OR REPLACE INTO pictures VALUES (?, ?, ?, ?, ?)", values)
                except sqlite3.Error as error:
                    self._give_up(error)

    def file_digest(self, path: Path) -> bytes:
        """Compute the sha256 of a file's content, or look it up: for large files that are no pictures."""
        status, now = path.stat(), time.time_ns()
        key = file_status(status)
        known = self.find(path.absolute(), key)
        if known:
            return known.digest
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        if is_settled(status, now):
            self.add([(path.absolute(), key, Finding(digest, None, "not a picture"))])
        return digest

    def close(self) -> None:
        """Release the file; what was added is kept."""
        with self._lock:
            if self._database:
                self._database.close()
            self._database = None

    def _first(self, condition: str, values: tuple[bytes, ...]) -> Finding | None:
        with self._lock:
            if not self._database:
                return None
            try:
                query = f"SELECT digest, facts, reason FROM pictures WHERE {condition} LIMIT 1"
                row = self._database.execute(query, values).fetchone()
            except sqlite3.Error as error:
                self._give_up(error)
                return None
        return Finding(*row) if row and (row[1] is None or len(row[1]) == FACTS.itemsize) else None

    def _open(self, file: Path) -> None:
        for _ in range(2):
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                self._database = sqlite3.connect(file, timeout=60, check_same_thread=False)
                self._database.execute("PRAGMA journal_mode=WAL")
                self._database.execute("PRAGMA synchronous=NORMAL")
                self._database.executescript(_SCHEMA)
                return
            except (OSError, sqlite3.OperationalError) as error:
                self._give_up(error)
                return
            except sqlite3.DatabaseError:  # damaged: nothing in it is worth keeping
                self.close()
                file.unlink(missing_ok=True)

    def _give_up(self, error: Exception) -> None:
        log.info("scans are not remembered: %s", error)
        self.close()
