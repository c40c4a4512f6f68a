"""The inside of a network: a stage's maps of a picture, their statistics, and the filters of the first layer."""

from dataclasses import dataclass

import numpy as np

from toolkit.errors import UserError
from toolkit.explain.explainer import Explainer, Explanation
from toolkit.lazy import keras


@dataclass(frozen=True)
class Statistics:
    """The activations of a stage's last map for one picture.

    Attributes:
        stage: see ``Explainer.maps``.
        layer: whose output it is.
        shape: (rows, columns, channels).
        mean: over all values.
        deviation: standard deviation of all values.
        largest: value.
        zeros: share of values that are zero, 0…1.
        silent: channels that are zero everywhere.
    """

    stage: str
    layer: str
    shape: tuple[int, int, int]
    mean: float
    deviation: float
    largest: float
    zeros: float
    silent: int


def feature_maps(explanation: Explanation, stage: str | None = None) -> tuple[str, np.ndarray]:
    """Compute a stage's last map of a picture.

    Args:
        explanation: of the picture.
        stage: see ``Explainer.maps``, or any layer with a map; by default the last.

    Returns:
        The layer's name, and float32 (rows, columns, channels).

    Raises:
        UserError: no such stage, or a network without maps.
    """
    explainer = explanation.explainer
    layer = explainer.map_layer(stage)
    return layer.name, explainer.outputs(explanation.pixels, [layer.output])[0]


def strongest(cells: np.ndarray, count: int) -> np.ndarray:
    """Choose the channels of (rows, columns, channels) with the largest mean magnitude: their numbers, in order."""
    return np.sort(np.argsort(-np.abs(cells).mean(axis=(0, 1)), kind="stable")[:count])


def statistics(explanation: Explanation) -> list[Statistics]:
    """Describe the activations of each stage for a picture, input to output.

    Raises:
        UserError: a network without maps.
    """
    explainer = explanation.explainer
    explainer.map_layer()  # refuses one without
    maps = explainer.outputs(explanation.pixels, [layer.output for layer in explainer.maps.values()])
    return [
        Statistics(
            stage,
            layer.name,
            cells.shape,
            float(cells.mean()),
            float(cells.std()),
            float(cells.max()),
            float((cells == 0).mean()),
            int((cells == 0).all(axis=(0, 1)).sum()),
        )
        for (stage, layer), cells in zip(explainer.maps.items(), maps, strict=True)
    ]


def first_filters(explainer: Explainer) -> tuple[str, np.ndarray]:
    """Read the filters of the first layer with weights, or the templates of one that is dense on the pixels.

    Returns:
        The layer's name, and float32 (filters, height, width, 1 or 3); of three channels the first is red.

    Raises:
        UserError: the first layer does not read pixels.
    """
    model, channels = explainer.model, explainer.preprocessing.channels
    layer = next(layer for layer in model.layers if layer.weights)
    kernel = keras.ops.convert_to_numpy(layer.weights[0]).astype(np.float32)
    if isinstance(layer, keras.layers.Dense) and kernel.shape[0] == np.prod(model.input_shape[1:]):
        kernel = kernel.reshape(*model.input_shape[1:], -1)
    if not (kernel.ndim == 4 and kernel.shape[2] == channels):
        raise UserError(f"the first layer of {model.name!r}, {layer.name}, has no filters for pixels to show")
    filters = np.moveaxis(kernel, -1, 0)
    return layer.name, filters[..., ::-1] if explainer.preprocessing.channel_order == "bgr" else filters
