"""Features of every stage of a network, pooled, and the network with a classifier that reads several of them.

The last layer is not all that a network knows: what a late stage forgets as of no use to the classes it learned, an
early one still says (Evci et al., Head2Toe, ICML 2022). A cut is the output of a block, pooled over its map; all cuts
come out of one pass, and the classifier of some of them is a few poolings beside the network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from toolkit.errors import UserError, unknown_name
from toolkit.lazy import keras
from toolkit.network import NOVELTY, bottlenecks, inputs_of, origin, producers_of, shrinks
from toolkit.transfer.freeze import HIDDEN, JOINED, cut_name, cut_tensor, frozen_part, is_input
from toolkit.transfer.heads.feature_set import FeatureSet

if TYPE_CHECKING:
    from toolkit.transfer.heads.head import Head
    from toolkit.transfer.heads.novelty import Novelty

#: Blocks up to this number are cuts each; of more, those that end a resolution are.
MAX_CUTS = 12

# Layers that still belong to the block whose branches have just met.
_FINISHING = ("Activation", "BatchNormalization", "LeakyReLU", "PReLU", "ReLU")


@dataclass(frozen=True)
class Cut:
    """A place at which a network is tapped.

    Attributes:
        name: of the layer whose output it is.
        tensor: that output, a map, to be averaged, or a vector.
        whole: take a map as it is.
    """

    name: str
    tensor: "keras.KerasTensor"
    whole: bool = False

    @property
    def width(self) -> int:
        """Features of one picture."""
        return self.tensor.shape[-1]

    def pooled(self, name: str | None = None) -> "keras.KerasTensor":
        """Build the symbolic features, a vector unless the cut is whole; ``name`` is for the layer that pools."""
        if self.whole or len(self.tensor.shape) == 2:
            return self.tensor
        # A name that Keras makes up may be one in a network from a file.
        return keras.layers.GlobalAveragePooling2D(name=name or f"pooled_{self.name}")(self.tensor)


def pooled_cuts(model: "keras.Model") -> tuple[Cut, ...]:
    """Find the places at which a network can be tapped, input to output.

    A block ends where branches have met again and only one tensor leads on, activation included. Networks without
    branches are cut where their maps become smaller, and before each dense layer. Of more than ``MAX_CUTS`` blocks,
    the last of each resolution is taken. What comes before the first block is left out.

    Args:
        model: a flat functional network, of this package or not.

    Returns:
        The cuts; the last is the pooled features before the classifier, or what a network without one answers.
    """
    last = _last_cut(model)
    ends = _block_ends(frozen_part(model, last.tensor))
    return (*(Cut(end.name, end.output) for end in ends if end.name != last.name), last)


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


def with_novelty(model: "keras.Model", novelty: "Novelty") -> "keras.Model":
    """Let a classifier answer a picture's novelty too, from its last cut.

    Args:
        model: a flat functional classifier; not changed, its layers are shared.
        novelty: fitted on the pooled features of its last cut.

    Returns:
        A network of two outputs, logits (n, classes) and novelty (n, 1).

    Raises:
        UserError: the features have another width.
    """
    from toolkit.layers import Least, UnitLength

    features = _last_cut(model).pooled(f"{NOVELTY}_pool")
    if features.shape[-1] != len(novelty.kernel):
        raise UserError(
            f"{model.name} has {features.shape[-1]} features, and the novelty was fitted on {len(novelty.kernel)}"
        )
    unit = UnitLength(dtype="float32", name=f"{NOVELTY}_unit")(features)
    distances = keras.layers.Dense(novelty.kernel.shape[1], dtype="float32", name=f"{NOVELTY}_distances")
    found = [distances(unit)]
    distances.set_weights([novelty.kernel, novelty.bias])
    if novelty.along.size:
        along = keras.layers.Dense(novelty.along.shape[1], use_bias=False, dtype="float32", name=f"{NOVELTY}_along")
        found.append(along(unit))
        along.set_weights([novelty.along])
    least = Least(dtype="float32", name=NOVELTY)(found if len(found) > 1 else found[0])
    return keras.Model(model.input, [model.outputs[0], least], name=model.name)


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
    known = {cut.name: cut for cut in pooled_cuts(model)}
    for name in feature_set.cuts:
        if name not in known:
            raise UserError(unknown_name("cut", name, list(known)))
    return [known[name] for name in feature_set.cuts]


def _last_cut(model: "keras.Model") -> Cut:
    last = model.layers[-1]
    if not isinstance(last, keras.layers.Dense) and last.name != "head_logits":
        return Cut(last.name, model.outputs[0])
    tensor = cut_tensor(model)
    name = cut_name(model, tensor)
    if name.startswith(JOINED):  # of a network whose classifier reads several: the last block of all
        body = next(layer for layer in reversed(model.layers) if not layer.name.startswith((JOINED, HIDDEN, last.name)))
        return Cut(body.name, body.output)
    return Cut(name, tensor)


def _block_ends(model: "keras.Model") -> list["keras.Layer"]:
    """List the layers that end a block or a resolution of a network that answers features, but for its very last."""
    producers = producers_of(model)
    chain = bottlenecks(model)
    first = next((number for number, layer in enumerate(chain) if _merges(layer)), 0)
    ends = []
    for number, (layer, after) in enumerate(pairwise(chain)):
        if number < first:  # the stem
            continue
        if _merges(layer):
            ends.append(_finished(chain, number))
        elif isinstance(after, keras.layers.Dense) or shrinks(layer.output.shape, after.output.shape):
            ends.append(origin(layer, producers))
    last = origin(producers[id(model.outputs[0])], producers)
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
