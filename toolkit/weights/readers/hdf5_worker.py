"""A process of its own that tells where the arrays of a Keras HDF5 file lie: ``hdf5_worker.py KIND PATH START STOP``.

The HDF5 library is known to loop for ever or to crash on damaged files: one changed byte can do it. Here it can harm
nothing but this process, whose memory and time are limited. It prints one JSON document, either ``{"arrays": [[name,
dtype, shape, offset], …], "metadata": {…}}`` with offsets from START, or ``{"error": "…"}``. Nothing of the package
is imported, which keeps it quick to start.

HDF5 can declare arrays far larger than the file, unpack them through filters and point into other files. Keras does
none of it, so nothing of it is followed: only plain numbers that lie in the file in one piece.
"""

import contextlib
import io
import json
import math
import mmap
import resource
import sys
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

_MEMORY_BYTES, _SECONDS = 2 << 30, 60
_MAX_GROUPS, _MAX_DEPTH, _MAX_NAME = 100_000, 32, 1024


class Refused(Exception):
    """A file that cannot be used; the reason is for a person."""


class Window(io.RawIOBase):
    """A part of a file read as if it were one."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._position = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._view)}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        part = self._view[self._position : self._position + len(buffer)]
        buffer[: len(part)] = part
        self._position += len(part)
        return len(part)


def main(kind: str, path: str, start: str, stop: str) -> dict[str, Any]:
    """The document to print."""
    with contextlib.suppress(OSError, ValueError):  # not every system lets itself be limited
        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    with open(path, "rb") as opened:
        view = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))[int(start) : int(stop)]
    try:
        with h5py.File(Window(view), "r") as file:
            datasets = _legacy(file) if kind == "h5" else _keras3(file)
            texts = {key: file.attrs.get(key) for key in ("toolkit", "model_config")}
            return {
                "arrays": [[name, *_place(dataset)] for name, dataset in datasets.items()],
                "metadata": {key: text for key, text in texts.items() if isinstance(text, str)},
            }
    except Refused as error:
        return {"error": str(error)}
    except Exception as error:  # a damaged file fails in as many ways as it can be damaged
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return {"error": f"is cut short or damaged: {reason}; download or save it again"}


def _keras3(file: h5py.File) -> dict[str, h5py.Dataset]:
    """Arrays by layer: Keras writes each layer's name beside its variables, numbered 0, 1, …"""
    if "layers" not in list(file):
        raise Refused("holds no group 'layers': it was not written by model.save_weights of Keras 3")
    datasets: dict[str, h5py.Dataset] = {}
    for place, group in _variable_groups(_member(file, "layers")):
        # Random-seed states of dropout and the like are no weights.
        if "seed_generator" in place or len(group) == 0:
            continue
        layer = group.attrs.get("name")
        if not isinstance(layer, str) or len(layer) > _MAX_NAME:
            raise Refused(
                "is of Keras 2, which names no layers in it; save it as .h5 or SavedModel with the Keras that wrote it"
            )
        if f"{layer}/0" in datasets and place.count("layers"):  # of a network within this one
            layer = ".".join([*(part for part in place[:-2] if part != "layers"), layer])
        for index in range(len(group)):
            _add(datasets, layer, index, _member(group, str(index)))
    return datasets


def _legacy(file: h5py.File) -> dict[str, h5py.Dataset]:
    """Arrays by layer, of a file of weights or of the ``model_weights`` of a whole model's."""
    root = _member(file, "model_weights") if "model_weights" in list(file) else file
    datasets: dict[str, h5py.Dataset] = {}
    for layer in _names(root, "layer_names"):
        group = _member(root, layer)
        for owner, weights in _by_owner(layer, _names(group, "weight_names")).items():
            name = f"{layer}.{owner}" if f"{owner}/0" in datasets and owner != layer else owner
            for index, weight in enumerate(weights):
                _add(datasets, name, index, _member(group, weight))
    return datasets


def _by_owner(layer: str, weights: list[str]) -> dict[str, list[str]]:
    """Weights of a layer by the layer they belong to: a network within a network lists all of its layers' together."""
    owners = [weight.split("/")[-2] if "/" in weight else layer for weight in weights]
    if len(set(owners)) == 1:
        owners = [layer] * len(weights)
    return {owner: [own for own, of in zip(weights, owners, strict=True) if of == owner] for owner in owners}


def _variable_groups(layers: h5py.Group) -> Iterator[tuple[list[str], h5py.Group]]:
    """Every group called ``vars``, with the names on the way to it."""
    pending: list[tuple[list[str], h5py.Group]] = [([], layers)]
    for _ in range(_MAX_GROUPS):
        if not pending:
            return
        place, group = pending.pop()
        if place and place[-1] == "vars":
            yield place, group
        elif len(place) < _MAX_DEPTH:
            inner = [(name, _member(group, name)) for name in group]
            pending += [([*place, name], child) for name, child in reversed(inner) if isinstance(child, h5py.Group)]
    raise Refused(f"holds more than {_MAX_GROUPS:,} groups, far more than a network has layers")


def _member(group: h5py.Group, path: str) -> Any:
    """The member at a path within the file, never followed out of it."""
    for part in filter(None, path.split("/")):
        link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
        if link is None:
            raise Refused(f"lacks {path[:200]!r}, which it names itself; download or save it again")
        if not isinstance(link, h5py.HardLink):
            raise Refused(f"{group.name}/{part} is kept in another file or place; refusing to follow it")
        group = group[part]
    return group


def _add(datasets: dict[str, h5py.Dataset], layer: str, index: int, dataset: Any) -> None:
    name = f"{layer}/{index}"
    if name in datasets:
        raise Refused(f"holds two layers named {layer!r}; names must tell layers apart")
    if not isinstance(dataset, h5py.Dataset):
        raise Refused(f"holds no array where {name!r} should be; download or save it again")
    datasets[name] = dataset


def _place(dataset: h5py.Dataset) -> tuple[str, tuple[int, ...], int]:
    """An array's dtype, its shape and where it begins."""
    plist = dataset.id.get_create_plist()
    if plist.get_layout() == h5py.h5d.VIRTUAL or plist.get_external_count():
        raise Refused(f"{dataset.name} is kept in another file; refusing to follow it")
    if plist.get_nfilters() or plist.get_layout() == h5py.h5d.CHUNKED:
        raise Refused(f"{dataset.name} is compressed or in chunks, as Keras never writes it; save the weights again")
    dtype = _dtype(dataset)
    if dataset.shape is None or 0 in dataset.shape:
        return dtype, dataset.shape or (0,), 0
    declared, stored = math.prod(dataset.shape) * dataset.dtype.itemsize, dataset.id.get_storage_size()
    if declared != stored or dataset.id.get_offset() is None:
        raise Refused(f"{dataset.name} claims {declared:,} bytes and holds {stored:,}; download or save it again")
    return dtype, dataset.shape, dataset.id.get_offset()


def _dtype(dataset: h5py.Dataset) -> str:
    # HDF5 has no such type: Keras stores the bytes and says so beside them.
    if dataset.dtype == np.dtype("V2") and dataset.attrs.get("dtype") == "bfloat16":
        return "bfloat16"
    # HDF5 knows numbers of other layouts than NumPy's, and would convert them.
    if dataset.dtype.kind not in "fiub" or dataset.id.get_type() != h5py.h5t.py_create(dataset.dtype, logical=True):
        raise Refused(f"{dataset.name} holds {dataset.dtype} and not numbers as NumPy has them; save it as float32")
    return dataset.dtype.str


def _names(group: Any, key: str) -> list[str]:
    """A list of names from an attribute, or from several numbered ones, as Keras splits a long list."""
    attributes = group.attrs
    keys = [key] if key in attributes else []
    while not (keys and keys[0] == key) and f"{key}{len(keys)}" in attributes:
        keys.append(f"{key}{len(keys)}")
    if not keys:
        raise Refused(f"{group.name} has no attribute {key!r}: the file was not written by Keras")
    values = [value for part in keys for value in np.ravel(attributes[part]).tolist()]
    names = [value.decode() if isinstance(value, bytes) else str(value) for value in values]
    if len(names) > _MAX_GROUPS or any(len(name) > _MAX_NAME for name in names):
        raise Refused(f"attribute {key!r} of {group.name} holds no names; download or save it again")
    return names


if __name__ == "__main__":
    json.dump(main(*sys.argv[1:]), sys.stdout)
