"""A picture's way through a network, as a table whose rows are shown on the picture; layer tables of any network."""

from collections.abc import Sequence

from toolkit.demo.inside.looks import Look
from toolkit.demo.inside.way import Step, way_in
from toolkit.demo.markup.inside import ORIGINAL, lens
from toolkit.demo.markup.parts import escape, sides


def arithmetic_view(look: Look, steps: Sequence[Step]) -> str:
    """Write the way of a picture: its own steps to the input, and a row per layer; a row is chosen by a click."""
    explanation = look.explanation
    height, width = explanation.rgb.shape[:2]
    before = " → ".join(map(escape, way_in(height, width, explanation.explainer.preprocessing)))
    most_params = max((step.working.num_params for step in steps), default=0)
    most_macs = max((step.row.macs for step in steps), default=0)
    rows = "".join(_row(step, most_params, most_macs) for step in steps)
    total_params, total_macs = sum(step.working.num_params for step in steps), sum(step.row.macs for step in steps)
    rows_high, columns = explanation.explainer.preprocessing.size
    field = (
        f'<svg class="tk-field" viewBox="0 0 {columns} {rows_high}" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="tk-outer"/><rect class="tk-inner"/></svg>'
    )
    return f"""<section class="tk-arithmetic" data-state="arithmetic" data-size="{rows_high},{columns}">
<p class="tk-where">{before}</p>
<div class="tk-beside"><div>{lens(look, field)}
<p class="tk-field-words" aria-live="polite">Choose a layer below, and its cell by pointing at the picture.</p></div>
<div class="tk-worked"><p class="tk-eyebrow">The layer’s arithmetic</p><dl></dl></div></div>
<div class="tk-scroll tk-tall"><table class="tk-layers"><thead><tr><th>layer</th><th>output</th><th>parameters</th>\
<th>multiply-adds</th><th>sees</th></tr></thead><tbody>{rows}</tbody>
<tfoot><tr><th>in all</th><td></td><td>{total_params:,}</td><td>{total_macs:,}</td><td></td></tr></tfoot></table></div>
<p class="tk-note">{ORIGINAL} Frozen weights are counted too; running statistics are not.</p></section>"""


def _row(step: Step, most_params: int, most_macs: int) -> str:
    row, field, working = step.row, step.field, step.working
    data = {
        "name": row.name,
        "type": row.type,
        "reads": ", ".join(step.reads),
        "shape": sides(row.output_shape),
        "size": working.size,
        "params": working.params,
        "macs": working.macs,
    }
    if field is not None and len(row.output_shape) == 3:
        data |= {
            "cells": ",".join(map(str, row.output_shape[:2])),
            "first": ",".join(map(str, field.first)),
            "extent": ",".join(map(str, field.size)),
            "jump": ",".join(map(str, field.jump)),
        }
    told = "".join(f' data-{key}="{escape(value)}"' for key, value in data.items() if value)
    sees = "" if field is None else f"{field.size[1]}×{field.size[0]}"
    return (
        f'<tr tabindex="0"{told}><th>{escape(row.name)}</th><td>{sides(row.output_shape)}</td>'
        f"{bar_cell(working.num_params, most_params)}{bar_cell(row.macs, most_macs)}<td>{sees}</td></tr>"
    )


def bar_cell(count: int, most: int) -> str:
    """Write a number in a cell with a bar behind it, as long as its share of the largest."""
    share = 100 * count / most if most else 0
    return f'<td class="tk-bar" style="--share:{share:.1f}%">{count:,}</td>' if count else '<td class="tk-bar">–</td>'
