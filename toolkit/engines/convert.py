"""Conversion of a Keras network to a LiteRT file."""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal

import numpy as np

from toolkit.engines.ranges import with_ranges
from toolkit.errors import UserError
from toolkit.lazy import keras
from toolkit.network import ANSWERS, NOVELTY, as_classifier, as_float32, inputs_of, producers_of
from toolkit.progress import step

#: Share of a network's parameters up to which the layers behind its global pooling stay in float in an int8 file.
SMALL_HEAD = 0.05

Quantization = Literal["none", "dynamic", "float16", "int8", "int16x8"]


class UnquantizableError(UserError):
    """A network that has no file of a quantized kind; the message names the layers and says what has one."""


def to_litert(
    model: "keras.Model",
    *,
    quantization: Quantization = "none",
    calibration: Iterable[np.ndarray] | None = None,
    keep_float: Collection[str] = (),
    float_file: bytes | None = None,
) -> bytes:
    """Convert to a LiteRT (``.tflite``) file.

    The file takes normalised float32 input ``(batch, height, width, channels)`` with any batch size and answers
    float32 logits ``(batch, classes)``, quantized or not: the quantize and dequantize steps are inside. Behind
    them, of a network that answers it, comes novelty, ``(batch, 1)``.

    Args:
        model: any classifier of one input and one output; it is converted in float32, to its logits.
        quantization: ``"dynamic"`` int8 weights, ``"float16"`` weights, ``"int8"`` weights and activations, or
            ``"int16x8"``, int8 weights and int16 activations. Convolutions have a scale per output channel. Layers that
            say ``keep_float`` stay in float under ``"int8"``, and so do ``float_head(model)``.
        calibration: for ``"int8"`` and ``"int16x8"``, batches of normalised input, drawn from the training pictures.
        keep_float: names of further layers to leave in float under ``"int8"``.
        float_file: the network's file under ``"none"`` where it is at hand; ``"int8"`` and ``"int16x8"`` start from it.

    Raises:
        ValueError: ``"int8"`` or ``"int16x8"`` without calibration data.
        UserError: the network has an operation that ``"int16x8"`` cannot compute, or answers no numbers.
    """
    import tensorflow as tf

    model = as_float32(as_classifier(model))
    if quantization in ("int8", "int16x8"):
        if calibration is None:
            raise ValueError(f"{quantization} needs calibration batches: without them activation ranges are unknown")
        if quantization == "int16x8" and (unfused := _without_hard_swish(model)) is not model:
            model, float_file = unfused, None
        ranged = with_ranges(float_file or to_litert(model), [*calibration])
        if quantization == "int16x8":
            return _to_int16x8(ranged, model)
        return _to_int8(ranged, model, keep_float)
    converter = _converter(model)
    if quantization != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    with step("writing a LiteRT file"):
        return converter.convert()


def float_head(model: "keras.Model") -> set[str]:
    """Find the layers of a network's head that an int8 file computes in float: the poolings and what is behind them.

    Pooled features differ in spread by orders of magnitude, those of several stages the more, and one int8 scale for
    all of them loses the small ones. Measured with GoogLeNet on sign digits, root mean square error of the logits
    relative to their spread: from the last stage 0.061 in int8, 0.042 with the head in float; from all nine inception
    modules 0.306 and 0.030. It costs nothing that could be measured in time, and the file 3 bytes a weight; so a head
    stays in float that is small, up to ``SMALL_HEAD`` of the parameters, or joins several stages.
    """
    producers = producers_of(model)
    pending, head, poolings, joins = [producers[id(model.outputs[0])]], {}, 0, False
    while pending:
        layer = pending.pop()
        pools = isinstance(layer, keras.layers.GlobalAveragePooling2D | keras.layers.GlobalMaxPooling2D)
        passes = isinstance(layer, keras.layers.Dropout) or getattr(layer, "keep_float", False)
        # Dense layers behind several stages are the head's, those before that are the stages'.
        if not (pools or passes or (isinstance(layer, keras.layers.Dense | keras.layers.Concatenate) and not joins)):
            continue
        head[layer.name] = layer
        joins |= isinstance(layer, keras.layers.Concatenate)
        poolings += pools
        pending += [] if pools else [producers[id(tensor)] for tensor in inputs_of(layer)]
    is_small = sum(layer.count_params() for layer in head.values()) <= SMALL_HEAD * model.count_params()
    return set(head) if poolings and (is_small or joins) else set()


def layers_in_float(model: "keras.Model") -> set[str]:
    """Name the layers that an int8 file computes in float unasked: those that say so, novelty and ``float_head``."""
    kept = {
        layer.name
        for layer in model.layers
        if getattr(layer, "keep_float", False) or layer.name.startswith(f"{NOVELTY}_")
    }
    return float_head(model) | kept


def layers_named_in(tensor: str, names: Sequence[str]) -> list[str]:
    """Find the layers that a LiteRT tensor's name speaks of, several where they were fused, in the order of ``names``.

    >>> layers_named_in("net_1/stem_relu_1/Relu;net_1/stem_conv_1/Conv2D", ["stem_conv", "stem_bn", "stem_relu"])
    ['stem_conv', 'stem_relu']
    >>> layers_named_in("net/quant_stem_conv/BiasAdd", ["stem", "stem_conv"])
    ['stem_conv']
    """
    if tensor.startswith("StatefulPartitionedCall"):  # what the file answers
        return [NOVELTY if tensor.endswith(":1") else [name for name in names if not name.startswith(NOVELTY)][-1]]
    parts = {part.removeprefix("quant_") for path in tensor.split(";") for part in path.split("/")}
    found = [name for name in names if name in parts]
    # Keras numbers the scope of a layer that is called a second time, as conversion does.
    called = {scope for scope, _, number in (part.rpartition("_") for part in parts) if number.isdecimal()}
    return found or [name for name in names if name in called]


def _converter(model: "keras.Model") -> Any:
    import tensorflow as tf

    spec = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32, name="input")
    # Answers come in the order of their names.
    together = keras.Model(model.input, dict(zip(ANSWERS, model.outputs, strict=False)))
    function = tf.function(lambda x: together(x, training=False), input_signature=[spec])
    holder = tf.Module()
    holder.tracked = [v.value for v in model.variables]  # the converter looks for variables on this object
    return tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], holder)


def _to_int8(ranged: bytes, model: "keras.Model", keep_float: Collection[str]) -> bytes:
    """Quantize a float file that holds ranges, see ``with_ranges``, all but some layers of it."""
    from tensorflow.lite.python.convert import mlir_quantize
    from tensorflow.lite.tools import flatbuffer_utils

    kept = {*keep_float, *layers_in_float(model)}
    layer_names = [layer.name for layer in model.layers]
    tensors = flatbuffer_utils.read_model_from_bytearray(ranged).subgraphs[0].tensors
    names = [tensor.name.decode() for tensor in tensors]
    return mlir_quantize(
        ranged,
        denylisted_nodes=[name for name in names if kept.intersection(layers_named_in(name, layer_names))],
        # A scale per unit of a dense layer costs a small network a tenth of its file and wins no accuracy.
        disable_per_channel_for_dense_layers=True,
    )


def _without_hard_swish(model: "keras.Model") -> "keras.Model":
    """Copy a network such that its ``hard_silu`` is not one operation of LiteRT, which has no int16x8 form."""
    found = [layer.name for layer in model.layers if getattr(layer, "activation", None) is keras.activations.hard_silu]
    if not found:
        return model

    def in_parts(inputs: Any) -> Any:
        # The converter knows x · relu6(x + 3) / 6 in any other order.
        return (inputs * (1 / 6)) * keras.ops.relu6(inputs + 3.0)

    def clone(layer: Any) -> Any:
        copy = type(layer).from_config(layer.get_config())
        if layer.name in found:
            copy.activation = in_parts
        return copy

    unfused = keras.models.clone_model(model, clone_function=clone)
    unfused.set_weights(model.get_weights())
    return unfused


def _to_int16x8(ranged: bytes, model: "keras.Model") -> bytes:
    from tensorflow.lite.python.optimize.calibrator import Calibrator

    float32, int16, int64 = (np.dtype(name).num for name in ("float32", "int16", "int64"))
    try:
        # What it would learn ranges with stays unused: they are in the file.
        quantizer = Calibrator(ranged)._calibrator
        return quantizer.QuantizeModel(float32, float32, False, int16, int64, False, True)
    except RuntimeError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        operation = re.search(r"for op: '(\w+)'", reason)
        where = _first_layer_with(operation[1], ranged, model) if operation else None
        if operation and where:
            reason = f"layer {where} computes {operation[1]}, which LiteRT lacks in int16"
        raise UnquantizableError(
            f"{model.name} has no int16x8 form: {reason}; take float16, or dynamic for a smaller file"
        ) from None


def _first_layer_with(operation: str, content: bytes, model: "keras.Model") -> str | None:
    from tensorflow.lite.tools import flatbuffer_utils

    file = flatbuffer_utils.read_model_from_bytearray(content)
    layers = {layer.name: type(layer).__name__ for layer in model.layers}
    graph = file.subgraphs[0]
    for operator in graph.operators:
        if flatbuffer_utils.opcode_to_name(file, operator.opcodeIndex) == operation:
            named = layers_named_in(graph.tensors[operator.outputs[0]].name.decode(), [*layers])
            return f"{named[0]!r} ({layers[named[0]]})" if named else None
    return None
