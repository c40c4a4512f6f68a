"""A Keras graph written out as an ONNX file, layer by layer.

Keras' own export goes through TensorFlow and tf2onnx, which takes a minute or two for the larger networks here and
brings a converter that is no longer developed. The flat graphs here need neither: every layer is one or two ONNX
operations, written in a second, under any Keras backend. Users take the file with them (``to_onnx``), and OpenVINO
reads the same graph where it computes the features of a frozen network (``features_to_onnx``).
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from toolkit.engines.onnx_rules import RULES, UntranslatableError, write_activation
from toolkit.errors import UserError
from toolkit.lazy import keras, lazy_module
from toolkit.network import as_classifier, as_float32, inputs_of
from toolkit.spec import Preprocessing

onnx = lazy_module("onnx")

#: Of 2020: every runtime in use reads it, and nothing here needs a later one.
OPSET = 13
_IR_VERSION = 7

#: Bytes of a constant from which on it stands beside the document that computes features.
_LARGE = 1 << 16


def to_onnx(
    model: "keras.Model",
    preprocessing: Preprocessing,
    *,
    labels: Sequence[str] = (),
    reject_below: float | None = None,
) -> bytes:
    """Write a network as an ONNX file, its normalisation in front and softmax behind.

    Args:
        model: a classifier with one input, that answers logits ``(batch, classes)`` or their softmax; as trained
            under any dtype policy, written in float32.
        preprocessing: what it was trained with.
        labels: class names in output order.
        reject_below: the probability below which the best answer means none of the classes.

    Returns:
        The file's content: ``pixels``, uint8 RGB ``(batch, height, width, 3)`` with any batch size, to float32
        ``logits`` and ``probabilities``, both ``(batch, classes)``, and where the network answers it, ``novelty``
        ``(batch,)``, above 1 for a picture of none of the classes. Its metadata tells, as JSON, how a picture becomes
        pixels and what the answers mean: see ``metadata``.

    Raises:
        UserError: a layer that has no rule here, by its name.
    """
    model = as_float32(as_classifier(model))
    graph = _Graph(model, preprocessing, 3)
    try:
        logits, *others = graph.translated()
    except UntranslatableError as error:
        raise UserError(f"{model.name} cannot be written as ONNX: {error}") from None
    graph.add("Identity", logits, output="logits")
    graph.add("Softmax", "logits", output="probabilities", axis=-1)
    answers = {name: ["batch", model.outputs[0].shape[-1]] for name in ("logits", "probabilities")}
    for novelty in others:
        graph.add("Reshape", novelty, graph.constant("novelty_shape", [-1], np.int64), output="novelty")
        answers["novelty"] = ["batch"]
    document = graph.document("batch", answers)
    for key, value in metadata(preprocessing, labels, reject_below, 1.0 if others else None).items():
        document.metadata_props.add(key=key, value=json.dumps(value))
    content = document.SerializeToString()
    onnx.checker.check_model(content)
    return content


def metadata(
    preprocessing: Preprocessing, labels: Sequence[str], reject_below: float | None, novelty_above: float | None
) -> dict[str, Any]:
    """Describe, for a reader in any language, what stands around an ONNX file's network.

    ``labels``, in output order. ``resize``: a picture, upright and RGB, becomes pixels. ``input``: the pixels that the
    file takes. ``normalisation``: done in the file, told for whoever has a network without it. ``reject_below`` and
    ``novelty_above``: thresholds of what is none of the classes.

    >>> metadata(Preprocessing((8, 8)), ["cat", "dog"], 0.7, None)["resize"]
    {'mode': 'crop', 'height': 8, 'width': 8, 'crop_fraction': 1.0, 'interpolation': 'bilinear', 'antialias': True}
    """
    height, width = preprocessing.size
    resize: dict[str, Any] = {"mode": preprocessing.resize, "height": height, "width": width}
    resize |= {"crop_fraction": preprocessing.crop_fraction, "interpolation": preprocessing.interpolation}
    normalisation = {key: getattr(preprocessing, key) for key in ("channel_order", "scale", "mean", "std")}
    pixels = {"name": "pixels", "dtype": "uint8", "layout": "NHWC", "channels": "RGB", "range": [0, 255]}
    return {
        "labels": list(labels),
        "resize": resize | {"antialias": True},
        "input": pixels,
        "normalisation": normalisation,
        "reject_below": reject_below,
        "novelty_above": novelty_above,
    }


def features_to_onnx(
    model: "keras.Model", preprocessing: Preprocessing, *, batch_size: int
) -> tuple[bytes, dict[str, np.ndarray]]:
    """Write the part of a network that computes features, its normalisation in front, its weights beside it.

    Args:
        model: a functional network with one input and any number of outputs, computed in float32.
        preprocessing: what it was trained with.
        batch_size: pictures per call. A fixed number lets a runtime choose its kernels once, and makes what a picture
            gets independent of how many came with it.

    Returns:
        The file's content: ``pixels``, uint8 ``(batch_size, height, width, channels)``, to float32 ``features`` in
        Keras' layout, vectors or maps; several outputs are ``features_1`` and so on. Pixels are RGB, and luma for a
        grey network, whose sum has more bits than a runtime that computes in bfloat16 keeps. And the large weights, by
        the names of the inputs that stand in for them in the file: inside, they would be in memory four times while a
        runtime reads it.

    Raises:
        UntranslatableError: a layer that has no rule here, by its name.
    """
    graph = _Graph(model, preprocessing, preprocessing.input_shape[-1])
    answers = {}
    for number, (features, output) in enumerate(zip(graph.translated(), model.outputs, strict=True), start=1):
        name = f"features_{number}" if len(model.outputs) > 1 else "features"
        # Maps are channels first on the way.
        last = {"perm": [0, 2, 3, 1]} if len(output.shape) == 4 else {}
        graph.add("Transpose" if last else "Identity", features, output=name, **last)
        answers[name] = [batch_size, *output.shape[1:]]
    weights = graph.large_constants()
    return graph.document(batch_size, answers).SerializeToString(), weights


class _Graph:
    """The nodes and weights written so far; tensors are known by their names, which begin with the layer's."""

    def __init__(self, model: "keras.Model", preprocessing: Preprocessing, num_channels: int) -> None:
        self._model = model
        self._preprocessing = preprocessing
        self._channels = num_channels
        self._nodes: list[Any] = []
        self._constants: dict[str, np.ndarray] = {}
        self._inputs: list[Any] = []
        self._times: Counter[str] = Counter()
        self._layer = "input"

    def add(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Append a node of one output, whose name comes back."""
        if not output:
            output = f"{self._layer}/{kind}"
            self._times[output] += 1
            if self._times[output] > 1:
                output = f"{output}_{self._times[output]}"
        self._nodes.append(onnx.helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, values: Any, dtype: Any = np.float32) -> str:
        """Store a tensor in the file."""
        key = f"{self._layer}/{name}"
        self._constants[key] = np.ascontiguousarray(values, dtype)
        return key

    def translated(self) -> list[str]:
        """Write normalisation and network, input to outputs, whose names come back."""
        tensors = {id(self._model.inputs[0]): self._normalized()}
        for layer in self._model.operations:
            if isinstance(layer, keras.layers.InputLayer):
                continue
            if not isinstance(layer, keras.Layer):
                raise UntranslatableError(
                    f"operation {layer.name!r} ({type(layer).__name__}) is no layer, and has no rule for ONNX; do it "
                    "with stock layers, or take the SavedModel or LiteRT file, which hold it"
                )
            if getattr(layer, "data_format", None) == "channels_first":
                raise UntranslatableError(f"layer {layer.name!r} has its channels first")
            inputs = [_known(tensors, tensor, f"layer {layer.name!r}") for tensor in inputs_of(layer)]
            tensors[id(layer.output)] = self._written(layer, inputs)
        return [_known(tensors, output, "the output") for output in self._model.outputs]

    def _written(self, layer: "keras.Layer", inputs: list[str]) -> str:
        kind = type(layer).__name__
        self._layer = layer.name
        if hasattr(layer, "in_onnx"):  # a custom layer
            return layer.in_onnx(self, *inputs)
        if kind not in RULES or not type(layer).__module__.startswith("keras."):  # another may have the name
            raise UntranslatableError(f"layer {layer.name!r} is a {kind}, which has no rule for ONNX")
        return write_activation(self, layer, RULES[kind](self, layer, *inputs))

    def large_constants(self) -> dict[str, np.ndarray]:
        """Take the large tensors out of the file, which has inputs of their names then."""
        large = {name: values for name, values in self._constants.items() if values.nbytes >= _LARGE}
        for name, values in large.items():
            del self._constants[name]
            kind = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
            self._inputs.append(onnx.helper.make_tensor_value_info(name, kind, values.shape))
        return large

    def document(self, batch: int | str, answers: Mapping[str, Sequence[int | str]]) -> Any:
        """The whole as ``onnx.ModelProto``, given the batch's size or name and the shapes of its answers by name."""
        kinds, value = onnx.TensorProto, onnx.helper.make_tensor_value_info
        document = onnx.ModelProto(ir_version=_IR_VERSION, producer_name="toolkit")
        document.opset_import.add(version=OPSET)
        # Filled in place: ONNX's own helpers copy all weights twice on the way.
        graph = document.graph
        graph.name = self._model.name
        graph.node.extend(self._nodes)
        graph.input.append(value("pixels", kinds.UINT8, [batch, *self._preprocessing.size, self._channels]))
        graph.input.extend(self._inputs)
        graph.output.extend(value(name, kinds.FLOAT, shape) for name, shape in answers.items())
        while self._constants:  # each let go once it is in the document
            name, values = self._constants.popitem()
            kind = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
            graph.initializer.add(name=name, dims=values.shape, data_type=kind, raw_data=values.tobytes())
        return document

    def _normalized(self) -> str:
        """Pixels to the network's input, channels first."""
        preprocessing = self._preprocessing
        x = self.add("Transpose", self.add("Cast", "pixels", to=onnx.TensorProto.FLOAT), perm=[0, 3, 1, 2])
        if preprocessing.channel_order == "bgr":
            x = self.add("Gather", x, self.constant("bgr", [2, 1, 0], np.int64), axis=1)
        elif self._channels > preprocessing.input_shape[-1]:
            # The luma of `toolkit.data.pixels.decode`, in integers below 2**24, which float32 holds exactly.
            weights = self.constant("luma", np.reshape([19595, 38470, 7471], (1, 3, 1, 1)))
            sums = self.add("Conv", x, weights, self.constant("half", [32768]))
            x = self.add("Floor", self.add("Div", sums, self.constant("one", [65536])))
        factor, offset = (np.reshape(values, (1, -1, 1, 1)) for values in preprocessing.affine())
        return self.add("Add", self.add("Mul", x, self.constant("factor", factor)), self.constant("offset", offset))


def _known(tensors: Mapping[int, str], tensor: Any, reader: str) -> str:
    # Of a layer that is used twice, Keras tells the first output only.
    if id(tensor) not in tensors:
        raise UntranslatableError(f"{reader} reads a layer that is used more than once")
    return tensors[id(tensor)]
