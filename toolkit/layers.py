"""Pieces of networks that Keras lacks, and the input and output that all networks here have in common.

Each custom layer is registered, so that a saved model loads wherever this module has been imported, and states two
rules: how it crosses into tf_keras (for pruning and quantization-aware training) and what it becomes in LiteRT.
"""

from typing import Any

import keras
from keras import ops

from toolkit.spec import UserError

POOLINGS: dict[str, Any] = {"avg": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}


@keras.saving.register_keras_serializable(package="toolkit")
class PadChannels(keras.layers.Layer):
    """Shortcut without parameters: take every ``stride``-th pixel, then pad with zero channels up to ``filters``.

    Option A of He et al. (CVPR 2016, section 3.3) for shortcuts between stages. The paper does not say where the
    zeros go; here half of them stand on each side (the odd one after), as in the public CIFAR checkpoints.

    *tf_keras*: needs a twin of the same name and configuration. It holds no weights and computes nothing, so
    quantization-aware training lets its input's quantization pass through. *LiteRT*: ``STRIDED_SLICE`` and ``PAD``,
    both builtin, float and int8.

    Args:
        filters: number of output channels, at least that of the input.
        stride: spacing of the pixels kept, in both directions.

    Input ``(N, H, W, C)``, output ``(N, ceil(H / stride), ceil(W / stride), filters)`` of the same dtype.

    >>> PadChannels(32, 2).compute_output_shape((None, 7, 8, 16))
    (None, 4, 4, 32)
    """

    def __init__(self, filters: int, stride: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if filters < 1 or stride < 1:
            raise ValueError(f"filters and stride must be positive, got filters={filters}, stride={stride}")
        self.filters = filters
        self.stride = stride

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self._padding(input_shape[-1])
        self.built = True

    def call(self, inputs: Any) -> Any:
        if self.stride > 1:
            inputs = inputs[:, :: self.stride, :: self.stride, :]
        return ops.pad(inputs, ((0, 0), (0, 0), (0, 0), self._padding(inputs.shape[-1])))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, height, width, _ = input_shape
        return batch, self._kept(height), self._kept(width), self.filters

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters, "stride": self.stride}

    def _kept(self, size: int | None) -> int | None:
        return None if size is None else -(-size // self.stride)

    def _padding(self, channels: int | None) -> tuple[int, int]:
        if channels is None or channels > self.filters:
            raise ValueError(
                f"layer {self.name!r} pads to {self.filters} channels and got {channels}: filters must be at least that"
            )
        missing = self.filters - channels
        return missing // 2, missing - missing // 2


def image_input(name: str, input_shape: tuple[int, int, int], *, min_size: int) -> Any:
    """The ``input`` layer of the network ``name``, refusing pictures that would vanish on the way down.

    Raises:
        UserError: a side of ``input_shape``, ``(height, width, channels)``, is shorter than ``min_size``.
    """
    if min(input_shape[:2]) < min_size:
        raise UserError(
            f"{name} needs pictures of at least {min_size}×{min_size}, got input_shape={tuple(input_shape)}; "
            f"give input_shape=({min_size}, {min_size}, {input_shape[2]}) or larger"
        )
    return keras.layers.Input(input_shape, name="input")


def pooled(x: Any, pooling: str | None) -> Any:
    """The backbone's feature map ``(N, H, W, C)`` as a vector ``(N, C)``, or unchanged where ``pooling`` is None.

    Raises:
        UserError: ``pooling`` is neither None, ``"avg"`` nor ``"max"``.
    """
    if pooling is None:
        return x
    if pooling not in POOLINGS:
        raise UserError(f"pooling must be None, 'avg' or 'max', got {pooling!r}")
    return POOLINGS[pooling](name="head_pool")(x)


def logits(x: Any, num_classes: int) -> Any:
    """The last layer: one float32 logit per class, also under a mixed policy, where float16 logits would overflow."""
    return keras.layers.Dense(num_classes, dtype="float32", name="head_logits")(x)
