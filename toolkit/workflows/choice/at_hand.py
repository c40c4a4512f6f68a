"""Networks whose pretrained weights are on this machine. Imports no framework."""

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path

from toolkit.bundle import find_bundle, is_bundle, read_manifest, shipped_bundle
from toolkit.catalogue import list_models, model_info
from toolkit.errors import UserError

log = logging.getLogger("toolkit")

_SUFFIXES = (".caffemodel", ".h5", ".keras", ".pt", ".pth", ".safetensors", ".th")


@dataclass(frozen=True)
class AtHand:
    """A network and weights of it that are here: the path of a file, or a tag that is in the cache."""

    name: str
    weights: str


def networks_at_hand(names: tuple[str, ...], weights: str | os.PathLike[str]) -> list[AtHand]:
    """List networks whose weights are here, by name.

    Args:
        names: to choose among; all registered ones if empty.
        weights: a folder of bundles or of weights files that are named after their networks; one of them; or a tag.

    Raises:
        UserError: an unknown name, one without weights here, or no network at all; the message says how to get some.
    """
    for name in names:
        model_info(name)
    place = Path(weights)
    if not place.exists():
        place = shipped_bundle(weights) or place
    if place.exists():
        several = place.is_dir() and not is_bundle(place)
        found = _in_files(sorted(place.iterdir()) if several else [place])
        where = f"no bundle and no weights file in {place}" if several else f"{place} is"
        remedy = "name its files after their networks, such as resnet50.pth (see `toolkit models`)"
    elif not any(str(weights) in model_info(name).weights for name in list_models()):
        raise UserError(f"{weights}: no such folder or file, nor a tag that `toolkit weights list` knows")
    else:
        found = _in_cache(str(weights))
        where = "no downloaded weights are"
        remedy = (
            "`toolkit weights download resnet50` brings some, or --weights names a folder of weights files; "
            "--model resnet18 --weights resnet18-thin takes a network that comes with the project"
        )
    missing = [name for name in names if name not in found]
    if missing or not found:
        of = ", ".join(missing) or "any registered network"
        raise UserError(f"{where} of {of}; {remedy}")
    return [found[name] for name in sorted(names or found)]


def _in_files(files: list[Path]) -> dict[str, AtHand]:
    """Take the network that each file is named after, or that a bundle is of, the first of each."""
    found: dict[str, AtHand] = {}
    for file in files:
        name: str | None
        if is_bundle(file):
            name = read_manifest(find_bundle(file)).model
            name = name if name in list_models() else None
        elif file.name.endswith(_SUFFIXES):
            name = network_named_in(file.name)
        else:
            continue
        if name is None:
            log.info("left out %s: it is of no network that `toolkit models` lists, or not named after one", file)
        elif name in found:
            log.info("left out %s: %s is compared too", file, found[name].weights)
        else:
            found[name] = AtHand(name, str(file))
    return found


def network_named_in(file_name: str) -> str | None:
    """Find the longest network's name that stands in a file's name between other characters than letters and digits.

    >>> network_named_in("bvlc_googlenet.caffemodel"), network_named_in("ResNet50-11ad3fa6.pth")
    ('googlenet', 'resnet50')
    """
    words = f"_{re.sub('[^a-z0-9]+', '_', file_name.lower())}_"
    return max((name for name in list_models() if f"_{name}_" in words), key=len, default=None)


def _in_cache(tag: str) -> dict[str, AtHand]:
    from toolkit.weights.download import cached_path

    return {
        name: AtHand(name, tag)
        for name in list_models()
        if tag in model_info(name).weights and cached_path(model_info(name).weights[tag]).is_file()
    }
