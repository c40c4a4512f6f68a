"""A Keras 3 network rebuilt in tf_keras (Keras 2), and its weights brought back.

TensorFlow Model Optimization knows tf_keras only. A flat functional graph of stock, named layers means the same in both
worlds once three things are translated: how a layer's configuration is written, which few options were renamed or
added, and how one layer's output is named as another's input. All of that is here.

Importing tf_keras beside Keras 3 leaves ``tf.keras`` alone; importing TensorFlow Model Optimization does not, which is
why that lives in ``toolkit.compress.worker``, in a process of its own.
"""

import functools
import importlib.util
import inspect
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.errors import UserError
from toolkit.lazy import keras

INSTALL = "pip install 'toolkit[compress]'"

#: Options that only changed their name, by layer class: Keras 3 → tf_keras.
_RENAMED = {"LeakyReLU": {"negative_slope": "alpha"}}
#: Activations that mean the same in both.
_ACTIVATIONS = {
    *("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "swish", "mish"),
    *("sigmoid", "tanh", "softmax", "log_softmax", "softplus", "softsign", "exponential"),
}
#: What to do about layers that tf_keras lacks.
_ADVICE = {
    "AdaptiveAveragePooling2D": "if it belongs to auxiliary heads, build the network without them",
    "LayerScale": "write DepthwiseConv2D(1, use_bias=False) for it, which has the same gamma as its kernel",
}
#: Largest difference between the two networks' outputs, relative to the largest output, before it is called a fault.
_TOLERANCE = 1e-4
#: End of the name of a separable convolution's first half: the second has the layer's own. TensorFlow Model
#: Optimization divides such layers too, under names that others may have.
_DEPTHWISE = "_depthwise"


class HardSigmoid:
    """Keras 3's ``hard_sigmoid``, which tf_keras has with another slope."""

    keeps_range = False

    def in_tensorflow(self, inputs: Any) -> Any:
        import tensorflow as tf

        return tf.nn.relu6(inputs + 3.0) * (1 / 6)


class HardSilu(HardSigmoid):
    """Keras 3's ``hard_silu``, which tf_keras lacks."""

    def in_tensorflow(self, inputs: Any) -> Any:
        return inputs * super().in_tensorflow(inputs)


#: What computes an ``Activation`` layer there, by the activation.
_ACTIVATION_LAYERS = {"hard_sigmoid": HardSigmoid, "hard_silu": HardSilu, "hard_swish": HardSilu}


def to_tf_keras(model: "keras.Model") -> Any:
    """Rebuild a network in tf_keras with the same weights and the same answers.

    Any flat functional (or sequential) graph of stock layers will do, this package's networks and most of
    ``keras.applications`` among them. Layers keep their names. ``StochasticDepth`` vanishes: the survival probability
    it multiplies by goes into gamma and beta of the batch normalisation before it. Mixed-precision networks are rebuilt
    in float32. The result is checked against ``model`` on random input.

    Args:
        model: any number of inputs and outputs; not changed.

    Returns:
        A ``tf_keras.Model``, not compiled.

    Raises:
        UserError: tf_keras is not installed, or a layer has no equal in it; the message names the layer and what to do.

    >>> import keras
    >>> network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="conv")])
    >>> [layer.name for layer in to_tf_keras(network).layers][1:]
    ['conv']
    """
    if importlib.util.find_spec("tf_keras") is None:
        raise UserError(f"this needs tf_keras, which is not installed: {INSTALL}")
    from toolkit.network import as_float32

    model = _functional(as_float32(model))
    twin = _Rebuild(model).run()
    for name, scale in absorbed_factors(model).items():
        normalization = twin.get_layer(name)
        gamma, beta, *statistics = normalization.get_weights()
        normalization.set_weights([gamma * scale, beta * scale, *statistics])
    _check_equal(model, twin)
    return twin


def from_tf_keras(twin: Any, model: "keras.Model") -> "keras.Model":
    """Bring a twin's weights back into Keras 3.

    Args:
        twin: made by ``to_tf_keras(model)`` and trained since; its layers still have their names.
        model: gives the structure; not changed.

    Returns:
        A float32 copy of ``model`` with the twin's weights, not compiled.

    Raises:
        UserError: the twin lacks a layer of ``model``, or its weights have other shapes.
    """
    from toolkit.network import as_float32

    model = as_float32(model)
    copy = keras.models.clone_model(model)
    scales = absorbed_factors(model)
    theirs = {layer.name: layer.get_weights() for layer in twin.layers}
    for layer in copy.layers:
        if not layer.weights:
            continue
        if layer.name not in theirs:
            raise UserError(f"the tf_keras network has no layer {layer.name!r}: it was made of another network")
        weights = theirs[layer.name]
        if isinstance(layer, keras.layers.SeparableConv2D):
            weights = [*theirs[f"{layer.name}{_DEPTHWISE}"], *weights]
        if layer.name in scales:
            gamma, beta, *statistics = weights
            weights = [gamma / scales[layer.name], beta / scales[layer.name], *statistics]
        _set_weights(layer, weights)
    return copy


def save_twin(twin: Any, path: Path) -> None:
    """Write a twin, structure and weights, to an ``.h5`` file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "HDF5 is legacy": so is the reader
        twin.save(path, include_optimizer=False)


def load_twin(path: Path) -> Any:
    """Read what ``save_twin`` wrote."""
    import tf_keras

    return tf_keras.models.load_model(path, custom_objects=twin_layers(), compile=False)


def twin_layers() -> dict[str, type]:
    """List the twin classes of all registered custom layers by name, as ``custom_objects`` of tf_keras takes them."""
    import toolkit.layers  # noqa: F401  (registers its own)

    registered = keras.saving.get_custom_objects().values()
    classes = {*registered, HardSigmoid, HardSilu}
    return {cls.__name__: _twin_class(cls) for cls in classes if hasattr(cls, "in_tensorflow")}


@functools.cache
def _twin_class(original: Any) -> type:
    """Make the tf_keras class that computes by ``in_tensorflow`` of a custom layer's class.

    A twin has the name and the configuration of its original, no weights, and the same operations, so that it converts
    to the same LiteRT.
    """
    import tf_keras

    class Twin(tf_keras.layers.Layer):
        keeps_range = original.keeps_range

        def __init__(self, name: Any = None, trainable: bool = True, dtype: Any = None, **options: Any) -> None:
            super().__init__(name=name, trainable=trainable, dtype=dtype)
            self._options = options
            self._compute = original(**options).in_tensorflow

        def call(self, inputs: Any) -> Any:
            return self._compute(inputs)

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), **self._options}

    Twin.__name__ = Twin.__qualname__ = original.__name__
    return Twin


def absorbed_factors(model: "keras.Model") -> dict[str, float]:
    """Find the constants that batch normalisations take in, by the normalisation's name.

    Raises:
        UserError: the layer that multiplies by a constant stands behind anything else, or something else reads that
            normalisation too.
    """
    model = _functional(model)
    factors = {layer.name: getattr(layer, "inference_factor", None) for layer in model.layers}
    entries = {entry["name"]: entry for entry in model.get_config()["layers"]}
    consumers: dict[str, list[str]] = {}
    for name, entry in entries.items():
        for source in _sources(entry["inbound_nodes"]):
            consumers.setdefault(source, []).append(name)
    found = {}
    for name, entry in entries.items():
        factor = factors.get(name)
        if factor is None:
            continue
        (source,) = _sources(entry["inbound_nodes"])
        before = entries[source]
        config = before["config"]
        if before["class_name"] != "BatchNormalization" or not (config["center"] and config["scale"]):
            raise UserError(
                f"layer {name!r} ({entry['class_name']}) stands behind {source!r} ({before['class_name']}); only the "
                "gamma and beta of a BatchNormalization can take in its constant: put one in front of it"
            )
        if consumers[source] != [name]:
            kind = entry["class_name"]
            raise UserError(f"layer {source!r} feeds {name!r} ({kind}) and others: give it a copy of its own")
        found[source] = factor
    return found


class _Rebuild:
    """One pass over a model's configuration, layer by layer, each called on its twin inputs."""

    def __init__(self, model: "keras.Model") -> None:
        import tf_keras

        self._tf_keras = tf_keras
        self._originals = {layer.name: layer for layer in model.layers}  # an operator such as + is not among them
        config = model.get_config()
        self._name = config["name"]
        self._entries = {entry["name"]: entry for entry in config["layers"]}
        self._outputs = config["output_layers"]
        self._inputs = config["input_layers"]
        self._layers: dict[str, Any] = {}
        self._weights: dict[str, list[np.ndarray]] = {}
        self._tensors: dict[tuple[str, int], Any] = {}

    def run(self) -> Any:
        for name, entry in self._entries.items():
            for node in range(max(1, len(entry["inbound_nodes"]))):
                self._output(name, node)
        for name, layer in self._layers.items():
            _set_weights(layer, self._weights[name])
        return self._tf_keras.Model(self._tensor(self._inputs), self._tensor(self._outputs), name=self._name)

    def _output(self, name: str, node: int) -> Any:
        """Output of the ``node``-th use of a layer."""
        if (name, node) not in self._tensors:
            self._tensors[name, node] = self._call(self._entries[name], node)
        return self._tensors[name, node]

    def _call(self, entry: dict[str, Any], node: int) -> Any:
        name = entry["name"]
        if entry["class_name"] == "InputLayer":
            shape = entry["config"]["batch_shape"]
            return self._tf_keras.Input(shape[1:], batch_size=shape[0], dtype=entry["config"]["dtype"], name=name)
        call = entry["inbound_nodes"][node]
        arguments = [self._argument(value) for value in call["args"]]
        options = {key: self._argument(value) for key, value in call["kwargs"].items() if value is not None}
        original = self._originals.get(name)
        if getattr(original, "inference_factor", None) is not None:
            return arguments[0]
        if entry["class_name"] == "SeparableConv2D":
            first = f"{name}{_DEPTHWISE}"
            if first not in self._layers:
                self._layers[first], self._layers[name] = _separated(entry)
                weights = self._originals[name].get_weights()
                self._weights |= {first: weights[:1], name: weights[1:]}
            return self._layers[name](self._layers[first](*arguments))
        if name not in self._layers:
            self._layers[name] = _twin_layer(entry, original)
            self._weights[name] = self._originals[name].get_weights()
        return self._layers[name](*arguments, **options)

    def _argument(self, value: Any) -> Any:
        if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
            return self._tensor(value["config"]["keras_history"])
        if isinstance(value, dict):
            return {key: self._argument(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._argument(item) for item in value]
        return value

    def _tensor(self, reference: Any) -> Any:
        """The twin of a tensor, or of a list or dictionary of them, named ``(layer, node, index)``."""
        if isinstance(reference, dict):
            return {key: self._tensor(item) for key, item in reference.items()}
        if not isinstance(reference[0], str):
            return [self._tensor(item) for item in reference]
        name, node, index = reference
        output = self._output(name, node)
        return output[index] if isinstance(output, list | tuple) else output


def _functional(model: "keras.Model") -> "keras.Model":
    """A view of the model whose configuration lists every layer with its inputs."""
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise UserError(
            f"{getattr(model, 'name', model)!r} ({type(model).__name__}) is not a functional network; write it with "
            "keras.Input and keras.Model(inputs, outputs), or call a Sequential one on data first"
        )
    if isinstance(model, keras.Sequential):
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    return model


def _twin_layer(entry: dict[str, Any], original: Any) -> Any:
    import tf_keras

    name, class_name = entry["name"], entry["class_name"]
    if hasattr(original, "in_tensorflow"):  # a custom layer
        options = {key: value for key, value in entry["config"].items() if key != "dtype"}
        return _twin_class(original.__class__)(**options)
    if class_name == "Activation" and entry["config"]["activation"] in _ACTIVATION_LAYERS:
        return _twin_class(_ACTIVATION_LAYERS[entry["config"]["activation"]])(name=name)
    if class_name in ("Functional", "Sequential", "Model"):
        raise _unsupported(entry, "a model inside a model: call its layers one by one, so that the graph is flat")
    stock_here = getattr(keras.layers, class_name, None)
    if not str(entry["module"]).startswith("keras.layers") or stock_here is None:
        if "keras" in str(entry["module"]) and ".ops" in str(entry["module"]):
            raise _unsupported(entry, "an operation and not a layer: write keras.layers.Add()([x, y]) for x + y")
        raise _unsupported(entry, f"not a stock Keras layer: {_ADVICE.get(class_name, 'build it of stock layers')}")
    stock_class = getattr(tf_keras.layers, class_name, None)
    if stock_class is None:
        raise _unsupported(entry, f"new in Keras 3: {_ADVICE.get(class_name, 'replace it by older stock layers')}")
    try:
        return stock_class(name=name, **_translated(entry, stock_here, stock_class))
    except (TypeError, ValueError) as error:
        raise _unsupported(entry, f"refused by tf_keras ({str(error).splitlines()[0]})") from error


def _separated(entry: dict[str, Any]) -> tuple[Any, Any]:
    """The two convolutions that a separable one is made of."""
    import tf_keras

    config = entry["config"]
    shared = ("kernel_size", "strides", "padding", "dilation_rate", "depth_multiplier", "trainable")
    first = tf_keras.layers.DepthwiseConv2D(
        **{key: config[key] for key in shared}, use_bias=False, name=f"{entry['name']}{_DEPTHWISE}"
    )
    second = tf_keras.layers.Conv2D(
        config["filters"],
        1,
        use_bias=config["use_bias"],
        activation=_value(entry, "activation", config["activation"]),
        trainable=config["trainable"],
        name=entry["name"],
    )
    return first, second


def _translated(entry: dict[str, Any], original: Any, twin_class: Any) -> dict[str, Any]:
    """A layer's configuration in tf_keras' words."""
    renamed = _RENAMED.get(entry["class_name"], {})
    accepted = {"trainable", *inspect.signature(twin_class).parameters}
    defaults = inspect.signature(original).parameters
    translated = {}
    for key, value in entry["config"].items():
        # Weights are copied: it does not matter what they would have started from, nor which numbers a seed gives.
        if key in ("name", "dtype", "seed") or key.endswith("_initializer"):
            continue
        if renamed.get(key, key) in accepted:
            translated[renamed.get(key, key)] = _value(entry, key, value)
        elif value != defaults[key].default if key in defaults else value not in (None, False):
            raise _unsupported(entry, f"{key}={value!r} is an option that tf_keras lacks: leave it out")
    return translated


def _value(entry: dict[str, Any], key: str, value: Any) -> Any:
    if key.endswith("activation") and value is not None and value not in _ACTIVATIONS:
        shown = value["config"] if isinstance(value, dict) else value
        if shown in _ACTIVATION_LAYERS:
            raise _unsupported(entry, f"activation {shown!r} can only be a layer: put Activation({shown!r}) behind it")
        known = ", ".join(sorted([*_ACTIVATIONS, *_ACTIVATION_LAYERS]))
        raise _unsupported(entry, f"activation {shown!r} means something else there; use one of {known}")
    if not isinstance(value, dict) or "class_name" not in value:
        return value
    if key.endswith(("_regularizer", "_constraint")) and str(value.get("module")).startswith("keras."):
        return {"class_name": value["class_name"], "config": value["config"]}
    raise _unsupported(entry, f"{key} holds {value['class_name']}, which cannot be carried over: set it to None")


def _unsupported(entry: dict[str, Any], reason: str) -> UserError:
    return UserError(f"layer {entry['name']!r} ({entry['class_name']}) cannot be rebuilt in tf_keras: {reason}")


def _sources(nodes: Any) -> Iterator[str]:
    """Names of the layers that feed a layer, over all its uses, its ``inbound_nodes``."""
    if isinstance(nodes, dict) and nodes.get("class_name") == "__keras_tensor__":
        yield nodes["config"]["keras_history"][0]
    elif isinstance(nodes, dict | list | tuple):
        for item in nodes.values() if isinstance(nodes, dict) else nodes:
            yield from _sources(item)


def _set_weights(layer: Any, weights: list[np.ndarray]) -> None:
    expected = [tuple(weight.shape) for weight in layer.weights]
    if expected != [weight.shape for weight in weights]:
        raise UserError(
            f"layer {layer.name!r} ({type(layer).__name__}) has weights of shapes {expected} and was to get "
            f"{[weight.shape for weight in weights]}"
        )
    layer.set_weights(weights)


def _check_equal(model: "keras.Model", twin: Any) -> None:
    """Compare on random input: a difference in meaning that nobody knew of must not pass silently."""
    rng = np.random.default_rng(0)
    shapes = [[side or 32 for side in tensor.shape[1:]] for tensor in model.inputs]
    inputs = [rng.normal(size=(2, *shape)).astype(np.float32) for shape in shapes]
    ours = keras.tree.flatten(keras.Model(model.inputs, model.outputs)(inputs, training=False))
    theirs = keras.tree.flatten(type(twin)(twin.inputs, twin.outputs)(inputs, training=False))
    for mine, other in zip(ours, theirs, strict=True):
        expected = keras.ops.convert_to_numpy(mine)
        difference = np.abs(expected - other.numpy()).max() / max(1.0, np.abs(expected).max())
        if not difference <= _TOLERANCE:
            kinds = ", ".join(sorted({type(layer).__name__ for layer in model.layers}))
            raise UserError(
                f"{model.name}: rebuilt in tf_keras its answers differ by {difference:.2g}; one of its layers means "
                f"something else there: {kinds}"
            )
