"""A network's page: facts, accuracies, drawing, layer table, and what differs from its paper."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from toolkit.arithmetic import LayerRow, peak_memory
from toolkit.bundle import Manifest
from toolkit.demo.markup.arithmetic import bar_cell
from toolkit.demo.markup.parts import escape, sides
from toolkit.spec import ModelInfo


def network_card(
    info: ModelInfo, rows: Sequence[LayerRow], drawing: str, measured: Sequence[tuple[str, Manifest]]
) -> str:
    """Write a network's page.

    Args:
        info: of the catalogue.
        rows: its layer table.
        drawing: an SVG.
        measured: bundles of it that are served here, with what they say of themselves.
    """
    facts = {
        "input": sides(info.input_shape),
        "parameters": f"{info.num_params:,}" if info.num_params else "none to train",
        "multiply-adds": f"{info.macs:,}",
        "layers with weights": f"{sum(row.macs > 0 for row in rows)}",
        "last map sees": _field(rows),
        "activations in memory": f"{peak_memory(rows) / 2**20:.1f} MiB",
    }
    tiles = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    deviations = "".join(f"<li>{escape(text)}</li>" for text in info.deviations)
    return f"""<article class="tk-network" data-state="network" data-chosen="{escape(info.name)}">
<h2>{escape(info.title)} <span class="tk-year-of">{info.year}</span> <code>{escape(info.name)}</code></h2>
<p class="tk-paper">{escape(info.paper)}</p>
<dl class="tk-facts-of">{tiles}</dl>
{_published(info)}{_measured(measured)}
<h3>Different from the paper</h3><ul class="tk-deviations">{deviations or "<li>nothing</li>"}</ul>
<h3>Drawing</h3><div class="tk-scroll tk-drawn">{drawing}</div>
<h3>Layers</h3>{layers(rows)}</article>"""


def layers(rows: Sequence[LayerRow]) -> str:
    """Write a layer table by stages, each with its sums."""
    most_params, most_macs = max(row.params for row in rows), max(row.macs for row in rows)
    body = ""
    for stage, group in groupby(rows, key=lambda row: row.name.split("_")[0]):
        members = list(group)
        if len(members) > 1:
            body += f'<tr class="tk-stage"><th colspan="3">{escape(stage)}</th>{_sums(members)}</tr>'
        body += "".join(_layer(row, most_params, most_macs) for row in members)
    total = f'<tfoot><tr><th colspan="3">{len(rows)} layers</th>{_sums(rows)}</tr></tfoot>'
    header = ("layer", "type", "output", "parameters", "multiply-adds", "sees")
    return _table(header, body, total, kind="tk-layers", words=(1,), is_tall=True)


def listing(networks: Iterable[ModelInfo]) -> str:
    """Write all networks as a table, folded away; each name is a button."""
    rows = "".join(
        f'<tr><th><button type="button" data-network="{escape(info.name)}">{escape(info.name)}</button></th>'
        f'<td class="tk-word">{escape(info.title)}</td><td>{info.year}</td><td>{sides(info.input_shape)}</td>'
        f"<td>{info.num_params:,}</td><td>{info.macs:,}</td><td>{_best(info)}</td></tr>"
        for info in sorted(networks, key=lambda info: (info.year, info.num_params, info.name))
    )
    header = ("name", "network", "year", "input", "parameters", "multiply-adds", "top-1 %")
    table = _table(header, rows, kind="tk-layers", words=(1,), is_tall=True)
    return f'<details class="tk-all"><summary>All of them in a table</summary>{table}</details>'


def _table(
    header: Sequence[str],
    body: str,
    footer: str = "",
    *,
    kind: str = "",
    words: Sequence[int] = (),
    is_tall: bool = False,
) -> str:
    """Write a table of rows in HTML; columns of ``words`` are aligned to the left."""
    cells = "".join(f"<th{' class=tk-word' if index in words else ''}>{text}</th>" for index, text in enumerate(header))
    table = f'<table class="{kind}"><thead><tr>{cells}</tr></thead><tbody>{body}</tbody>{footer}</table>'
    return f'<div class="tk-scroll{" tk-tall" if is_tall else ""}">{table}</div>'


def _sums(rows: Sequence[LayerRow]) -> str:
    return f"<td>{sum(row.params for row in rows):,}</td><td>{sum(row.macs for row in rows):,}</td><td></td>"


def _layer(row: LayerRow, most_params: int, most_macs: int) -> str:
    sees = "" if row.receptive_field is None else f"{row.receptive_field[1]}×{row.receptive_field[0]}"
    return (
        f'<tr><th>{escape(row.name)}</th><td class="tk-word">{escape(row.type)}</td><td>{sides(row.output_shape)}</td>'
        f"{bar_cell(row.params, most_params)}{bar_cell(row.macs, most_macs)}<td>{sees}</td></tr>"
    )


def _field(rows: Sequence[LayerRow]) -> str:
    field = next((row.receptive_field for row in reversed(rows) if row.receptive_field), None)
    return "all of it" if field is None else f"{field[1]}×{field[0]} pixels"


def _published(info: ModelInfo) -> str:
    if not info.weights:
        return f'<h3>Published weights</h3><p class="tk-note">None: {escape(info.weights_note)}.</p>'
    rows = "".join(
        f"<tr><th>{escape(tag)}</th><td>{_percent(entry.top1)}</td><td>{_percent(entry.top5)}</td>"
        f'<td class="tk-word">{escape(entry.published_in)}</td>'
        f'<td class="tk-word">{escape(entry.licence or "–")}</td></tr>'
        for tag, entry in sorted(info.weights.items())
        if tag == entry.tag
    )
    header = ("tag", "top-1 %", "top-5 %", "published in", "licence")
    return f"<h3>Published weights</h3>{_table(header, rows, words=(3, 4))}"


def _measured(measured: Sequence[tuple[str, Manifest]]) -> str:
    rows = "".join(
        f"<tr><th>{escape(bundle)}</th><td>{len(manifest.labels):,}</td><td>{100 * manifest.metrics['top1']:.1f}</td>"
        f"<td>{manifest.metrics.get('n', 0):,.0f} {escape(manifest.subset)}</td></tr>"
        for bundle, manifest in measured
        if "top1" in manifest.metrics
    )
    if not rows:
        return ""
    table = _table(("bundle", "classes", "top-1 %", "of pictures"), rows)
    return f"<h3>Measured: the bundles of it served here</h3>{table}"


def _best(info: ModelInfo) -> str:
    return _percent(max((entry.top1 for entry in info.weights.values() if entry.top1), default=None))


def _percent(share: float | None) -> str:
    return f"{100 * share:.2f}" if share else "–"
