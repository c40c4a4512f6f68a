"""API keys, of which the server knows hashes alone."""

import hashlib
import hmac
import re
from pathlib import Path

from starlette.datastructures import Headers

from toolkit.errors import UserError

_SHA256 = re.compile(r"[0-9a-f]{64}")


class ApiKeys:
    """Keys that open the server.

    A plain hash is enough for keys that were drawn at random, as ``openssl rand -hex 32`` draws them: nobody can try
    them all. It would not be for passwords.
    """

    def __init__(self, file: Path) -> None:
        """Read hashes.

        Args:
            file: a line for each key: its SHA-256 in hexadecimal, as ``sha256sum`` prints it, and whatever follows,
                such as whose key it is. Empty lines, and those that begin with ``#``, mean nothing.

        Raises:
            UserError: a line holds no hash, or there is none at all.
        """
        self._hashes = []
        for number, line in enumerate(file.read_text("utf-8", "replace").splitlines(), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            word = line.split()[0].lower()
            if not _SHA256.fullmatch(word):
                raise UserError(
                    f"{file}, line {number}: expected a key's SHA-256 as 64 hexadecimal digits; make one with "
                    "printf %s KEY | sha256sum"
                )
            self._hashes.append(bytes.fromhex(word))
        if not self._hashes:
            raise UserError(f"{file}: no key's hash in it, so nobody could ask; add one, or leave the option out")

    def __contains__(self, key: str) -> bool:
        """Tell whether a key is one of these, in a time that says nothing of which, or of how much of it is right."""
        digest = hashlib.sha256(key.encode("utf-8", "replace")).digest()
        matches = [hmac.compare_digest(digest, known) for known in self._hashes]
        return any(matches)

    def admit(self, headers: Headers) -> bool:
        """Tell whether a request shows a key: ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``."""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        shown = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        return bool(shown) and shown in self
