"""Network names and what stands behind each: one dictionary, filled by the families in ``toolkit.models`` and, with
the weights published for them, by the tables in ``toolkit.weights.tables``."""

import importlib
from collections.abc import Iterable
from dataclasses import replace

from toolkit.errors import UserError, unknown_name
from toolkit.spec import ModelInfo, PretrainedWeights

_MODELS: dict[str, ModelInfo] = {}


def register(info: ModelInfo) -> ModelInfo:
    """Add a network.

    Raises:
        ValueError: the name is taken; overwriting would silently change what others load.
    """
    if info.name in _MODELS:
        raise ValueError(f"a network named {info.name!r} is already registered ({_MODELS[info.name].title})")
    _MODELS[info.name] = info
    return info


def register_weights(
    name: str, weights: Iterable[PretrainedWeights] = (), *, imagenet: str = "", note: str = ""
) -> None:
    """Say what weights were published for the network ``name``, or why there are none.

    Args:
        name: a registered network.
        weights: the published weights, each under a tag of its own.
        imagenet: the tag that ``"imagenet"`` stands for; none if empty.
        note: what there is to say where nothing was published.

    Raises:
        ValueError: no such network, a tag twice, or one that is not among the weights.
    """
    importlib.import_module("toolkit.models")
    if name not in _MODELS:
        raise ValueError(f"weights for {name!r}, which is no registered network")
    if _MODELS[name].weights or _MODELS[name].weights_note:
        raise ValueError(f"the weights of {name!r} are already registered")
    by_tag: dict[str, PretrainedWeights] = {}
    for row in weights:
        if row.tag in by_tag or row.tag == "imagenet":
            raise ValueError(f"{name!r} has two sets of weights under the tag {row.tag!r}")
        by_tag[row.tag] = row
    if imagenet:
        if imagenet not in by_tag:
            raise ValueError(f"'imagenet' cannot stand for {imagenet!r}: {name!r} has {', '.join(by_tag) or 'none'}")
        by_tag["imagenet"] = by_tag[imagenet]
    _MODELS[name] = replace(_MODELS[name], weights=by_tag, weights_note=note)


def list_models() -> list[str]:
    """Names of all networks, sorted, without importing a framework.

    >>> "lenet5" in list_models()
    True
    """
    _load_families()
    return sorted(_MODELS)


def model_info(name: str) -> ModelInfo:
    """What is known of the network ``name``, without building it.

    Raises:
        UserError: no network has that name; the message suggests the nearest.

    >>> model_info("lenet5").num_params
    61706
    """
    _load_families()
    if name not in _MODELS:
        raise UserError(unknown_name("model", name, list(_MODELS), listing="run `toolkit models` for the list"))
    return _MODELS[name]


def _load_families() -> None:
    # By name, not by import statement: the registry stands below the families it lists.
    importlib.import_module("toolkit.models")
    importlib.import_module("toolkit.weights.tables")
