"""Functional Keras networks: loading, walking their graph, casting to float32, digests that tell one from another."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toolkit.errors import UserError
from toolkit.files import scratch_folder
from toolkit.lazy import keras, lazy_module

np = lazy_module("numpy")

# What a layer starts from, is pulled towards or is called does not change what it answers.
_NO_MATTER = ("name", "trainable", "dtype", "seed")
_NO_MATTER_ENDINGS = ("_initializer", "_regularizer", "_constraint")


def load_network(path: str | Path) -> "keras.Model":
    """Load a whole network from a ``.keras`` or ``.h5`` file, custom layers of this package included.

    It is as the file holds it: networks within it and a softmax at its end are taken by ``as_classifier``, which
    exports and methods call themselves. Nothing in the file is run.

    Raises:
        UserError: no file, one that is damaged or holds weights alone, or one with code or classes of its own.
    """
    import toolkit.layers  # noqa: F401  (registers the custom layers the file may name)

    path = Path(path)
    if not path.is_file():
        raise UserError(f"no network at {path}; give a .keras file or an .h5 file of a whole model")
    try:
        with _readable(path) as file:
            return keras.saving.load_model(file, compile=False, safe_mode=True)
    except Exception as error:  # a file fails in as many ways as it can be damaged
        raise UserError(f"{path}: {_reason(str(error))}") from error


@contextmanager
def _readable(path: Path) -> Iterator[Path]:
    """The file itself, in lower case if need be; of one that Keras 2 wrote as HDF5, a copy as Keras 3 takes it."""
    import h5py

    if path.suffix != path.suffix.lower():  # by which Keras tells its forms
        with scratch_folder("toolkit-suffix-") as directory:
            link = directory / f"network{path.suffix.lower()}"
            link.symlink_to(path.absolute())
            with _readable(link) as file:
                yield file
        return
    if not h5py.is_hdf5(path):
        yield path
        return
    with h5py.File(path, "r") as file:
        config, version = (file.attrs.get(key) for key in ("model_config", "keras_version"))
    if not isinstance(config, str) or not str(version).startswith("2"):
        yield path
        return
    with scratch_folder("toolkit-keras2-") as directory:
        copy = directory / "network.h5"
        shutil.copyfile(path, copy)
        with h5py.File(copy, "r+") as file:
            file.attrs["model_config"] = json.dumps(_as_keras3(json.loads(config)))
        yield copy


# Settings that Keras 2 wrote, which mean nothing or the default, and which Keras 3 refuses.
_KERAS_2 = {
    "DepthwiseConv2D": ("groups",),
    "SeparableConv2D": ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint"),
    "Conv2DTranspose": ("groups",),
    "SpatialDropout2D": ("trainable", "noise_shape"),
}


def _as_keras3(config: Any) -> Any:
    if isinstance(config, list):
        return [_as_keras3(item) for item in config]
    if not isinstance(config, dict):
        return config
    config = {key: _as_keras3(value) for key, value in config.items() if key != "rng_type"}
    if config.get("class_name") == "BatchNormalization" and isinstance(config["config"].get("axis"), list):
        config["config"]["axis"] = config["config"]["axis"][0]
    for key in ("input_layers", "output_layers"):
        if isinstance(config.get(key), list) and len(config[key]) == 1:  # else a network within one answers a list
            config[key] = config[key][0]
    kind = str(config.get("class_name"))
    for key in _KERAS_2.get(kind, ("batch_input_shape",) if kind.startswith("Random") else ()):
        config["config"].pop(key, None)
    return config


def _reason(message: str) -> str:
    """One line for what Keras says in many."""
    if "Lambda" in message or "lambda" in message:
        return "holds a Lambda layer, which is code, and no code of a file is run; replace it by a stock layer"
    unknown = re.search(
        r"(?:locate class|Unknown layer:?|Could not locate (?:class|function)) '?(?:\w+>)?(\w+)", message
    )
    if unknown:
        return (
            f"has a layer of class {unknown[1]!r}, which is not Keras' own; build the network in Python "
            "and hand it over, or save it with stock layers"
        )
    other = re.search(r"Error when deserializing class '(\w+)'", message)
    if other:
        return (
            f"has a layer {other[1]!r} as another version of Keras wrote it, and this is {keras.__version__}; "
            "save the network without that layer where it is for training only, or build it anew and load its weights"
        )
    if "No model config" in message or "model_config" in message:
        return "holds weights and no network; save the whole model, model.save('NAME.keras'), or give it as weights"
    return f"is no readable Keras network ({' '.join(message.split())[:200]}); save it again"


def all_layers(model: "keras.Model") -> list["keras.Layer"]:
    """List the layers of a network and of those in it."""
    return [
        inner for layer in model.layers for inner in (all_layers(layer) if isinstance(layer, keras.Model) else [layer])
    ]


def inputs_of(layer: "keras.Layer") -> list[Any]:
    """Symbolic tensors that a layer reads, in order."""
    return list(layer.input) if isinstance(layer.input, list | tuple) else [layer.input]


def outputs_of(layer: "keras.Layer") -> list[Any]:
    """Symbolic tensors that a layer, or an operation that is none, gives, in order."""
    return list(keras.tree.flatten(layer.output))


def producers_of(model: "keras.Model") -> dict[int, "keras.Layer"]:
    """Map the ``id`` of each tensor in a flat network to the layer or operation that gives it."""
    return {id(tensor): layer for layer in model.operations for tensor in outputs_of(layer)}


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
    computing = [layer for layer in all_layers(model) if not isinstance(layer, keras.layers.InputLayer)]
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
        UserError: the network ends in neither.
    """
    last = model.layers[-1]
    if isinstance(last, keras.layers.GlobalAveragePooling2D):
        # SqueezeNet's class maps are rectified before they are averaged.
        maps = model.layers[-3 if isinstance(model.layers[-2], keras.layers.ReLU) else -2]
        if last.name == "head_logits" or _gives_class_maps(maps):
            return keras.layers.GlobalAveragePooling2D(dtype=last.dtype_policy, name="head_features")(maps.input)
    if not isinstance(last, keras.layers.Dense) or len(last.input.shape) != 2:
        raise UserError(
            f"{model.name!r} ends in {type(last).__name__} {last.name!r}; expected a classifier: put a "
            "GlobalAveragePooling2D and a Dense of as many units as classes behind it, and train them"
        )
    return last.input


def _gives_class_maps(layer: "keras.Layer") -> bool:
    """Tell a convolution whose maps are logits from one of a backbone, which has an activation."""
    return isinstance(layer, keras.layers.Conv2D) and layer.activation is keras.activations.linear


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
    given = (tensor for layer in model.operations for tensor in outputs_of(layer))
    order = {id(tensor): index for index, tensor in enumerate(given)}
    layers = [
        [type(layer).__name__, essence(layer.get_config()), [order[id(tensor)] for tensor in inputs_of(layer)]]
        for layer in model.operations
    ]
    if len(model.operations) > len(model.layers):  # what else operations are given stands with their calls
        layers.append([entry["inbound_nodes"] for entry in model.get_config()["layers"]])
    return hashlib.sha256(json.dumps(layers, sort_keys=True, default=str).encode()).hexdigest()


def essence(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a layer that change what it answers."""
    return {
        key: value
        for key, value in config.items()
        if key not in _NO_MATTER and not key.endswith(_NO_MATTER_ENDINGS) and not callable(value)
    }
