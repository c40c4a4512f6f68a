"""What a file holds, told without reading it twice; what a network is, told from its graph and weights."""

import hashlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from toolkit.data.pixels.decode import read_file
from toolkit.data.scan.cache import file_status, is_settled
from toolkit.machine import num_threads
from toolkit.transfer.cache import Store

_DIGEST_BYTES = hashlib.sha256().digest_size


def file_digests(paths: Sequence[str | Path], store: Store) -> list[bytes]:
    """sha256 of each file's bytes, remembered by path, size and times, so that an unchanged file is not read again.

    Raises:
        ImageError: a file cannot be read.
    """
    names = [os.path.abspath(path) for path in paths]
    keys = [hashlib.sha256(os.fsencode(name)).digest() for name in names]
    with store.begin() as transaction:
        remembered = [transaction.get(key, db=store.files) for key in keys]
    with ThreadPoolExecutor(num_threads()) as pool:
        found = list(pool.map(_file_digest, names, remembered))
    fresh = {key: row for key, (row, is_new) in zip(keys, found, strict=True) if row and is_new}
    if fresh:
        with store.begin(write=True) as transaction:
            for key, row in fresh.items():
                transaction.put(key, row, db=store.files)
    return [row[:_DIGEST_BYTES] for row, _ in found]


def _file_digest(name: str, remembered: bytes | None) -> tuple[bytes, bool]:
    """Digest and the file's status, and whether that is worth remembering."""
    now = time.time_ns()
    try:
        status = os.stat(name)
    except OSError:
        return hashlib.sha256(read_file(Path(name))).digest(), False  # which explains what is wrong
    if remembered and remembered[_DIGEST_BYTES:] == file_status(status):
        return remembered, False
    digest = hashlib.sha256(read_file(Path(name))).digest()
    return digest + file_status(status), is_settled(status, now)
