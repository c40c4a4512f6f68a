"""Picture bytes to pixels and network input on the host, with Pillow and NumPy.

The twin of ``toolkit.data.pixels.graph``: the same bytes give the same pixels in both, which
``tests/data/pixels/test_parity.py`` holds.
"""

import io
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from toolkit.data.pixels.colours import on_white, to_rgb
from toolkit.data.pixels.encoded import gif_palette_size, is_heif, is_png, plain_png
from toolkit.data.pixels.resample import resample
from toolkit.data.pixels.sizes import MAX_PIXELS, MAX_SIDE, is_long, jpeg_scale, resized_size
from toolkit.errors import UserError
from toolkit.spec import Interpolation, Preprocessing

#: Formats that the host decodes, the first five of which TensorFlow's graph operations decode too. HEIF needs a library
#: of its own.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "AVIF", "HEIF")
#: Of those, what a bundle's SavedModel reads when it is given bytes.
GRAPH_FORMATS = FORMATS[:5]
#: Raise it whenever pictures other than JPEG would get other pixels.
DECODING = 2

_ORIENTATION_TAG = 0x0112
# Phones write a second picture (a gain map, a stereo twin) behind the first; Pillow then calls the JPEG "MPO".
_JPEG_FORMATS = ("JPEG", "MPO")
# What TensorFlow's BMP operation reads too.
_BMP_LAYOUTS = ("L", "P", "BGR", "BGRX", "BGRA")
_OPENING = threading.Lock()  # warnings.catch_warnings() swaps a list that all threads share

#: What a picture may be given as: a path, its encoded bytes, a Pillow image, or uint8 pixels (height, width, 3).
ImageSource = str | Path | bytes | Image.Image | np.ndarray


class ImageError(UserError):
    """A picture that cannot be read; the message says which and why."""


def decode_pixels(source: ImageSource, preprocessing: Preprocessing) -> np.ndarray:
    """Decode, turn upright, resize and crop.

    EXIF orientation is honoured in JPEG, TIFF, AVIF and HEIF. What is transparent is white. Samples of 16 bits are
    taken for 8 or 12 bits where none is larger, and else keep their high byte. Of an animation the first frame
    counts, of several pages the first page.

    Args:
        source: a path, encoded bytes, a Pillow image, or a uint8 array of shape (height, width, 3), (…, 1) or
            (height, width).
        preprocessing: gives the size and the way to it.

    Returns:
        uint8 RGB of shape ``(*preprocessing.size, 3)``.

    Raises:
        ImageError: not a readable picture of a supported format, or more than ``MAX_PIXELS`` pixels.
    """
    return resize_pixels(read_rgb(source, preprocessing), preprocessing)


def read_rgb(source: ImageSource, preprocessing: Preprocessing | None = None) -> np.ndarray:
    """Decode ``source`` to upright uint8 RGB of its own size.

    Given ``preprocessing``, a large JPEG is shrunk while decoding, to no less than twice the size it will have.
    """
    if isinstance(source, np.ndarray):
        return _array_to_rgb(source)
    name = str(source) if isinstance(source, str | Path) else "the picture"
    with image_errors(name):
        if isinstance(source, Image.Image):
            return _upright(_rgb(source), orientation(source))
        data = source if isinstance(source, bytes) else read_file(Path(source))
        with open_image(data) as image:
            return decode_open_image(image, data, name, preprocessing)


@contextmanager
def image_errors(name: str) -> Iterator[None]:
    """Turn what Pillow raises at a bad picture into an ``ImageError`` that begins with ``name``."""
    try:
        yield
    except UserError as error:
        raise error if isinstance(error, ImageError) else ImageError(f"{name}: {error}") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not a picture in a supported format ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{name}: more than {MAX_PIXELS:,} pixels, which is refused as unsafe to decode") from None
    # What the plugins of single formats raise besides: RuntimeError (AVIF, HEIF), TypeError (fields of TIFF).
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, RuntimeError, TypeError) as error:
        raise ImageError(f"{name}: damaged or truncated picture ({error})") from None


def normalize(pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """uint8 RGB (…, height, width, 3) to the network's float32 input (…, height, width, channels)."""
    if preprocessing.channel_order == "grey":
        values = luma(pixels)
    elif preprocessing.channel_order == "bgr":
        values = pixels[..., ::-1]
    else:
        values = pixels
    factor, offset = (np.asarray(numbers, np.float32) for numbers in preprocessing.affine())
    # A row of pixels at a time: broadcasting over the last axis, of three, is several times slower.
    width = values.shape[-2]
    rows = values.astype(np.float32).reshape(*values.shape[:-2], width * preprocessing.channels)
    rows *= np.tile(factor, width)
    rows += np.tile(offset, width)
    return rows.reshape(values.shape)


def luma(pixels: np.ndarray) -> np.ndarray:
    """ITU-R 601 luma in the 16-bit fixed point that Pillow uses: uint8 (…, 3) to uint8 (…, 1)."""
    rgb = pixels.astype(np.int32)
    grey = (19595 * rgb[..., :1] + 38470 * rgb[..., 1:2] + 7471 * rgb[..., 2:3] + 32768) >> 16
    return grey.astype(np.uint8)


def resize_pixels(rgb: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Resize and centre-crop uint8 RGB of shape (height, width, 3) to ``preprocessing.size``."""
    height, width = resized_size(rgb.shape[0], rgb.shape[1], preprocessing)
    top, left = (height - preprocessing.size[0]) // 2, (width - preprocessing.size[1]) // 2
    window = slice(top, top + preprocessing.size[0]), slice(left, left + preprocessing.size[1])
    if is_long(rgb.shape[0], rgb.shape[1], preprocessing):
        return resize_window(rgb, preprocessing, window)
    return resize_rgb(rgb, height, width, preprocessing.interpolation)[window]


def resize_rgb(rgb: np.ndarray, height: int, width: int, interpolation: Interpolation) -> np.ndarray:
    """Resize uint8 RGB of shape (…, …, 3) to (height, width, 3).

    A grey picture stays one plane, shown three times: a read-only view.
    """
    if (height, width) == rgb.shape[:2]:
        return rgb
    if rgb.strides[-1] == 0:
        return _grey_to_rgb(resample(rgb[..., :1], height, width, interpolation))
    return resample(rgb, height, width, interpolation)


def resize_window(rgb: np.ndarray, preprocessing: Preprocessing, window: tuple[slice, slice]) -> np.ndarray:
    """Compute rows and columns of a resized picture alone, in memory for them and what they cover of the source."""
    size = resized_size(rgb.shape[0], rgb.shape[1], preprocessing)
    rows, columns = (part.indices(length)[:2] for part, length in zip(window, size, strict=True))
    return resample(rgb, *size, preprocessing.interpolation, rows, columns)


def decode_open_image(image: Image.Image, data: bytes, name: str, preprocessing: Preprocessing | None) -> np.ndarray:
    """The rest of ``read_rgb`` for a picture that ``open_image`` has opened; raises what Pillow raises."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{name}: {width:,} × {height:,} pixels; more than {MAX_PIXELS:,} are refused")
    if max(width, height) > MAX_SIDE:
        raise ImageError(f"{name}: {width:,} × {height:,} pixels; more than {MAX_SIDE:,} on a side are refused")
    # What only Pillow can read of these would be refused when served.
    if image.format == "BMP" and not _is_plain_bmp(image):
        raise ImageError(f"{name}: a BMP with compression, or of 1, 4 or 16 bits, is not supported; save it as PNG")
    if image.format == "WEBP" and getattr(image, "is_animated", False):
        raise ImageError(f"{name}: an animated WebP is not supported; save one frame of it")
    turn = orientation(image)
    if image.format in _JPEG_FORMATS and preprocessing is not None:
        upright = (width, height) if turn >= 5 else (height, width)
        scale = jpeg_scale(*upright, preprocessing)
        if scale > 1:
            image.draft(None, (width // scale, height // scale))
    return _upright(_rgb(image, data), turn)


def open_image(data: bytes) -> Image.Image:
    """Read the header of an encoded picture, whatever its size; its pixels wait.

    Raises:
        ImageError: a HEIF picture where its library is not installed.
        ValueError: a PNG or GIF that is cut off, as ``image_errors`` reports it.
    """
    formats: tuple[str, ...] = FORMATS[:-1]
    if is_png(data):
        data = plain_png(data)
    elif is_heif(data):
        register_heif()
        formats = FORMATS[-1:]
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit follows
        return Image.open(io.BytesIO(data), formats=formats)


def as_graph_reads(data: bytes) -> bytes:
    """An encoded picture as it is, or as PNG where its format is none that TensorFlow's graph operations decode.

    Raises:
        ImageError: it cannot be read.
    """
    with image_errors("the picture"), open_image(data) as image:
        if image.format in (*GRAPH_FORMATS, *_JPEG_FORMATS):
            return data
    buffer = io.BytesIO()
    Image.fromarray(read_rgb(data)).save(buffer, "PNG")
    return buffer.getvalue()


def register_heif() -> None:
    """Let Pillow read HEIC, which phones write.

    Raises:
        UserError: pillow-heif is not installed.
    """
    try:
        import pillow_heif
    except ImportError:
        raise UserError("a HEIC picture needs pillow-heif: pip install 'toolkit[heif]'") from None
    pillow_heif.register_heif_opener()


def _is_plain_bmp(image: Image.Image) -> bool:
    tile = image.tile[0]  # type: ignore[attr-defined]
    layout = tile.args if isinstance(tile.args, str) else tile.args[0]
    return tile.codec_name == "raw" and layout in _BMP_LAYOUTS


def _rgb(image: Image.Image, data: bytes = b"") -> np.ndarray:
    if image.format == "GIF":
        colours, alpha = _first_frame(image, data)
    elif image.format == "BMP" and image.mode == "RGBA":  # most programs leave its alpha at nought
        colours, alpha = to_rgb(image.convert("RGB"))
    else:
        colours, alpha = to_rgb(image, data)
    if alpha is not None:
        colours = on_white(colours, alpha)
    return _grey_to_rgb(colours) if colours.shape[-1] == 1 else colours


def _first_frame(image: Image.Image, data: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    """A GIF's first picture on its canvas, which it need not fill."""
    num_colours = gif_palette_size(data) if data else 256
    tiles = getattr(image, "tile", None)  # none once an image is loaded
    left, top, right, bottom = tiles[0].extents if tiles else (0, 0, *image.size)
    if image.mode in ("P", "L") and np.asarray(image)[top:bottom, left:right].max(initial=0) >= num_colours:
        raise ValueError("a colour that its palette has not")
    colours, alpha = to_rgb(image)
    if (right - left, bottom - top) == image.size:
        return colours, alpha
    drawn = np.zeros((*colours.shape[:2], 1), np.uint8)
    drawn[top:bottom, left:right] = 255 if alpha is None else alpha[top:bottom, left:right]
    return colours, drawn


def _grey_to_rgb(grey: np.ndarray) -> np.ndarray:
    """A read-only view of (height, width, 1) as (height, width, 3); ``resize_rgb`` knows it by its stride."""
    return np.broadcast_to(grey, (*grey.shape[:2], 3))


def orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8, of an opened JPEG or AVIF; 1 where there is none or it is damaged.

    Also 1 for TIFF and HEIF, which come upright, and for PNG and WebP: TensorFlow's decoders know nothing of it there.
    """
    try:
        if image.format in _JPEG_FORMATS:
            exif = Image.Exif()
            exif.load(image.info.get("exif", b""))
        elif image.format == "AVIF":
            exif = image.getexif()
        else:
            return 1
        value: Any = exif.get(_ORIENTATION_TAG, 1)
    except (SyntaxError, ValueError, OSError, EOFError):  # damaged EXIF is no reason to refuse the picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(rgb: np.ndarray, turn: int) -> np.ndarray:
    if turn >= 5:
        rgb = rgb.transpose(1, 0, 2)
    if turn in (2, 3, 6, 7):
        rgb = rgb[:, ::-1]
    return rgb[::-1] if turn in (3, 4, 7, 8) else rgb


def _array_to_rgb(array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
        array = array[..., None]
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] not in (1, 3):
        raise ImageError(
            f"an array picture must be uint8 of shape (height, width, 3), got {array.dtype} of shape {array.shape}"
        )
    return _grey_to_rgb(array) if array.shape[-1] == 1 else array


def read_file(path: Path) -> bytes:
    """A file's bytes, or an ``ImageError`` that names the file and the reason."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{path}: a folder; give the pictures in it") from None
    except OSError as error:
        raise ImageError(f"{path}: cannot be read ({error.strerror})") from None
    if not data:  # as an interrupted download leaves it
        raise ImageError(f"{path}: an empty file, not a picture")
    return data
