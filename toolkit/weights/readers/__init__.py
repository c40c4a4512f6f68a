"""From a weights file to named arrays. Nothing in a file is run, and nothing is allocated on its word alone."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import UserError
from toolkit.weights.readers.detect import check_file, format_of
from toolkit.weights.readers.tensor_file import TensorFile

if TYPE_CHECKING:
    import numpy as np

__all__ = ["FORMATS", "TensorFile", "read_tensors"]

FORMATS = ("keras", "weights.h5", "h5", "safetensors", "torch", "caffemodel")

# Views of one array under several names cost nothing until they are copied.
_MAX_EXPANSION = 4
_SLACK_BYTES = 1 << 20


def read_tensors(path: str | os.PathLike[str], format: str = "auto") -> TensorFile:
    """Read every array of a weights file.

    Args:
        path: a ``.keras``, ``.weights.h5``, legacy ``.h5``, ``.safetensors``, torch or ``.caffemodel`` file.
        format: one of ``FORMATS``, or ``"auto"`` to tell by the content.

    Returns:
        The arrays by name in the file's order, in native byte order; half precision (float16, bfloat16) comes as
        float32, all else as stored. Wrappers around a torch checkpoint's weights and prefixes such as ``module.`` are
        taken off; ``num_batches_tracked``, optimizer state and numbers beside the weights are left out.

    Raises:
        UserError: there is no such file, it is damaged, it is of another kind, or it holds something else than arrays.
    """
    path = Path(path)
    if format not in ("auto", *FORMATS):
        raise UserError(f"cannot read weights from {format!r}; formats: {', '.join(FORMATS)}")
    check_file(path)
    with _named_in_errors(path):
        chosen = format_of(path) if format == "auto" else format
    with _named_in_errors(path, chosen):
        file = _reader(chosen)(path)
        if not file.tensors:
            raise UserError("holds no weights; save the network again")
        _check_sizes(file)
        tensors = {name: _native(array) for name, array in file.tensors.items()}
    return TensorFile(path, chosen, tensors, file.metadata, file.layers)


@contextmanager
def _named_in_errors(path: Path, format: str = "weights") -> Iterator[None]:
    """One line that begins with the file's name, whatever went wrong."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # a damaged file fails in as many ways as it can be damaged
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path} is not a readable {format} file: {reason}; download or save it again") from error


def _reader(format: str) -> Callable[[Path], TensorFile]:
    # Imported here, because they bring NumPy and h5py, and naming a network must not wait for those.
    from toolkit.weights.readers.caffe import read_caffemodel
    from toolkit.weights.readers.keras_file import read_keras, read_legacy_h5, read_weights_h5
    from toolkit.weights.readers.safetensors_file import read_safetensors
    from toolkit.weights.readers.torch_file import read_torch

    readers = (read_keras, read_weights_h5, read_legacy_h5, read_safetensors, read_torch, read_caffemodel)
    return dict(zip(FORMATS, readers, strict=True))[format]


def _check_sizes(file: TensorFile) -> None:
    for name, array in file.tensors.items():
        if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
            raise UserError(f"{name[:100]!r} holds {array.dtype} and not numbers")
    claimed = sum(array.size * (4 if _is_half(array) else array.itemsize) for array in file.tensors.values())
    allowed = _MAX_EXPANSION * (file.num_bytes or file.path.stat().st_size) + _SLACK_BYTES
    if claimed > allowed:
        raise UserError(f"names {claimed:,} bytes of arrays, over {_MAX_EXPANSION} times what the file holds: refused")


def _is_half(array: "np.ndarray") -> bool:
    return array.dtype.name in ("float16", "bfloat16")


def _native(array: "np.ndarray") -> "np.ndarray":
    if _is_half(array):
        return array.astype("float32")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
