"""Compressed forms of one network side by side: bytes, accuracy, speed, operators, and a verdict; also as a page."""

import gzip
import html
import io
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.bundle import FLOAT_LITERT
from toolkit.compress.changes import kernels_in, share_of_zeros, with_kernel
from toolkit.compress.examples import Examples, batches_of
from toolkit.compress.litert import operator_report
from toolkit.compress.sensitivity import RangeRow
from toolkit.engines import ENGINES, Engine
from toolkit.engines.timing import BUSY, processor_share
from toolkit.errors import UserError
from toolkit.files import scratch_folder
from toolkit.lazy import keras
from toolkit.metrics import top_k_accuracy
from toolkit.progress import step, track
from toolkit.report.page import document, plot_style
from toolkit.spec import Preprocessing

#: Batch sizes that are timed, with the least number of rounds: of all forms, one after another.
BATCHES = {1: 7, 16: 3}
#: Most rounds, and how long they go on beyond the least: so many seconds a form.
_MOST_ROUNDS = 40
_SECONDS = 0.25
#: A round repeats a call that is shorter than this, so that the clock does not show.
_SHORTEST = 2e-3
#: A first call longer than this need not be tried again.
_LONG = 0.05
#: Rounds further apart than this, by their quartiles, as a share of the median, show other work on the machine.
_BUSY_SPREAD = 0.25
#: What a method that costs too much accuracy may be given instead, by a part of its name.
_REMEDIES = {
    "prune": "ask for fewer zeros (--sparsity) or train longer (--epochs)",
    "cluster": "allow more values (--clusters) or train longer (--epochs)",
    "qat": "train longer (--epochs), or keep the worst layers in float (--keep-worst)",
    "int8": "train on with qat, or keep the worst layers in float (--keep-worst)",
}


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
        ``{"model", "n", "rows", "timing"}``. A row has ``"method", "bytes", "gzip_bytes", "zeros"`` (share of kernel
        weights), ``"top1", "top5"`` (None where that many classes are all there are), ``"agreement"`` (share of
        pictures with the same first label as in float), ``"mean_change"`` and ``"worst_change"`` (of a probability),
        ``"latency"`` (rows of ``"engine", "batch", "p50_ms"``), ``"engines"`` (by engine other than LiteRT, the
        ``"agreement"`` with LiteRT on the first label and the ``"worst_change"`` of a probability, or why it cannot
        load the file), ``"operators"`` (``by_type``, ``by_name``, ``float_outputs``), ``"fastest"`` (the engine),
        ``"speedup"`` with its quartiles over the rounds, ``"speedup_range"``, and ``"verdict"``, a sentence.
        The first row is the float file. ``"timing"`` has ``"rounds"``, ``"spread"`` (distance of their quartiles, as a
        share of the median), ``"processor_share"`` (0…1, of the processors' time that this process gets) and
        ``"busy"``: other work made the times rough.

    Raises:
        UserError: pictures without labels, or as floats instead of pixels.
    """
    from toolkit.engines.convert import to_litert

    forms: dict[str, Form] = {}
    labels: list[np.ndarray] = []
    with scratch_folder("toolkit-report-") as directory:
        for number, (method, content) in enumerate({"float": to_litert(model), **files}.items()):
            file = directory / f"{number}.tflite"
            file.write_bytes(content)
            forms[method] = Form(content, open_runtimes(file, preprocessing))
        parts: dict[tuple[str, str], list[np.ndarray]] = {}
        layers = with_kernel(model)
        for pixels, own in batches_of(evaluation, preprocessing):
            if pixels.dtype != np.uint8:
                raise UserError("a report needs pictures as files or uint8 pixels, because engines start from pixels")
            labels.append(own)
            for method, form in forms.items():
                for runtime, engine in form.opened.items():
                    parts.setdefault((method, runtime), []).append(engine.probabilities(pixels))
        for (method, runtime), answers in parts.items():
            forms[method].answers[runtime] = np.concatenate(answers)
        return report_on(model.name, forms, np.concatenate(labels), layers=layers, size=preprocessing.size)


@dataclass(frozen=True)
class Form:
    """One LiteRT file of a network; by runtime, the engine that runs it, or why none can, and that engine's answers.

    Answers are probabilities of the evaluation pictures: of all by LiteRT, and by other runtimes of those in ``seen``.
    """

    content: bytes
    engines: Mapping[str, Engine | str]
    answers: dict[str, np.ndarray] = field(default_factory=dict)
    seen: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def opened(self) -> dict[str, Engine]:
        """The engines without those that cannot load the file."""
        return {runtime: engine for runtime, engine in self.engines.items() if not isinstance(engine, str)}


def open_runtimes(
    file: Path, preprocessing: Preprocessing, opened: Mapping[str, Engine] | None = None
) -> dict[str, Engine | str]:
    """Open a LiteRT file in every runtime installed: the engine, or why it cannot load the file.

    Engines that have the file open already, ``opened``, are taken as they are.
    """
    opened = opened or {}
    engines: dict[str, Engine | str] = {}
    for name, runtime in ENGINES.items():
        if runtime.file != FLOAT_LITERT or runtime.bfloat16 or not runtime.is_installed:
            continue
        try:
            engines[name] = opened.get(name) or runtime.engine_class(file, preprocessing)
        except Exception as error:  # a runtime that lacks an operator says so in its own way
            engines[name] = f"cannot load it ({str(error).strip().splitlines()[-1][:120]})"
    return engines


def report_on(
    name: str, forms: Mapping[str, Form], labels: np.ndarray, *, layers: Collection[str], size: tuple[int, int]
) -> dict[str, Any]:
    """Compare forms of a network that have answered, the float one first, and time them: see ``compression_report``.

    ``layers`` are the names of the network's layers with a kernel, in its order; ``size`` is that of its pixels.
    """
    reference = next(iter(forms.values())).answers["litert"]
    times = _times(forms, size)
    rows: list[dict[str, Any]] = []
    for method, form in track(forms.items(), "measuring the files"):
        own = form.answers["litert"]
        row = {"method": method, **_sizes(form.content), **_accuracy(own, reference, labels)}
        row["zeros"] = share_of_zeros(kernels_in(form.content, layers).values())
        row["latency"] = [
            {"engine": runtime, "batch": batch, "p50_ms": float(np.median(rounds))}
            for (timed, runtime, batch), rounds in times.items()
            if timed == method
        ]
        row["engines"] = {
            runtime: engine
            if isinstance(engine, str)
            else _agreement(form.answers[runtime], own[form.seen.get(runtime, slice(None))])
            for runtime, engine in form.engines.items()
            if runtime != "litert"
        }
        row["fastest"] = _fastest(row)
        first = rows[0] if rows else row
        # Round by round, so that what else the machine does falls on both.
        ratios = times[first["method"], first["fastest"], 1] / times[method, row["fastest"], 1]
        row["speedup"] = float(np.median(ratios))
        row["speedup_range"] = [float(bound) for bound in np.percentile(ratios, (25, 75))]
        row["verdict"] = verdict(row, first, len(labels))
        rows.append(row)
    return {"model": name, "n": len(labels), "rows": rows, "timing": _timing(times)}


def verdict(row: Mapping[str, Any], reference: Mapping[str, Any], num_pictures: int) -> str:
    """Say in one sentence whether a row is worth it.

    >>> reference = {"method": "float", "bytes": 400, "gzip_bytes": 360, "top1": 0.98, "speedup": 1.0}
    >>> verdict({"method": "int8", "bytes": 100, "gzip_bytes": 90, "top1": 0.975, "speedup": 3.0}, reference, 1000)
    'int8 is 4.0× smaller and 3.0× faster here for 0.5 points of top-1: use it.'
    >>> verdict({"method": "prune", "bytes": 400, "gzip_bytes": 120, "top1": 0.98, "speedup": 1.0}, reference, 1000)
    'prune saves nothing unless you ship gzip (3.0× smaller then), and keeps the accuracy.'
    """
    if row["method"] == reference["method"]:
        return "The float network: what the others are measured against."
    lost = 100 * (reference["top1"] - row["top1"])
    smaller, packed = reference["bytes"] / row["bytes"], reference["gzip_bytes"] / row["gzip_bytes"]
    # Two pictures more or less say nothing; not even where they are a rounding more.
    noise = 200 / num_pictures + 1e-6
    price = f"for {lost:.1f} points of top-1" if lost > max(noise, 0.05) else "and keeps the accuracy"
    name, faster = row["method"], row["speedup"]
    least, most = row.get("speedup_range", (faster, faster))
    if least < 1.1 and most > 0.9:  # rounds do not agree that it is faster, or slower
        faster = 1.0
    if lost > max(1.0, noise):
        remedies = [remedy for part, remedy in _REMEDIES.items() if part in name.split("+")]
        return f"{name} costs {lost:.1f} points of top-1: {'; '.join(remedies) or 'leave it'}."
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
        "gzip_bytes": _gzip_bytes(content),
        "operators": asdict(operator_report(content)),
    }


def _gzip_bytes(content: bytes) -> int:
    return len(gzip.compress(content, mtime=0))


def _accuracy(answers: np.ndarray, reference: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    return {
        "top1": top_k_accuracy(answers, labels, 1),
        # One of five is always right where there are no more.
        "top5": top_k_accuracy(answers, labels, 5) if answers.shape[1] > 5 else None,
        **_agreement(answers, reference),
        "mean_change": float(np.abs(answers - reference).max(axis=1).mean()),
    }


def _agreement(answers: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    return {
        "agreement": float(np.mean(answers.argmax(axis=1) == reference.argmax(axis=1))),
        "worst_change": float(np.abs(answers - reference).max()),
    }


def _times(forms: Mapping[str, Form], size: tuple[int, int]) -> dict[tuple[str, str, int], np.ndarray]:
    """Time every form in every runtime, in rounds: milliseconds of each round by form, runtime and batch size."""
    times: dict[tuple[str, str, int], np.ndarray] = {}
    with step("timing the engines", len(BATCHES)) as told:
        for done, (batch, least) in enumerate(BATCHES.items(), start=1):
            noise = np.random.default_rng(0).integers(0, 256, (batch, *size, 3), np.uint8)
            engines = {
                (method, runtime, batch): engine
                for method, form in forms.items()
                for runtime, engine in form.opened.items()
            }
            # The first call of a batch size sets the engine up for it; a second says how often to call in a round.
            calls = dict.fromkeys(engines, 1)
            for key, engine in engines.items():
                if _seconds(engine, noise, 1) < _LONG:
                    calls[key] = max(1, round(_SHORTEST / _seconds(engine, noise, 1)))
            rounds: dict[tuple[str, str, int], list[float]] = {key: [] for key in engines}
            start = time.perf_counter()
            for number in range(_MOST_ROUNDS):
                if number >= least and time.perf_counter() - start > _SECONDS * len(engines):
                    break
                for key, engine in engines.items():
                    rounds[key].append(1e3 * _seconds(engine, noise, calls[key]))
            times |= {key: np.array(own) for key, own in rounds.items()}
            told(done)
    return times


def _seconds(engine: Engine, pixels: np.ndarray, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        engine.probabilities(pixels)
    return (time.perf_counter() - start) / calls


def _timing(times: Mapping[tuple[str, str, int], np.ndarray]) -> dict[str, Any]:
    alone = [rounds for (_, _, batch), rounds in times.items() if batch == 1]
    spread = max(float(np.subtract(*np.percentile(rounds, (75, 25))) / np.median(rounds)) for rounds in alone)
    share = processor_share()
    busy = spread > _BUSY_SPREAD or share < BUSY
    return {"rounds": len(alone[0]), "spread": spread, "processor_share": round(share, 3), "busy": busy}


def timing_note(timing: Mapping[str, Any]) -> str:
    """Say how the times were taken, and whether they can be relied on.

    >>> timing_note({"rounds": 12, "spread": 0.61, "processor_share": 0.7, "busy": True})
    'The machine was busy: rounds 61 % apart, 70 % of its processors free. Times are rough, and so is what is faster.'
    """
    spread = f"rounds {100 * timing['spread']:.0f} % apart"
    if not timing["busy"]:
        return f"Timed in {timing['rounds']} rounds of every form in turn, {spread}."
    free = f"{100 * timing['processor_share']:.0f} % of its processors free"
    return f"The machine was busy: {spread}, {free}. Times are rough, and so is what is faster."


def _fastest(row: Mapping[str, Any]) -> str:
    timed = [timed for timed in row["latency"] if timed["batch"] == 1]
    return min(timed, key=lambda one: one["p50_ms"])["engine"]


def report_page(report: Mapping[str, Any], ranges: Sequence[RangeRow] = ()) -> str:
    """Write a compression report as one self-contained HTML page: verdicts, table, plots, operators.

    ``ranges`` are those of an integer file in it, by ``range_report``.
    """
    rows = report["rows"]
    title = f"{report['model']}: compressed forms"
    measured = html.escape(report.get("pictures") or f"{report['n']:,} pictures")
    engines = sorted({(timed["engine"], timed["batch"]) for row in rows for timed in row["latency"]})
    top5 = ["top-5 %"] if rows[0]["top5"] is not None else []
    header = ["method", "bytes", "gzip", "zeros %", "top-1 %", *top5, "same label %", "mean change", "worst change"]
    header += [f"{engine} ×{batch} ms" for engine, batch in engines]
    body = f"""<h1>{html.escape(title)}</h1>
<p>Measured on {measured}; changes are of probabilities, against the float file.</p>
<ul>{"".join(f"<li>{html.escape(line)}</li>" for row in rows[1:] for line in _said(row))}</ul>
{_table(header, [_cells(row, engines) for row in rows])}
<p>{html.escape(timing_note(report["timing"]))}</p>
<h2>Side by side</h2>
{_plots(rows)}
<h2>Operators</h2>
{_table(["method", "by type of number", "engines"], [_operators(row) for row in rows], text=True)}
{_ranges(ranges)}"""
    return document(title, body)


def _said(row: Mapping[str, Any]) -> list[str]:
    return [row["verdict"], *([f"{row['method']}: {row['changes']}."] if "changes" in row else [])]


def _cells(row: Mapping[str, Any], engines: list[tuple[str, int]]) -> list[str]:
    times = {(timed["engine"], timed["batch"]): timed["p50_ms"] for timed in row["latency"]}
    return [
        row["method"],
        f"{row['bytes']:,}",
        f"{row['gzip_bytes']:,}",
        f"{100 * row['zeros']:.1f}",
        *(f"{100 * row[key]:.2f}" for key in ("top1", "top5", "agreement") if row[key] is not None),
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
    """Lay out rows under a header: a name, then figures, unless all is ``text``."""

    def line(tag: str, cells: list[str]) -> str:
        kinds = ["", *["" if text else ' class="number"'] * (len(cells) - 1)]
        row = (f"<{tag}{kind}>{html.escape(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True))
        return f"<tr>{''.join(row)}</tr>"

    return f"<table>{line('th', header)}{''.join(line('td', row) for row in rows)}</table>"


def _plots(rows: list[Mapping[str, Any]]) -> str:
    from matplotlib.figure import Figure

    with plot_style():
        figure = Figure(figsize=(11, 1.5 + 0.34 * len(rows)), layout="constrained")
        _draw(figure, rows)
        picture = io.StringIO()
        figure.savefig(picture, format="svg", metadata={"Date": None})
    svg = picture.getvalue()
    return svg[svg.index("<svg") :]


def _draw(figure: Any, rows: list[Mapping[str, Any]]) -> None:
    size, accuracy, time = figure.subplots(1, 3, sharey=True)
    places = range(len(rows))
    size.barh(places, [row["bytes"] / 1e3 for row in rows], color="#c9d8ea", label="file")
    size.barh(places, [row["gzip_bytes"] / 1e3 for row in rows], height=0.4, color="#3f7fc8", label="gzip")
    # A name is no formula, and takes one line.
    size.set_yticks(places, [" ".join(row["method"].split()) for row in rows], parse_math=False)
    size.set(xlabel="kB", title="Size")
    accuracy.axvline(100 * rows[0]["top1"], color="#999", linewidth=1, label="float")
    shares = [100 * row["top1"] for row in rows]
    accuracy.plot(shares, places, "o", color="#3f7fc8")
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
