"""The input, the pooling and the output that all networks here have in common."""

from dataclasses import replace
from typing import Any

from toolkit.errors import UserError, unknown_name
from toolkit.lazy import layers
from toolkit.spec import Preprocessing

#: What networks for ImageNet take when trained from scratch: torchvision's centre crop and channel statistics.
IMAGENET = Preprocessing(size=(224, 224), crop_fraction=0.875, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
#: The same for networks whose initial weights expect pictures in 0…255 with only the mean taken off, as in 2012.
IMAGENET_MEAN = replace(IMAGENET, scale=1.0, mean=(123.675, 116.28, 103.53), std=(1.0, 1.0, 1.0))


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
    return layers.Input(input_shape, name="input")


def pooled(x: Any, pooling: str | None) -> Any:
    """The backbone's feature map ``(N, H, W, C)`` as a vector ``(N, C)``, or unchanged where ``pooling`` is None.

    Raises:
        UserError: ``pooling`` is neither None, ``"avg"`` nor ``"max"``.
    """
    if pooling is None:
        return x
    poolings = {"avg": layers.GlobalAveragePooling2D, "max": layers.GlobalMaxPooling2D}
    if pooling not in poolings:
        raise UserError(f"pooling must be None, 'avg' or 'max', got {pooling!r}")
    return poolings[pooling](name="head_pool")(x)


def two_hidden_layers(x: Any, *, kernel_initializer: Any, bias_initializer: str = "zeros") -> Any:
    """Two dense layers of 4096, each followed by dropout: the head of AlexNet, which ZFNet and VGG took over."""
    x = layers.Flatten(name="head_flatten")(x)
    for number in (1, 2):
        x = layers.Dense(
            4096,
            activation="relu",
            kernel_initializer=kernel_initializer,
            bias_initializer=bias_initializer,
            name=f"head_fc{number}",
        )(x)
        x = layers.Dropout(0.5, name=f"head_drop{number}")(x)
    return x


def logits(
    x: Any, num_classes: int, *, kernel_initializer: Any = "glorot_uniform", bias_initializer: str = "zeros"
) -> Any:
    """The last layer: one float32 logit per class, also under a mixed policy, where float16 logits would overflow."""
    return layers.Dense(
        num_classes,
        kernel_initializer=kernel_initializer,
        bias_initializer=bias_initializer,
        dtype="float32",
        name="head_logits",
    )(x)


def max_pool_ceil(x: Any, *, name: str) -> Any:
    """Overlapping 3×3/2 max pooling that keeps a last, partial window, as Caffe's does (ceil mode).

    Only for maps after a ReLU: the zeros that fill the window must not win over negative values.
    """
    missing = [(0, (side - 3) % 2) for side in x.shape[1:3]]
    if missing != [(0, 0), (0, 0)]:
        x = layers.ZeroPadding2D(missing, name=f"{name}_pad")(x)
    return layers.MaxPooling2D(3, strides=2, name=name)(x)


def one_of(keyword: str, value: str, allowed: list[str]) -> None:
    """Refuse a value no variant has."""
    if value not in allowed:
        raise UserError(unknown_name(keyword, str(value), allowed, listing=f"{keyword} is one of {', '.join(allowed)}"))
