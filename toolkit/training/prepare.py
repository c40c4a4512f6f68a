"""What the settings of ``ModelConfig`` change in a network, and how its outputs are told apart."""

from toolkit.errors import UserError
from toolkit.lazy import keras
from toolkit.training.config import ModelConfig

#: The output that classifies; others beside it exist for training only.
LOGITS = "logits"

_INITIALIZERS = {
    "he_normal": keras.initializers.HeNormal,
    "he_uniform": keras.initializers.HeUniform,
    "lecun_normal": keras.initializers.LecunNormal,
    "glorot_normal": keras.initializers.GlorotNormal,
    "glorot_uniform": keras.initializers.GlorotUniform,
}


def prepare(model: "keras.Model", config: ModelConfig, *, seed: int) -> None:
    """Draw kernels anew and set dropout rates, where ``config`` asks for it.

    Raises:
        UserError: a loss weight for an output, or a dropout rate for dropout layers, that the network has not.
    """
    unknown = set(config.loss_weights) - set(output_names(model))
    if unknown:
        raise UserError(
            f"model.loss_weights names {min(unknown)!r}; {model.name} has the outputs {', '.join(output_names(model))}"
        )
    if config.initializer != "own":
        _draw_kernels(model, config.initializer, seed)
    if config.dropout is not None:
        _set_dropout(model, config.dropout)


def output_names(model: "keras.Model") -> list[str]:
    """The keys of a network's outputs, or ``["logits"]`` for the one output of most.

    >>> inputs = keras.layers.Input((2,))
    >>> output_names(keras.Model(inputs, keras.layers.Dense(3)(inputs)))
    ['logits']
    """
    return list(model.output) if isinstance(model.output, dict) else [LOGITS]


def num_classes(model: "keras.Model") -> int:
    """Width of the logits."""
    return (model.output[LOGITS] if isinstance(model.output, dict) else model.output).shape[-1]


def classifier(model: "keras.Model") -> "keras.Model":
    """The network without outputs that were for training only, from the same layers; itself if it has none."""
    if not isinstance(model.output, dict):
        return model
    return keras.Model(model.inputs[0], model.output[LOGITS], name=model.name)


def _draw_kernels(model: "keras.Model", name: str, seed: int) -> None:
    kernels = [variable for variable in model.trainable_variables if len(variable.shape) >= 2]
    for index, kernel in enumerate(kernels):
        kernel.assign(_INITIALIZERS[name](seed=seed + index)(kernel.shape, kernel.dtype))


def _set_dropout(model: "keras.Model", rate: float) -> None:
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    if not layers:
        raise UserError(f"model.dropout={rate}: {model.name} has no dropout layers")
    for layer in layers:
        layer.rate = rate
