"""Addresses on the hub, ``hf://OWNER/NAME@REVISION``."""

import os
import re
from dataclasses import dataclass

from toolkit.errors import UserError

# A path takes two slashes for one.
_BEGINNING = re.compile(r"hf:/{1,2}")
_ADDRESS = re.compile(r"hf:/{1,2}(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w./-]*))?/?", re.ASCII)


@dataclass(frozen=True)
class HubAddress:
    """A repository on the hub, and perhaps a state of it.

    Attributes:
        repository: ``OWNER/NAME``.
        revision: a tag, a branch or a commit; None for the newest.

    >>> str(HubAddress("user/name", "v2"))
    'hf://user/name@v2'
    """

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"hf://{self.repository}" + (f"@{self.revision}" if self.revision else "")


def is_address(place: str | os.PathLike[str]) -> bool:
    """Tell an address on the hub from a path, also where it was made a path.

    >>> from pathlib import Path
    >>> is_address(Path("hf://user/name")), is_address("saved_models/mine")
    (True, False)
    """
    return bool(_BEGINNING.match(os.fspath(place)))


def parse_address(place: str | os.PathLike[str]) -> HubAddress:
    """Read an address on the hub.

    Raises:
        UserError: it is none.

    >>> parse_address("hf://user/name@v2")
    HubAddress(repository='user/name', revision='v2')
    """
    found = _ADDRESS.fullmatch(os.fspath(place))
    if not found or ".." in found[0]:
        raise UserError(f"expected an address such as hf://user/name or hf://user/name@v2, got {os.fspath(place)!r}")
    return HubAddress(found[1], found[2])
