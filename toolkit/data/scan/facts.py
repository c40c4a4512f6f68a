"""Facts of one picture file: is it readable, what is it, and which other pictures does it resemble."""

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from toolkit.data.pixels.colours import NUM_BITS
from toolkit.data.pixels.decode import (
    FORMATS,
    GRAPH_FORMATS,
    decode_open_image,
    image_errors,
    open_image,
    orientation,
)
from toolkit.spec import Preprocessing

#: Raise it whenever the same bytes would get other facts: remembered ones are then looked up no more.
FACTS_VERSION = 2

#: One picture. ``digest``: of its bytes. ``phash``: 256 perceptual bits, one row of 16 vertical frequencies after
#: the other; all zero where there is nothing to see. ``flat``: share of the pixels that have the commonest grey
#: value. ``format``: index into ``FORMATS``. ``traits``: bits, in the order of ``TRAITS``.
FACTS = np.dtype(
    [
        ("bytes", np.uint64),
        ("digest", np.uint64, 2),
        ("phash", np.uint64, 4),
        ("height", np.uint32),
        ("width", np.uint32),
        ("flat", np.float32),
        ("format", np.uint8),
        ("traits", np.uint8),
    ]
)

#: Properties that surprise: nothing is wrong with such a picture, but a data set should not hold them by accident.
TRAITS = ("greyscale", "cmyk", "16-bit", "exif-rotated", "animated", "transparent", "low-range")

_GREYSCALE, _CMYK, _DEEP, _ROTATED, _ANIMATED, _TRANSPARENT, _LOW = (1 << bit for bit in range(len(TRAITS)))

# Small enough that a JPEG decoder shrinks by 8, yet every compressed byte is still read.
_PROBE = Preprocessing(size=(32, 32), resize="stretch")
_SIDE = 32  # of the thumbnail that the perceptual hash is taken of
_NUM_FREQUENCIES = 16
_COSINES = np.cos(np.pi / _SIDE * np.outer(np.arange(_NUM_FREQUENCIES), np.arange(_SIDE) + 0.5)).astype(np.float32)
_PLAIN = 4  # range of grey values below which a thumbnail shows nothing
# JPEG's rounding colours a grey picture by this much, in grey values.
_COLOURLESS = 8


def picture_facts(data: bytes, path: str | Path) -> np.ndarray:
    """Decode a file's content once and describe it, as a scalar of dtype ``FACTS``.

    Raises:
        ImageError: not a readable picture; names ``path``.
    """
    facts = np.zeros((), FACTS)
    with image_errors(str(path)), open_image(data) as image:
        facts["width"], facts["height"] = image.size
        facts["format"] = FORMATS.index("JPEG" if image.format == "MPO" else str(image.format))
        traits = _traits(image, data)
        rgb = decode_open_image(image, data, str(path), _PROBE)
        traits |= _LOW if image.info.get(NUM_BITS, 16) < 16 else 0
    grey = Image.fromarray(rgb).convert("L")
    facts["bytes"] = len(data)
    facts["digest"] = content_digest(data)
    facts["traits"] = traits | (_GREYSCALE if _is_colourless(rgb) else 0)
    facts["flat"] = max(grey.histogram()) / (grey.width * grey.height)
    facts["phash"] = perceptual_hash(np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX)))
    return facts


def notes(facts: np.ndarray) -> list[str]:
    """Say what of readable pictures a network, or whoever serves it, will not see as a person does.

    Args:
        facts: rows of ``FACTS``.
    """
    counts = (
        (~facts["phash"].any(axis=1), "show nothing: each is of one colour as the network sees it"),
        (facts["traits"] & _LOW > 0, "have 16 bits and no value beyond 8 or 12: they are read in that range"),
        (
            facts["format"] >= len(GRAPH_FORMATS),
            f"are {' or '.join(FORMATS[len(GRAPH_FORMATS) :])}, which a bundle's SavedModel does not read from bytes",
        ),
    )
    return [f"{np.sum(chosen):,} of {len(facts):,} pictures {what}" for chosen, what in counts if chosen.any()]


def content_digest(data: bytes) -> np.ndarray:
    """128 bits, as two uint64, that equal bytes share and others do not."""
    return np.frombuffer(hashlib.blake2b(data, digest_size=16).digest(), np.uint64)


def perceptual_hash(thumbnail: np.ndarray) -> np.ndarray:
    """Hash a 32 × 32 grey thumbnail: which of its 16 × 16 lowest frequencies exceed their median, as four uint64.

    The hash of Zauner, *Implementation and Benchmarking of Perceptual Image Hash Functions* (2010), section 3.2.1,
    with 256 bits for its 64. All zero for a thumbnail of hardly more than one grey value.
    """
    if int(thumbnail.max()) - int(thumbnail.min()) < _PLAIN:
        return np.zeros(4, np.uint64)
    spectrum = (_COSINES @ thumbnail.astype(np.float32) @ _COSINES.T).ravel()
    median = np.partition(spectrum, spectrum.size // 2)[spectrum.size // 2]
    return np.packbits(spectrum > median).view(np.uint64)


def _traits(image: Image.Image, data: bytes) -> int:
    # Pillow opens a 16-bit RGB PNG as an 8-bit one: its header knows better.
    is_deep = image.mode.startswith("I;16") or (image.format == "PNG" and data[24:25] == b"\x10")
    return (
        (_CMYK if image.mode in ("CMYK", "YCCK") else 0)
        | (_DEEP if is_deep else 0)
        | (_ROTATED if orientation(image) > 1 else 0)
        | (_ANIMATED if _is_animated(image, data) else 0)
        | (_TRANSPARENT if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info else 0)
    )


def _is_animated(image: Image.Image, data: bytes) -> bool:
    if image.format == "PNG":
        return b"acTL" in data[: max(0, data.find(b"IDAT"))]
    return image.format in ("GIF", "TIFF") and getattr(image, "is_animated", False)


def _is_colourless(rgb: np.ndarray) -> bool:
    step = max(1, min(rgb.shape[:2]) // _SIDE)
    red, green, blue = np.moveaxis(rgb[::step, ::step].astype(np.int16), -1, 0)
    return max(np.abs(red - green).max(), np.abs(green - blue).max()) <= _COLOURLESS
