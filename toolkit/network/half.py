"""Half precision: a network's weights rounded to float16, and written in it, which loses nothing then."""

import io
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import UserError
from toolkit.files import scratch_folder
from toolkit.lazy import keras, lazy_module

if TYPE_CHECKING:
    import numpy

np = lazy_module("numpy")

_LARGEST = 65504  # of float16


def rounded_to_half(model: "keras.Model") -> "keras.Model":
    """Copy a float32 network with every weight rounded to the nearest number of half precision.

    The copy computes in float32; an answer differs in the fourth digit.

    Raises:
        UserError: a weight is too large for half precision.
    """
    weights = model.get_weights()
    largest = max((float(np.abs(values).max()) for values in weights if values.dtype == np.float32), default=0.0)
    if not largest <= _LARGEST:
        raise UserError(f"half precision ends at {_LARGEST:,} and {model.name!r} has a weight of {largest:,.0f}")
    copy = type(model).from_config(model.get_config())
    copy.set_weights(
        [values.astype(np.float16).astype(np.float32) if values.dtype == np.float32 else values for values in weights]
    )
    return copy


def in_half(values: "numpy.ndarray") -> "numpy.ndarray":
    """Give float32 values in half precision where that holds each exactly, and others as they are."""
    if values.dtype != np.float32:
        return values
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    return half if np.array_equal(half, values) else values


def save_in_half(model: "keras.Model", path: Path) -> None:
    """Save a network whose weights half precision holds exactly as a ``.keras`` file of less than half the size.

    Keras opens it as any other, in float32. The file is compressed, which Keras leaves undone.
    """
    import h5py

    with scratch_folder("toolkit-half-") as directory:
        model.save(directory / path.name)
        given, result = zipfile.ZipFile(directory / path.name), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED)
        with given as written, result as archive:
            for name in written.namelist():
                content = written.read(name)
                if name.endswith(".h5"):
                    target = io.BytesIO()
                    with h5py.File(io.BytesIO(content)) as source, h5py.File(target, "w", libver="latest") as file:
                        _copy(source, file)
                    content = target.getvalue()
                archive.writestr(name, content)


def _copy(source, target) -> None:
    """Copy an HDF5 group: its arrays in half precision where they may be."""
    target.attrs.update(source.attrs)
    for name, item in source.items():
        if hasattr(item, "items"):
            _copy(item, target.create_group(name))
        else:
            target.create_dataset(name, data=in_half(item[()])).attrs.update(item.attrs)
