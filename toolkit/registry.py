"""Network names and what stands behind each: one dictionary, filled by the families in ``toolkit.models``."""

import difflib
import importlib

from toolkit.spec import ModelInfo, UserError

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


def unknown_name(kind: str, name: str, known: list[str], *, listing: str = "") -> str:
    """One line for a name nobody has: what was given, the nearest known, and where the list is.

    >>> unknown_name("model", "resnet5O", ["resnet50", "vgg16"])
    "unknown model 'resnet5O'; did you mean 'resnet50'?"
    """
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.7)
    if close:
        hint = "did you mean " + " or ".join(repr(c) for c in close) + "?"
    else:
        hint = "known: " + ", ".join(sorted(known)[:12])
    return f"unknown {kind} {name!r}; {hint}" + (f" ({listing})" if listing else "")


def _load_families() -> None:
    # By name, not by import statement: the registry stands below the families it lists.
    importlib.import_module("toolkit.models")
