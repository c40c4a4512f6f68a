"""The input, the pooling and the output that all networks here have in common."""

from typing import Any

from toolkit.lazy import lazy_module
from toolkit.registry import unknown_name
from toolkit.spec import UserError

layers = lazy_module("keras.layers")


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


def logits(x: Any, num_classes: int) -> Any:
    """The last layer: one float32 logit per class, also under a mixed policy, where float16 logits would overflow."""
    return layers.Dense(num_classes, dtype="float32", name="head_logits")(x)


def one_of(keyword: str, value: str, allowed: list[str]) -> None:
    """Refuse a value no variant has."""
    if value not in allowed:
        raise UserError(unknown_name(keyword, str(value), allowed, listing=f"{keyword} is one of {', '.join(allowed)}"))
