"""The networks by name, each joined with the weights that were published for it."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from toolkit.errors import UserError, unknown_name
from toolkit.models import NETWORKS
from toolkit.spec import ModelInfo, PretrainedWeights, Published
from toolkit.weights.tables import TABLES


def list_models() -> list[str]:
    """List the names of all networks, sorted, without importing a framework.

    >>> "lenet5" in list_models()
    True
    """
    return sorted(_MODELS)


def model_info(name: str) -> ModelInfo:
    """Describe the network ``name`` without building it.

    Raises:
        UserError: no network has that name; the message suggests the nearest.

    >>> model_info("lenet5").num_params
    61706
    """
    if name not in _MODELS:
        raise UserError(unknown_name("model", name, list(_MODELS), listing="run `toolkit models` for the list"))
    return _MODELS[name]


def join(networks: Iterable[ModelInfo], tables: Iterable[Mapping[str, Published]]) -> Mapping[str, ModelInfo]:
    """Join networks with the tables of weights by name.

    Raises:
        ValueError: two networks of one name, two entries of weights for one network, weights for a network that is
            not there, a tag twice, or an ``"imagenet"`` that stands for none of the weights. Overwriting would
            silently change what others load.
    """
    models: dict[str, ModelInfo] = {}
    for info in networks:
        if info.name in models:
            raise ValueError(f"two networks are named {info.name!r}: {models[info.name].title} and {info.title}")
        models[info.name] = info
    seen: set[str] = set()
    for name, published in ((name, published) for table in tables for name, published in table.items()):
        if name not in models:
            raise ValueError(f"weights for {name!r}, which is no network")
        if name in seen:
            raise ValueError(f"the weights of {name!r} stand in two tables")
        seen.add(name)
        models[name] = replace(models[name], weights=_by_tag(name, published), weights_note=published.note)
    return MappingProxyType(models)


def _by_tag(name: str, published: Published) -> dict[str, PretrainedWeights]:
    by_tag: dict[str, PretrainedWeights] = {}
    for row in published.weights:
        if row.tag in by_tag or row.tag == "imagenet":
            raise ValueError(f"{name!r} has two sets of weights under the tag {row.tag!r}")
        by_tag[row.tag] = row
    if published.imagenet:
        if published.imagenet not in by_tag:
            known = ", ".join(by_tag) or "none"
            raise ValueError(f"'imagenet' cannot stand for {published.imagenet!r}: {name!r} has {known}")
        by_tag["imagenet"] = by_tag[published.imagenet]
    return by_tag


_MODELS = join(NETWORKS, TABLES)
