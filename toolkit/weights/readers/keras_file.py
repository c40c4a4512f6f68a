"""Keras' files: ``.keras`` archives, ``.weights.h5`` of Keras 3, and the legacy ``.h5`` of keras.applications.

A process of its own finds where the arrays of an HDF5 file lie (see ``hdf5_worker``); here they are taken from the
mapped file. Of an archive the network is not built, and no code of it runs. Keras stores what is in one as it is; one
that somebody packed again, or this package in half precision, is compressed, and is unpacked onto the disk.
"""

import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from toolkit.errors import UserError
from toolkit.files import scratch_folder
from toolkit.weights.readers.tensor_file import NOTE, Archive, TensorFile, map_file, open_archive

#: The largest sum of arrays that is read from an HDF5 file.
MAX_BYTES = 4 << 30
#: How long finding the arrays may take. ResNet-152's 777 take a second.
TIMEOUT_SECONDS = 60.0
CONFIG, WEIGHTS = "config.json", "model.weights.h5"
_MAX_CONFIG_BYTES = 16 << 20
_MAX_GROWTH = 100  # of weights that are unpacked: many of a pruned network are zero
_WORKER = Path(__file__).with_name("hdf5_worker.py")


def read_keras(path: Path) -> TensorFile:
    """The weights in a ``.keras`` file, and its layers' settings; an optimizer's state beside them is left out."""
    archive = open_archive(path)
    entries = [archive.entries[name] for name in (CONFIG, WEIGHTS) if name in archive.entries]
    if not any(entry.compress_type == zipfile.ZIP_DEFLATED and not entry.flag_bits & 1 for entry in entries):
        return _read_stored(path, archive)
    with scratch_folder("toolkit-weights-") as directory:
        unpacked = directory / "stored.keras"
        _store(path, archive, unpacked)
        return _read_stored(unpacked, open_archive(unpacked))  # which stays mapped


def _read_stored(path: Path, archive: Archive) -> TensorFile:
    layers = _layers(json.loads(bytes(archive.view(CONFIG, max_bytes=_MAX_CONFIG_BYTES))))
    start, stop = archive.span(WEIGHTS)
    tensors, metadata = arrays_within(path, archive.data, kind="weights.h5", start=start, stop=stop)
    if archive.comment.startswith(NOTE):
        metadata["toolkit"] = archive.comment.removeprefix(NOTE).decode("utf-8", "replace")
    return TensorFile(path, "keras", tensors, metadata, layers, len(archive.data))


def _store(path: Path, archive: Archive, target: Path) -> None:
    """Write an archive anew with its entries as they are, which may not be more than a compressed network can hold."""
    most = {CONFIG: _MAX_CONFIG_BYTES, WEIGHTS: min(MAX_BYTES, _MAX_GROWTH * len(archive.data))}
    with zipfile.ZipFile(path) as packed, zipfile.ZipFile(target, "w") as stored:
        stored.comment = archive.comment
        for name, max_bytes in most.items():
            entry = archive.entries.get(name)
            if entry is None or entry.compress_type != zipfile.ZIP_DEFLATED:
                stored.writestr(name, archive.view(name, max_bytes))
                continue
            if entry.file_size > max_bytes:
                raise UserError(f"{name!r} claims {entry.file_size:,} bytes; at most {max_bytes:,} are unpacked")
            try:
                with packed.open(entry) as source, stored.open(name, "w", force_zip64=True) as copy:
                    shutil.copyfileobj(source, copy, 1 << 20)
            except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                raise UserError(f"{name!r} in the archive is damaged; download or save the file again") from error


def read_weights_h5(path: Path) -> TensorFile:
    """A file of ``model.save_weights`` of Keras 3."""
    return TensorFile(path, "weights.h5", *arrays_within(path, map_file(path), kind="weights.h5"))


def read_legacy_h5(path: Path) -> TensorFile:
    """A legacy file of weights, or the weights in a legacy file of a whole model, with its layers' settings."""
    tensors, metadata = arrays_within(path, map_file(path), kind="h5")
    config = metadata.pop("model_config", "")
    layers = {}
    with contextlib.suppress(UserError, ValueError, RecursionError):  # Keras 1 and 2 wrote others, which tell nothing
        layers = _layers(json.loads(config))
    return TensorFile(path, "h5", tensors, metadata, layers)


def hdf5_format(data: memoryview) -> str:
    """``"h5"`` or ``"weights.h5"``; without HDF5's library, which may stumble, by names that only legacy files hold."""
    legacy = any(data.obj.find(name) >= 0 for name in (b"layer_names", b"model_weights"))  # type: ignore[attr-defined]
    return "h5" if legacy else "weights.h5"


def arrays_within(
    path: Path, data: memoryview, *, kind: str, start: int = 0, stop: int | None = None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Arrays and metadata of the HDF5 file that is a part of the mapped file ``data``."""
    hdf5 = data[start:stop]
    found = _find_arrays(path, kind, start, start + len(hdf5))
    claimed = sum(math.prod(shape) * _dtype(dtype).itemsize for _, dtype, shape, _ in found["arrays"])
    if claimed > min(len(hdf5), MAX_BYTES):
        raise UserError(f"claims {claimed:,} bytes of arrays; at most {MAX_BYTES:,} are read, and what the file has")
    arrays = {
        name: np.frombuffer(hdf5, _dtype(dtype), math.prod(shape), offset).reshape(shape)
        for name, dtype, shape, offset in found["arrays"]
    }
    return arrays, found["metadata"]


def _find_arrays(path: Path, kind: str, start: int, stop: int) -> dict[str, Any]:
    command = [sys.executable, "-P", str(_WORKER), kind, str(path), str(start), str(stop)]
    # NumPy would set memory aside for each processor, and the process has little.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_SECONDS, env=environment
        )
        found = json.loads(done.stdout)
    except subprocess.TimeoutExpired as error:
        raise UserError("is damaged: HDF5's library found no end to it; download or save it again") from error
    except ValueError as error:
        raise UserError("is damaged: HDF5's library failed on it; download or save it again") from error
    if "error" in found:
        raise UserError(found["error"])
    return found


def _layers(config: Any) -> dict[str, dict[str, Any]]:
    try:
        layers = dict(_settings(config["config"]["layers"]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"its {CONFIG} describes no network; save the model again") from error
    return {name: {key: _plain(value) for key, value in settings.items()} for name, settings in layers.items()}


def _settings(layers: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and settings of layers, those of networks within the network in their place."""
    for layer in layers:
        settings = dict(layer["config"])
        if isinstance(settings.get("layers"), list):
            yield from _settings(settings["layers"])
        else:
            yield settings["name"], settings


def _plain(value: Any) -> Any:
    return tuple(_plain(item) for item in value) if isinstance(value, list) else value


def _dtype(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
