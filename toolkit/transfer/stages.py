"""Features of every stage of a network, pooled, and the network with a classifier that reads several of them.

The last layer is not all that a network knows: what a late stage forgets as of no use to the classes it learned, an
early one still says (Evci et al., Head2Toe, ICML 2022). A cut is the output of a block, pooled over its map; all cuts
come out of one pass, and the classifier of some of them is a few poolings beside the network.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

from toolkit.errors import UserError, unknown_name
from toolkit.lazy import keras
from toolkit.network import inputs_of
from toolkit.transfer.freeze import HIDDEN, cut_name, cut_tensor, frozen_part, is_input

if TYPE_CHECKING:
    from toolkit.transfer.head import Head

Pooling = Literal["avg", "max"]

#: Blocks up to this number are cuts each; of more, those that end a resolution are.
MAX_CUTS = 12

#: How the names of layers begin that ``stitch`` puts between cuts and classifier.
JOINED = "head_cut"

_SHRINKS = 0.7  # a side this much shorter is another resolution; a border lost to an unpadded window is not
_FLOOR = 0.1  # see bounded_deviation
_ROUNDING = 1e-4  # of the largest deviation; what deviates less is constant

# Layers that repeat, drop or pool what is there already.
_REPEATING = (
    "AveragePooling2D",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling2D",
    "MaxPooling2D",
    "SpatialDropout2D",
    "ZeroPadding2D",
)
# Layers that still belong to the block whose branches have just met.
_FINISHING = ("Activation", "BatchNormalization", "LeakyReLU", "PReLU", "ReLU")


@dataclass(frozen=True)
class Cut:
    """A place at which a network is tapped.

    Attributes:
        name: of the layer whose output it is, for maximum pooling with ``_max`` behind.
        tensor: that output, a map or a vector.
        pooling: over the map; None for a vector, which stays as it is.
    """

    name: str
    tensor: "keras.KerasTensor"
    pooling: Pooling | None

    @property
    def width(self) -> int:
        """Features of one picture."""
        return self.tensor.shape[-1]

    def pooled(self, name: str | None = None) -> "keras.KerasTensor":
        """Build the symbolic vector of features; ``name`` is for the layer that pools."""
        if self.pooling is None:
            return self.tensor
        kinds = {"avg": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}
        return kinds[self.pooling](name=name)(self.tensor)


@dataclass(frozen=True)
class FeatureSet:
    """The features that a classifier reads.

    Attributes:
        cuts: names of cuts, in the order in which their features are joined.
        normalized: each cut's features of a picture are divided by their length (L2 norm) first.
    """

    cuts: tuple[str, ...]
    normalized: bool = False

    def join(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Compute from the cuts' features, by name and each (…, width), what the classifier reads: float32.

        >>> FeatureSet(("a", "b"), normalized=True).join({"a": np.array([[3, 4]]), "b": np.array([[2]])})
        array([[0.6, 0.8, 1. ]], dtype=float32)
        """
        rows = [features[name].astype(np.float32) for name in self.cuts]
        return np.concatenate([normalize_rows(row) for row in rows] if self.normalized else rows, axis=-1)


def normalize_rows(features: np.ndarray) -> np.ndarray:
    """Divide each row of float32 features by its L2 norm, as ``layers.UnitLength`` does in a network."""
    from toolkit.layers import UnitLength

    squares = np.square(features).sum(axis=-1, keepdims=True)
    return features / np.sqrt(np.maximum(squares, np.float32(UnitLength.smallest)))


def bounded_deviation(deviation: np.ndarray, widths: Sequence[int] = ()) -> np.ndarray:
    """Bound the deviations that features are divided by before a fit, so that the fitted kernel can be quantized.

    Dividing is folded into the kernel. A feature that is nearly constant on the pictures at hand would get a weight
    thousands of times as large as the others, and integers that reach up to it round those to nothing. So a
    deviation is at least a tenth of its cut's median.

    Args:
        deviation: of each feature, at least 0; of one that does not vary 0, or 1 as ``moments`` has it.
        widths: of the cuts that were joined; by default one.

    Returns:
        float32 divisors; 1 for all features of a cut that does not vary.

    >>> bounded_deviation(np.array([8.0, 4.0, 4.0, 0.001, 0.0]))
    array([8. , 4. , 4. , 0.4, 0.4], dtype=float32)
    """
    bounded = np.array(deviation, np.float32)
    for part in np.split(bounded, np.cumsum(widths)[:-1].astype(int)) if len(widths) else [bounded]:
        known = part[part != 1]
        varying = known[known > _ROUNDING * known.max(initial=0)]
        if varying.size:
            np.maximum(part, _FLOOR * np.median(varying), out=part)
        else:
            part[:] = 1
    return bounded


def pooled_cuts(model: "keras.Model", poolings: Sequence[Pooling] = ("avg",)) -> tuple[Cut, ...]:
    """Find the places at which a network can be tapped, input to output.

    A block ends where branches have met again and only one tensor leads on, activation included. Networks without
    branches are cut where their maps become smaller, and before each dense layer. Of more than ``MAX_CUTS`` blocks,
    the last of each resolution is taken. What comes before the first block is left out.

    Args:
        model: a flat functional network, of this package or not.
        poolings: over the maps; each gives a cut of its own.

    Returns:
        The cuts; the last is the pooled features before the classifier, or what a network without one answers.
    """
    last = _last_cut(model)
    ends = [(end.name, end.output) for end in _block_ends(frozen_part(model, last.tensor))]
    if last.pooling is not None:
        ends.append((last.name, last.tensor))
    found = {cut.name: cut for end in ends for cut in (_cut(*end, pooling) for pooling in poolings)}
    return (*(cut for cut in found.values() if cut.name != last.name), last)


def stitch(model: "keras.Model", feature_set: FeatureSet | None, head: "Head") -> "keras.Model":
    """Put a classifier of some cuts in the place of a network's own.

    Args:
        model: a flat functional network.
        feature_set: what the classifier was fitted on; None for the features before the classifier, as they are.
        head: the classifier.

    Returns:
        ``model`` itself with new weights where its classifier has the same form, else a flat network of the same
        layers up to the last cut needed, and new ones: poolings, lengths, concatenation, dense layers.

    Raises:
        UserError: a cut that the network does not have.
    """
    last, features = model.layers[-1], _last_cut(model)
    chosen = _chosen(model, feature_set or FeatureSet((features.name,)))
    is_plain = [cut.name for cut in chosen] == [features.name] and not (feature_set and feature_set.normalized)
    fits = is_plain and len(head.layers) == 1 and _reads(last, features.tensor, len(head.layers[0][1]))
    if not fits:
        x = features.pooled() if is_plain else _joined(chosen, feature_set is not None and feature_set.normalized)
        for number, (kernel, _) in enumerate(head.layers[:-1], start=1):
            x = keras.layers.Dense(kernel.shape[1], activation="relu", name=f"{HIDDEN}{number}")(x)
        logits = keras.layers.Dense(len(head.layers[-1][1]), dtype="float32", name=_logits_name(last))(x)
        model = keras.Model(model.input, logits, name=model.name)
    for layer, weights in zip(model.layers[-len(head.layers) :], head.layers, strict=True):
        layer.set_weights(weights)
    return model


def _logits_name(last: "keras.Layer") -> str:
    return last.name if isinstance(last, keras.layers.Dense) else "head_logits"


def _reads(last: "keras.Layer", features: "keras.KerasTensor", num_classes: int) -> bool:
    """Tell if a network's last layer gives logits of these features."""
    is_linear = isinstance(last, keras.layers.Dense) and last.activation is keras.activations.linear
    return is_linear and last.use_bias and last.input is features and last.units == num_classes


def _joined(cuts: Sequence[Cut], normalized: bool) -> "keras.KerasTensor":
    from toolkit.layers import UnitLength

    rows = []
    for cut in cuts:
        x = cut.pooled(f"{JOINED}_{cut.name}_pool")
        rows.append(UnitLength(dtype="float32", name=f"{JOINED}_{cut.name}_unit")(x) if normalized else x)
    return keras.layers.Concatenate(name=f"{JOINED}s")(rows) if len(rows) > 1 else rows[0]


def _chosen(model: "keras.Model", feature_set: FeatureSet) -> list[Cut]:
    known = {cut.name: cut for cut in pooled_cuts(model, ("avg", "max"))}
    for name in feature_set.cuts:
        if name not in known:
            raise UserError(unknown_name("cut", name, list(known)))
    return [known[name] for name in feature_set.cuts]


def _last_cut(model: "keras.Model") -> Cut:
    last = model.layers[-1]
    if not isinstance(last, keras.layers.Dense) and last.name != "head_logits":
        return _cut(last.name, model.outputs[0])
    tensor = cut_tensor(model)
    name = cut_name(model, tensor)
    if name.startswith(JOINED):  # of a network whose classifier reads several: the last block of all
        body = next(layer for layer in reversed(model.layers) if not layer.name.startswith((JOINED, HIDDEN, last.name)))
        return _cut(body.name, body.output)
    return _cut(name, tensor)


def _cut(name: str, tensor: "keras.KerasTensor", pooling: Pooling = "avg") -> Cut:
    if len(tensor.shape) == 2:
        return Cut(name, tensor, None)
    return Cut(f"{name}_max" if pooling == "max" else name, tensor, pooling)


def _bottlenecks(model: "keras.Model") -> list["keras.Layer"]:
    """List the layers, input to output, whose output is all that the layers behind them can see."""
    num_readers = Counter(id(tensor) for layer in model.operations for tensor in inputs_of(layer))
    waiting: dict[int, int] = {}
    found = []
    for layer in model.operations:
        for tensor in () if is_input(layer) else inputs_of(layer):
            waiting[id(tensor)] -= 1
            if not waiting[id(tensor)]:
                del waiting[id(tensor)]
        waiting[id(layer.output)] = num_readers[id(layer.output)]
        if len(waiting) == 1:
            found.append(layer)
    return found


def _block_ends(model: "keras.Model") -> list["keras.Layer"]:
    """List the layers that end a block or a resolution of a network that answers features, but for its very last."""
    producers = {id(layer.output): layer for layer in model.operations}
    chain = _bottlenecks(model)
    first = next((number for number, layer in enumerate(chain) if _merges(layer)), 0)
    ends = []
    for number, (layer, after) in enumerate(pairwise(chain)):
        if number < first:  # the stem
            continue
        if _merges(layer):
            ends.append(_finished(chain, number))
        elif isinstance(after, keras.layers.Dense) or _shrinks(layer.output.shape, after.output.shape):
            ends.append(_origin(layer, producers))
    last = _origin(producers[id(model.outputs[0])], producers)
    distinct = list(dict.fromkeys([layer for layer in ends if not is_input(layer)] + [last]))
    if len(distinct) > MAX_CUTS:
        distinct = list({layer.output.shape[1:-1]: layer for layer in distinct}.values())
    return [layer for layer in distinct if layer is not last]


def _merges(layer: "keras.Layer") -> bool:
    return len(inputs_of(layer)) > 1


def _finished(chain: list["keras.Layer"], number: int) -> "keras.Layer":
    """Go on from the layer at which branches meet to the last of its block: its normalisation and activation."""
    while number + 1 < len(chain) and type(chain[number + 1]).__name__ in _FINISHING:
        number += 1
    return chain[number]


def _origin(layer: "keras.Layer", producers: Mapping[int, "keras.Layer"]) -> "keras.Layer":
    """Go back over layers that only repeat or pool to the one that computed."""
    while type(layer).__name__ in _REPEATING:
        layer = producers[id(layer.input)]
    return layer


def _shrinks(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    sides = zip(before[1:-1], after[1:-1], strict=False)
    return len(after) < len(before) or any(late < _SHRINKS * early for early, late in sides)
