"""Compare the settings of a saved model's layers with those of the model to fill: arrays that fit do not tell them."""

from typing import Any

from toolkit.errors import UserError
from toolkit.factory.source import AUXILIARY, WeightsSource
from toolkit.lazy import keras

# Settings of a layer that change what it answers at inference. Sizes show in the arrays' shapes.
_SETTINGS = (
    *("strides", "dilation_rate", "groups", "pool_size", "size", "activation"),
    *("epsilon", "alpha", "beta", "bias", "scale", "center"),
)
_HEADS = ("head", *AUXILIARY)


def check_settings(model: "keras.Model", source: WeightsSource) -> None:
    """Compare the layers that a ``.keras`` file of this package's own names lists with those of the model.

    Classifiers may differ: whether they fit is seen where they are filled.

    Raises:
        UserError: a layer is missing on either side, or is set otherwise.
    """
    if source.naming.source != "toolkit" or not source.file.layers:
        return
    ours = {layer.name: layer.get_config() for layer in model.layers}
    problem = _difference(_backbone(source.file.layers), _backbone(ours))
    if problem:
        raise UserError(f"{source.file.path} does not fit model {model.name!r}: {problem}")


def _backbone(layers: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        name: settings
        for name, settings in layers.items()
        if name.partition("_")[0] not in _HEADS and not _matters_not(settings)
    }


def _matters_not(settings: dict[str, Any]) -> bool:
    """The input, stochastic depth, dropout, and the padding before a partial window: it goes with the input's size."""
    return bool({"batch_shape", "survival", "rate"} & set(settings)) or (
        "padding" in settings and "strides" not in settings
    )


def _difference(theirs: dict[str, dict[str, Any]], ours: dict[str, dict[str, Any]]) -> str:
    for name in theirs:
        if name not in ours:
            return f"the model lacks layer {name!r}"
    for name, own in ours.items():
        if name not in theirs:
            return f"the file lacks layer {name!r}"
        for key in _SETTINGS:
            if key in own and key in theirs[name] and _plain(own[key]) != theirs[name][key]:
                return f"layer {name!r} has {key} {theirs[name][key]} in the file and {_plain(own[key])} in the model"
    return ""


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
