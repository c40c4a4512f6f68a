"""A weights file understood: whose names it follows, where each tensor belongs, and what that takes for granted."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.catalogue import list_models, model_info
from toolkit.errors import UserError
from toolkit.spec import Preprocessing
from toolkit.weights.naming import Address, Naming, namings, variant_of_settings
from toolkit.weights.readers import TensorFile, read_tensors

#: Where a classifier's weights lie: in Network in Network's, they are a convolution's.
CLASSIFIERS = ("head_logits", "head_conv")
#: Stages beside the network's own that a GoogLeNet trained with auxiliary heads has.
AUXILIARY = ("aux1", "aux2")
#: Under this key the files that ``save_weights`` writes tell what they are.
METADATA_KEY = "toolkit"


@dataclass(frozen=True)
class WeightsSource:
    """One file of weights for one network."""

    file: TensorFile
    naming: Naming  # whose names its tensors carry
    places: dict[Address, str]  # the name of the tensor at each address
    unplaced: tuple[str, ...]  # tensors whose names fit nowhere
    variant: dict[str, Any]  # builder arguments these weights need
    preprocessing: Preprocessing | None  # what they were trained on; None where nothing tells
    num_classes: int | None  # width of the classifier in the file; None for a backbone


def open_source(path: Path, network: str, format: str = "auto", *, layers: Collection[str] = ()) -> WeightsSource:
    """Read a file for a network; the naming under which most of its tensors have a place there counts.

    ``network`` may be any model's name; ``layers`` are the names of its layers, where it stands already.
    """
    file = read_tensors(path, format)
    stages = (*model_info(network).stages, *AUXILIARY) if network in list_models() else ()
    networks = [network] if stages else list_models()
    candidates = {naming.source + name: naming for name in networks for naming in namings(name)}

    def num_placed(naming: Naming) -> int:
        found = [address[0] for address in map(naming.address, file.tensors) if address]
        return sum(layer in layers or layer.partition("_")[0] in stages for layer in found)

    counts = [num_placed(naming) for naming in candidates.values()]
    best = [naming for naming, count in zip(candidates.values(), counts, strict=True) if count == max(counts)]
    naming = best[0] if max(counts) else candidates["toolkit" + networks[0]]
    # Under a name of its own, a network for CIFAR cannot be told from one for ImageNet by its layers' names.
    unambiguous = len({rival.preprocessing for rival in best}) == 1
    places: dict[Address, str] = {}
    unplaced = []
    for tensor in file.tensors:
        address = naming.address(tensor)
        if address is None:
            unplaced.append(tensor)
        elif address in places:
            raise UserError(f"{path}: {places[address]!r} and {tensor!r} are both {'/'.join(address)} of {network}")
        else:
            places[address] = tensor
    own = _own_metadata(file, network)
    return WeightsSource(
        file=file,
        naming=naming,
        places=places,
        unplaced=tuple(unplaced),
        variant=own.get("variant") or naming.variant(places) | variant_of_settings(file.layers),
        preprocessing=own.get("preprocessing") or (naming.preprocessing if unambiguous else None),
        num_classes=_num_classes(file, places),
    )


def _num_classes(file: TensorFile, places: dict[Address, str]) -> int | None:
    """The classifier's biases, one a class."""
    biases = [(layer, variable) for layer in CLASSIFIERS for variable in ("1", "bias")]
    return next((file.tensors[places[address]].size for address in biases if address in places), None)


def _own_metadata(file: TensorFile, network: str) -> dict[str, Any]:
    """The note that ``save_weights`` wrote beside the tensors; nothing for files of others."""
    if METADATA_KEY not in file.metadata:
        return {}
    try:
        document = json.loads(file.metadata[METADATA_KEY])
        written_for, preprocessing = str(document["network"]), document["preprocessing"]
        own = {
            "variant": dict(document["variant"]),
            "preprocessing": preprocessing and Preprocessing.from_dict(preprocessing),
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{file.path}: its note of variant and preprocessing is damaged ({error})") from error
    # A residual network without projections and its plain twin have the same tensors, and other answers.
    if {written_for, network} <= set(list_models()) and not _same_network(written_for, network):
        raise UserError(f"{file.path} holds weights of {written_for}, not of {network}")
    return own


def _same_network(first: str, second: str) -> bool:
    """Stochastic depth changes how a network is trained, not what it is."""
    return first.removesuffix("_sd") == second.removesuffix("_sd")
