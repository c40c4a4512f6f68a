"""A weights file understood: whose names it follows, where each tensor belongs, and what that takes for granted."""

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from toolkit.bundle import MANIFEST, find_bundle, read_manifest, require_network, verify_files
from toolkit.catalogue import list_models, model_info
from toolkit.errors import UserError
from toolkit.spec import Preprocessing
from toolkit.weights.naming import Address, Naming, namings, scaling_of_settings, variant_of_settings
from toolkit.weights.readers import TensorFile, read_tensors

#: Where a classifier's weights lie: in Network in Network's, they are a convolution's.
CLASSIFIERS = ("head_logits", "head_conv")
#: Stages beside the network's own that a GoogLeNet trained with auxiliary heads has.
AUXILIARY = ("aux1", "aux2")
#: Under this key the files that ``save_weights`` writes tell what they are.
METADATA_KEY = "toolkit"
#: The trained network in the directory of a run.
RUN_MODEL = "model.keras"
_RUN_SETTINGS = "config.json"  # there from its beginning
_RUN_NETWORK = "model.json"  # how its network is built
_MAX_PREFIX = 5  # names before a tensor's that a wrapper may put there


@dataclass(frozen=True)
class WeightsSource:
    """One file of weights for one network."""

    file: TensorFile
    naming: Naming  # whose names its tensors carry
    places: dict[Address, str]  # the name of the tensor at each address
    unplaced: tuple[str, ...]  # tensors whose names fit nowhere
    fits: bool  # whether any tensor has a place in the network it was opened for
    variant: dict[str, Any]  # builder arguments these weights need
    preprocessing: Preprocessing | None  # what they were trained on; None where nothing tells
    num_classes: int | None  # width of the classifier in the file; None for a backbone


def open_source(path: Path, network: str, format: str = "auto", *, layers: Collection[str] = ()) -> WeightsSource:
    """Read a file for a network; the naming under which most of its tensors have a place there counts.

    What wrapped the network in somebody's own is seen through: a prefix before its tensors (``backbone.``), and a
    classifier of another name, where one dense layer alone is left.

    ``network`` may be any model's name; ``layers`` are the names of its layers, where it stands already.
    """
    file = _with_statistics(read_tensors(path, format))
    stages = (*model_info(network).stages, *AUXILIARY) if network in list_models() else ()
    networks = [network] if stages else list_models()
    candidates = {naming.source + name: naming for name in networks for naming in namings(name)}

    def belongs(address: Address | None) -> bool:
        return address is not None and (address[0] in layers or address[0].partition("_")[0] in stages)

    def num_placed(naming: Naming, prefix: str) -> int:
        return sum(belongs(naming.address(tensor.removeprefix(prefix))) for tensor in file.tensors)

    counts = {
        (key, prefix): num_placed(naming, prefix)
        for prefix in _prefixes(file.tensors)
        for key, naming in candidates.items()
    }
    most = max(counts.values())
    best = [(candidates[key], prefix) for (key, prefix), count in counts.items() if count == most]
    naming, prefix = best[0] if most else (candidates["toolkit" + networks[0]], "")
    rivals = sorted(
        {f"{rival!r}" for _, rival in best if not prefix.startswith(rival) and not rival.startswith(prefix)}
    )
    if most and rivals:
        raise UserError(f"{path} holds several networks, under {prefix!r}, {', '.join(rivals)}; save one of them alone")
    # Under a name of its own, a network for CIFAR cannot be told from one for ImageNet by its layers' names.
    unambiguous = len({rival.preprocessing for rival, _ in best}) == 1
    addresses = {tensor: naming.address(tensor.removeprefix(prefix)) for tensor in file.tensors}
    if stages and most and not any(address and address[0] in CLASSIFIERS for address in addresses.values()):
        addresses |= _classifier(file, [tensor for tensor, address in addresses.items() if not belongs(address)])
    places: dict[Address, str] = {}
    for tensor, address in addresses.items():
        if address in places:
            raise UserError(f"{path}: {places[address]!r} and {tensor!r} are both {'/'.join(address)} of {network}")
        if address is not None:
            places[address] = tensor
    own = _own_metadata(file, network)
    return WeightsSource(
        file=file,
        naming=naming,
        places=places,
        unplaced=tuple(tensor for tensor, address in addresses.items() if address is None),
        fits=most > 0 or not stages,
        variant=own.get("variant") or naming.variant(places) | variant_of_settings(file.layers) | _width(file, places),
        preprocessing=own.get("preprocessing")
        or scaling_of_settings(file.layers)
        or (naming.preprocessing if unambiguous else None),
        num_classes=_num_classes(file, places),
    )


def _with_statistics(file: TensorFile) -> TensorFile:
    """Turn the statistics that ``Normalization`` layers were adapted to into settings, as they are where given."""
    layers, tensors = dict(file.layers), dict(file.tensors)
    for name, settings in file.layers.items():
        adapted = {"mean", "variance", "invert"} <= set(settings) and settings["mean"] is None
        if not adapted or not {f"{name}/0", f"{name}/1"} <= set(tensors):
            continue
        for number, key in enumerate(("mean", "variance")):
            values = tuple(tensors.pop(f"{name}/{number}").ravel().tolist())
            layers[name] = layers[name] | {key: values if len(values) > 1 else values[0]}
        tensors.pop(f"{name}/2", None)  # how many pictures they are of
    return replace(file, tensors=tensors, layers=layers)


def network_in(directory: Path) -> tuple[Path, Preprocessing | None]:
    """Find the Keras file of a run or a bundle, and the preprocessing that is noted there.

    Raises:
        UserError: the directory is neither, the run is not finished, the bundle is an ensemble, or the file is damaged.
    """
    if (directory / RUN_MODEL).exists():
        return directory / RUN_MODEL, _preprocessing_of_run(directory)
    if (directory / _RUN_SETTINGS).exists():
        raise UserError(f"{directory}: the run is not finished; `toolkit train --resume {directory}` goes on with it")
    version_dir = find_bundle(directory)
    manifest = read_manifest(version_dir)
    verify_files(version_dir, manifest, (MANIFEST,))
    return require_network(version_dir, manifest), manifest.preprocessing


def noted_preprocessing(file: TensorFile) -> Preprocessing | None:
    """Find what a whole network was trained with: in its file, or in the directory of the run that it lies in.

    Raises:
        UserError: the note is damaged.
    """
    if METADATA_KEY in file.metadata:
        return _note_of(file)["preprocessing"] or None
    return _preprocessing_of_run(file.path.parent) if (file.path.parent / _RUN_SETTINGS).exists() else None


def _preprocessing_of_run(directory: Path) -> Preprocessing | None:
    path = directory / _RUN_NETWORK
    try:
        return Preprocessing.from_dict(json.loads(path.read_bytes())["preprocessing"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: cannot be read ({error}); copy the run again, or give a preprocessing") from error


def _prefixes(tensors: Collection[str]) -> list[str]:
    """Beginnings that half of the tensors have in common, ``"backbone."``, none and the shortest first."""
    counts = Counter(
        ".".join(parts[:depth]) + "."
        for parts in (tensor.split("/")[0].split(".") for tensor in tensors)
        for depth in range(1, min(len(parts), _MAX_PREFIX))
    )
    common = [prefix for prefix, count in counts.items() if 2 * count >= len(tensors)]
    return ["", *sorted(common, key=len)]


def _classifier(file: TensorFile, outside: list[str]) -> dict[str, Address]:
    """Addresses for the one dense layer among tensors that fit nowhere: people call their classifier what they like."""
    groups: dict[str, list[str]] = {}
    for tensor in outside:
        groups.setdefault(tensor[: max(tensor.rfind("."), tensor.rfind("/"))], []).append(tensor)
    if len(groups) != 1:
        return {}
    by_rank = {file.tensors[tensor].ndim: tensor for tensor in outside}
    if sorted(by_rank) not in ([2], [1, 2]) or len(by_rank) != len(outside):
        return {}
    return {tensor: ("head_logits", str(2 - rank)) for rank, tensor in by_rank.items()}


def _width(file: TensorFile, places: dict[Address, str]) -> dict[str, float]:
    """The width of a residual network by the channels of its first normalisation, 64 in the paper."""
    scale = places.get(("stem_bn", "0")) or places.get(("stem_bn", "gamma"))
    return {"width": file.tensors[scale].size / 64} if scale else {}


def _num_classes(file: TensorFile, places: dict[Address, str]) -> int | None:
    """The classifier's biases, one a class."""
    biases = [(layer, variable) for layer in CLASSIFIERS for variable in ("1", "bias")]
    return next((file.tensors[places[address]].size for address in biases if address in places), None)


def _own_metadata(file: TensorFile, network: str) -> dict[str, Any]:
    """The note that ``save_weights`` wrote beside the tensors; nothing for files of others."""
    if METADATA_KEY not in file.metadata:
        return {}
    own = _note_of(file)
    written_for = own["network"]
    # A residual network without projections and its plain twin have the same tensors, and other answers.
    if {written_for, network} <= set(list_models()) and not _same_network(written_for, network):
        raise UserError(f"{file.path} holds weights of {written_for}, not of {network}")
    return own


def _note_of(file: TensorFile) -> dict[str, Any]:
    try:
        document = json.loads(file.metadata[METADATA_KEY])
        preprocessing = document["preprocessing"]
        return {
            "network": str(document["network"]),
            "variant": dict(document["variant"]),
            "preprocessing": preprocessing and Preprocessing.from_dict(preprocessing),
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{file.path}: its note of variant and preprocessing is damaged ({error})") from error


def _same_network(first: str, second: str) -> bool:
    """Stochastic depth changes how a network is trained, not what it is."""
    return first.removesuffix("_sd") == second.removesuffix("_sd")
