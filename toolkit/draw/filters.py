"""Filters to look at: edge detectors of image processing as ready convolution layers.

A layer answers one map per input channel, without padding, and correlates as all convolution layers do: the filter is
not flipped. Bright left of dark is positive for the vertical ones, bright above dark for ``horizontal``.
"""

from typing import Any

from toolkit.errors import UserError, unknown_name
from toolkit.lazy import keras, lazy_module

np = lazy_module("numpy")

FILTERS: dict[str, tuple[tuple[int, ...], ...]] = {
    "vertical": ((1, 0, -1), (1, 0, -1), (1, 0, -1)),
    "horizontal": ((1, 1, 1), (0, 0, 0), (-1, -1, -1)),
    "sobel": ((1, 0, -1), (2, 0, -2), (1, 0, -1)),
    "scharr": ((3, 0, -3), (10, 0, -10), (3, 0, -3)),
}


def filter_layer(name: str) -> Any:
    """A frozen depthwise convolution with the filter ``name`` of ``FILTERS``.

    Raises:
        UserError: no such filter.

    >>> layer = filter_layer("vertical")
    >>> step = np.repeat(np.array([10.0, 10, 10, 0, 0, 0])[None, :], 6, axis=0)
    >>> [float(value) for value in layer(step[None, :, :, None])[0, 0, :, 0]]
    [0.0, 30.0, 30.0, 0.0]
    """
    if name not in FILTERS:
        raise UserError(unknown_name("filter", name, list(FILTERS)))

    def same_for_all_channels(shape: tuple[int, ...], dtype: Any = None) -> Any:
        kernel = np.asarray(FILTERS[name], "float32")[:, :, None, None]
        return keras.ops.cast(np.broadcast_to(kernel, shape), dtype or "float32")

    return keras.layers.DepthwiseConv2D(
        len(FILTERS[name]),
        use_bias=False,
        depthwise_initializer=same_for_all_channels,
        trainable=False,
        name=name,
    )
