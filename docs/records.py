"""Recorded runs and the papers' figures, read, and laid out as Markdown."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from charts import Chart

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "results"

_MISSING = "–"

Record = dict[str, Any]


def read(name: str) -> Record | None:
    file = RECORDS / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def papers() -> Record:
    """Read the figures that the papers print, which are not measured here."""
    return json.loads((RECORDS / "papers.json").read_text(encoding="utf-8"))


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Lay out rows as Markdown; figures are aligned to the right, and what is missing is a dash."""
    rows = [[_cell(value) for value in row] for row in rows]
    rule = ["---" if all(_is_word(row[i]) for row in rows) else "--:" for i in range(len(header))]
    return [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)] + [""]


def _cell(value: Any) -> str:
    if value is None or value == "":
        return _MISSING
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")


def _is_word(cell: str) -> bool:
    return cell != _MISSING and not cell[:1].isdigit()


def origin(record: Record, remark: str = "") -> list[str]:
    """Say when, on what, with which versions and by which command a record was made."""
    machine = record.get("machine", {})
    place = record.get("device") or record.get("processor") or machine.get("processor") or ""
    if not place and "cores" in record:
        place = f"{record['cores']} cores"
    sets = machine.get("instruction_sets")
    place += f" ({' '.join(sets)})" if sets else ""
    place = ", ".join(filter(None, (machine.get("gpu"), place)))
    versions = record.get("versions", {})
    packages = ("keras", "tensorflow", "jax", "torch")
    known = [f"{package} {versions[package]}" for package in packages if package in versions]
    parts = [part for part in (record.get("date"), place, ", ".join(known)) if part]
    command = [f"`{record['command']}`"] if "command" in record else []
    return [" · ".join([*parts, *command]) + ("" if not remark else f"  \n{remark}"), ""]


def picture(chart: Chart) -> list[str]:
    return [f"![{chart.alt}](pictures/{chart.name}.svg)", ""]
