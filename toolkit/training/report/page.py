"""The results of a run: figures, tables and pictures, and one HTML page that holds them all."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple, fields
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data.feed.arrays import load_pixels
from toolkit.data.feed.split import Split
from toolkit.errors import one_line
from toolkit.metrics import accuracy_report
from toolkit.report import classification, plots
from toolkit.report.page import document, figures, picture, plot_style, score_tables
from toolkit.spec import Preprocessing
from toolkit.training.run_dir import GRADIENT_NORMS, RunDirectory

_MISTAKES = 24


def write_report(
    probabilities: np.ndarray,
    split: Split,
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    run: RunDirectory,
    *,
    title: str,
) -> dict[str, Any]:
    """Write what a network answered for the held-out pictures: ``result.json``, tables, pictures and ``report.html``.

    Returns:
        ``accuracy_report``'s figures with the subset's name and macro means over the classes.
    """
    name, subset = split.held_out
    labels = np.asarray(subset.labels)
    rows = classification.class_table(probabilities, labels, class_names)
    matrix = classification.confusion_matrix(probabilities, labels)
    metrics = {"subset": name} | accuracy_report(probabilities, labels, tuple(class_names))
    metrics |= classification.macro_means(rows)

    run.write_text(
        "classes.csv", _csv([[f.name for f in fields(classification.ClassRow)], *(astuple(row) for row in rows)])
    )
    counts = [[name, *row] for name, row in zip(class_names, matrix.tolist(), strict=True)]
    run.write_text("confusion.csv", _csv([["true \\ called", *class_names], *counts]))
    with plot_style():
        pictures = _draw(run, title, matrix, class_names)
    mistakes = classification.worst_mistakes(probabilities, labels, _MISTAKES)
    if len(mistakes):
        pixels = load_pixels([subset.paths[i] for i in mistakes], preprocessing)
        answers = [probabilities[i] for i in mistakes]
        with plot_style():
            plots.plot_mistakes(pixels, answers, labels[mistakes].tolist(), class_names, run.path / "mistakes.png")
        pictures["Surest mistakes"] = run.path / "mistakes.png"
    page = _page(run, title, split, metrics, pictures, rows, matrix)
    run.write_text("report.html", page)
    run.write_text("result.json", json.dumps(metrics, indent=1) + "\n")
    return metrics


def _draw(run: RunDirectory, title: str, matrix: np.ndarray, class_names: Sequence[str]) -> dict[str, Path]:
    pictures = {"Learning curves": run.path / "curves.png"}
    plots.plot_curves(run.history(), pictures["Learning curves"], title=title)
    if len(matrix) <= plots.MAX_CONFUSION_CLASSES:
        pictures["Confusion matrix"] = run.path / "confusion.png"
        plots.plot_confusion(matrix, class_names, pictures["Confusion matrix"])
    norms = run.rows(GRADIENT_NORMS)
    if norms:
        pictures["Gradient norms by layer"] = run.path / "gradient_norms.png"
        plots.plot_gradient_norms(norms, pictures["Gradient norms by layer"])
    return pictures


def _page(
    run: RunDirectory,
    title: str,
    split: Split,
    metrics: dict[str, Any],
    pictures: dict[str, Path],
    rows: list[classification.ClassRow],
    matrix: np.ndarray,
) -> str:
    sizes = f"{len(split.train):,} training, {len(split.val):,} validation, {len(split.test):,} test pictures"
    values = {f"{metrics['subset']} top-1": metrics["top1"]}
    if len(rows) > 5:  # of five classes or fewer, the five best are all
        values[f"{metrics['subset']} top-5"] = metrics["top5"]
    values |= {
        "macro precision": metrics["macro_precision"],
        "macro recall": metrics["macro_recall"],
        "macro F1": metrics["macro_f1"],
    }
    subtitle = f"{one_line(str(run.path))} · {len(run.history())} epochs · {sizes}"
    body = [f'<h1>{escape(title)}</h1><p class="subtitle">{escape(subtitle)}</p>', figures(values)]
    body += [picture(heading, path.read_bytes()) for heading, path in pictures.items()]
    body += score_tables(rows, matrix)
    for name in ("config.json", "model.json", "environment.json"):
        text = (run.path / name).read_text(encoding="utf-8")
        body.append(f"<details><summary>{name}</summary><pre>{escape(text)}</pre></details>")
    return document(title, "\n".join(body))


def _csv(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    lines = ([one_line(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
