"""A Keras network turned into the forms other runtimes load."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

Quantization = Literal["none", "dynamic", "float16", "int8"]


def as_float32(model: keras.Model) -> keras.Model:
    """The same network with every layer in float32, whatever dtype policy it was trained under.

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


def feature_tensor(model: keras.Model) -> Any:
    """The pooled embedding: the symbolic input of the network's last layer, its classifier.

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


def to_litert(
    model: keras.Model,
    *,
    quantization: Quantization = "none",
    calibration: Iterable[np.ndarray] | None = None,
) -> bytes:
    """Convert to a LiteRT (``.tflite``) file.

    The file takes normalised float32 input ``(batch, height, width, channels)`` with any batch size and answers
    float32 logits ``(batch, classes)``, quantized or not: the quantize and dequantize steps are inside.

    Args:
        model: any functional network; it is converted in float32.
        quantization: ``"dynamic"`` int8 weights, ``"float16"`` weights, ``"int8"`` weights and activations, but for
            layers that say ``keep_float``.
        calibration: for ``"int8"``, batches of normalised input, drawn from the training pictures.

    Raises:
        ValueError: ``"int8"`` without calibration data.
    """
    import tensorflow as tf

    model = as_float32(model)
    if quantization == "int8":
        if calibration is None:
            raise ValueError("int8 needs calibration batches: without them activation ranges are unknown")
        examples = [example[None] for batch in calibration for example in np.asarray(batch, np.float32)]
        return _to_int8(model, examples)
    converter = _converter(model)
    if quantization != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def _converter(model: keras.Model) -> Any:
    import tensorflow as tf

    spec = tf.TensorSpec([None, *model.input_shape[1:]], tf.float32, name="input")
    function = tf.function(lambda x: {"logits": model(x, training=False)}, input_signature=[spec])
    holder = tf.Module()
    holder.tracked = [v.value for v in model.variables]  # the converter looks for variables on this object
    return tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], holder)


def _to_int8(model: keras.Model, examples: list[np.ndarray]) -> bytes:
    import tensorflow as tf

    def converter() -> Any:
        made = _converter(model)
        made.optimizations = [tf.lite.Optimize.DEFAULT]
        made.representative_dataset = lambda: ([example] for example in examples)
        made.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        return made

    content = converter().convert()
    kept = [layer.name for layer in model.layers if getattr(layer, "keep_float", False)]
    if not kept:
        return content
    # Only the converted file knows what the operations of a layer are called in it.
    tensors = tf.lite.Interpreter(model_content=content).get_tensor_details()
    names = [tensor["name"] for tensor in tensors if any(f"/{name}" in tensor["name"] for name in kept)]
    mixed = converter()
    mixed.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8, tf.lite.OpsSet.TFLITE_BUILTINS]
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=mixed,
        debug_dataset=lambda: ([example] for example in examples[:1]),
        debug_options=tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=names),
    )
    return debugger.get_nondebug_quantized_model()


def to_openvino(litert_file: str | Path) -> Any:
    """Read a LiteRT file, quantized or not, as an ``openvino.Model``: one file serves both runtimes."""
    import openvino

    return openvino.convert_model(str(litert_file))


def _with_policy(config: Any, policy: str) -> Any:
    if isinstance(config, dict):
        if config.get("class_name") == "DTypePolicy":
            return {**config, "config": {"name": policy}}
        return {key: _with_policy(value, policy) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_with_policy(item, policy) for item in config)
    return config


def weights_digest(model: keras.Model) -> str:
    """sha256 over every weight's shape, dtype and bytes, in order: equal for equal networks, whatever their names."""
    digest = hashlib.sha256()
    for weight in model.weights:
        array = np.ascontiguousarray(keras.ops.convert_to_numpy(weight.value))
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
