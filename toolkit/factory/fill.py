"""Put the tensors of a file into the variables of a model: every one has its place, or nothing changes."""

import logging
from collections.abc import Callable, Collection, KeysView, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from toolkit.errors import UserError
from toolkit.factory.source import AUXILIARY, CLASSIFIERS, WeightsSource
from toolkit.lazy import keras
from toolkit.weights.naming import Address

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger("toolkit")

_AUXILIARY = tuple(f"{stage}_" for stage in AUXILIARY)
#: Layers that fine-tuning puts before the logits: with them, a classifier is another one. Those that join the features
#: of several stages have no weights, and are known from a ``.keras`` file's list of layers alone.
_HIDDEN, _JOINED = "head_hidden", "head_cut"
# Settings of a layer that change what it answers at inference. Sizes show in the arrays' shapes.
_SETTINGS = (
    *("strides", "dilation_rate", "groups", "pool_size", "size", "activation"),
    *("epsilon", "alpha", "beta", "bias", "scale", "center"),
)
_LISTED = 6  # names in a message
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Slot:
    """A variable, the shapes its tensor may have in the file, and how such a tensor is turned to fit."""

    variable: Any
    shapes: tuple[Shape, ...]
    turn: Callable[["np.ndarray"], "np.ndarray"]


def fill(
    model: "keras.Model",
    source: WeightsSource,
    *,
    backbone: bool = False,
    fresh_head: bool = False,
    sum_channels: bool = False,
) -> None:
    """Assign every tensor to its variable, one after the other: no second copy of the network is held.

    Args:
        model: what to fill.
        source: with what.
        backbone: leave the file's classifier out if the model has none.
        fresh_head: let the model keep its own classifier if the file has none, or another one than the model's.
        sum_channels: sum the first convolution's filters over their channels for a model of one channel.

    Raises:
        UserError: a tensor or a variable is left over, shapes differ, or a layer of a ``.keras`` file is set otherwise.
            The model is unchanged then.
    """
    _check_settings(model, source)
    path, tensors = source.file.path, source.file.tensors
    places = _by_number(source.places, model)
    slots = _slots(model, source.naming.channels_first, sum_channels)
    left_over = _layers(places) - _layers(slots)
    joined = {layer for layer in source.file.layers if layer.startswith(_JOINED)}
    hidden = joined | {layer for layer in left_over if layer.startswith(_HIDDEN)} if fresh_head else set()
    unused = _unused(left_over, backbone) | hidden
    foreign = [*source.unplaced, *(tensor for address, tensor in places.items() if address[0] in left_over - unused)]
    if (fresh_head or backbone) and source.fits and _are_dense(tensors, foreign):
        log.info("%s: leaving out its classifier (%s)", path, _some(foreign))
        unused |= left_over
        source = replace(source, unplaced=())
    fresh = _fresh(source, places, slots, fresh_head) | ({"head_logits"} if hidden else set())
    places = {address: tensor for address, tensor in places.items() if address[0] not in unused | fresh}
    slots = {address: slot for address, slot in slots.items() if address[0] not in fresh}
    if not source.fits:
        raise UserError(f"{path}: no tensor of it belongs to {model.name!r}; it holds {_some([*tensors])}")
    problems = _mismatches(source, places, slots)
    if joined and not (fresh_head or backbone):
        problems.append(f"the model lacks layer {min(joined)!r}")
    if problems:
        listed = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        hint = "; the file holds " + _some([*tensors]) if foreign else ""
        if not source.file.layers and any(name.startswith("normalization") for name in left_over):
            hint = "; only a whole network, model.save('NAME.keras'), tells of layers that prepare its pictures" + hint
        raise UserError(f"{path} does not fit model {model.name!r}: {listed}{hint}")
    for address, slot in slots.items():
        slot.variable.assign(slot.turn(tensors[places[address]]).astype("float32", copy=False))
    if unused:
        log.info("%s: leaving out %s, which the model does not have", path, ", ".join(sorted(unused)))


def _by_number(places: dict[Address, str], model: "keras.Model") -> dict[Address, str]:
    """Files of this package call a layer's variables by name, others number them."""
    numbers = {
        (layer.name, variable.name): (layer.name, str(number))
        for layer in model.layers
        for number, variable in enumerate(layer.weights)
    }
    return {numbers.get(address, address): tensor for address, tensor in places.items()}


def _slots(model: "keras.Model", channels_first: bool, sum_channels: bool) -> dict[Address, Slot]:
    producers = {id(layer.output): layer for layer in model.layers}
    slots, first = {}, True
    for layer in model.layers:
        for number, variable in enumerate(layer.weights):
            before = producers.get(id(layer.input)) if len(variable.shape) == 2 else None
            flattened = tuple(before.input.shape[1:]) if isinstance(before, keras.layers.Flatten) else ()
            slot = _slot(variable, flattened) if channels_first else _same(variable)
            if first and sum_channels and variable.shape[2:3] == (1,):
                slot = _summed(slot)
            slots[layer.name, str(number)] = slot
            first = False
    return slots


def _same(variable: Any) -> Slot:
    return Slot(variable, (tuple(variable.shape),), lambda tensor: tensor)


def _slot(variable: Any, flattened: Shape) -> Slot:
    """For files with channels first; ``flattened`` is the map (height, width, channels) a dense layer sees in a row."""
    shape = tuple(variable.shape)
    if len(shape) == 4:
        height, width, channels, filters = shape
        return Slot(variable, ((filters, channels, height, width),), lambda tensor: tensor.transpose(2, 3, 1, 0))
    if len(shape) == 1:  # Caffe's old files have four dimensions throughout
        return Slot(variable, (shape, (1, 1, 1, *shape)), lambda tensor: tensor.reshape(shape))
    if len(shape) != 2:
        return _same(variable)
    height, width, channels = flattened or (1, 1, shape[0])
    units = shape[1]

    def turn(tensor: "np.ndarray") -> "np.ndarray":
        return tensor.reshape(units, channels, height, width).transpose(2, 3, 1, 0).reshape(shape)

    # A dense layer, the same in Caffe's old files, and the convolution that timm makes of it.
    return Slot(variable, (shape[::-1], (1, 1, *shape[::-1]), (units, channels, height, width)), turn)


def _summed(slot: Slot) -> Slot:
    """A slot for one channel that takes filters of three as well."""
    place = slot.shapes[0].index(1, 1)  # (filters, 1, height, width) or (height, width, 1, filters)
    shape = tuple(3 if index == place else side for index, side in enumerate(slot.shapes[0]))
    return Slot(slot.variable, (*slot.shapes, shape), lambda tensor: slot.turn(tensor).sum(axis=2, keepdims=True))


def _unused(layers: set[str], backbone: bool) -> set[str]:
    """Auxiliary heads that the model was built without, and the whole classifier for a backbone."""
    return {layer for layer in layers if layer.startswith(_AUXILIARY) or (backbone and layer.startswith("head_"))}


def _fresh(source: WeightsSource, places: dict[Address, str], slots: dict[Address, Slot], fresh_head: bool) -> set[str]:
    """Layers that keep what they were initialised with, each with its reason logged."""
    path, given, wanted = source.file.path, _layers(places), _layers(slots)
    fresh = {layer for layer in wanted - given if layer.startswith(_AUXILIARY)}
    if fresh:
        log.info("%s: has no auxiliary heads; the model's keep their fresh weights", path)
    head = {layer for layer in wanted if layer.startswith("head_")}
    lacking = {layer for layer in head if any(slot[0] == layer and slot not in places for slot in slots)}
    if fresh_head and lacking:
        what = f"another classifier, without {', '.join(sorted(lacking))}" if head & given else "no classifier"
        log.info("%s: has %s; the model's keeps its fresh weights", path, what)
        return fresh | head
    if fresh_head and _has_other_inputs(source, places, slots):
        log.info("%s: its classifier sees other features; the model's keeps its fresh weights", path)
        return fresh | {"head_logits"}
    for layer in (*CLASSIFIERS, "aux1_logits", "aux2_logits"):
        if (layer, "1") not in places or (layer, "1") not in slots:
            continue
        theirs = source.file.tensors[places[layer, "1"]].size
        ours = slots[layer, "1"].shapes[0][-1]
        if theirs != ours:
            log.info("%s: %s keeps its fresh weights: the file has %d classes, the model %d", path, layer, theirs, ours)
            fresh.add(layer)
    return fresh


def _has_other_inputs(source: WeightsSource, places: dict[Address, str], slots: dict[Address, Slot]) -> bool:
    """Tell whether a classifier of pooled features is of other features in the file."""
    address = ("head_logits", "0")
    if address not in slots or len(slots[address].variable.shape) != 2 or any("head_fc" in layer for layer, _ in slots):
        return False
    return slots[address].variable.shape[0] * source.num_classes != source.file.tensors[places[address]].size


def _are_dense(tensors: Mapping[str, "np.ndarray"], names: Collection[str]) -> bool:
    """Tell whether tensors can be those of a classifier: kernels of dense layers and vectors beside them."""
    ranks = {tensors[name].ndim for name in names}
    return 2 in ranks and ranks <= {0, 1, 2}


def _some(names: Sequence[str]) -> str:
    """The first few names, and how many there are."""
    return ", ".join(names[:_LISTED]) + (f", … ({len(names)} in all)" if len(names) > _LISTED else "")


def _mismatches(source: WeightsSource, places: dict[Address, str], slots: dict[Address, Slot]) -> list[str]:
    given, wanted = _layers(places), _layers(slots)
    missing = [f"the file lacks layer {layer!r}" for layer in wanted if layer not in given]
    missing += [
        f"the file lacks {'/'.join((address[0], slot.variable.name))}"
        for address, slot in slots.items()
        if address not in places and address[0] in given
    ]
    left_over = [f"the model lacks layer {layer!r}" for layer in given if layer not in wanted]
    left_over += [
        f"the model has no place for tensor {tensor!r}"
        for address, tensor in places.items()
        if address not in slots and address[0] in wanted
    ]
    left_over += [f"the model has no place for tensor {tensor!r}" for tensor in source.unplaced]
    return missing + left_over + _other_shapes(source, places, slots)


def _other_shapes(source: WeightsSource, places: dict[Address, str], slots: dict[Address, Slot]) -> list[str]:
    problems = []
    for address, slot in slots.items():
        theirs = tuple(source.file.tensors[places[address]].shape) if address in places else None
        if theirs is None or theirs in slot.shapes:
            continue
        ours = slot.shapes[0]
        problems.append(
            f"{address[0]}/{slot.variable.name} has shape {_sides(theirs)} in the file and {_sides(ours)} in the model"
            + _hint(ours, theirs, source.naming.channels_first)
        )
    return problems


def _hint(ours: Shape, theirs: Shape, channels_first: bool) -> str:
    """A hint at what commonly leads to such a pair of shapes."""
    incoming = 1 if channels_first else len(ours) - 2
    if len(ours) != len(theirs) or [n for n in range(len(ours)) if ours[n] != theirs[n]] != [incoming]:
        return ""
    if len(ours) == 4 and (ours[incoming], theirs[incoming]) == (1, 3):
        return " (colour filters for one channel: create_model's sum_channels=True sums them)"
    if len(ours) == 2:
        return " (dense layers hold for one input_shape only; include_top=False does without them)"
    return ""


def _layers(addresses: Collection[Address]) -> KeysView[str]:
    """The layers' names, each once, in order."""
    return dict.fromkeys(layer for layer, _ in addresses).keys()


def _sides(shape: Shape) -> str:
    return "×".join(map(str, shape)) or "scalar"


# --- The settings of layers: arrays that fit do not tell them


def _check_settings(model: "keras.Model", source: WeightsSource) -> None:
    """Compare the layers that a ``.keras`` file of this package's own names lists with those of the model.

    Classifiers may differ: whether they fit is seen where they are filled.

    Raises:
        UserError: a layer is missing on either side, or is set otherwise.
    """
    if source.naming.source != "toolkit" or not source.file.layers:
        return
    ours = {layer.name: layer.get_config() for layer in model.layers}
    stages = {_stage(name) for name in ours}
    # Of other stages are the layers that somebody put around the network: augmentation, pooling, another classifier.
    theirs = {name: own for name, own in source.file.layers.items() if _stage(name) in stages or "stage" in name}
    problem = _difference(_backbone(theirs), _backbone(ours))
    if problem:
        raise UserError(f"{source.file.path} does not fit model {model.name!r}: {problem}")


def _backbone(layers: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        name: settings
        for name, settings in layers.items()
        if _stage(name) not in ("head", *AUXILIARY) and not _matters_not(settings)
    }


def _stage(layer: str) -> str:
    return layer.partition("_")[0]


def _matters_not(settings: dict[str, Any]) -> bool:
    """The input, stochastic depth, dropout, and the padding before a partial window: it goes with the input's size."""
    return bool({"batch_shape", "survival", "rate"} & set(settings)) or (
        "padding" in settings and "strides" not in settings
    )


def _difference(theirs: dict[str, dict[str, Any]], ours: dict[str, dict[str, Any]]) -> str:
    for name in theirs:
        if name not in ours:
            return f"the model lacks layer {name!r}"
    for name, own in ours.items():
        if name not in theirs:
            return f"the file lacks layer {name!r}"
        for key in _SETTINGS:
            here, there = own.get(key), theirs[name].get(key)
            here = tuple(here) if isinstance(here, list) else here
            if key in own and key in theirs[name] and here != there:
                return f"layer {name!r} has {key} {there} in the file and {here} in the model"
    return ""
