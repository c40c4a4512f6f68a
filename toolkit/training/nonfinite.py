"""Which layer the first infinity or NaN came from."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from toolkit.lazy import keras
from toolkit.training.gradients import Loss, loss_functions, values

Values = list[np.ndarray]


def replay(model: "keras.Model", batches: Iterable[tuple[Any, ...]], loss: Loss) -> str:
    """Train step by step, until a step spoils the network, and say where it began.

    Args:
        model: compiled, in the state before the first of ``batches``.
        batches: what ``fit`` was given, up to where it failed.
        loss: of labels and outputs.

    Returns:
        Part of a sentence, such as ``"at the output of layer 'stage1_conv'"``.
    """
    for batch in batches:
        before = [np.copy(keras.ops.convert_to_numpy(variable)) for variable in model.variables]
        result = model.train_on_batch(*batch)
        finite = np.all(np.isfinite(np.ravel(result)[0]))
        if not finite or not all(_is_finite(variable) for variable in model.trainable_variables):
            for variable, array in zip(model.variables, before, strict=True):
                variable.assign(array)
            return find_not_finite(model, batch[0], batch[1], loss)
    return "but not again when the epoch was repeated, so the hardware may be at fault"


def find_not_finite(model: "keras.Model", inputs: Any, labels: Any, loss: Loss) -> str:
    """Where, forwards and then backwards through the network, the first value appears that is not finite."""
    if not _is_finite(inputs):
        return "in the input pictures"
    names = [layer.name for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    probe = keras.Model(model.inputs[0], [model.get_layer(name).output for name in names])
    with keras.StatelessScope():
        outputs = probe(inputs, training=True)
    for name, output in zip(names, outputs, strict=True):
        if not _is_finite(output):
            return f"at the output of layer {name!r}"
    gradients = loss_functions(model, loss, training=True).gradients(*values(model), inputs, labels)
    spoilt = {id(v) for v, g in zip(model.trainable_variables, gradients, strict=True) if not _is_finite(g)}
    for layer in reversed(model.layers):
        if any(id(variable) in spoilt for variable in layer.trainable_variables):
            return f"in the gradient of layer {layer.name!r}"
    return "in the optimizer's step, from finite gradients"


def _is_finite(array: Any) -> bool:
    return bool(np.all(np.isfinite(keras.ops.convert_to_numpy(keras.ops.cast(array, "float32")))))
