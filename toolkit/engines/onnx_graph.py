"""A Keras graph written out as an ONNX file, layer by layer.

Keras' own export goes through TensorFlow and tf2onnx, which takes a minute or two for the larger networks here and
brings a converter that is no longer developed. The flat graphs here need neither: every layer is one or two ONNX
operations, written in a second, under any Keras backend. Users take the file with them (``to_onnx``), and OpenVINO
reads the same graph where it computes the features of a frozen network (``features_to_onnx``).
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from toolkit.engines.translate import (
    UntranslatableError,
    array,
    conv_padding,
    pool_padding,
    require_channels,
    require_plain_relu,
    require_vectors,
    translate,
)
from toolkit.errors import UserError
from toolkit.lazy import keras, lazy_module
from toolkit.network import as_float32
from toolkit.spec import Preprocessing

onnx = lazy_module("onnx")

#: Of 2020: every runtime in use reads it, and nothing here needs a later one.
OPSET = 13
_IR_VERSION = 7


def to_onnx(model: "keras.Model", preprocessing: Preprocessing, *, labels: Sequence[str] = ()) -> bytes:
    """Write a network as an ONNX file, its normalisation in front and softmax behind.

    Args:
        model: a functional network with one input, that answers logits ``(batch, classes)``; as trained under
            any dtype policy, written in float32.
        preprocessing: what it was trained with.
        labels: class names in output order; stored as JSON in the file's metadata, under ``labels``.

    Returns:
        The file's content: ``pixels``, uint8 RGB ``(batch, height, width, 3)`` with any batch size, to float32
        ``logits`` and ``probabilities``, both ``(batch, classes)``.

    Raises:
        UserError: a layer that has no rule here, by its name.
    """
    graph = _Graph(as_float32(model), preprocessing, 3)
    try:
        logits = graph.translated()
    except UntranslatableError as error:
        raise UserError(f"{model.name} cannot be written as ONNX: {error}") from None
    graph.add("Identity", logits, output="logits")
    graph.add("Softmax", "logits", output="probabilities", axis=-1)
    answers = {name: ["batch", model.output_shape[-1]] for name in ("logits", "probabilities")}
    document = graph.document("batch", answers)
    if labels:
        document.metadata_props.add(key="labels", value=json.dumps(list(labels), ensure_ascii=False))
    content = document.SerializeToString()
    onnx.checker.check_model(content)
    return content


def features_to_onnx(model: "keras.Model", preprocessing: Preprocessing, *, batch_size: int) -> bytes:
    """Write the part of a network that computes features, its normalisation in front.

    Args:
        model: a functional network with one input and one output, computed in float32.
        preprocessing: what it was trained with.
        batch_size: pictures per call. A fixed number lets a runtime choose its kernels once, and makes what a picture
            gets independent of how many came with it.

    Returns:
        The file's content: ``pixels``, uint8 ``(batch_size, height, width, channels)``, to float32 ``features`` in
        Keras' layout, vectors or maps. Pixels are RGB, and luma for a grey network, whose sum has more bits than a
        runtime that computes in bfloat16 keeps.

    Raises:
        UntranslatableError: a layer that has no rule here, by its name.
    """
    graph = _Graph(model, preprocessing, preprocessing.input_shape[-1])
    features = graph.translated()
    # Maps are channels first on the way.
    last = {"perm": [0, 2, 3, 1]} if len(model.output_shape) == 4 else {}
    graph.add("Transpose" if last else "Identity", features, output="features", **last)
    return graph.document(batch_size, {"features": [batch_size, *model.output_shape[1:]]}).SerializeToString()


class _Graph:
    """The nodes and weights written so far; tensors are known by their names, which begin with the layer's."""

    def __init__(self, model: "keras.Model", preprocessing: Preprocessing, num_channels: int) -> None:
        self._model = model
        self._preprocessing = preprocessing
        self._channels = num_channels
        self._nodes: list[Any] = []
        self._constants: dict[str, np.ndarray] = {}
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

    def translated(self) -> str:
        """Write normalisation and network; its output's name comes back."""
        rules = {kind: self._named(rule) for kind, rule in _RULES.items()}
        return translate(self._model, self._normalized(), rules, lambda name, x: self.add(name.capitalize(), x))

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
        graph.output.extend(value(name, kinds.FLOAT, shape) for name, shape in answers.items())
        for name, values in self._constants.items():
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

    def _named(self, rule: Callable[..., str]) -> Callable[..., str]:
        def call(layer: Any, *inputs: str) -> str:
            self._layer = layer.name
            return rule(self, layer, *inputs)

        return call


def _convolution(graph: _Graph, layer: Any, x: str) -> str:
    kernel = graph.constant("kernel", array(layer.kernel).transpose(3, 2, 0, 1))
    return _convolved(graph, layer, x, kernel, layer.groups)


def _depthwise_convolution(graph: _Graph, layer: Any, x: str) -> str:
    height, width, channels, multiplier = layer.kernel.shape
    kernel = array(layer.kernel).transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)
    return _convolved(graph, layer, x, graph.constant("kernel", kernel), channels)


def _convolved(graph: _Graph, layer: Any, x: str, kernel: str, groups: int) -> str:
    before, after = conv_padding(layer)
    bias = [graph.constant("bias", array(layer.bias))] if layer.use_bias else []
    return graph.add(
        "Conv",
        x,
        kernel,
        *bias,
        group=groups,
        strides=layer.strides,
        dilations=layer.dilation_rate,
        pads=before + after,
    )


def _dense(graph: _Graph, layer: Any, x: str) -> str:
    require_vectors(layer)
    bias = [graph.constant("bias", array(layer.bias))] if layer.use_bias else []
    return graph.add("Gemm", x, graph.constant("kernel", array(layer.kernel)), *bias)


def _batch_normalization(graph: _Graph, layer: Any, x: str) -> str:
    require_channels(layer)
    mean, variance = array(layer.moving_mean), array(layer.moving_variance)
    values = {
        "gamma": array(layer.gamma) if layer.scale else np.ones_like(mean),
        "beta": array(layer.beta) if layer.center else np.zeros_like(mean),
        "mean": mean,
        "variance": variance,
    }
    inputs = [graph.constant(name, value) for name, value in values.items()]
    return graph.add("BatchNormalization", x, *inputs, epsilon=layer.epsilon)


def _relu(graph: _Graph, layer: Any, x: str) -> str:
    if layer.max_value is not None and not (layer.negative_slope or layer.threshold):
        return graph.add("Clip", x, graph.constant("low", 0), graph.constant("high", layer.max_value))
    require_plain_relu(layer)
    return graph.add("Relu", x)


def _zero_padding(graph: _Graph, layer: Any, x: str) -> str:
    (top, bottom), (left, right) = layer.padding
    return graph.add("Pad", x, graph.constant("pads", [0, 0, top, left, 0, 0, bottom, right], np.int64))


def _max_pooling(graph: _Graph, layer: Any, x: str) -> str:
    before, after = pool_padding(layer)
    return graph.add("MaxPool", x, kernel_shape=layer.pool_size, strides=layer.strides, pads=before + after)


def _average_pooling(graph: _Graph, layer: Any, x: str) -> str:
    before, after = pool_padding(layer)
    return graph.add("AveragePool", x, kernel_shape=layer.pool_size, strides=layer.strides, pads=before + after)


def _global_pooling(kind: str) -> Callable[..., str]:
    def rule(graph: _Graph, layer: Any, x: str) -> str:
        x = graph.add(kind, x)
        return x if layer.keepdims else graph.add("Flatten", x)

    return rule


def _flatten(graph: _Graph, layer: Any, x: str) -> str:
    # Keras counts channels last.
    return graph.add("Flatten", graph.add("Transpose", x, perm=[0, 2, 3, 1]) if len(layer.input.shape) == 4 else x)


def _concatenate(graph: _Graph, layer: Any, *inputs: str) -> str:
    require_channels(layer)
    return graph.add("Concat", *inputs, axis=1)


def _pairwise(kind: str) -> Callable[..., str]:
    def rule(graph: _Graph, layer: Any, first: str, *others: str) -> str:
        for other in others:
            first = graph.add(kind, first, other)
        return first

    return rule


def _local_response_normalization(graph: _Graph, layer: Any, x: str) -> str:
    return graph.add("LRN", x, alpha=layer.alpha, beta=0.75, bias=layer.bias, size=layer.size)


def _pad_channels(graph: _Graph, layer: Any, x: str) -> str:
    if layer.stride > 1:
        names = ("starts", "ends", "axes", "steps")
        values = ([0, 0], [np.iinfo(np.int64).max] * 2, [2, 3], [layer.stride] * 2)
        x = graph.add("Slice", x, *(graph.constant(*pair, np.int64) for pair in zip(names, values, strict=True)))
    missing = layer.filters - layer.input.shape[-1]
    pads = [0, missing // 2, 0, 0, 0, missing - missing // 2, 0, 0]
    return graph.add("Pad", x, graph.constant("pads", pads, np.int64))


def _stochastic_depth(graph: _Graph, layer: Any, x: str) -> str:
    return graph.add("Mul", x, graph.constant("survival", layer.survival))


def _same(graph: _Graph, layer: Any, x: str) -> str:
    return x


_RULES: dict[str, Callable[..., str]] = {
    "Activation": _same,
    "Add": _pairwise("Add"),
    "AveragePooling2D": _average_pooling,
    "BatchNormalization": _batch_normalization,
    "Concatenate": _concatenate,
    "Conv2D": _convolution,
    "Dense": _dense,
    "DepthwiseConv2D": _depthwise_convolution,
    "Dropout": _same,
    "Flatten": _flatten,
    "GlobalAveragePooling2D": _global_pooling("GlobalAveragePool"),
    "GlobalMaxPooling2D": _global_pooling("GlobalMaxPool"),
    "LocalResponseNormalization": _local_response_normalization,
    "MaxPooling2D": _max_pooling,
    "Multiply": _pairwise("Mul"),
    "PadChannels": _pad_channels,
    "ReLU": _relu,
    "StochasticDepth": _stochastic_depth,
    "Subtract": _pairwise("Sub"),
    "ZeroPadding2D": _zero_padding,
}
