"""The layer table: parameters, multiply-adds, receptive field and memory of each layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.arithmetic.memory import live_values
from toolkit.arithmetic.receptive_field import receptive_fields
from toolkit.arithmetic.sizes import size
from toolkit.lazy import keras

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
    """One layer; shapes leave out the batch."""

    name: str
    type: str  # its class
    output_shape: tuple[int | None, ...]
    activation_size: int  # values in its output
    params: int  # trainable parameters
    macs: int  # multiply-adds for one picture
    # Height and width of what one output pixel sees of the picture; None where there are no pixels.
    receptive_field: tuple[int, int] | None = None
    jump: tuple[int, int] | None = None  # steps in the picture from one output pixel to the next, down and across
    live_bytes: int = 0  # of float32 activations alive while the layer runs on one picture, its own output included


def layer_table(model: "keras.Model") -> list[LayerRow]:
    """Tabulate a flat ``keras.Model``, one row per layer, input first.

    Raises:
        ValueError: the table has no rule for a layer that holds weights; the message names it.
    """
    fields, live = receptive_fields(model), live_values(model)
    return [_row(layer, fields[layer.name], live[layer.name]) for layer in model.layers]


def count_params(model: "keras.Model") -> int:
    """Count trainable parameters; those of frozen layers are not counted."""
    return sum(size(weight.shape) for weight in model.trainable_weights)


def count_macs(model: "keras.Model") -> int:
    """Count multiply-adds of convolutions and dense layers for one picture of the model's input shape.

    Raises:
        ValueError: as ``layer_table``.
    """
    return sum(row.macs for row in layer_table(model))


def format_table(rows: Sequence[LayerRow]) -> str:
    """Format the rows as aligned text; the last line holds the totals of parameters and multiply-adds.

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


def peak_memory(rows: Sequence[LayerRow]) -> int:
    """Bytes of float32 activations that one picture needs at the worst moment, weights not counted.

    See ``toolkit.arithmetic.memory`` for what counts as alive.
    """
    return max(row.live_bytes for row in rows)


def summary(rows: Sequence[LayerRow]) -> str:
    """One line: parameters, multiply-adds, receptive field of the last feature map, memory.

    >>> summary([LayerRow("conv", "Conv2D", (3, 3, 8), 72, 80, 648, (3, 3), (2, 2), 484)])
    '80 parameters, 648 multiply-adds, receptive field of the last feature map 3×3, peak activation memory 484 bytes'
    """
    field = next((row.receptive_field for row in reversed(rows) if row.receptive_field), None)
    return ", ".join(
        [
            f"{sum(row.params for row in rows):,} parameters",
            f"{sum(row.macs for row in rows):,} multiply-adds",
            *([f"receptive field of the last feature map {field[0]}×{field[1]}"] if field else []),
            f"peak activation memory {_bytes(peak_memory(rows))}",
        ]
    )


def _bytes(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count:,} bytes"


def _row(layer: "keras.Layer", field: Any, live: int) -> LayerRow:
    shape = tuple(layer.output.shape[1:])
    return LayerRow(
        name=layer.name,
        type=type(layer).__name__,
        output_shape=shape,
        activation_size=size(shape),
        params=sum(size(weight.shape) for weight in layer.trainable_weights),
        macs=_macs(layer, shape),
        receptive_field=field and field.size,
        jump=field and field.jump,
        live_bytes=4 * live,
    )


def _macs(layer: "keras.Layer", shape: tuple[int | None, ...]) -> int:
    # By class name, subclasses included, because comparing classes would need the framework.
    names = [cls.__name__ for cls in type(layer).__mro__]
    kernels = next((_KERNELS[name] for name in names if name in _KERNELS), None)
    if kernels is not None:
        return size(shape[:-1]) * sum(size(getattr(layer, kernel).shape) for kernel in kernels)
    if hasattr(layer, "multiply_adds"):  # a custom layer
        return layer.multiply_adds()
    if layer.weights and not _NORMALISATIONS.intersection(names):
        raise ValueError(
            f"no rule for the multiply-adds of layer {layer.name!r} of type {names[0]}; it holds weights and is "
            f"none of {', '.join(sorted({*_KERNELS, *_NORMALISATIONS}))}: add its rule to toolkit.arithmetic"
        )
    return 0


def _cells(row: LayerRow) -> tuple[str, ...]:
    return row.name, row.type, str(row.output_shape), f"{row.activation_size:,}", f"{row.params:,}", f"{row.macs:,}"


def _align(cells: Sequence[str], widths: list[int]) -> str:
    text = [cell.ljust(width) for cell, width in zip(cells[:3], widths[:3], strict=True)]
    numbers = [cell.rjust(width) for cell, width in zip(cells[3:], widths[3:], strict=True)]
    return "  ".join([*text, *numbers])
