"""A compression report as one HTML page, with its plots inside."""

import html
import io
from collections.abc import Mapping
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; margin: 1rem 0; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child, .text { text-align: left; }
td:first-child { white-space: nowrap; }
svg { width: 100%; height: auto; }
"""


def report_page(report: Mapping[str, Any]) -> str:
    """A self-contained page of what ``compression_report`` measured: verdicts, table, plots, operators."""
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
<h2>Side by side</h2>
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
        f"{name} {value}" if isinstance(value, str) else f"{name} {_compared(value)}"
        for name, value in row["engines"].items()
    ]
    return [row["method"], counts, "; ".join(notes) or "LiteRT only"]


def _compared(engine: Mapping[str, float]) -> str:
    return f"answers as LiteRT does for {100 * engine['agreement']:.2f} %, at most {engine['worst_change']:.1g} apart"


def _table(header: list[str], rows: list[list[str]], *, text: bool = False) -> str:
    kind = ' class="text"' if text else ""
    head = "".join(f"<th{kind}>{html.escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td{kind}>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _plots(rows: list[Mapping[str, Any]]) -> str:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 1.5 + 0.34 * len(rows)), layout="constrained")
    size, accuracy, time = figure.subplots(1, 3, sharey=True)
    places = range(len(rows))
    size.barh(places, [row["bytes"] / 1e3 for row in rows], color="#c9d8ea", label="file")
    size.barh(places, [row["gzip_bytes"] / 1e3 for row in rows], height=0.4, color="#1f5fa8", label="gzip")
    size.set_yticks(places, [row["method"] for row in rows])
    size.set(xlabel="kB", title="Size")
    accuracy.axvline(100 * rows[0]["top1"], color="#999", linewidth=1, label="float")
    shares = [100 * row["top1"] for row in rows]
    accuracy.plot(shares, places, "o", color="#1f5fa8")
    # At least a point to each side, so that hundredths do not look like a difference.
    accuracy.set(xlabel="top-1 %", title="Accuracy", xlim=(min(shares) - 1, max(shares) + 1))
    accuracy.locator_params(axis="x", nbins=5)
    engines = sorted({timed["engine"] for row in rows for timed in row["latency"]})
    height = 0.8 / max(1, len(engines))
    for index, engine in enumerate(engines):
        times = [
            next((t["p50_ms"] for t in row["latency"] if t["engine"] == engine and t["batch"] == 1), 0.0)
            for row in rows
        ]
        offset = (index - (len(engines) - 1) / 2) * height
        time.barh([place + offset for place in places], times, height=0.9 * height, label=engine)
    time.set(xlabel="ms a picture, batch 1", title="Time")
    size.invert_yaxis()
    for axes in (size, accuracy, time):
        axes.set_title(axes.get_title(), pad=24)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    picture = io.StringIO()
    figure.savefig(picture, format="svg", metadata={"Date": None})
    return picture.getvalue()[picture.getvalue().index("<svg") :]
