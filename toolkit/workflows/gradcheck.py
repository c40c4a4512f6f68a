"""Gradient check of a registered network against numerical gradients."""

from dataclasses import asdict
from typing import Any, Literal

from toolkit.catalogue import model_info
from toolkit.errors import UserError
from toolkit.lazy import keras

_SIDE = 32
_NUM_CLASSES = 10


def check_model_gradients(
    model_name: str,
    *,
    size: int | None = None,
    batch_size: int = 4,
    num_entries: int = 3,
    batch_norm: Literal["batch", "running"] = "batch",
    seed: int = 0,
) -> dict[str, Any]:
    """Compare automatic with numerical gradients of a fresh network, in float64, for pictures of noise.

    Not for ``plain56`` and ``plain110``: slopes of fresh networks so deep without shortcuts are so steep that float64
    measures kinks or rounding instead, and right gradients do not pass.

    Args:
        model_name: a registered network.
        size: height and width of the pictures; by default 32, more or less where the network needs it.
        batch_size: pictures.
        num_entries: of every variable, chosen at random.
        batch_norm: normalise with the statistics of the ``"batch"`` or with ``"running"`` averages.
        seed: of weights, pictures and choice.

    Returns:
        ``{"model", "input_shape", "batch_norm", "num_entries", "tolerance", "passed", "worst", "variables"}``; each
        variable a ``toolkit.training.gradients.CheckedVariable``, the worst first.

    Raises:
        UserError: no such network, none to train, or pictures too small for it.
    """
    info = model_info(model_name)
    if not info.num_params:
        raise UserError(f"{model_name} has no trainable parameters, so there is no gradient to check")
    if not 0 <= seed < 2**32:
        raise UserError(f"seed must be from 0 to {2**32 - 1}, got {seed}")

    import numpy as np

    from toolkit.factory import create_model
    from toolkit.training.gradients import TOLERANCE, check_gradients, in_float64

    height, width, channels = info.input_shape
    sides = (size, size) if size else (min(height, max(_SIDE, info.min_size)), min(width, max(_SIDE, info.min_size)))
    keras.utils.set_random_seed(seed)
    model = in_float64(create_model(model_name, num_classes=_NUM_CLASSES, input_shape=(*sides, channels)))
    rng = np.random.default_rng(seed)
    rows = check_gradients(
        model,
        rng.normal(size=(batch_size, *model.input_shape[1:])),
        rng.integers(0, _NUM_CLASSES, batch_size),
        batch_statistics=batch_norm == "batch",
        num_entries=num_entries,
        seed=seed,
    )
    return {
        "model": model_name,
        "input_shape": list(model.input_shape[1:]),
        "batch_norm": batch_norm,
        "num_entries": num_entries,
        "tolerance": TOLERANCE,
        "passed": rows[0].difference <= TOLERANCE,
        "worst": rows[0].name,
        "variables": [asdict(row) for row in rows],
    }
