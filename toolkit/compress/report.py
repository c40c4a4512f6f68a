"""Compressed forms of one network side by side: bytes, accuracy, speed, operators, and what to make of them."""

import gzip
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.bundle import FLOAT_LITERT
from toolkit.compress.examples import Examples, batches_of
from toolkit.compress.operators import operator_report
from toolkit.errors import UserError
from toolkit.lazy import keras
from toolkit.metrics import top_k_accuracy
from toolkit.spec import Preprocessing

#: Batch sizes that are timed.
BATCHES = (1, 16)


def compression_report(
    model: "keras.Model",
    files: Mapping[str, bytes],
    *,
    preprocessing: Preprocessing,
    evaluation: Examples,
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

    contents = {"float": to_litert(model), **files}
    with tempfile.TemporaryDirectory(prefix="toolkit-report-") as name:
        engines = {}
        for number, (method, content) in enumerate(contents.items()):
            file = Path(name) / f"{number}.tflite"
            file.write_bytes(content)
            engines[method] = _open_engines(file, preprocessing)
        answers: dict[tuple[str, str], list[np.ndarray]] = {}
        labels: list[np.ndarray] = []
        for pixels, own in batches_of(evaluation, preprocessing):
            if pixels.dtype != np.uint8:
                raise UserError("a report needs pictures as files or uint8 pixels, because engines start from pixels")
            labels.append(own)
            for method, opened in engines.items():
                for engine, loaded in opened.items():
                    if not isinstance(loaded, str):
                        answers.setdefault((method, engine), []).append(loaded.probabilities(pixels))
        everything = {key: np.concatenate(parts) for key, parts in answers.items()}
        truth, reference = np.concatenate(labels), everything["float", "litert"]
        rows: list[dict[str, Any]] = []
        for method, content in contents.items():
            own_answers = everything[method, "litert"]
            row = {"method": method, **_sizes(content), **_accuracy(own_answers, reference, truth)}
            row["latency"] = _latencies(engines[method], pixels)
            row["engines"] = {
                engine: loaded if isinstance(loaded, str) else _agreement(everything[method, engine], own_answers)
                for engine, loaded in engines[method].items()
                if engine != "litert"
            }
            row["speedup"] = _fastest(rows[0] if rows else row) / _fastest(row)
            row["verdict"] = verdict(row, rows[0] if rows else row, len(truth))
            rows.append(row)
    return {"model": model.name, "n": len(truth), "rows": rows}


def verdict(row: Mapping[str, Any], reference: Mapping[str, Any], num_pictures: int) -> str:
    """One sentence on whether a row is worth it.

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


def _open_engines(file: Path, preprocessing: Preprocessing) -> dict[str, Any]:
    """The file in every runtime there is, or why one cannot load it."""
    from toolkit.engines import ENGINES

    opened: dict[str, Any] = {}
    for name, runtime in ENGINES.items():
        if runtime.file != FLOAT_LITERT or not runtime.is_installed:
            continue
        try:
            opened[name] = runtime.engine_class(file, preprocessing)
        except Exception as error:  # a runtime that lacks an operator says so in its own way
            opened[name] = f"cannot load it ({str(error).strip().splitlines()[-1][:120]})"
    return opened


def _latencies(engines: Mapping[str, Any], pixels: np.ndarray) -> list[dict[str, Any]]:
    from toolkit.engines.timing import latency

    rows = []
    for name, engine in engines.items():
        for batch in BATCHES if not isinstance(engine, str) else ():
            sample = np.resize(pixels, (batch, *pixels.shape[1:]))
            rows.append({"engine": name, "batch": batch, "p50_ms": latency(engine, sample, max_seconds=0.5)[0]})
    return rows


def _fastest(row: Mapping[str, Any]) -> float:
    return min(timed["p50_ms"] for timed in row["latency"] if timed["batch"] == 1)
