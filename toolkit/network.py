"""Functional Keras networks: loading, walking their graph, casting to float32, digests that tell one from another."""

import hashlib
import json
from pathlib import Path
from typing import Any

from toolkit.lazy import keras, lazy_module

np = lazy_module("numpy")

# What a layer starts from, is pulled towards or is called does not change what it answers.
_NO_MATTER = ("name", "trainable", "dtype", "seed")
_NO_MATTER_ENDINGS = ("_initializer", "_regularizer", "_constraint")


def load_network(path: str | Path) -> "keras.Model":
    """Load a ``.keras`` archive, custom layers included; nothing in the file can run."""
    import toolkit.layers  # noqa: F401  (registers the custom layers the file may name)

    return keras.saving.load_model(path, compile=False, safe_mode=True)


def inputs_of(layer: "keras.Layer") -> list[Any]:
    """Symbolic tensors that a layer reads, in order."""
    return list(layer.input) if isinstance(layer.input, list | tuple) else [layer.input]


def sources(model: "keras.Model") -> dict[str, list["keras.Layer"]]:
    """The layers that feed each layer, by its name, in the order of its inputs.

    Raises:
        ValueError: a layer has several outputs; such a network is not flat.
    """
    producer: dict[int, keras.Layer] = {}
    for layer in model.layers:
        if isinstance(layer.output, list | tuple):
            raise ValueError(f"layer {layer.name!r} has several outputs; a flat network has layers of one")
        producer[id(layer.output)] = layer
    # An input layer names its own output as its input.
    return {
        layer.name: [
            producer[id(tensor)]
            for tensor in inputs_of(layer)
            if id(tensor) in producer and producer[id(tensor)] is not layer
        ]
        for layer in model.layers
    }


def as_float32(model: "keras.Model") -> "keras.Model":
    """Cast every layer of a network to float32, whatever dtype policy it was trained under.

    A mixed-precision graph is slow on CPUs and refused by LiteRT, so nothing is exported from one.

    Returns:
        ``model`` itself if it is float32 already, else a rebuilt copy with the same weights.
    """
    computing = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    if all(layer.dtype_policy.name == "float32" for layer in computing):
        return model
    config = _with_policy(model.get_config(), "float32")
    rebuilt = type(model).from_config(config)
    rebuilt.set_weights(model.get_weights())
    return rebuilt


def _with_policy(config: Any, policy: str) -> Any:
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return {**config, "config": {"name": policy}}
        return {key: _with_policy(value, policy) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_with_policy(item, policy) for item in config)
    return config


def feature_tensor(model: "keras.Model") -> Any:
    """Find the pooled embedding: the symbolic input of the network's last layer, its classifier.

    Where the classifier is a convolution whose class maps are averaged (Network in Network), it is the average of what
    that convolution sees.

    Raises:
        ValueError: the network ends in neither.
    """
    last = model.layers[-1]
    if last.name == "head_logits" and isinstance(last, keras.layers.GlobalAveragePooling2D):
        return keras.layers.GlobalAveragePooling2D(dtype=last.dtype_policy, name="head_features")(
            model.layers[-2].input
        )
    if not isinstance(last, keras.layers.Dense) or len(last.input.shape) != 2:
        raise ValueError(
            f"the network ends in {type(last).__name__} {last.name!r}; expected a Dense classifier on pooled features"
        )
    return last.input


def weights_digest(model: "keras.Model") -> str:
    """Digest every weight's shape, dtype and bytes, in order: equal for equal networks, whatever their names."""
    digest = hashlib.sha256()
    for weight in model.weights:
        array = np.ascontiguousarray(keras.ops.convert_to_numpy(weight.value))
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def architecture_digest(model: "keras.Model") -> str:
    """Digest a functional network's layers and how they are joined, whatever they are called.

    Equal weights can stand in networks that answer differently: ResNet v1 and v1.5 differ in where they stride.
    """
    order = {id(layer.output): index for index, layer in enumerate(model.layers)}
    layers = [
        [type(layer).__name__, essence(layer.get_config()), [order[id(tensor)] for tensor in inputs_of(layer)]]
        for layer in model.layers
    ]
    return hashlib.sha256(json.dumps(layers, sort_keys=True, default=str).encode()).hexdigest()


def essence(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a layer that change what it answers."""
    return {
        key: value
        for key, value in config.items()
        if key not in _NO_MATTER and not key.endswith(_NO_MATTER_ENDINGS) and not callable(value)
    }
