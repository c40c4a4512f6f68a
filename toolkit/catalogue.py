"""The networks by name, each joined with the weights that were published for it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from toolkit.errors import UserError, unknown_name
from toolkit.models import NETWORKS
from toolkit.spec import ModelInfo, PretrainedWeights
from toolkit.weights.published import PUBLISHED, UNPUBLISHED


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


def join(
    networks: Iterable[ModelInfo], published: Mapping[str, Sequence[PretrainedWeights]], unpublished: Mapping[str, str]
) -> Mapping[str, ModelInfo]:
    """Join networks with the weights that were published for them, or with why there are none, by name.

    Raises:
        ValueError: two networks of one name, weights for a network that is not there or for one that is said to have
            none, or a tag twice. Overwriting would silently change what others load.
    """
    models: dict[str, ModelInfo] = {}
    for info in networks:
        if info.name in models:
            raise ValueError(f"two networks are named {info.name!r}: {models[info.name].title} and {info.title}")
        models[info.name] = info
    for name in (*published, *unpublished):
        if name not in models:
            raise ValueError(f"weights for {name!r}, which is no network")
        if name in published and name in unpublished:
            raise ValueError(f"the weights of {name!r} stand in two tables")
        by_tag = _by_tag(name, published.get(name, ()))
        models[name] = replace(models[name], weights=by_tag, weights_note=unpublished.get(name, ""))
    return MappingProxyType(models)


def _by_tag(name: str, rows: Sequence[PretrainedWeights]) -> dict[str, PretrainedWeights]:
    by_tag: dict[str, PretrainedWeights] = {}
    for row in rows:
        if row.tag in by_tag or row.tag == "imagenet":
            raise ValueError(f"{name!r} has two sets of weights under the tag {row.tag!r}")
        by_tag[row.tag] = row
    return by_tag | ({"imagenet": rows[0]} if rows and rows[0].tag.startswith("imagenet") else {})


_MODELS = join(NETWORKS, PUBLISHED, UNPUBLISHED)
