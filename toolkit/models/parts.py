"""The preprocessing, pooling and output that networks here have in common."""

from dataclasses import replace
from typing import Any

from toolkit.errors import UserError, unknown_name
from toolkit.lazy import layers
from toolkit.spec import IMAGENET, Preprocessing

#: For networks whose initial weights expect pictures in 0…255 with only the mean taken off, as in 2012.
IMAGENET_MEAN = replace(IMAGENET, scale=1.0, mean=(123.675, 116.28, 103.53), std=(1.0, 1.0, 1.0))
#: CIFAR-10's own channel statistics.
CIFAR10 = Preprocessing(size=(32, 32), resize="stretch", mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
#: He's initialisation (ICCV 2015), for layers before a ReLU.
HE = {"kernel_initializer": "he_normal"}
#: A deviation from every paper.
LOGITS = "the last layer gives logits; softmax belongs to the loss and to export"


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


def conv_relu(
    x: Any, filters: int, kernel: int, *, stride: int = 1, groups: int = 1, start: dict[str, Any], name: str
) -> Any:
    """Convolution and ReLU; those without stride keep the size. ``start`` holds the initializers."""
    padding = "same" if stride == 1 else "valid"
    return layers.Conv2D(
        filters, kernel, strides=stride, padding=padding, groups=groups, activation="relu", name=name, **start
    )(x)


def two_hidden_layers(x: Any, *, start: dict[str, Any]) -> Any:
    """Two dense layers of 4096, each followed by dropout: the head of AlexNet, which ZFNet and VGG took over."""
    x = layers.Flatten(name="head_flatten")(x)
    for number in (1, 2):
        x = layers.Dense(4096, activation="relu", name=f"head_fc{number}", **start)(x)
        x = layers.Dropout(0.5, name=f"head_drop{number}")(x)
    return x


def logits(x: Any, num_classes: int, *, start: dict[str, Any] | None = None) -> Any:
    """The last layer: one float32 logit per class, also under a mixed policy, where float16 logits would overflow."""
    return layers.Dense(num_classes, dtype="float32", name="head_logits", **(start or {}))(x)


def max_pool_ceil(x: Any, kernel: int = 3, *, name: str) -> Any:
    """Max pooling with stride 2 that keeps a last, partial window, as Caffe's and torch's ``ceil_mode``.

    What hangs over is padded below and to the right, where Keras' ``same`` would also pad above an odd side. Only for
    maps after a ReLU, normalised or not: the zeros that fill the window must not win over negative values.
    """
    missing = [(0, (side - kernel) % 2) for side in x.shape[1:3]]
    if missing != [(0, 0), (0, 0)]:
        x = layers.ZeroPadding2D(missing, name=f"{name}_pad")(x)
    return layers.MaxPooling2D(kernel, strides=2, name=name)(x)


def one_of(keyword: str, value: str, allowed: list[str]) -> None:
    """Refuse a value no variant has."""
    if value not in allowed:
        raise UserError(unknown_name(keyword, str(value), allowed, listing=f"{keyword} is one of {', '.join(allowed)}"))
