"""Keras 3's ``.keras``: an archive of a configuration and weights. The network is not built, and no code of it runs."""

import json
from pathlib import Path
from typing import Any

from toolkit.errors import UserError
from toolkit.weights.readers.hdf5 import arrays_within
from toolkit.weights.readers.mapped import open_archive
from toolkit.weights.readers.tensor_file import TensorFile

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
_MAX_CONFIG_BYTES = 16 << 20


def read_keras(path: Path) -> TensorFile:
    """The weights in a ``.keras`` file, and its layers' settings; an optimizer's state beside them is left out."""
    archive = open_archive(path)
    layers = _layers(json.loads(bytes(archive.view(CONFIG, max_bytes=_MAX_CONFIG_BYTES))))
    start, stop = archive.span(WEIGHTS)
    tensors, metadata = arrays_within(path, archive.data, kind="weights.h5", start=start, stop=stop)
    return TensorFile(path, "keras", tensors, metadata, layers)


def _layers(config: Any) -> dict[str, dict[str, Any]]:
    try:
        layers = {layer["config"]["name"]: dict(layer["config"]) for layer in config["config"]["layers"]}
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"its {CONFIG} describes no network; save the model again") from error
    return {name: {key: _plain(value) for key, value in settings.items()} for name, settings in layers.items()}


def _plain(value: Any) -> Any:
    return tuple(_plain(item) for item in value) if isinstance(value, list) else value
