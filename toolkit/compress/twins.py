"""The tf_keras twins of the custom layers, by the rules that ``toolkit.layers`` states.

A twin has the name and the configuration of its original, no weights, and the same operations, so that it converts to
the same LiteRT. The classes are made on the first call: what they derive from is an optional dependency.
"""

import functools
from typing import Any


@functools.cache
def twin_layers() -> dict[str, type]:
    """Twin classes by name: what ``custom_objects`` of tf_keras takes."""
    import tensorflow as tf
    import tf_keras

    class PadChannels(tf_keras.layers.Layer):
        """Every ``stride``-th pixel, padded with zero channels to ``filters``, half of them on each side."""

        def __init__(self, filters: int, stride: int = 1, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.filters = filters
            self.stride = stride

        def call(self, inputs: Any) -> Any:
            if self.stride > 1:
                inputs = inputs[:, :: self.stride, :: self.stride, :]
            missing = self.filters - inputs.shape[-1]
            return tf.pad(inputs, ((0, 0), (0, 0), (0, 0), (missing // 2, missing - missing // 2)))

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "filters": self.filters, "stride": self.stride}

    class LocalResponseNormalization(tf_keras.layers.Layer):
        """``x / (bias + alpha / size · Σ x²) ** 0.75`` over ``size`` neighbouring channels."""

        def __init__(self, size: int = 5, alpha: float = 1e-4, bias: float = 1.0, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.size = size
            self.alpha = alpha
            self.bias = bias

        def call(self, inputs: Any) -> Any:
            channels = tf.range(inputs.shape[-1])
            band = tf.abs(channels[:, None] - channels[None, :]) <= self.size // 2
            sums = tf.nn.conv2d(inputs * inputs, tf.cast(band, inputs.dtype)[None, None], strides=1, padding="VALID")
            root = tf.math.rsqrt(self.bias + (self.alpha / self.size) * sums)
            return inputs * (root * tf.sqrt(root))

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "size": self.size, "alpha": self.alpha, "bias": self.bias}

    return {cls.__name__: cls for cls in (PadChannels, LocalResponseNormalization)}
