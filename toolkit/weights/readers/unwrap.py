"""Take off what people leave around weights: dictionaries they wrap them in, prefixes of training wrappers."""

from typing import Any, TypeVar

T = TypeVar("T")

_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
_MAX_NESTING = 4
# DataParallel and torch.compile, around the network or around one part of it.
_TRAINING_WRAPPERS = {"module", "_orig_mod"}
_COMMON_PREFIX = "model."


def state_dict(root: Any, kind: type[T]) -> dict[str, T]:
    """The values of a type by name in a checkpoint, out of the wrapper they lie in.

    Optimizer state, epoch numbers and scores beside the weights are left out, and so are running averages of the
    weights (``model_ema``, ``state_dict_ema``): ``state_dict`` is preferred.

    >>> state_dict({"epoch": 90, "state_dict": {"conv1.weight": 0.5}, "model_ema": {"conv1.weight": 0.25}}, float)
    {'conv1.weight': 0.5}
    """
    for _ in range(_MAX_NESTING):
        root = _wrapped(root, kind)
    items = root.items() if isinstance(root, dict) else ()
    return {name: value for name, value in items if isinstance(name, str) and isinstance(value, kind)}


def _wrapped(root: Any, kind: type) -> Any:
    """The object in a wrapper, or the object itself where it is none."""
    for name in _WRAPPERS if isinstance(root, dict) else ():
        inner = root.get(name)
        if isinstance(inner, dict) and (
            any(isinstance(value, kind) for value in inner.values()) or not inner.keys().isdisjoint(_WRAPPERS)
        ):
            return inner
    return root


def plain_names(tensors: dict[str, T]) -> dict[str, T]:
    """The same tensors under the network's own names; counts of batches, which are no weights, are dropped.

    >>> plain_names({"module.model.fc.weight": 1, "module.model.bn.num_batches_tracked": 2})
    {'fc.weight': 1}
    >>> plain_names({"features.module.0.weight": 1, "classifier.1.weight": 2})
    {'features.0.weight': 1, 'classifier.1.weight': 2}
    """
    kept = {name: value for name, value in tensors.items() if not name.endswith("num_batches_tracked")}
    plain = {_without_wrappers(name): value for name, value in kept.items()}
    while plain and all(name.startswith(_COMMON_PREFIX) for name in plain):
        plain = {name.removeprefix(_COMMON_PREFIX): value for name, value in plain.items()}
    return plain if len(plain) == len(kept) else kept


def _without_wrappers(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _TRAINING_WRAPPERS)
