"""Requests that name no version, shared out among a bundle's labels as ``toolkit bundles share`` says."""

import hashlib
import logging
import os
import random
from pathlib import Path

from toolkit.bundle import STABLE, TRAFFIC, VERSION_LABELS, Share, read_traffic
from toolkit.errors import UserError

log = logging.getLogger(__name__)

#: A request's header, or metadata: those with the same value are answered by the same label's version.
KEY_HEADER = "x-traffic-key"


class Traffic:
    """The shares of one bundle's labels, as they stand in its files now. Safe to call from several threads."""

    def __init__(self, directory: Path) -> None:
        """Note the bundle's directory; nothing is read yet."""
        self._files = (directory / TRAFFIC, directory / VERSION_LABELS)
        self._directory = directory
        self._state: tuple[object, list[Share]] = (None, [])

    def shares(self) -> list[Share]:
        """Give the labels' shares, ``stable`` last; none where the highest version answers.

        While a file cannot be read, those that were read before stay.
        """
        if not self._files[0].exists():
            return []
        stamp = [_stamp(file) for file in self._files]
        if stamp != self._state[0]:
            try:
                shares = read_traffic(self._directory)
            except UserError as error:
                log.error("%s; requests are shared out as before", error)
                shares = self._state[1]
            self._state = stamp, shares
        return self._state[1]


def position_of(name: str, key: str) -> float:
    """Give a request's place in 0…1, which decides the label that answers: at random, or always the same for a key.

    A key that one share reaches is reached by any larger share of the same label, too, if no other has one.

    >>> position_of("pets", "user 7") == position_of("pets", "user 7") != position_of("pets", "user 8")
    True
    """
    if not key:
        return random.random()
    return int.from_bytes(hashlib.sha256(f"{name}\0{key}".encode("utf-8", "replace")).digest()[:8]) / 2**64


def chosen(shares: list[Share], position: float) -> list[Share]:
    """Order shares by whom a request at a position is for: first that label's, then, for its absence, ``stable``.

    >>> shares = [Share("canary", 5, 0.1), Share("stable", 4, 0.9)]
    >>> [share.version for share in chosen(shares, 0.09)], [share.version for share in chosen(shares, 0.5)]
    ([5, 4], [4, 5])
    """
    end = 0.0
    for share in shares:
        end += share.share
        if position < end:
            break
    others = sorted((other for other in shares if other is not share), key=lambda other: other.label != STABLE)
    return [share, *others]


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
