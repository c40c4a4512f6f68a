"""Signs that a file is a picture: its name, or else its first bytes."""

import os
import re
import stat

from toolkit.data.pixels.encoded import HEIF_BRANDS

_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"),
        *(".heic", ".heif", ".avif"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".jxl"),  # which cannot be read here, and are told
    )
)
#: Bytes that a file has to begin with to be told by.
HEAD_BYTES = 32
_MAGIC = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    *(b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51", b"\0\0\0\x0cJXL ", b"qoif", b"8BPS", b"DDS "),
)
_NETPBM = re.compile(rb"P(7\s+[#A-Z]|[1-6]\s+[#\d])")
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)


def is_picture_name(name: str) -> bool:
    """Tell if a file of this name claims to be a picture.

    >>> is_picture_name("cats/1.JPG"), is_picture_name("notes.txt")
    (True, False)
    """
    return os.path.splitext(name)[1].lower() in _SUFFIXES


def is_picture_content(head: bytes) -> bool:
    """Tell if a file that begins so is a picture, in a format that can be read here or in another.

    >>> is_picture_content(b"P6\\n32 32\\n255\\n"), is_picture_content(b"P. S. Remember the milk")
    (True, False)
    """
    if head.startswith(_MAGIC):
        return True
    if head[:4] == b"RIFF":
        return head[8:12] == b"WEBP"
    if head[4:8] == b"ftyp":
        return head[8:12] in (*HEIF_BRANDS, b"avif", b"avis")
    if head[:2] == b"BM":  # as many a text does
        return head[6:10] == bytes(4) and int.from_bytes(head[14:18], "little") in _BMP_HEADERS
    return bool(_NETPBM.match(head))


def why_no_picture(path: str) -> str:
    """Say why a file is no picture; nothing where it claims to be one. Only regular files of other names are opened."""
    if is_picture_name(path):
        return ""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a named pipe would wait for ever
            return "not a regular file"
        with open(path, "rb", buffering=0) as file:
            return "" if is_picture_content(file.read(HEAD_BYTES)) else "not a picture"
    except OSError as error:
        return f"cannot be read ({error.strerror})"
