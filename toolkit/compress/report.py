"""Compressed forms of one network side by side: bytes, accuracy, speed, operators, and a verdict; also as a page."""

import gzip
import html
import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.bundle import FLOAT_LITERT
from toolkit.compress.examples import Examples, batches_of
from toolkit.compress.litert import operator_report
from toolkit.compress.sensitivity import RangeRow
from toolkit.errors import UserError
from toolkit.lazy import keras
from toolkit.metrics import top_k_accuracy
from toolkit.spec import Preprocessing

if TYPE_CHECKING:
    from toolkit.engines import Engine

#: Batch sizes that are timed.
BATCHES = (1, 16)

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; margin: 1rem 0; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child, .text { text-align: left; }
td:first-child { white-space: nowrap; }
svg { width: 100%; height: auto; }
"""


def compression_report(
    model: "keras.Model", files: Mapping[str, bytes], *, preprocessing: Preprocessing, evaluation: Examples
) -> dict[str, Any]:
    """Measure compressed files of a network against its float file.

    Args:
        model: the network.
        files: LiteRT files by the name of the method; pruned and clustered networks come as float files.
        preprocessing: what the network was trained with.
        evaluation: held-out pictures with labels, as files or uint8 pixels.

    Returns:
        ``{"model", "n", "rows"}``; a row has ``"method", "bytes", "gzip_bytes", "top1", "top5", "agreement"`` (share of
        pictures with the same first label as in float), ``"mean_change"`` and ``"worst_change"`` (of a probability),
        ``"latency"`` (rows of ``"engine", "batch", "p50_ms"``), ``"engines"`` (by engine other than LiteRT, the
        ``"agreement"`` with LiteRT on the first label and the ``"worst_change"`` of a probability, or why it cannot
        load the file), ``"operators"`` (``by_type``, ``by_name``, ``float_outputs``), ``"speedup"``, and
        ``"verdict"``, a sentence. The first row is the float file.

    Raises:
        UserError: pictures without labels, or as floats instead of pixels.
    """
    from toolkit.engines.convert import to_litert

    forms: dict[str, Form] = {}
    labels: list[np.ndarray] = []
    with tempfile.TemporaryDirectory(prefix="toolkit-report-") as name:
        for number, (method, content) in enumerate({"float": to_litert(model), **files}.items()):
            file = Path(name) / f"{number}.tflite"
            file.write_bytes(content)
            forms[method] = Form(content, open_runtimes(file, preprocessing))
        parts: dict[tuple[str, str], list[np.ndarray]] = {}
        for pixels, own in batches_of(evaluation, preprocessing):
            if pixels.dtype != np.uint8:
                raise UserError("a report needs pictures as files or uint8 pixels, because engines start from pixels")
            labels.append(own)
            for method, form in forms.items():
                for runtime, engine in form.opened.items():
                    parts.setdefault((method, runtime), []).append(engine.probabilities(pixels))
        for (method, runtime), answers in parts.items():
            forms[method].answers[runtime] = np.concatenate(answers)
        return report_on(model.name, forms, np.concatenate(labels), preprocessing.size)


@dataclass(frozen=True)
class Form:
    """One LiteRT file of a network; by runtime, the engine that runs it, or why none can, and that engine's answers.

    Answers are probabilities of the evaluation pictures.
    """

    content: bytes
    engines: Mapping[str, "Engine | str"]
    answers: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def opened(self) -> dict[str, "Engine"]:
        """The engines without those that cannot load the file."""
        return {runtime: engine for runtime, engine in self.engines.items() if not isinstance(engine, str)}


def open_runtimes(
    file: Path, preprocessing: Preprocessing, opened: Mapping[str, "Engine"] | None = None
) -> dict[str, "Engine | str"]:
    """Open a LiteRT file in every runtime installed: the engine, or why it cannot load the file.

    Engines that have the file open already, ``opened``, are taken as they are.
    """
    from toolkit.engines import ENGINES

    opened = opened or {}
    engines: dict[str, Engine | str] = {}
    for name, runtime in ENGINES.items():
        if runtime.file != FLOAT_LITERT or not runtime.is_installed:
            continue
        try:
            engines[name] = opened.get(name) or runtime.engine_class(file, preprocessing)
        except Exception as error:  # a runtime that lacks an operator says so in its own way
            engines[name] = f"cannot load it ({str(error).strip().splitlines()[-1][:120]})"
    return engines


def report_on(name: str, forms: Mapping[str, Form], labels: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
    """Compare forms of a network that have answered, the float one first, and time them: see ``compression_report``."""
    reference = next(iter(forms.values())).answers["litert"]
    rows: list[dict[str, Any]] = []
    for method, form in forms.items():
        own = form.answers["litert"]
        row = {"method": method, **_sizes(form.content), **_accuracy(own, reference, labels)}
        row["latency"] = _latencies(form.opened, size)
        row["engines"] = {
            runtime: engine if isinstance(engine, str) else _agreement(form.answers[runtime], own)
            for runtime, engine in form.engines.items()
            if runtime != "litert"
        }
        row["speedup"] = _fastest(rows[0] if rows else row) / _fastest(row)
        row["verdict"] = verdict(row, rows[0] if rows else row, len(labels))
        rows.append(row)
    return {"model": name, "n": len(labels), "rows": rows}


def verdict(row: Mapping[str, Any], reference: Mapping[str, Any], num_pictures: int) -> str:
    """Say in one sentence whether a row is worth it.

    >>> reference = {"method": "float", "bytes": 400, "gzip_bytes": 360, "top1": 0.98, "speedup": 1.0}
    >>> verdict({"method": "int8", "bytes": 100, "gzip_bytes": 90, "top1": 0.978, "speedup": 3.0}, reference, 1000)
    'int8 is 4.0× smaller and 3.0× faster here for 0.2 points of top-1: use it.'
    >>> verdict({"method": "prune", "bytes": 400, "gzip_bytes": 120, "top1": 0.98, "speedup": 1.0}, reference, 1000)
    'prune saves nothing unless you ship gzip (3.0× smaller then), and keeps the accuracy.'
    """
    if row["method"] == reference["method"]:
        return "The float network: what the others are measured against."
    lost = 100 * (reference["top1"] - row["top1"])
    smaller, packed = reference["bytes"] / row["bytes"], reference["gzip_bytes"] / row["gzip_bytes"]
    # Two pictures more or less say nothing.
    noise = 200 / num_pictures
    price = f"for {lost:.1f} points of top-1" if lost > max(noise, 0.05) else "and keeps the accuracy"
    name, faster = row["method"], row["speedup"]
    if lost > max(1.0, noise):
        return f"{name} costs {lost:.1f} points of top-1: train on with qat, or keep the worst layers in float."
    if smaller < 1.1 and faster < 1.1:
        if packed < 1.1:
            return f"{name} saves neither bytes nor time here: leave it."
        return f"{name} saves nothing unless you ship gzip ({packed:.1f}× smaller then), {price}."
    gzipped = f" ({packed:.1f}× gzipped)" if packed > 1.5 * smaller else ""
    gains = [f"{smaller:.1f}× smaller{gzipped}"] if smaller >= 1.1 else []
    gains += [f"{faster:.1f}× faster here"] if faster >= 1.1 else []
    advice = "use it" if faster >= 1.1 else "use it where bytes count"
    slower = f", but {1 / faster:.1f}× slower" if faster < 0.9 else "" if faster >= 1.1 else ", no faster"
    return f"{name} is {' and '.join(gains)}{slower} {price}: {advice}."


def _sizes(content: bytes) -> dict[str, Any]:
    return {
        "bytes": len(content),
        "gzip_bytes": len(gzip.compress(content, mtime=0)),
        "operators": asdict(operator_report(content)),
    }


def _accuracy(answers: np.ndarray, reference: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return {
        "top1": top_k_accuracy(answers, labels, 1),
        "top5": top_k_accuracy(answers, labels, 5),
        **_agreement(answers, reference),
        "mean_change": float(np.abs(answers - reference).max(axis=1).mean()),
    }


def _agreement(answers: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    return {
        "agreement": float(np.mean(answers.argmax(axis=1) == reference.argmax(axis=1))),
        "worst_change": float(np.abs(answers - reference).max()),
    }


def _latencies(engines: Mapping[str, "Engine"], size: tuple[int, int]) -> list[dict[str, Any]]:
    from toolkit.engines.timing import latency

    rows = []
    for name, engine in engines.items():
        for batch in BATCHES:
            noise = np.random.default_rng(0).integers(0, 256, (batch, *size, 3), np.uint8)
            rows.append({"engine": name, "batch": batch, "p50_ms": latency(engine, noise, max_seconds=0.5)[0]})
    return rows


def _fastest(row: Mapping[str, Any]) -> float:
    return min(timed["p50_ms"] for timed in row["latency"] if timed["batch"] == 1)


def report_page(report: Mapping[str, Any], ranges: Sequence[RangeRow] = ()) -> str:
    """Write a compression report as one self-contained HTML page: verdicts, table, plots, operators.

    ``ranges`` are those of an integer file in it, by ``range_report``.
    """
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
{_ranges(ranges)}
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


def _ranges(ranges: Sequence[RangeRow]) -> str:
    if not ranges:
        return ""
    rows = [
        [row.layer, *(f"{value:.3g}" for value in astuple(row)[1:-1]), f"{100 * row.saturated:.3f}"] for row in ranges
    ]
    header = ["layer", "lowest", "highest", "step", "float lowest", "float highest", "cut off %"]
    return f"<h2>Ranges</h2><p>What integers hold, and the float network's values.</p>{_table(header, rows)}"


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
