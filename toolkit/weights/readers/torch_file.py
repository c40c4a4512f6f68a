"""Checkpoints of ``torch.save`` in both its formats, read without torch and without running anything in them."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from toolkit.errors import UserError
from toolkit.weights.readers.pickle_names import Storage, Tensor
from toolkit.weights.readers.plain_pickle import MAX_PICKLE_BYTES, read_pickle
from toolkit.weights.readers.tensor_file import Archive, TensorFile, map_file, open_archive
from toolkit.weights.readers.unwrap import plain_names, state_dict

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


def read_torch(path: Path) -> TensorFile:
    """Arrays of a ``.pth``, ``.pt``, ``.th`` or ``.bin`` file.

    A checkpoint's wrapper and prefixes are seen through (see ``unwrap``): of ``{"state_dict": …, "epoch": …}`` the
    weights are taken, and running averages beside them are not.
    """
    view = map_file(path)
    root, values = _open_zip(open_archive(path)) if view[:4] == b"PK\x03\x04" else _open_legacy(view)
    tensors = plain_names(state_dict(root, Tensor))
    if not tensors:
        raise UserError("holds no weights by name; save a state_dict() with torch.save, alone or under 'state_dict'")
    return TensorFile(path, "torch", {name: _array(tensor, values(tensor.storage)) for name, tensor in tensors.items()})


def _open_zip(archive: Archive) -> tuple[Any, Callable[[Storage], np.ndarray]]:
    """torch 1.6 and later: ``NAME/data.pkl`` and a file of values for each storage, ``NAME/data/KEY``."""
    pickles = [name for name in archive.entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise UserError(f"the archive holds {len(pickles)} pickles and not one: it was not written by torch.save")
    prefix = pickles[0].removesuffix("data.pkl")
    content = archive.view(pickles[0], max_bytes=MAX_PICKLE_BYTES)
    root, _ = read_pickle(io.BytesIO(content))
    order = _byte_order(archive, f"{prefix}byteorder")
    known: dict[str, memoryview] = {}

    def values(storage: Storage) -> np.ndarray:
        if storage.key not in known:
            known[storage.key] = archive.view(f"{prefix}data/{storage.key}")
        return _values(known[storage.key], storage, order)

    return root, values


def _byte_order(archive: Archive, name: str) -> str:
    if name not in archive.entries:
        return "little"
    order = bytes(archive.view(name, max_bytes=16)).decode()
    if order not in ("little", "big"):
        raise UserError(f"its byte order is {order!r}, and neither 'little' nor 'big'; download or save it again")
    return order


def _open_legacy(view: memoryview) -> tuple[Any, Callable[[Storage], np.ndarray]]:
    """Before torch 1.6: five pickles, then for each storage its number of values and the values, little-endian."""
    stream = io.BytesIO(view[:MAX_PICKLE_BYTES])
    magic, _ = read_pickle(stream)
    if magic != LEGACY_MAGIC:
        raise UserError("is a pickle that torch.save did not write; save a state_dict() with torch.save")
    protocol, _ = read_pickle(stream)
    if protocol != _LEGACY_PROTOCOL:
        raise UserError(f"is of a protocol other than {_LEGACY_PROTOCOL}; save it again with a newer torch")
    read_pickle(stream)  # the sizes of C types where it was written
    root, storages = read_pickle(stream)
    keys, _ = read_pickle(stream)
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in storages for key in keys):
        raise UserError("lists other storages than its tensors name; download or save it again")
    position, places = stream.tell(), {}
    for key in keys:
        count, start = int.from_bytes(view[position : position + 8], "little"), position + 8
        position = start + count * _dtype(storages[key]).itemsize
        if count != storages[key].count or position > len(view):
            raise UserError("is cut short or damaged among its values; download or save it again")
        places[key] = view[start:position]
    if places.keys() != storages.keys():
        raise UserError("lacks values of some of its tensors; download or save it again")
    return root, lambda storage: _values(places[storage.key], storage, "little")


def _dtype(storage: Storage) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if storage.dtype == "bfloat16" else storage.dtype)


def _values(data: memoryview, storage: Storage, order: str) -> np.ndarray:
    """The values of a storage, one after another."""
    dtype = _dtype(storage)
    if (storage.start + storage.count) * dtype.itemsize > len(data):
        raise UserError(f"has {len(data):,} bytes for a storage of {storage.count:,} {storage.dtype}: refused")
    # By way of unsigned integers, because not every type of a half knows how to swap its bytes.
    bits = np.frombuffer(data, f"u{dtype.itemsize}", storage.count, storage.start * dtype.itemsize)
    return (bits if order == sys.byteorder else bits.byteswap()).view(dtype)


def _array(tensor: Tensor, values: np.ndarray) -> np.ndarray:
    """A tensor's view of its storage, which ``read_pickle`` found to hold it."""
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, values.dtype)
    strides = tuple(stride * values.itemsize for stride in tensor.strides)
    return np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, strides, writeable=False)
