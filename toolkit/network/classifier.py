"""A classifier as people end theirs, and as it is taken here: logits out, its input's scaling in the preprocessing."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from toolkit.errors import UserError
from toolkit.lazy import keras, lazy_module
from toolkit.network.flatten import backwards, flatten, require_graph
from toolkit.network.graph import inputs_of
from toolkit.spec import Preprocessing

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy_module("numpy")
log = logging.getLogger("toolkit")

#: Name of the layer that answers a picture's novelty; those before it that are no part of the classifier begin alike.
NOVELTY = "head_novelty"
#: Names of what a classifier answers, in the order of its outputs, which is that of the alphabet.
ANSWERS = ("logits", "novelty")
#: Pixels of 0…255 span at least this much where a network's first layer takes them; less is a scaling applied twice.
_LEAST_SPAN = 0.1
#: Activations that probabilities come from, whose logits are what they are given.
_PROBABILITIES = ("softmax", "log_softmax", "sigmoid")


@dataclass(frozen=True)
class Head:
    """The end of a classifier.

    Attributes:
        activation: ``"softmax"``, ``"log_softmax"``, ``"sigmoid"``, or ``"linear"`` where what it answers is taken for
            logits.
        layer: the layer that gives the logits, its own activation aside; a dense one, as a rule.
        units: how many numbers it answers.
        behind: layers between ``layer`` and the answers, from the end: activations, dropout, changes of shape.
    """

    activation: str
    layer: Any
    units: int
    behind: tuple[Any, ...]


def answers_novelty(model: "keras.Model") -> bool:
    """Tell if a classifier's second answer is the novelty of the picture, see ``toolkit.transfer.stages``."""
    outputs = getattr(model, "outputs", None) or ()  # of what is no functional network, there are none
    return len(outputs) == 2 and model.layers[-1].name == NOVELTY


def require_labels(model: "keras.Model", count: int) -> None:
    """Refuse another number of labels than a classifier has outputs.

    Raises:
        UserError: see there.
    """
    outputs = model.output_shape[-1]
    if outputs == 1 and count == 2:
        raise UserError(
            f"{model.name!r} answers one number and two labels were given; if it is the second's logit, end the "
            "network in a sigmoid: keras.Sequential([model, keras.layers.Activation('sigmoid')])"
        )
    if outputs != count:
        raise UserError(
            f"the network has {outputs} outputs, but {count} labels were given; --labels wants a name for each output, "
            "in their order"
        )


def head_of(model: "keras.Model") -> Head:
    """Read how a network ends: in an activation of its last layer, or in one that is a layer of its own.

    Raises:
        UserError: its graph is not known, it has several inputs or outputs, or probabilities of probabilities.
    """
    require_graph(model)
    for kind, tensors in (("input", model.inputs), ("output", model.outputs)):
        if len(tensors) != 1:
            names = ", ".join(tensor.name for tensor in tensors)
            raise UserError(
                f"{model.name!r} has {len(tensors)} {kind}s ({names}), and a classifier here takes one picture and "
                "answers one vector; make it a model of one: keras.Model(model.inputs[0], model.outputs[0])"
            )
    behind: list[Any] = []
    for layer in backwards(model):
        if not _is_passed(layer):
            break
        behind.append(layer)
    else:
        raise UserError(f"{model.name!r} has no layer with weights before its output; give a trained classifier")
    found = [name for each in (*behind, layer) if (name := _activation(each)) in _PROBABILITIES]
    if len(found) > 1:
        raise UserError(
            f"{model.name!r} ends in {found[0]} of {found[1]}, which flattens its answers; take one of them out"
        )
    return Head(found[0] if found else "linear", layer, int(model.outputs[0].shape[-1] or 0), tuple(behind))


def as_classifier(model: "keras.Model") -> "keras.Model":
    """Bring a classifier to the form that everything here takes: one flat graph, logits out.

    A softmax at its end is left out: export and engines apply it. A single sigmoid unit becomes two logits, 0 and its
    own, whose softmax is its answer and the rest to 1. A convolution that classifies 1×1 maps becomes a dense layer.

    Returns:
        ``model`` itself where it is of that form; else a network that answers the same, which may share its layers.

    Raises:
        UserError: a network of several inputs or outputs, a subclassed one, code in a ``Lambda``, or answers that are
            no probabilities of one class each, such as ten sigmoids; the message says what to do.
    """
    if answers_novelty(model):  # it was put on a network of that form
        return model
    head = head_of(model)
    flat = flatten(model)
    if head.activation == "linear":
        _require_no_probabilities(flat, head)
    if head.activation == "linear" and not head.behind:
        return flat
    _require_one_of_many(model, head)
    layer = head_of(flat).layer
    logits = _logits(layer)
    if head.activation == "sigmoid":
        logits = _two_logits(layer, logits)
    if head.activation != "linear":
        log.info(
            "%s: answers by %s; it is left to the export, and the network gives logits", model.name, head.activation
        )
    return keras.Model(flat.inputs, logits, name=model.name)


def with_new_head(model: "keras.Model", num_classes: int) -> "keras.Model":
    """Put a new dense classifier, ``head_logits``, in the place of a network's own, or behind a backbone without.

    Maps are averaged before it. The rest is flat and may share the layers of ``model``, which is not changed.

    Raises:
        UserError: as for ``flatten`` and ``head_of``.
    """
    flat = flatten(model)
    layer = head_of(flat).layer
    x = flat.outputs[0]
    if isinstance(layer, keras.layers.Dense) or (isinstance(layer, keras.layers.Conv2D) and _sees_vectors(layer)):
        x = layer.input
    if len(x.shape) == 4:
        x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    if len(x.shape) != 2:
        raise UserError(f"{model.name!r} answers {x.shape[1:]}; a classifier is put on vectors or maps")
    return keras.Model(
        flat.inputs, keras.layers.Dense(num_classes, dtype="float32", name="head_logits")(x), name=model.name
    )


def probabilities_of(model: "keras.Model") -> Callable[["np.ndarray"], "np.ndarray"]:
    """Find the function from what a network answers, float (n, units), to probabilities, float32 (n, classes).

    Raises:
        UserError: as for ``as_classifier``.
    """
    from toolkit.metrics import softmax  # which imports NumPy

    if answers_novelty(model):
        return softmax
    head = head_of(model)
    _require_one_of_many(model, head)
    if head.activation == "softmax":
        return lambda answers: np.asarray(answers, np.float32)
    if head.activation == "sigmoid":
        return lambda answers: np.concatenate([1 - answers, answers], axis=-1).astype(np.float32)
    return softmax


def split_rescaling(model: "keras.Model", preprocessing: Preprocessing) -> tuple["keras.Model", Preprocessing]:
    """Move what prepares pictures at a network's input into its preprocessing: scaling, and a turn of the channels.

    Args:
        model: flat, as ``as_classifier`` gives it.
        preprocessing: what is applied before the network as it is, normally the picture's 0…255 unchanged.

    Returns:
        The network without those layers and the preprocessing with them; both as given where there are none.

    Raises:
        UserError: with them, pixels are scaled twice.
    """
    chain = _leading_affine(model)
    if not chain:
        return model, preprocessing
    names = [layer.name for layer, _ in chain]
    order = preprocessing.channel_order
    factor, offset = (np.asarray(values, np.float64) for values in preprocessing.affine())
    for _, affine in chain:
        if affine is None:
            order = "rgb" if order == "bgr" else "bgr"
            factor, offset = factor[::-1], offset[::-1]
        else:
            factor, offset = factor * affine[0], offset * affine[0] + affine[1]
    span = 255 * float(np.abs(factor).min())
    if span < _LEAST_SPAN:
        raise UserError(
            f"{model.name!r} scales its input itself ({', '.join(names)}) and the preprocessing does so before: "
            f"pixels span only {span:.2g}; give a preprocessing that leaves 0…255 as it is: scale=1.0, mean 0, std 1"
        )
    if (factor <= 0).any():
        return model, preprocessing
    log.info("%s: %s at its input became part of the preprocessing", model.name, ", ".join(names))
    std = tuple(float(1 / value) for value in factor)
    mean = tuple(float(-shift / value) for shift, value in zip(offset, factor, strict=True))
    return (
        flatten(model, leave_out=lambda layer: layer.name in names),
        replace(preprocessing, scale=1.0, mean=mean, std=std, channel_order=order),
    )


def _is_passed(layer: Any) -> bool:
    """Tell what only passes a classifier's numbers on, or makes probabilities of them."""
    if type(layer).__name__ in ("Activation", "Softmax", "Sigmoid", "Dropout", "Identity", "Cast"):
        return _activation(layer) in ("linear", *_PROBABILITIES)
    if not isinstance(layer, keras.layers.Flatten | keras.layers.Reshape):
        return False
    return len(layer.output.shape) == 2 and all(side == 1 for side in layer.input.shape[1:-1])


def _activation(layer: Any) -> str:
    if type(layer).__name__ in ("Softmax", "Sigmoid"):  # layers and operations
        return type(layer).__name__.lower()
    activation = getattr(layer, "activation", None)
    if activation is None:
        return "linear"
    return getattr(activation, "__name__", type(activation).__name__)


def _require_one_of_many(model: "keras.Model", head: Head) -> None:
    what = f"{model.name!r} ends in {head.units} {head.activation} unit{'s' if head.units > 1 else ''}"
    if len(model.outputs[0].shape) != 2:
        shape = "×".join(str(side) for side in model.outputs[0].shape[1:])
        raise UserError(f"{model.name!r} answers a map of {shape} and not one vector a picture; it is no classifier")
    if head.activation == "sigmoid" and head.units > 1:
        raise UserError(
            f"{what}, yes or no for each class by itself (multi-label), and one label a picture is given here; "
            "if every picture is of one class, give the last layer activation='softmax'"
        )
    if head.activation in ("softmax", "log_softmax") and head.units == 1:
        raise UserError(f"{what}, which always answers 1; train it with activation='sigmoid' or two units")


def _require_no_probabilities(model: "keras.Model", head: Head) -> None:
    """Refuse what is taken for logits and is none: a softmax that is not the end, or one of another name."""
    layer, shape = head.layer, model.input_shape[1:]
    is_plain = isinstance(layer, keras.layers.Dense | keras.layers.Conv2D) and _activation(layer) == "linear"
    if is_plain or head.units < 2 or len(model.outputs[0].shape) != 2 or None in shape:
        return
    noise = np.random.default_rng(0).integers(0, 256, (4, *shape)).astype(np.float32)
    answers = keras.ops.convert_to_numpy(model(noise, training=False)).astype(np.float64)
    if (answers >= 0).all() and np.allclose(answers.sum(axis=-1), 1, atol=1e-3):
        raise UserError(
            f"{model.name!r} answers probabilities, which would be taken for logits, for it ends in "
            f"{type(layer).__name__} {layer.name!r}; make a softmax its last layer"
        )


def _logits(layer: Any) -> Any:
    """The logits that a last layer gives without its activation: of a layer that shares nothing but the input."""
    own = _activation(layer)
    plain = own in ("linear", *_PROBABILITIES)
    if isinstance(layer, keras.layers.Dense) and plain:
        return _dense(layer, layer.input, layer.units)
    if isinstance(layer, keras.layers.Conv2D) and plain and _sees_vectors(layer):
        flat = keras.layers.Flatten(name=f"{layer.name}_flatten")(layer.input)
        return _dense(layer, flat, layer.filters)
    if own in _PROBABILITIES:
        raise UserError(
            f"layer {layer.name!r} ({type(layer).__name__}) applies {own} itself; make it an Activation layer behind"
        )
    return layer.output


def _sees_vectors(layer: Any) -> bool:
    return layer.kernel_size == (1, 1) and layer.groups == 1 and tuple(layer.input.shape[1:3]) == (1, 1)


def _dense(layer: Any, tensor: Any, units: int) -> Any:
    copy = keras.layers.Dense(units, use_bias=layer.use_bias, dtype=layer.dtype_policy, name=layer.name)
    logits = copy(tensor)
    # What LoRA has learned beside a kernel is in it.
    kernel, *bias = (keras.ops.convert_to_numpy(own) for own in (layer.kernel, layer.bias) if own is not None)
    copy.set_weights([kernel.reshape(-1, units), *bias])
    return logits


def _two_logits(layer: Any, logit: Any) -> Any:
    """``[0, z]`` of ``z``: what softmax makes of it is ``[1 - sigmoid(z), sigmoid(z)]``."""
    if isinstance(layer, keras.layers.Dense):  # one dense layer is enough
        name, source, (kernel, *bias) = layer.name, layer.input, layer.get_weights()
    else:
        name, source, kernel, bias = f"{layer.name}_two", logit, np.ones((1, 1), np.float32), []
    dense = keras.layers.Dense(2, use_bias=bool(bias), dtype=layer.dtype_policy, name=name)
    logits = dense(source)
    dense.set_weights([np.concatenate([np.zeros_like(array), array], axis=-1) for array in (kernel, *bias)])
    return logits


def _leading_affine(model: "keras.Model") -> list[tuple[Any, tuple[Any, Any] | None]]:
    """The layers at the input that scale, each with factor and offset, or turn the channels round, with None.

    As long as one layer alone takes each.
    """
    consumers: dict[int, list[Any]] = {}
    for layer in model.operations:
        if not isinstance(layer, keras.layers.InputLayer):
            for tensor in inputs_of(layer):
                consumers.setdefault(id(tensor), []).append(layer)
    found: list[tuple[Any, tuple[Any, Any] | None]] = []
    tensor = model.inputs[0]
    while len(readers := consumers.get(id(tensor), [])) == 1:
        affine = _affine(readers[0], tensor.shape[-1])
        if affine is None and not _turns_channels(readers[0]):
            break
        found.append((readers[0], affine))
        tensor = readers[0].output
    return found


def _turns_channels(layer: Any) -> bool:
    """Tell a convolution that only makes BGR of RGB, as ``flatten`` writes ``x[..., ::-1]``."""
    if not isinstance(layer, keras.layers.Conv2D) or layer.use_bias or layer.kernel.shape != (1, 1, 3, 3):
        return False
    kernel = keras.ops.convert_to_numpy(layer.kernel)[0, 0]
    is_plain = layer.strides == (1, 1) and layer.activation is keras.activations.linear
    return is_plain and np.array_equal(kernel, np.eye(3)[::-1])


def _affine(layer: Any, channels: int) -> tuple[Any, Any] | None:
    """Factor and offset of a scaling layer, one or as many as channels."""
    if isinstance(layer, keras.layers.Rescaling):
        return np.asarray(layer.scale, np.float64), np.asarray(layer.offset, np.float64)
    if isinstance(layer, keras.layers.Normalization) and not layer.invert:
        mean, variance = (
            keras.ops.convert_to_numpy(values).astype(np.float64).reshape(-1) for values in (layer.mean, layer.variance)
        )
        if mean.size in (1, channels):
            deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
            return 1 / deviation, -mean / deviation
    return None
