"""Samples of any mode and depth to 8-bit RGB on white, on the host.

The twin of the same steps in ``toolkit.data.pixels.graph``: integers, so that both agree to the bit.
"""

import io

import numpy as np
from PIL import Image, ImageFile

#: Ranges that whole numbers of more than 8 bits are taken to have: the first that holds a picture's largest value.
#: Cameras of microscopes and X-ray devices have 12 bits and write 16.
RANGES = (1 << 8, 1 << 12, 1 << 16)
#: Where ``to_rgb`` notes in a deep image's ``info`` how many bits its values have.
NUM_BITS = "toolkit.bits"
# Floats may also lie between 0 and 1.
_FLOAT_TOPS = (1, *(top - 1 for top in RANGES))


def num_bits(values: np.ndarray) -> int:
    """Bits of the range that whole numbers lie in, by the largest: 8, 12, 16 or 32."""
    largest = int(values.max(initial=0))
    return next((end.bit_length() - 1 for end in RANGES if largest < end), 32)


def to_8_bits(values: np.ndarray) -> np.ndarray:
    """Samples of 16 or 32 bits to uint8, by the range that the largest of them lies in: 8, 12, 16 or 32 bits.

    >>> to_8_bits(np.array([0, 16, 4095], np.uint16)), to_8_bits(np.array([0, 4096, 65535], np.uint16))
    (array([  0,   1, 255], dtype=uint8), array([  0,  16, 255], dtype=uint8))
    """
    if np.issubdtype(values.dtype, np.floating):
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        largest = values.max(initial=0)
        top = next((top for top in _FLOAT_TOPS if largest <= top), largest)
        return np.rint(np.clip(values, 0, None) * (255 / top)).astype(np.uint8)
    return (np.maximum(values, 0) >> (num_bits(values) - 8)).astype(np.uint8)


def on_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Lay uint8 RGB (…, 3) with uint8 opacity (…, 1) on white."""
    if (alpha == 255).all():
        return rgb
    opacity = alpha.astype(np.uint16)
    return ((rgb * opacity + 255 * (255 - opacity) + 127) // 255).astype(np.uint8)


def to_rgb(image: Image.Image, data: bytes = b"") -> tuple[np.ndarray, np.ndarray | None]:
    """Colours of an opened picture, uint8 (height, width, 1 or 3), and their opacity (height, width, 1), if it has one.

    Args:
        image: opened; is loaded here.
        data: the encoded picture, of which a PNG in 16-bit colours is decoded a second time, for its lower bytes.
    """
    raw = ""
    if image.format == "PNG" and isinstance(image, ImageFile.ImageFile) and image.tile:  # not loaded yet
        raw = str(image.tile[0].args)
        if raw in ("RGB;16B", "RGBA;16B", "LA;16B") and data:
            return _deep_png(image, data, raw)
    transparent = image.info.get("transparency")
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)[..., None]
        alpha = None if not isinstance(transparent, int) else np.where(values == transparent, 0, 255).astype(np.uint8)
        if image.mode.startswith("I"):
            image.info[NUM_BITS] = num_bits(values)
        return to_8_bits(values), alpha
    if raw in ("1", "L;2", "L;4") and isinstance(transparent, int):  # Pillow stretches values, but not this one
        depth = int(raw[-1])
        image.info["transparency"] = transparent * 255 // ((1 << depth) - 1)
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"))
        return rgba[..., :3], rgba[..., 3:]
    if image.mode == "L":
        return np.asarray(image)[..., None], None
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB")), None


def _deep_png(image: ImageFile.ImageFile, data: bytes, raw: str) -> tuple[np.ndarray, np.ndarray | None]:
    """16-bit colours, of which Pillow gives either byte: the lower one as if the bytes stood the other way round."""
    if raw == "LA;16B":  # as many bytes as RGBA
        (tile,) = image.tile
        image.tile = [tile._replace(args="RGBA")]
        values = np.ascontiguousarray(np.asarray(image)).view(">u2").astype(np.uint16)
    else:
        low = Image.open(io.BytesIO(data), formats=("PNG",))
        (tile,) = low.tile
        low.tile = [tile._replace(args=raw.removesuffix("B") + "L")]
        values = np.asarray(image).astype(np.uint16) << 8 | np.asarray(low)
    transparent = image.info.get("transparency")
    image.info[NUM_BITS] = num_bits(values[..., : values.shape[-1] - 1 + values.shape[-1] % 2])
    if values.shape[-1] in (2, 4):
        return to_8_bits(values[..., :-1]), to_8_bits(values[..., -1:])
    if transparent is None:
        return to_8_bits(values), None
    is_clear = (values == np.asarray(transparent, np.uint16)).all(axis=-1, keepdims=True)
    return to_8_bits(values), np.where(is_clear, 0, 255).astype(np.uint8)
