"""Precision of an int8 network layer by layer: values that a range cuts off, and the noise that rounding adds."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from toolkit.compress.examples import Examples, spread
from toolkit.lazy import keras
from toolkit.progress import step, track
from toolkit.spec import Preprocessing

#: Pictures that ranges are checked on and noise is measured on, and how many of them at a time.
NUM_PICTURES = 64
_BATCH_SIZE = 16


@dataclass(frozen=True)
class RangeRow:
    """Integer range of one layer's output, ``low`` to ``high`` in steps of ``step``, and the float network's values.

    They go from ``seen_low`` to ``seen_high``; the share ``saturated`` lies beyond the range and is cut off.
    """

    layer: str
    low: float
    high: float
    step: float
    seen_low: float
    seen_high: float
    saturated: float


@dataclass(frozen=True)
class LayerNoise:
    """Noise in the logits from computing one layer alone in int8, its weights and its output.

    Attributes:
        layer: its name; where layers were fused, the first's, the one with weights.
        decibels: of the logits, ``10 log10(Σ float² / Σ (int8 - float)²)``; below 20 the layer alone changes labels.
    """

    layer: str
    decibels: float


def range_report(
    content: bytes, model: "keras.Model", examples: Examples, *, preprocessing: Preprocessing
) -> list[RangeRow]:
    """Measure how pictures fill the ranges of a quantized file.

    Args:
        content: a file by ``quantize`` or ``quantize_aware_train``.
        model: the network it was made of.
        examples: other pictures than it was calibrated on show whether the ranges are wide enough.
        preprocessing: what the network was trained with.

    Returns:
        A row per layer whose output the file holds, in the network's order.
    """
    from toolkit.network import as_float32

    model = as_float32(model)
    groups = {group.last: group for group in _groups(content, model)}
    layers = [layer for layer in model.layers if layer.name in groups]
    network = keras.Model(model.inputs, [layer.output for layer in layers])
    least, most = dict.fromkeys(groups, np.inf), dict.fromkeys(groups, -np.inf)
    beyond, total = dict.fromkeys(groups, 0), dict.fromkeys(groups, 0)
    for batch in track([*_batches(spread(examples, preprocessing, NUM_PICTURES))], "checking the ranges"):
        for layer, output in zip(layers, keras.tree.flatten(network([batch], training=False)), strict=True):
            name, values = layer.name, keras.ops.convert_to_numpy(output)
            low, high, step = groups[name].range
            beyond[name] += int(np.sum((values < low - step / 2) | (values > high + step / 2)))
            total[name] += values.size
            least[name], most[name] = min(least[name], values.min()), max(most[name], values.max())
    return [
        RangeRow(name, *groups[name].range, float(least[name]), float(most[name]), beyond[name] / total[name])
        for name in (layer.name for layer in layers)
    ]


def layer_sensitivity(model: "keras.Model", calibration: Examples, *, preprocessing: Preprocessing) -> list[LayerNoise]:
    """Rank the layers of a network by the noise that each of them, alone in int8, adds to the logits, the worst first.

    One pass over ``NUM_PICTURES`` pictures for every layer, with its weights rounded as int8 stores them and its output
    rounded to the int8 range it has in the file. ``float_layers`` makes of the ranking what to keep in float.

    Args:
        model: a classifier that answers logits.
        calibration: training pictures; ranges are learned from them.
        preprocessing: what it was trained with.
    """
    from toolkit.compress.quantize import NUM_CALIBRATION
    from toolkit.engines.convert import to_litert
    from toolkit.network import as_float32

    model = as_float32(model)
    inputs = spread(calibration, preprocessing, NUM_CALIBRATION)
    with step("quantizing to int8"):
        groups = _groups(to_litert(model, quantization="int8", calibration=[inputs]), model)
    network, switches = _with_roundings(model, groups)
    for layer in model.layers:
        if layer.weights:  # an input that was given no name has another in the copy
            network.get_layer(layer.name).set_weights(layer.get_weights())
    pictures = inputs[:: max(1, len(inputs) // NUM_PICTURES)][:NUM_PICTURES]

    def logits() -> np.ndarray:
        return np.concatenate([network.predict_on_batch(batch) for batch in _batches(pictures)])

    expected = logits()
    noises = []
    for group in track(groups, "trying each layer in int8"):
        layer = network.get_layer(group.first)
        weights = layer.get_weights()
        layer.set_weights(_rounded(layer))
        for switch in switches[group.last]:
            switch.on.assign(1.0)
        noise = float(np.mean(np.square(logits() - expected)))
        for switch in switches[group.last]:
            switch.on.assign(0.0)
        layer.set_weights(weights)
        signal = float(np.mean(np.square(expected)))
        noises.append(LayerNoise(group.first, round(10 * float(np.log10(signal / max(noise, 1e-12 * signal))), 1)))
    return sorted(noises, key=lambda row: row.decibels)


def float_layers(model: "keras.Model", ranking: Sequence[LayerNoise], count: int) -> tuple[str, ...]:
    """Name the layers to leave in float, ``quantize(…, keep_float=…)``, so that the ``count`` worst compute in float.

    With each of them, what reads its output, down to the next layer with weights or several inputs: between two int8
    layers the output would be rounded all the same.
    """
    from toolkit.network import sources

    readers: dict[str, list[str]] = {}
    feeding = sources(model)
    for name, before in feeding.items():
        for layer in before:
            readers.setdefault(layer.name, []).append(name)
    kept: dict[str, None] = {}

    def keep(name: str) -> None:
        if name in kept:
            return
        kept[name] = None
        for reader in readers.get(name, []):
            fused = type(model.get_layer(reader)).__name__ == "BatchNormalization"
            if fused or not (model.get_layer(reader).weights or len(feeding[reader]) > 1):
                keep(reader)
            else:
                kept[reader] = None

    for row in ranking[:count]:
        keep(row.layer)
    return tuple(kept)


@dataclass(frozen=True)
class _Group:
    """Layers that became one operation: the first, with the weights, to the last, whose output it is.

    Ranges are low, high and step: of the output, and where the file rounds there too, of what goes into the first
    layer's own activation.
    """

    first: str
    last: str
    range: tuple[float, float, float]
    before_activation: tuple[float, float, float] | None = None


def _groups(content: bytes, model: "keras.Model") -> list[_Group]:
    """Find the operations of a quantized file whose outputs have a range of their own."""
    from ai_edge_litert.interpreter import Interpreter

    from toolkit.engines.convert import layers_named_in
    from toolkit.network import sources

    names = [layer.name for layer in model.layers]
    found: dict[str, _Group] = {}
    for detail in Interpreter(model_content=content).get_tensor_details():
        scales = detail["quantization_parameters"]["scales"]
        signature = detail["shape_signature"]
        named = layers_named_in(detail["name"], names)
        # A batch, and one scale: weights have neither, or only the second.
        is_activation = len(signature) > 0 and signature[0] == -1 and len(scales) == 1
        if is_activation and named and detail["dtype"] in (np.int8, np.int16):
            scale, zero = float(scales[0]), int(detail["quantization_parameters"]["zero_points"][0])
            limits = np.iinfo(detail["dtype"])
            span = ((limits.min - zero) * scale, (limits.max - zero) * scale, scale)
            # Of a layer's tensors the last is its output.
            before = found[named[-1]].range if named[-1] in found else None
            found[named[-1]] = _Group(named[0], named[-1], span, before)
    # A normalisation that was folded into the convolution before it has no name in the file, but it is its output.
    for name, feeding in sources(model).items():
        is_normalization = type(model.get_layer(name)).__name__ == "BatchNormalization"
        if is_normalization and name not in found and feeding[0].name in found:
            found[name] = replace(found.pop(feeding[0].name), last=name)
    order = {name: index for index, name in enumerate(names)}
    return sorted(found.values(), key=lambda group: order[group.last])


def _with_roundings(model: "keras.Model", groups: Sequence[_Group]) -> tuple["keras.Model", dict[str, list[Any]]]:
    """Copy the network so that it can round where the file does; also the switches, by the group's last layer."""
    outputs: dict[str, Any] = {}
    inside: dict[str, Any] = {}
    for group in groups:
        outputs[group.last] = _rounding_class()(*group.range, name=f"{group.last}_rounding")
        if group.before_activation and hasattr(model.get_layer(group.last), "activation"):
            name = f"{group.last}_rounding_before"
            inside[group.last] = _rounding_class()(*group.before_activation, name=name)

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        return type(layer).from_config({**config, "activation": "linear"} if layer.name in inside else config)

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        result = layer(*args, **kwargs)
        if layer.name in inside:
            result = model.get_layer(layer.name).activation(inside[layer.name](result))
        return outputs[layer.name](result) if layer.name in outputs else result

    network = keras.models.clone_model(model, clone_function=clone, call_function=call)
    return network, {
        group.last: [layer for layer in (inside.get(group.last), outputs[group.last]) if layer] for group in groups
    }


@functools.cache
def _rounding_class() -> type:
    class Rounding(keras.layers.Layer):
        """Passes its input on, rounded to a range while ``on`` is 1."""

        def __init__(self, low: float, high: float, step: float, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self._low, self._high, self._step = low, high, step

        def build(self, input_shape: Any) -> None:
            self.on = self.add_weight(shape=(), initializer="zeros", trainable=False, name="on")

        def call(self, inputs: Any) -> Any:
            rounded = keras.ops.clip(keras.ops.round(inputs / self._step) * self._step, self._low, self._high)
            return inputs + self.on * (rounded - inputs)

    return Rounding


def _rounded(layer: "keras.Layer") -> list[np.ndarray]:
    """Round a layer's weights as int8 stores kernels: 255 steps, symmetric, by output channel or over a dense one."""
    rounded = []
    for variable, weight in zip(layer.weights, layer.get_weights(), strict=True):
        is_depthwise = isinstance(layer, keras.layers.DepthwiseConv2D) or variable.name == "depthwise_kernel"
        if weight.ndim >= 2:  # biases are int32
            axes = None if weight.ndim < 4 else (0, 1) if is_depthwise else (0, 1, 2)
            step = np.abs(weight).max(axis=axes, keepdims=True) / 127
            weight = np.round(weight / np.where(step > 0, step, 1)) * step
        rounded.append(weight)
    return rounded


def _batches(inputs: np.ndarray) -> Iterator[np.ndarray]:
    return (inputs[start : start + _BATCH_SIZE] for start in range(0, len(inputs), _BATCH_SIZE))
