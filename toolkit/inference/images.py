"""Pictures as callers give them, one or several, brought to the kinds that are decoded."""

import io
import os
import stat
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from toolkit.data.pixels.decode import ImageError, ImageSource, image_errors, read_file, read_rgb
from toolkit.data.pixels.sizes import MAX_FILE_BYTES
from toolkit.errors import first_line
from toolkit.files import no_such_file

#: In words, for messages.
EXPECTED = (
    "a path, encoded bytes, an open binary file, a Pillow image or a uint8 array (height, width, 3), one or several in "
    "a list, a generator or an array (pictures, height, width, 3)"
)

_CHANNELS = (1, 2, 3, 4)  # grey, grey and alpha, RGB, RGBA
_NAMES_OR_BYTES = "OSU"  # kinds of arrays that hold them, of tensors of strings too
_LOADING = threading.Lock()  # of pictures that Pillow has only opened: one may be given twice
_SHOWN = 80  # characters of a path that is none


def iter_images(images: Any) -> tuple[Iterable[Any], Callable[[int], str]]:
    """Tell several pictures from one.

    Args:
        images: ``EXPECTED``.

    Returns:
        The pictures, each for ``image_source``, and what gives the name by which messages call the one at an index.

    Raises:
        ImageError: neither a picture nor several.
    """
    if isinstance(images, str | os.PathLike | bytes | bytearray | memoryview | Image.Image) or hasattr(images, "read"):
        return [images], _one
    if hasattr(images, "__array__"):
        array = _to_array(images, "images")
        if array.dtype.kind in _NAMES_OR_BYTES:
            return array.ravel().tolist(), _one if array.ndim == 0 else _one_of_several
        return (array, _one_of_several) if array.ndim == 4 else ([array], _one)
    if isinstance(images, Iterable) and not isinstance(images, Mapping):
        return images, _one_of_several
    raise ImageError(f"expected {EXPECTED}; got {type(images).__name__}")


def _one(_: int) -> str:
    return "the picture"


def _one_of_several(index: int) -> str:
    return f"images[{index}]"


def image_source(image: Any, name: str = "the picture") -> ImageSource:
    """Bring one picture to a kind that is decoded.

    Args:
        image: one of those that ``EXPECTED`` names.
        name: what messages call it, unless it is a path.

    Raises:
        ImageError: it is none of those, or cannot be read.
    """
    if isinstance(image, str | os.PathLike):
        return _path(os.fsdecode(image))
    if isinstance(image, bytes):
        return image
    if isinstance(image, bytearray | memoryview):
        return bytes(image)
    if isinstance(image, Image.Image):
        return _pillow(image, name)
    if hasattr(image, "read"):
        return _content(image, name)
    if hasattr(image, "__array__"):
        array = _to_array(image, name)
        if array.ndim == 0 and array.dtype.kind in _NAMES_OR_BYTES:
            return image_source(array.item(), name)
        return _pixels(array, name)
    raise ImageError(f"{name}: expected {EXPECTED}; got {type(image).__name__}")


def encoded(source: ImageSource) -> bytes:
    """Give a picture's encoded bytes; what is decoded already becomes a PNG."""
    if isinstance(source, bytes):
        return source
    if isinstance(source, str | os.PathLike):
        return read_file(Path(source))
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(read_rgb(source))).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _path(name: str) -> str:
    try:
        status = os.stat(name)
    except FileNotFoundError:
        raise ImageError(no_such_file(name)) from None
    except (OSError, ValueError) as error:  # too long to be a path, or with a null character in it
        shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"
        raise ImageError(f"{shown}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{name}: a folder; give the pictures in it")
    if status.st_size > MAX_FILE_BYTES:
        raise ImageError(f"{name}: larger than {MAX_FILE_BYTES >> 20:,} MiB")
    return name


def _pillow(image: Image.Image, name: str) -> Image.Image:
    if 0 in image.size:
        raise ImageError(f"{name}: a picture without pixels, {image.width} × {image.height}")
    with image_errors(name), _LOADING:
        image.load()
    return image


def _content(file: Any, name: str) -> bytes:
    try:
        content = file.read()
    except (OSError, ValueError) as error:  # a closed file, or a text file that is no text
        raise ImageError(f"{name}: cannot be read ({error}); open the file with mode 'rb'") from None
    if isinstance(content, str):
        raise ImageError(f"{name}: a file opened as text; open it with mode 'rb'")
    if not content:
        raise ImageError(f"{name}: nothing left to read in the file; file.seek(0) goes back to its start")
    return bytes(content)


def _to_array(values: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(values)
    except Exception as error:  # whatever the library raises whose array it is
        reason = first_line(error)
        raise ImageError(f"{name}: {type(values).__name__} cannot be read as an array ({reason})") from None


def _pixels(array: np.ndarray, name: str) -> ImageSource:
    if array.dtype != np.uint8:
        raise ImageError(f"{name}: {_expected_array(array)}{_to_uint8(array)}")
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in _CHANNELS) or 0 in array.shape:
        first = array.ndim >= 3 and array.shape[-3] in _CHANNELS
        hint = "; numpy.moveaxis(array, -3, -1) puts the channels last" if first else ""
        raise ImageError(f"{name}: {_expected_array(array)}{hint}")
    if array.ndim == 3 and array.shape[-1] in (2, 4):
        return Image.fromarray(np.ascontiguousarray(array))
    return array


def _expected_array(array: np.ndarray) -> str:
    return f"expected a uint8 array (height, width, 3) of values 0…255, got {array.dtype} of shape {array.shape}"


def _to_uint8(array: np.ndarray) -> str:
    if array.dtype.kind not in "biuf" or not array.size:
        return ""
    lowest, highest = np.nanmin(array), np.nanmax(array)
    if lowest >= 0 and highest <= 1:
        return ", of values 0…1; (array * 255).round().astype('uint8') makes it one"
    if lowest >= 0 and highest <= 255:
        return "; array.round().astype('uint8') makes it one"
    return f", of values {lowest:g}…{highest:g}; undo its normalisation, then .astype('uint8')"
