"""Write a model, or its weights alone, to a file that tells what they need."""

import json
import os
import zipfile
from pathlib import Path
from typing import Any

from toolkit.errors import UserError
from toolkit.factory.source import METADATA_KEY
from toolkit.files import replacing
from toolkit.lazy import keras
from toolkit.network import save_in_half
from toolkit.spec import Preprocessing
from toolkit.weights.readers.tensor_file import NOTE

SUFFIXES = (".safetensors", ".weights.h5")


def save_weights(model: "keras.Model", path: str | os.PathLike[str], *, variant: dict[str, Any] | None = None) -> Path:
    """Write a model's weights, its preprocessing and its variant beside them, all at once or not at all.

    Args:
        model: any flat ``keras.Model``.
        path: ends in ``.safetensors`` (tensors named ``layer/variable``, readable in other frameworks) or
            ``.weights.h5`` (Keras' own ``load_weights`` reads it too).
        variant: builder arguments the weights need; those ``create_model`` was given or found where None.

    Returns:
        The path.

    Raises:
        UserError: another suffix, or no place to write to.
    """
    suffix = require_target(path)
    path = Path(path)
    note = _note(model, variant)
    with replacing(path) as partial:
        (_write_safetensors if suffix == ".safetensors" else _write_h5)(model, partial, note)
    return path


def save_network(model: "keras.Model", path: str | os.PathLike[str], *, half: bool = False) -> None:
    """Write a whole model as a ``.keras`` file that tells its preprocessing, in a comment which Keras passes over.

    Args:
        model: any ``keras.Model``; ``preprocessing_of`` it is written beside.
        path: ends in ``.keras``.
        half: store weights in half precision where that holds them exactly, see ``toolkit.network.half``.
    """
    with replacing(path) as partial:
        if half:
            save_in_half(model, partial)
        else:
            model.save(partial)
        with zipfile.ZipFile(partial, "a") as archive:
            archive.comment = NOTE + _note(model).encode()


def _note(model: "keras.Model", variant: dict[str, Any] | None = None) -> str:
    preprocessing = getattr(model, "preprocessing", None)
    return json.dumps(
        {
            "network": model.name,
            "variant": getattr(model, "variant", {}) if variant is None else variant,
            "preprocessing": preprocessing.as_dict() if isinstance(preprocessing, Preprocessing) else None,
        }
    )


def require_target(path: str | os.PathLike[str]) -> str:
    """The one of ``SUFFIXES`` that the name of a file to write ends in.

    Raises:
        UserError: it ends otherwise, or its directory is not there.
    """
    name = Path(path).name
    suffix = next((known for known in SUFFIXES if name.endswith(known)), None)
    if suffix is None:
        raise UserError(f"cannot write weights to {name!r}; the name must end in {' or '.join(SUFFIXES)}")
    if not Path(path).parent.is_dir():
        raise UserError(f"cannot write weights to {path}: there is no directory {Path(path).parent}; make it first")
    return suffix


def _write_safetensors(model: "keras.Model", path: Path, note: str) -> None:
    from safetensors.numpy import save_file

    tensors = {
        f"{layer.name}/{variable.name}": keras.ops.convert_to_numpy(variable.value)
        for layer in model.layers
        for variable in layer.weights
    }
    save_file(tensors, path, metadata={METADATA_KEY: note})


def _write_h5(model: "keras.Model", path: Path, note: str) -> None:
    import h5py

    model.save_weights(path)
    with h5py.File(path, "r+") as file:
        file.attrs[METADATA_KEY] = note
