"""Networks built of networks, made one flat graph: the form that freezing, conversion and quantization address."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

from toolkit.errors import UserError
from toolkit.lazy import keras, lazy_module
from toolkit.network.graph import all_layers

np = lazy_module("numpy")

log = logging.getLogger("toolkit")

# Layers that change pictures in training and hand them on untouched at inference, beside those called Random….
_AUGMENTATION = ("AugMix", "CutMix", "MixUp", "RandAugment")
#: Resizes at inference too.
_CROP = "RandomCrop"
#: Operations on tensors that are a layer of the same name.
_MERGES = ("Add", "Subtract", "Multiply", "Maximum", "Minimum")
#: Operations between a tensor and a constant that ``Rescaling`` does, as ``preprocess_input`` puts into a graph.
_SCALINGS = ("Add", "Subtract", "Multiply", "TrueDivide", "Divide")
#: Operations that are an activation, by its name.
_ACTIVATIONS = {
    **{kind: kind.lower() for kind in ("Relu", "Relu6", "Sigmoid", "Silu", "Softmax", "Softplus", "Softsign", "Tanh")},
    "HardSigmoid": "hard_sigmoid",
    "HardSilu": "hard_silu",
}


def flatten(
    model: "keras.Model",
    leave_out: Callable[["keras.Layer"], bool] = lambda layer: False,
    rename: Callable[[str], str] | None = None,
) -> "keras.Model":
    """Rebuild a network as one functional graph without networks in it, where it is not one already.

    Layers keep their names, with a number behind where two are called alike, and their weights. A layer that is called
    several times becomes as many layers. Augmentation layers, which do nothing at inference, are left out. Operations
    that are no layers, as ``preprocess_input`` and ``x + y`` leave them, become layers where there is one of their
    meaning.

    Args:
        model: functional or sequential, with networks in it to any depth; not changed.
        leave_out: layers of one input that further are left out.
        rename: gives the layer of a name another one.

    Returns:
        ``model`` itself if it is flat, nothing is left out and nothing renamed; else a copy with weights of its own,
        except that a sequential one whose layers are all plain shares them.

    Raises:
        UserError: the graph is not known (a subclassed model, or one without input shape), or runs code of a file's
            (``Lambda``).
    """
    graph = _functional(model)
    entries = _entries(graph)
    changed = [
        layer for layer in graph.layers if isinstance(layer, keras.Model) or _is_augmentation(layer) or leave_out(layer)
    ]
    called_once = len(entries) == len(graph.layers) and all(len(nodes) <= 1 for nodes in entries.values())
    is_fit = all(tensor.shape[0] is None and "float" in tensor.dtype for tensor in graph.inputs)
    if called_once and not changed and rename is None and is_fit:
        return graph
    # What takes bytes is given them as floats, which the layer that made floats of them may be left out for.
    dtypes = [tensor.dtype if "float" in tensor.dtype else "float32" for tensor in graph.inputs]
    inputs = [
        keras.Input(tensor.shape[1:], dtype=dtype, name=tensor.name)
        for tensor, dtype in zip(graph.inputs, dtypes, strict=True)
    ]
    run = _Run(leave_out, {tensor.name for tensor in inputs}, rename)
    outputs = run.through(graph, inputs)
    if run.augmentation:
        log.info("%s: leaving out %s: augmentation is for training only", model.name, ", ".join(run.augmentation))
    return keras.Model(inputs, outputs, name=model.name)


def backwards(model: "keras.Model") -> Iterator[Any]:
    """Yield layers and operations from the output back, into networks in it, until one has several inputs or none."""
    graph = _functional(model)
    operations, entries = {operation.name: operation for operation in graph.operations}, _entries(graph)
    places = _places(graph.get_config()["output_layers"])
    while len(places) == 1:
        name, call, _ = places[0]
        if isinstance(operations[name], keras.Model):
            yield from backwards(operations[name])
            return
        yield operations[name]
        places = _needed(entries[name][call]) if entries[name] else []


def require_graph(model: Any) -> None:
    """Refuse what is no network, or one whose graph Keras does not know or does not keep.

    Raises:
        UserError: it is; the message says what to do.
    """
    if not isinstance(model, keras.Model):
        raise UserError(f"expected a keras.Model, got {type(model).__name__}; give the network itself")
    if not getattr(model, "inputs", None):
        if isinstance(model, keras.Sequential):
            raise UserError(
                f"{model.name!r} has no input shape yet; start it with keras.Input((height, width, channels))"
            )
        raise UserError(
            f"{model.name!r} ({type(model).__name__}) is a subclassed model, whose graph Keras does not know; "
            "make it functional: x = keras.Input((height, width, channels)); model = keras.Model(x, model.call(x))"
        )
    for layer in all_layers(model):
        if isinstance(layer, keras.layers.Lambda):
            raise UserError(
                f"layer {layer.name!r} of {model.name!r} is a Lambda, whose code no file keeps safely; "
                "replace it by a stock layer (Rescaling, Resizing, Activation …)"
            )
        if isinstance(layer.dtype_policy, keras.dtype_policies.QuantizedDTypePolicy):
            raise UserError(
                f"layer {layer.name!r} of {model.name!r} is quantized by Keras; bring the float network, and "
                "`toolkit compress` makes it small"
            )


def _functional(model: Any) -> "keras.Model":
    require_graph(model)
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs, model.outputs, name=model.name)
    return model


def _entries(graph: "keras.Model") -> dict[str, list[Any]]:
    """The name of every layer and operation with its calls, from the input on."""
    config = graph.get_config()
    if not isinstance(config, dict) or "layers" not in config:
        raise UserError(
            f"{graph.name!r} ({type(graph).__name__}) has a configuration of its own, which does not tell its graph; "
            "make it functional: model = keras.Model(model.inputs, model.outputs)"
        )
    return {entry["name"]: entry["inbound_nodes"] for entry in config["layers"]}


def _is_augmentation(layer: "keras.Layer") -> bool:
    kind = type(layer).__name__
    if not type(layer).__module__.startswith("keras."):
        return False
    return kind in _AUGMENTATION or (kind.startswith("Random") and kind != _CROP)


class _Run:
    """The calls of a graph and of those in it, made once more on copies of its layers."""

    def __init__(
        self,
        leave_out: Callable[["keras.Layer"], bool],
        taken: set[str],
        rename: Callable[[str], str] | None,
    ) -> None:
        self._leave_out = leave_out
        self._taken = taken
        self._rename = rename
        self._kept: list[Any] = []  # an id is another tensor's once its own is gone
        self._channels: dict[int, tuple[Any, int]] = {}  # the map and the channel that a tensor is
        self.augmentation: list[str] = []

    def through(self, model: "keras.Model", inputs: list[Any]) -> Any:
        """Call what the network calls, on other inputs; its outputs in their structure."""
        graph = _functional(model)
        operations = {operation.name: operation for operation in graph.operations}
        tensors: dict[tuple[str, int, int], Any] = {}
        config = graph.get_config()
        starts = _places(config["input_layers"])
        tensors |= dict(zip(starts, inputs, strict=True))
        given = {name for name, _, _ in starts}
        calls = [
            (name, number, node)
            for name, nodes in _entries(graph).items()
            if name not in given
            for number, node in enumerate(nodes)
        ]
        while calls:  # a layer called twice may wait for one that is listed behind it
            ready = [call for call in calls if all(place in tensors for place in _needed(call[2]))]
            if not ready:
                raise UserError(f"{graph.name!r} has a circle in its graph; build it again")
            for name, number, node in ready:
                answer = self._call(operations[name], _filled(node["args"], tensors), _filled(node["kwargs"], tensors))
                answers = answer if isinstance(answer, list | tuple) else [answer]
                tensors |= {(name, number, index): tensor for index, tensor in enumerate(answers)}
            calls = [call for call in calls if call not in ready]
        return _filled_outputs(config["output_layers"], tensors)

    def _call(self, operation: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if isinstance(operation, keras.Model):
            outputs = self.through(operation, [*args[0]] if isinstance(args[0], list | tuple) else [args[0]])
            return list(outputs.values()) if isinstance(outputs, dict) else outputs
        kind = type(operation).__name__
        if not isinstance(operation, keras.Layer):
            return self._operation(kind, operation, args, kwargs)
        if _is_augmentation(operation):
            self.augmentation.append(operation.name)
            return args[0]
        if self._leave_out(operation):
            return args[0]
        copy = type(operation).from_config({**operation.get_config(), "name": self._name(operation.name)})
        # What layers are told beside tensors is for training: a frozen part called with training=False, a mask of none.
        kwargs = {key: value for key, value in kwargs.items() if key not in ("training", "mask")}
        answer = copy(*args, **kwargs)
        if operation.weights:
            copy.set_weights(operation.get_weights())
        return answer

    def _operation(self, kind: str, operation: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """``x + y`` and the like become the layers that mean the same; other operations stay what they are."""
        tensors = [value for value in args if isinstance(value, keras.KerasTensor)]
        if kind in _MERGES and len(tensors) == len(args) == 2 and not kwargs and args[0].shape == args[1].shape:
            return getattr(keras.layers, kind)(name=self._name(operation.name))(args)
        if kind in _SCALINGS and len(args) == 2 and len(tensors) == 1 and not kwargs:
            scaling = _scaling(kind, *args)
            if scaling is not None:
                scale, offset = scaling
                return keras.layers.Rescaling(scale, offset, name=self._name(operation.name))(tensors[0])
        if kind in _ACTIVATIONS and len(args) == 1 and not kwargs:
            axis = operation.get_config().get("axis", -1)
            if axis == -1 or kind != "Softmax":
                return keras.layers.Activation(_ACTIVATIONS[kind], name=self._name(operation.name))(args[0])
        order = self._order(kind, operation, args)
        if order is not None:
            source, channels = order
            return _picking(source, channels, self._name(operation.name))
        answer = self._copied(operation, args, kwargs)
        if kind == "GetItem" and len(args) == 2 and (channel := _one_channel(*args)) is not None:
            self._channels[id(answer)] = args[0], channel
            self._kept.append(answer)
        return answer

    def _copied(self, operation: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
        return type(operation).from_config({**operation.get_config(), "name": self._name(operation.name)})(
            *args, **kwargs
        )

    def _order(self, kind: str, operation: Any, args: list[Any]) -> tuple[Any, list[int]] | None:
        """A map and the order of its channels, where an operation does nothing but change that order."""
        config = operation.get_config()
        if kind == "Stack" and len(args) == 1 and isinstance(args[0], list | tuple):
            picked = [self._channels[id(tensor)] for tensor in args[0] if id(tensor) in self._channels]
            of_one_map = len({id(source) for source, _ in picked}) == 1 and len(picked) == len(args[0])
            if not of_one_map or config.get("axis") not in (-1, 3):
                return None
            return picked[0][0], [channel for _, channel in picked]
        if not args or not isinstance(args[0], keras.KerasTensor) or len(args[0].shape) != 4:
            return None
        backwards = list(range(args[0].shape[-1]))[::-1]
        if kind == "Flip" and config.get("axis") in (-1, 3, (-1,), (3,), [-1], [3]):
            return args[0], backwards
        if kind == "GetItem" and len(args) == 2 and _of_channels(args[1]) == slice(None, None, -1):
            return args[0], backwards
        return None

    def _name(self, wish: str) -> str:
        wish = self._rename(wish) if self._rename else wish
        name, number = wish, 1
        while name in self._taken:
            number += 1
            name = f"{wish}_{number}"
        self._taken.add(name)
        return name


def _of_channels(key: Any) -> Any:
    """The part of an index into maps that is for the channels, where all else is taken whole; None where it is not."""
    parts = list(key) if isinstance(key, list | tuple) else [key]
    whole = parts[:-1] == [Ellipsis] or (len(parts) == 4 and all(part == slice(None) for part in parts[:3]))
    return parts[-1] if whole else None


def _one_channel(tensor: Any, key: Any) -> int | None:
    index = _of_channels(key)
    if len(tensor.shape) != 4 or not isinstance(index, int) or not -tensor.shape[-1] <= index < tensor.shape[-1]:
        return None
    return index % tensor.shape[-1]


def _picking(tensor: Any, channels: list[int], name: str) -> Any:
    """Channels in another order: a convolution of one pixel, which every format has and which is exact."""
    kernel = np.zeros((1, 1, tensor.shape[-1], len(channels)), np.float32)
    kernel[0, 0, channels, range(len(channels))] = 1
    layer = keras.layers.Conv2D(len(channels), 1, use_bias=False, trainable=False, name=name)
    answer = layer(tensor)
    layer.set_weights([kernel])
    return answer


def _scaling(kind: str, first: Any, second: Any) -> tuple[Any, Any] | None:
    """Factor and offset of an operation between a tensor and a constant, a number or one per channel."""
    reverse = isinstance(second, keras.KerasTensor)
    tensor, constant = (second, first) if reverse else (first, second)
    values = np.asarray(constant, np.float64)
    if values.shape[:-1] == (1,) * (values.ndim - 1) and 0 < values.ndim <= len(tensor.shape):
        values = values.reshape(-1)
    if values.shape not in ((), (1,), tensor.shape[-1:]) or (reverse and kind in ("TrueDivide", "Divide")):
        return None
    plain = values.tolist()
    if kind == "Multiply":
        return plain, 0.0
    if kind in ("TrueDivide", "Divide"):
        return (1 / values).tolist(), 0.0
    if kind == "Add":
        return 1.0, plain
    return (-1.0, plain) if reverse else (1.0, (-values).tolist())


def _places(structure: Any) -> list[tuple[str, int, int]]:
    """List the origins of tensors, each ``[layer, call, output]``, in lists or dictionaries of such."""
    if isinstance(structure, dict):
        return [place for value in structure.values() for place in _places(value)]
    if len(structure) == 3 and isinstance(structure[0], str):
        return [(structure[0], structure[1], structure[2])]
    return [place for value in structure for place in _places(value)]


def _filled_outputs(structure: Any, tensors: dict[tuple[str, int, int], Any]) -> Any:
    if isinstance(structure, dict):
        return {key: _filled_outputs(value, tensors) for key, value in structure.items()}
    if len(structure) == 3 and isinstance(structure[0], str):
        layer, call, output = structure
        # Keras counts the calls of a network within from one here, and from nought elsewhere.
        return tensors[(layer, call, output) if (layer, call, output) in tensors else (layer, call - 1, output)]
    return [_filled_outputs(value, tensors) for value in structure]


def _needed(structure: Any) -> list[tuple[str, int, int]]:
    """The tensors that a call's arguments name."""
    if isinstance(structure, dict):
        if structure.get("class_name") == "__keras_tensor__":
            layer, call, output = structure["config"]["keras_history"]
            return [(layer, call, output)]
        return [place for value in structure.values() for place in _needed(value)]
    if isinstance(structure, list | tuple):
        return [place for value in structure for place in _needed(value)]
    return []


def _filled(structure: Any, tensors: dict[tuple[str, int, int], Any]) -> Any:
    """A call's arguments with the tensors they name."""
    if isinstance(structure, dict):
        if structure.get("class_name") == "__keras_tensor__":
            return tensors[_needed(structure)[0]]
        if "class_name" in structure:
            return keras.saving.deserialize_keras_object(structure)
        return {key: _filled(value, tensors) for key, value in structure.items()}
    if isinstance(structure, list | tuple):
        return [_filled(value, tensors) for value in structure]
    return structure
