"""A picture's way through a network, layer by layer: sizes, parameters, multiply-adds, and what one cell sees."""

from dataclasses import dataclass
from typing import Any

from toolkit.arithmetic import LayerRow, Working, layer_table, working
from toolkit.arithmetic.receptive_field import Field, receptive_fields
from toolkit.data.pixels.sizes import resized_size
from toolkit.errors import UserError
from toolkit.lazy import keras
from toolkit.network import sources
from toolkit.spec import Preprocessing


@dataclass(frozen=True)
class Step:
    """One layer on the way.

    Attributes:
        row: its figures.
        working: how they come about; its parameters are counted frozen or not, unlike the row's.
        field: what one cell of its output sees of the picture; None where there are no cells, or each sees all.
        reads: names of the layers whose output it takes.
    """

    row: LayerRow
    working: Working
    field: Field | None
    reads: tuple[str, ...]

    def as_document(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        row, field = self.row, self.field
        return {
            "layer": row.name,
            "type": row.type,
            "reads": list(self.reads),
            "shape": list(row.output_shape),
            "size_working": self.working.size,
            "parameters": self.working.num_params,
            "parameters_working": self.working.params,
            "multiply_adds": row.macs,
            "multiply_adds_working": self.working.macs,
            "receptive_field": None
            if field is None
            else {"size": list(field.size), "first": list(field.first), "jump": list(field.jump)},
        }


def way_through(model: "keras.Model") -> list[Step]:
    """List the layers of a flat network with their arithmetic, input first.

    Raises:
        UserError: it has a layer that there is no rule for.
    """
    try:
        rows, fields, feeding = layer_table(model), receptive_fields(model), sources(model)
    except ValueError as error:
        raise UserError(f"the arithmetic of {model.name!r} cannot be told: {error}") from None
    return [
        Step(row, working(layer), fields[layer.name], tuple(source.name for source in feeding[layer.name]))
        for layer, row in zip(model.layers, rows, strict=True)
    ]


def way_in(height: int, width: int, preprocessing: Preprocessing) -> list[str]:
    """Say in steps how a picture becomes the network's input.

    >>> for line in way_in(600, 800, Preprocessing((224, 224), crop_fraction=0.875)):
    ...     print(line)
    the picture: 800×600 pixels
    resized to 341×256
    cut out of its middle: 224×224
    values 0…255 to 0…1
    """
    lines = [f"the picture: {width}×{height} pixels"]
    resized, size = resized_size(height, width, preprocessing), preprocessing.size
    if resized != (height, width):
        stretched = preprocessing.resize == "stretch" and height * size[1] != width * size[0]
        lines.append(f"{'stretched' if stretched else 'resized'} to {resized[1]}×{resized[0]}")
    if resized != size:
        lines.append(f"cut out of its middle: {size[1]}×{size[0]}")
    if preprocessing.channel_order != "rgb":
        is_grey = preprocessing.channel_order == "grey"
        lines.append("colours to grey" if is_grey else "channels in the order blue, green, red")
    lines.append(_range(preprocessing))
    return lines


def _range(preprocessing: Preprocessing) -> str:
    factors, offsets = preprocessing.affine()
    lowest, highest = min(offsets) + 0.0, max(255 * f + o for f, o in zip(factors, offsets, strict=True))
    return f"values 0…255 to {lowest:.3g}…{highest:.3g}".replace("-", "−")
