"""Convolution arithmetic: output sizes, and what each layer of a network holds and computes.

Works on a model through its public attributes only, so importing this module imports no framework.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

# A kernel meets every output position once, so multiply-adds are output positions times kernel entries. That holds for
# grouped and depthwise convolutions too: their kernels are as much smaller as each output looks at fewer channels.
_KERNELS = {
    "Conv2D": ("kernel",),
    "DepthwiseConv2D": ("kernel",),
    "SeparableConv2D": ("depthwise_kernel", "pointwise_kernel"),
    "Dense": ("kernel",),
}
# Element-wise, and folded into the layer before them at inference.
_NORMALISATIONS = {f"{kind}Normalization" for kind in ("", "Batch", "Group", "Layer", "RMS")}


@dataclass(frozen=True)
class LayerRow:
    """One layer: shapes leave out the batch, ``params`` counts trainable parameters, ``macs`` is for one picture."""

    name: str
    type: str
    output_shape: tuple[int | None, ...]
    activation_size: int
    params: int
    macs: int


def conv_output_size(n: int, kernel: int, *, stride: int = 1, padding: int = 0) -> int:
    """Side of what a convolution or pooling leaves of ``n`` pixels: floor((n + 2·padding - kernel) / stride) + 1.

    Args:
        n: side of the input.
        kernel: side of the filter.
        stride: step of the filter.
        padding: pixels added on *each* side; (kernel - 1) / 2 keeps the size at stride 1.

    Raises:
        ValueError: an argument is out of range or the kernel is larger than the padded input.

    >>> conv_output_size(7, 3, stride=2)
    3
    >>> conv_output_size(224, 7, stride=2, padding=3)
    112
    """
    if min(n, kernel, stride) < 1 or padding < 0:
        raise ValueError(
            f"n, kernel and stride must be positive and padding not negative, "
            f"got n={n}, kernel={kernel}, stride={stride}, padding={padding}"
        )
    if kernel > n + 2 * padding:
        raise ValueError(f"a kernel of {kernel} does not fit into {n} pixels with padding {padding}; pad or enlarge")
    return (n + 2 * padding - kernel) // stride + 1


def layer_table(model: Any) -> list[LayerRow]:
    """One row per layer of a flat ``keras.Model``, input first.

    Raises:
        ValueError: the table has no rule for a layer that holds weights; the message names it.
    """
    return [_row(layer) for layer in model.layers]


def count_params(model: Any) -> int:
    """Trainable parameters; those of frozen layers are not counted."""
    return sum(_size(weight.shape) for weight in model.trainable_weights)


def count_macs(model: Any) -> int:
    """Multiply-adds of convolutions and dense layers for one picture of the model's input shape.

    Raises:
        ValueError: as ``layer_table``.
    """
    return sum(row.macs for row in layer_table(model))


def format_table(rows: Sequence[LayerRow]) -> str:
    """The rows as aligned text; the last line holds the totals of parameters and multiply-adds.

    >>> rows = [LayerRow("input", "InputLayer", (4, 4, 1), 16, 0, 0), LayerRow("fc", "Dense", (2,), 2, 34, 32)]
    >>> print(format_table(rows))
    layer  type        activation shape  activation size  parameters  multiply-adds
    input  InputLayer  (4, 4, 1)                      16           0              0
    fc     Dense       (2,)                            2          34             32
    total                                                         34             32
    """
    header = ("layer", "type", "activation shape", "activation size", "parameters", "multiply-adds")
    total = ("total", "", "", "", f"{sum(row.params for row in rows):,}", f"{sum(row.macs for row in rows):,}")
    lines = [header, *(_cells(row) for row in rows), total]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(_align(line, widths) for line in lines)


def _row(layer: Any) -> LayerRow:
    shape = tuple(layer.output.shape[1:])
    return LayerRow(
        name=layer.name,
        type=type(layer).__name__,
        output_shape=shape,
        activation_size=_size(shape),
        params=sum(_size(weight.shape) for weight in layer.trainable_weights),
        macs=_macs(layer, shape),
    )


def _macs(layer: Any, shape: tuple[int | None, ...]) -> int:
    # By class name, subclasses included, because comparing classes would need the framework.
    names = [cls.__name__ for cls in type(layer).__mro__]
    kernels = next((_KERNELS[name] for name in names if name in _KERNELS), None)
    if kernels is not None:
        return _size(shape[:-1]) * sum(_size(getattr(layer, kernel).shape) for kernel in kernels)
    if layer.weights and not _NORMALISATIONS.intersection(names):
        raise ValueError(
            f"no rule for the multiply-adds of layer {layer.name!r} of type {names[0]}; it holds weights and is "
            f"none of {', '.join(sorted({*_KERNELS, *_NORMALISATIONS}))}: add its rule to toolkit.arithmetic"
        )
    return 0


def _size(shape: Sequence[int | None]) -> int:
    if None in shape:
        raise ValueError(f"shape {tuple(shape)} is not fully known; build the model for a fixed input size")
    return prod(side for side in shape if side is not None)


def _cells(row: LayerRow) -> tuple[str, ...]:
    return row.name, row.type, str(row.output_shape), f"{row.activation_size:,}", f"{row.params:,}", f"{row.macs:,}"


def _align(cells: Sequence[str], widths: list[int]) -> str:
    text = [cell.ljust(width) for cell, width in zip(cells[:3], widths[:3], strict=True)]
    numbers = [cell.rjust(width) for cell, width in zip(cells[3:], widths[3:], strict=True)]
    return "  ".join([*text, *numbers])
