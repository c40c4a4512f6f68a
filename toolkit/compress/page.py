"""A compression report as one HTML page, with its plots inside."""

import html
import io
from collections.abc import Mapping
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; margin: 1rem 0; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child, td.text { text-align: left; }
svg { max-width: 100%; height: auto; }
"""


def report_page(report: Mapping[str, Any]) -> str:
    """A self-contained page of what ``compression_report`` measured: verdicts, table, two plots, operators."""
    rows = report["rows"]
    title = f"{html.escape(str(report['model']))}: compressed forms"
    engines = sorted({(timed["engine"], timed["batch"]) for row in rows for timed in row["latency"]})
    header = ["method", "bytes", "gzip", "top-1 %", "top-5 %", "same label %", "mean change", "worst change"]
    header += [f"{engine} ×{batch} ms" for engine, batch in engines]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style></head><body>
<h1>{title}</h1>
<p>Measured on {report["n"]:,} held-out pictures; changes are of probabilities, against the float file.</p>
<ul>{"".join(f"<li>{html.escape(row['verdict'])}</li>" for row in rows[1:])}</ul>
{_table(header, [_cells(row, engines) for row in rows])}
{_plots(rows)}
<h2>Operators</h2>
{_table(["method", "by type of number", "engines"], [_operators(row) for row in rows], text=True)}
</body></html>
"""


def _cells(row: Mapping[str, Any], engines: list[tuple[str, int]]) -> list[str]:
    times = {(timed["engine"], timed["batch"]): timed["p50_ms"] for timed in row["latency"]}
    return [
        row["method"],
        f"{row['bytes']:,}",
        f"{row['gzip_bytes']:,}",
        *(f"{100 * row[key]:.2f}" for key in ("top1", "top5", "agreement")),
        f"{row['mean_change']:.4f}",
        f"{row['worst_change']:.3f}",
        *(f"{times[key]:.2f}" if key in times else "–" for key in engines),
    ]


def _operators(row: Mapping[str, Any]) -> list[str]:
    counts = ", ".join(f"{count} {kind}" for kind, count in row["operators"]["by_type"].items())
    notes = [
        f"{name} {value}" if isinstance(value, str) else f"{name} differs from LiteRT by at most {value:.2g}"
        for name, value in row["engines"].items()
    ]
    return [row["method"], counts, "; ".join(notes) or "LiteRT only"]


def _table(header: list[str], rows: list[list[str]], *, text: bool = False) -> str:
    kind = ' class="text"' if text else ""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td{kind}>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _plots(rows: list[Mapping[str, Any]]) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    accuracy, time = figure.subplots(1, 2)
    for row in rows:
        accuracy.plot(row["bytes"] / 1e3, 100 * row["top1"], "o", color="#1f5fa8")
        accuracy.annotate(row["method"], (row["bytes"] / 1e3, 100 * row["top1"]), (5, 4), textcoords="offset points")
        accuracy.plot(row["gzip_bytes"] / 1e3, 100 * row["top1"], "o", mfc="none", color="#1f5fa8")
    accuracy.set(xlabel="kB (hollow: gzip)", ylabel="top-1 %", title="Accuracy for bytes", xlim=(0, None))
    accuracy.margins(y=0.3)
    names = [row["method"] for row in rows]
    engines = sorted({timed["engine"] for row in rows for timed in row["latency"]})
    for place, engine in enumerate(engines):
        times = [
            next((t["p50_ms"] for t in row["latency"] if t["engine"] == engine and t["batch"] == 1), 0.0)
            for row in rows
        ]
        time.barh([index + place * 0.4 for index in range(len(rows))], times, height=0.38, label=engine)
    time.set_yticks([index + 0.2 * (len(engines) - 1) for index in range(len(rows))], names)
    time.invert_yaxis()
    time.set(xlabel="ms a picture, batch 1", title="Time")
    time.legend(frameon=False)
    picture = io.StringIO()
    figure.savefig(picture, format="svg", metadata={"Date": None})
    return picture.getvalue()[picture.getvalue().index("<svg") :]
