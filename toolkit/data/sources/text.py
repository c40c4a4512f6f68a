"""Text files as editors and spreadsheets write them."""

import codecs
from pathlib import Path

_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def read_text(file: Path, *, errors: str = "strict") -> str:
    r"""Read a text of UTF-8 or UTF-16, with or without a byte-order mark, and of any system's line ends, as ``\n``.

    Args:
        file: a text file.
        errors: what to do with bytes that are not UTF-8, see ``bytes.decode``.

    Raises:
        UnicodeDecodeError: neither, and ``errors`` is strict.
        OSError: it cannot be read.
    """
    data = file.read_bytes()
    mark, encoding = next((row for row in _MARKS if data.startswith(row[0])), (b"", ""))
    if not encoding:
        # Every other byte of Western text is zero in UTF-16, and none is in UTF-8.
        encoding = "utf-8" if b"\0" not in data else "utf-16-le" if b"\0" in data[1:2] else "utf-16-be"
    text = data[len(mark) :].decode(encoding, errors if encoding == "utf-8" else "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")
