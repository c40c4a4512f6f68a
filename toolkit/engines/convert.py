"""Conversion of a Keras network to a LiteRT file."""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal

import numpy as np

from toolkit.lazy import keras
from toolkit.network import as_float32

Quantization = Literal["none", "dynamic", "float16", "int8", "int16x8"]


def to_litert(
    model: "keras.Model",
    *,
    quantization: Quantization = "none",
    calibration: Iterable[np.ndarray] | None = None,
    keep_float: Collection[str] = (),
) -> bytes:
    """Convert to a LiteRT (``.tflite``) file.

    The file takes normalised float32 input ``(batch, height, width, channels)`` with any batch size and answers
    float32 logits ``(batch, classes)``, quantized or not: the quantize and dequantize steps are inside.

    Args:
        model: any functional network; it is converted in float32.
        quantization: ``"dynamic"`` int8 weights, ``"float16"`` weights, ``"int8"`` weights and activations, or
            ``"int16x8"``, int8 weights and int16 activations. Convolutions have a scale per output channel. Layers that
            say ``keep_float`` stay in float under ``"int8"``.
        calibration: for ``"int8"`` and ``"int16x8"``, batches of normalised input, drawn from the training pictures.
        keep_float: names of further layers to leave in float under ``"int8"``.

    Raises:
        ValueError: ``"int8"`` or ``"int16x8"`` without calibration data.
    """
    import tensorflow as tf

    model = as_float32(model)
    if quantization in ("int8", "int16x8"):
        if calibration is None:
            raise ValueError(f"{quantization} needs calibration batches: without them activation ranges are unknown")
        examples = [example[None] for batch in calibration for example in np.asarray(batch, np.float32)]
        if quantization == "int16x8":
            int16 = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
            return integer_converter(model, examples, [int16]).convert()
        return _to_int8(model, examples, keep_float)
    converter = _converter(model)
    if quantization != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def layers_named_in(tensor: str, names: Sequence[str]) -> list[str]:
    """Find the layers that a LiteRT tensor's name speaks of, several where they were fused, in the order of ``names``.

    >>> layers_named_in("net_1/stem_relu_1/Relu;net_1/stem_conv_1/Conv2D", ["stem_conv", "stem_bn", "stem_relu"])
    ['stem_conv', 'stem_relu']
    >>> layers_named_in("net/quant_stem_conv/BiasAdd", ["stem", "stem_conv"])
    ['stem_conv']
    """
    if tensor.startswith("StatefulPartitionedCall"):  # what the file answers
        return [names[-1]]
    parts = {part.removeprefix("quant_") for path in tensor.split(";") for part in path.split("/")}
    found = [name for name in names if name in parts]
    # Keras numbers the scope of a layer that is called a second time, as conversion does.
    return found or [name for name in names if any(re.fullmatch(rf"{re.escape(name)}_\d+", part) for part in parts)]


def _converter(model: "keras.Model") -> Any:
    import tensorflow as tf

    spec = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32, name="input")
    function = tf.function(lambda x: {"logits": model(x, training=False)}, input_signature=[spec])
    holder = tf.Module()
    holder.tracked = [v.value for v in model.variables]  # the converter looks for variables on this object
    return tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], holder)


def integer_converter(model: "keras.Model", examples: list[np.ndarray], operators: list[Any]) -> Any:
    """Make TensorFlow's converter learn ranges from ``examples`` (batches of one) and use only ``operators``."""
    import tensorflow as tf

    converter = _converter(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([example] for example in examples)
    converter.target_spec.supported_ops = operators
    # A scale per unit of a dense layer costs a small network a tenth of its file and wins no accuracy.
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    return converter


def _to_int8(model: "keras.Model", examples: list[np.ndarray], keep_float: Collection[str]) -> bytes:
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    int8, float32 = tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS
    content = integer_converter(model, examples, [int8]).convert()
    kept = {*keep_float, *(layer.name for layer in model.layers if getattr(layer, "keep_float", False))}
    if not kept:
        return content
    # Only the converted file knows what the operations of a layer are called in it.
    tensors = Interpreter(model_content=content).get_tensor_details()
    layer_names = [layer.name for layer in model.layers]
    names = [tensor["name"] for tensor in tensors if kept.intersection(layers_named_in(tensor["name"], layer_names))]
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=integer_converter(model, examples, [int8, float32]),
        debug_dataset=lambda: ([example] for example in examples[:1]),
        debug_options=tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=names),
    )
    return debugger.get_nondebug_quantized_model()
