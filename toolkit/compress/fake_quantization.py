"""Quantization-aware training with TensorFlow Model Optimization. Runs in the worker only: it imports that package.

What 8-bit training of that package has no rule for gets one here: gates (``Multiply``, ``Subtract``), custom layers,
and batch normalisation that stands behind no convolution.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from toolkit.errors import UserError
from toolkit.network import ANSWERS, NOVELTY

#: Activations that 8-bit training has a rule for: as a layer, and as the own one of a layer with weights.
_ACTIVATION_LAYERS = ("linear", "relu", "relu6", "softmax", "sigmoid", "tanh", "gelu", "swish")
_OWN_ACTIVATIONS = ("linear", "relu", "softmax", "sigmoid", "tanh", "gelu", "swish")
#: Inputs of a concatenation up to which that package gives them one range.
_MOST_JOINED = 6


def quantization_aware(model: Any, *, preserve: str, keep_float: Collection[str] = ()) -> Any:
    """Copy a tf_keras network so that it computes as its int8 form will, but for the layers named in ``keep_float``.

    What must survive training, ``preserve`` says: ``"none"``, ``"sparsity"``, ``"clusters"`` or ``"both"``.

    What answers a picture's novelty stays in float.

    Raises:
        UserError: a layer or activation that 8-bit training does not know.
    """
    import tensorflow_model_optimization as tfmot
    import tf_keras

    from toolkit.compress.bridge import twin_layers

    keras_api = tfmot.quantization.keras
    _round_before_swish()
    model = _without_lone_normalizations(model)
    normalized, joined = _inputs_of_normalizations(model), _inputs_of_wide_concatenations(model)

    def annotate(layer: Any) -> Any:
        if isinstance(layer, tf_keras.layers.InputLayer) or layer.name.startswith(NOVELTY):
            return layer
        if layer.name in keep_float:
            # What reads it is int8 again; a normalisation behind it belongs to it.
            return keras_api.quantize_annotate_layer(layer, _output_config(layer.name not in normalized.values()))
        if normalized.get(layer.name) in keep_float:
            return keras_api.quantize_annotate_layer(layer, _output_config())
        _require_known_activation(layer)
        if layer.name in joined and not layer.weights:
            return keras_api.quantize_annotate_layer(layer, _output_config(False))
        return keras_api.quantize_annotate_layer(layer, _config(layer))

    with keras_api.quantize_scope(twin_layers()):
        annotated = tf_keras.models.clone_model(model, clone_function=annotate)
        annotated.set_weights(model.get_weights())
        try:
            network = keras_api.quantize_apply(annotated, **_scheme(preserve))
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"quantization-aware training does not know a layer ({str(error).splitlines()[0]}); "
                "name it in keep_float to leave it in float"
            ) from error
    # Statistics were learned in float; moving them on a few pictures would only add noise.
    for layer in network.layers:
        inner = getattr(layer, "layer", layer)
        if isinstance(inner, tf_keras.layers.BatchNormalization):
            inner.trainable = False
    return network


def calibrate(network: Any, batches: Iterable[Any]) -> None:
    """Set every range from what the network shows on a few batches, as averages over the batches' extremes.

    Ranges start at -6…6 otherwise and move by a thousandth a step: on a small data set, training would end long
    before they have arrived.
    """
    from tensorflow_model_optimization.python.core.quantization.keras import quant_ops

    seen: dict[int, tuple[Any, Any, list[tuple[float, float]]]] = {}

    def observe(inputs: Any, min_var: Any, max_var: Any, **_: Any) -> Any:
        low, high = float(np.min(inputs)), float(np.max(inputs))
        seen.setdefault(id(min_var), (min_var, max_var, []))[2].append((min(0.0, low), max(0.0, high)))
        return inputs

    # There is no public way to see what a quantizer is handed; the functions are put back at once.
    originals = {name: getattr(quant_ops, name) for name in ("AllValuesQuantize", "MovingAvgQuantize")}
    weights = quant_ops.LastValueQuantize
    for name in originals:
        setattr(quant_ops, name, observe)
    quant_ops.LastValueQuantize = lambda *values, **options: weights(*values, **{**options, "is_training": True})
    try:
        for inputs in batches:
            network(inputs, training=False)
    finally:
        quant_ops.LastValueQuantize = weights
        for name, original in originals.items():
            setattr(quant_ops, name, original)
    for min_var, max_var, extremes in seen.values():
        low, high = np.mean(extremes, axis=0)
        min_var.assign(low)
        max_var.assign(high)


def zero_masks(model: Any) -> dict[str, np.ndarray]:
    """Return a mask for each pruned kernel, by its layer: True where it is not zero. What answers novelty has none."""
    kernels = {layer.name: layer.kernel for layer in model.layers if hasattr(layer, "kernel")}
    return {name: np.asarray(kernel) != 0 for name, kernel in kernels.items() if not name.startswith(NOVELTY)}


def convert(network: Any, masks: Mapping[str, np.ndarray] | None = None) -> bytes:
    """Convert to an int8 LiteRT file, float32 in and out, of any batch size.

    ``masks``, of ``zero_masks``, tell where zeros were to be preserved: training that preserves clusters too lets the
    centroid at zero drift by a step in some channels.
    """
    import tensorflow as tf
    import tensorflow_model_optimization as tfmot

    network = tfmot.experimental.combine.strip_clustering_cqat(network)  # nothing to do where clusters were not kept
    for name, mask in (masks or {}).items():
        for weight in network.get_layer(f"quant_{name}").weights:
            if weight.shape == mask.shape:
                weight.assign(weight * mask)
    if len(network.outputs) == 1:
        converter = tf.lite.TFLiteConverter.from_keras_model(network)
    else:  # answers come in the order of their names, and those of layers tell nothing
        signature = [tf.TensorSpec(network.input.shape, tf.float32, name="input")]
        answers = tf.function(lambda x: dict(zip(ANSWERS, network(x, training=False), strict=True)), signature)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([answers.get_concrete_function()], network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    try:
        return converter.convert()
    except Exception as error:  # of the converter's own kind, with a traceback in its message
        reason = re.search(r"error: (.*)", str(error))
        raise UserError(
            f"the trained network has no int8 file: {reason[1] if reason else str(error).splitlines()[0]}; "
            "quantize it after training (int8) instead"
        ) from error


def _output_config(quantize_output: bool = True) -> Any:
    """Make the rule for a layer without weights: fake-quantize the output, or let the input's range pass."""
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import default_8bit_quantize_configs

    return default_8bit_quantize_configs.Default8BitOutputQuantizeConfig(quantize_output)


def _require_known_activation(layer: Any) -> None:
    activation = getattr(getattr(layer, "activation", None), "__name__", None)
    if type(layer).__name__ != "Activation" and activation is not None and activation not in _OWN_ACTIVATIONS:
        raise UserError(
            f"layer {layer.name!r} ({type(layer).__name__}): quantization-aware training does not know the activation "
            f"{activation!r}; known: {', '.join(_OWN_ACTIVATIONS)}. Name the layer in keep_float to leave it in float"
        )


def _config(layer: Any) -> Any:
    """The rule for a layer that TensorFlow Model Optimization has none for, else None."""
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import default_8bit_quantize_registry

    if hasattr(layer, "keeps_range"):  # the twin of a custom layer
        return _output_config(not layer.keeps_range)
    if type(layer).__name__ == "AveragePooling2D":  # LiteRT's has one scale for what goes in and what comes out
        return _output_config(False)
    if type(layer).__name__ == "Activation":
        return None if layer.activation.__name__ in _ACTIVATION_LAYERS else _output_config()
    known = default_8bit_quantize_registry.Default8BitQuantizeRegistry().supports(layer)
    if known or type(layer).__name__ == "BatchNormalization":  # which goes into the layer before it
        return None
    # Gates, rescaling, pooling …: what has no kernel needs the range of its output alone.
    has_kernel = any(len(weight.shape) > 1 for weight in layer.weights)
    return None if has_kernel else _output_config()


def _round_before_swish() -> None:
    """Have swish inside a layer read integers too: its file multiplies what goes in by what its sigmoid answers."""
    from tensorflow_model_optimization.python.core.quantization.keras import quantize_aware_activation

    quantize_aware_activation.QuantizeAwareActivation._PRE_QUANT_ACTIVATIONS |= {"swish"}


def _scheme(preserve: str) -> dict[str, Any]:
    import tensorflow_model_optimization as tfmot

    combine = tfmot.experimental.combine
    if preserve == "none":
        return {}
    if preserve == "sparsity":
        return {"scheme": combine.Default8BitPrunePreserveQuantizeScheme()}
    return {"scheme": combine.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=preserve == "both")}


def _inputs_of_normalizations(model: Any) -> dict[str, str]:
    """By batch normalisation, the layer before it."""
    import tf_keras

    layers = [layer for layer in model.layers if isinstance(layer, tf_keras.layers.BatchNormalization)]
    return {layer.name: layer.inbound_nodes[0].inbound_layers.name for layer in layers}


def _inputs_of_wide_concatenations(model: Any) -> set[str]:
    """Name the layers before concatenations of many: in a file all have the range of what comes out."""
    import tf_keras

    return {
        tensor.node.layer.name
        for layer in model.layers
        if isinstance(layer, tf_keras.layers.Concatenate) and len(layer.input) > _MOST_JOINED
        for tensor in layer.input
    }


def _without_lone_normalizations(model: Any) -> Any:
    """Normalisations that no convolution can take in, and rescaling, as 1×1 depthwise convolutions with a bias.

    One behind an addition or a concatenation would become a multiplication and an addition in the file, with a float
    tensor between them.
    """
    import tf_keras

    lone = {layer.name for layer in model.layers if _is_lone(layer)}
    if not lone:
        return model

    def replace(layer: Any) -> Any:
        if layer.name not in lone:
            return layer.__class__.from_config(layer.get_config())
        return tf_keras.layers.DepthwiseConv2D(1, name=layer.name)

    rewritten = tf_keras.models.clone_model(model, clone_function=replace)
    for layer in model.layers:
        weights = _as_depthwise(layer) if layer.name in lone else layer.get_weights()
        rewritten.get_layer(layer.name).set_weights(weights)
    return rewritten


def _is_lone(layer: Any) -> bool:
    import tf_keras

    if isinstance(layer.input, list) or len(layer.input.shape) != 4:
        return False
    if isinstance(layer, tf_keras.layers.Rescaling):
        return True
    if isinstance(layer, tf_keras.layers.Normalization):
        return not layer.invert and tuple(layer.axis) in ((), (-1,), (3,))
    if not isinstance(layer, tf_keras.layers.BatchNormalization):
        return False
    (node,) = layer.inbound_nodes
    before = node.inbound_layers
    absorbs = isinstance(before, tf_keras.layers.Conv2D | tf_keras.layers.DepthwiseConv2D)
    return not (absorbs and before.activation is tf_keras.activations.linear and len(before.outbound_nodes) == 1)


def _as_depthwise(layer: Any) -> list[np.ndarray]:
    import tf_keras

    if isinstance(layer, tf_keras.layers.Rescaling):
        factor, offset = np.asarray(layer.scale), np.asarray(layer.offset)
    elif isinstance(layer, tf_keras.layers.Normalization):
        factor = 1 / np.maximum(np.sqrt(np.asarray(layer.variance)), tf_keras.backend.epsilon())
        offset = -np.asarray(layer.mean) * factor
    else:
        mean, variance = np.asarray(layer.moving_mean), np.asarray(layer.moving_variance)
        factor = (np.asarray(layer.gamma) if layer.scale else 1.0) / np.sqrt(variance + layer.epsilon)
        offset = (np.asarray(layer.beta) if layer.center else 0.0) - mean * factor
    channels = layer.input.shape[-1]
    factor, offset = (np.broadcast_to(np.ravel(values), channels) for values in (factor, offset))
    return [factor.reshape(1, 1, -1, 1), offset]
