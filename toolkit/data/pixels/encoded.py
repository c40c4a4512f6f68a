"""The bytes of encoded pictures, looked at before Pillow decodes them: what TensorFlow's decoders look at too."""

import struct
import zlib

_PNG_START = b"\x89PNG\r\n\x1a\n"
# What decides pixels; all else (text, colour profiles, times) may be as large or damaged as it likes.
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
#: Kinds of HEIF in the bytes behind "ftyp".
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

#: Blocks of a GIF before its first picture: the served graph walks them one at a time.
MAX_GIF_BLOCKS = 4096


def is_png(data: bytes) -> bool:
    """Tell a PNG by its first bytes."""
    return data.startswith(_PNG_START)


def is_heif(data: bytes) -> bool:
    """Tell a HEIC or HEIF picture by its brand; AVIF, which Pillow reads, has its own."""
    return data[4:8] == b"ftyp" and data[8:12] in HEIF_BRANDS and b"avif" not in data[8:64]


def plain_png(data: bytes) -> bytes:
    """Leave out of a PNG what does not decide its pixels.

    Raises:
        ValueError: it is cut off, or a checksum of what does is wrong.
    """
    kept, place, is_whole = [], len(_PNG_START), True
    while True:
        if place + 12 > len(data):
            raise ValueError("the file ends before the picture does")
        size, name = struct.unpack_from(">I4s", data, place)
        end = place + 12 + size
        if end > len(data):
            raise ValueError("the file ends before the picture does")
        if not name.isalpha():
            raise ValueError(f"damaged chunk {name!r}")
        is_wanted = name in _PNG_PIXELS
        if is_wanted:
            is_sound = zlib.crc32(memoryview(data)[place + 4 : end - 4]) == int.from_bytes(data[end - 4 : end])
            if not is_sound and name != b"tRNS":
                raise ValueError(f"wrong checksum in {name.decode()}")
            is_wanted = is_sound
        elif not name[0] & 0x20:
            raise ValueError(f"unknown critical chunk {name!r}")
        if is_wanted:
            kept.append((place, end))
        is_whole = is_whole and is_wanted
        place = end
        if name == b"IEND":
            break
    return data if is_whole else _PNG_START + b"".join(data[start:end] for start, end in kept)


def gif_palette_size(data: bytes) -> int:
    """Walk to the end of a GIF's first picture, and give the number of colours it chooses from.

    Raises:
        ValueError: it has none, or is cut off before that.
    """
    try:
        place, num_blocks = 13 + _palette_bytes(data[10]), 0
        while data[place] == 0x21:  # an extension: its blocks follow two bytes
            place += 2
            while data[place]:
                place += 1 + data[place]
                num_blocks += 1
            place += 1
            num_blocks += 2
        if data[place] != 0x2C:
            raise ValueError("no picture in it")
        if num_blocks > MAX_GIF_BLOCKS:
            raise ValueError(f"more than {MAX_GIF_BLOCKS:,} blocks before its first picture")
        own = _palette_bytes(data[place + 9])
        place += 11 + own
        while data[place]:
            place += 1 + data[place]
    except IndexError:
        raise ValueError("the file ends before the picture does") from None
    return (own or _palette_bytes(data[10])) // 3


def _palette_bytes(flags: int) -> int:
    return 3 * (2 << (flags & 7)) if flags & 0x80 else 0
