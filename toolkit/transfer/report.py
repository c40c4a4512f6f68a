"""A page about a fine-tuning: what it came to, what was tried, and the data set as its features show it."""

import colorsys
import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from toolkit.data.feed.split import Subset
from toolkit.data.pixels.decode import read_rgb
from toolkit.errors import one_line
from toolkit.files import scratch_folder, write_file
from toolkit.metrics import (
    calibration_error,
    chance_calibration_error,
    confidence_interval,
    reliability,
    top_k_accuracy,
)
from toolkit.report import classification, plots
from toolkit.report.page import (
    Figure,
    beside,
    document,
    figures,
    headline,
    picture,
    plot_style,
    score_tables,
    table,
    thumbnails,
)
from toolkit.transfer.heads.selection import PROBE
from toolkit.transfer.insight import Doubt, label_doubts, map_of, near_duplicates

if TYPE_CHECKING:
    from toolkit.transfer.finetune import Step
    from toolkit.transfer.heads.curve import LearningCurve
    from toolkit.transfer.heads.selection import Trial

#: Name of answers by classifiers fitted without the picture they answer for.
OUT_OF_FOLD = "out-of-fold"

_MAP_WIDTH, _MAP_HEIGHT = 900, 640
_SHOWN = 40
_MISTAKES = 24


@dataclass(frozen=True)
class HeldOut:
    """Pictures that did not teach what answers, and the answers.

    Attributes:
        name: of the subset; ``"out-of-fold"`` for pictures of which each is answered by a classifier fitted without it.
        subset: paths and labels.
        probabilities: float32 (pictures, classes).
        standard_error: of the accuracy, a fraction; None to take that of a share.
    """

    name: str
    subset: Subset
    probabilities: np.ndarray
    standard_error: float | None = None


@dataclass(frozen=True)
class Told:
    """The account of a fine-tuning that the page gives.

    Attributes:
        steps: and what each came to.
        trials: classifiers that were compared.
        remarks: sentences for people.
        curve: accuracy by number of pictures.
    """

    steps: Sequence["Step"] = ()
    trials: Sequence["Trial"] = ()
    remarks: Sequence[str] = ()
    curve: "LearningCurve | None" = None


def write_report(
    path: str | Path,
    *,
    pictures: Subset,
    class_names: Sequence[str],
    features: np.ndarray | None,
    told: Told | None = None,
    held_out: Sequence[HeldOut] = (),
) -> None:
    """Write one HTML file that holds everything it shows.

    Accuracy with its interval; whether more pictures would help; what was tried and what it brought; scores by class,
    calibration, the confusion matrix and the surest mistakes on pictures that did not teach; labels to look at again; a
    map of the training pictures, and near duplicates among them.

    Args:
        path: of the file; replaced if there is one.
        pictures: that were trained on.
        class_names: in label order.
        features: (pictures, features), pooled; without them only results are shown.
        told: by the fine-tuning.
        held_out: what the network answered; labels are doubted by the answers out of fold.

    Raises:
        UserError: the file cannot be written.
    """
    told = told or Told()
    held_out = [own for own in held_out if len(own.subset)]
    title = f"{len(pictures):,} pictures in {len(class_names)} classes"
    body = [f"<h1>{title}</h1>", *_headlines(held_out)]
    body += [f"<p>{html.escape(remark)}</p>" for remark in told.remarks]
    body += _curve(told.curve) if told.curve else []
    body += _tried(told)
    for own in held_out:
        body += _results(own, class_names)
    body += [part for own in held_out if own.name == OUT_OF_FOLD for part in _doubts(own, class_names)]
    body += _data_set(pictures, class_names, features) if features is not None else []
    write_file(path, document(title, "\n".join(body)))


def _headlines(held_out: Sequence[HeldOut]) -> list[str]:
    """Show each accuracy large, with its interval and how it was measured."""
    shown = []
    for own in held_out:
        how = "none of which taught the network"
        if own.name == OUT_OF_FOLD:
            how = "each answered by a classifier that was fitted without it"
        top1 = top_k_accuracy(own.probabilities, np.asarray(own.subset.labels), 1)
        name = "Accuracy, out of fold" if own.name == OUT_OF_FOLD else f"Accuracy, {own.name} pictures"
        interval = confidence_interval(top1, len(own.subset), own.standard_error)
        shown.append(headline(top1, name, *interval, f"{len(own.subset):,} pictures, {how}."))
    return [f'<div class="headlines">{"".join(shown)}</div>'] if shown else []


def _curve(curve: "LearningCurve") -> list[str]:
    parts = ["<h2>Would more pictures help?</h2>", f"<p>{html.escape(curve.advice)}</p>"]
    if len(curve.points) > 1:
        points = [(point.num_pictures, point.accuracy, point.standard_error) for point in curve.points]
        expected = curve.forecast
        gain = None if expected is None else (expected.low, expected.likely, expected.high)
        drawn = _drawn(lambda file: plots.plot_learning_curve(points, file, gain=gain))
        parts.append(picture("Accuracy by number of training pictures", drawn, level=3))
        parts.append(
            '<p class="quiet">The chosen classifier was fitted again on shares of the pictures, and each time judged '
            "on pictures that it did not see. The classifier in the bundle learned from all of them.</p>"
        )
    return parts


def _tried(told: Told) -> list[str]:
    """Lay out the steps, and the classifiers compared, the best first, each against the probe."""
    parts = ["<h2>What was tried, and what it brought</h2>"] if told.steps or told.trials else []
    if told.steps:
        rows = [
            [step.name, step.subset, "unknown" if step.accuracy is None else step.accuracy, "kept" if step.kept else ""]
            for step in told.steps
        ]
        parts.append(table("Training", ["step", "measured on", "accuracy %", ""], rows))
    if told.trials:
        probe = next((trial for trial in told.trials if trial.name == PROBE), None)
        rows = [_trial_row(trial, probe) for trial in sorted(told.trials, key=lambda trial: trial.log_loss)]
        header = ["reads", "out-of-fold accuracy %", "points gained", "log loss", "change", ""]
        parts.append(table("Classifiers", header, rows))
        against = f" Gains are against the usual choice: {PROBE}." if probe else ""
        parts.append(
            '<p class="quiet">Each was fitted five times, on four fifths of the pictures, and judged on the others. '
            f"The least log loss was chosen.{against}</p>"
        )
    return parts


def _trial_row(trial: "Trial", probe: "Trial | None") -> list[str | float]:
    points = loss = Figure("")
    if probe is not None and trial is not probe:
        points = Figure(f"{100 * (trial.accuracy - probe.accuracy):+.2f}")
        loss = Figure(f"{trial.log_loss - probe.log_loss:+.3f}")
    remark = "chosen" if trial.chosen else "the usual choice" if trial is probe else ""
    return [trial.name, trial.accuracy, points, Figure(f"{trial.log_loss:.3f}"), loss, remark]


def _results(held_out: HeldOut, class_names: Sequence[str]) -> list[str]:
    labels, answers = np.asarray(held_out.subset.labels), held_out.probabilities
    rows = classification.class_table(answers, labels, class_names)
    matrix = classification.confusion_matrix(answers, labels)
    means = classification.macro_means(rows)
    values = {"balanced accuracy: every class counts alike": means["macro_recall"], "mean F1": means["macro_f1"]}
    if len(class_names) > 5:
        values["top-5 accuracy"] = top_k_accuracy(answers, labels, 5)
    error = calibration_error(answers, labels)
    values["calibration error: lower is better"] = error
    parts = [f"<h2>Results, {held_out.name}</h2>", figures(values)]
    calibration = (
        f"<p>A probability is off by {100 * error:.1f} points on average (expected calibration error, 15 bins); of "
        f"{len(labels):,} pictures, true ones would seem off by {100 * chance_calibration_error(answers):.1f}.</p>"
    )
    plotted = []
    if len(matrix) <= plots.MAX_CONFUSION_CLASSES:
        drawn = _drawn(lambda file: plots.plot_confusion(matrix, class_names, file))
        plotted.append(picture("Confusion matrix", drawn, level=3))
    drawn = _drawn(lambda file: plots.plot_reliability(reliability(answers, labels), file))
    plotted.append(picture("Calibration", drawn, level=3) + calibration)
    parts.append(beside(*plotted))
    parts.append(beside(*score_tables(rows, matrix)))
    mistakes = classification.worst_mistakes(answers, labels, _MISTAKES)
    if len(mistakes):
        parts.append("<h2>Surest mistakes</h2>")
    for index in mistakes:
        answer, label = answers[index], labels[index]
        said = f"called {class_names[answer.argmax()]}, {100 * answer.max():.0f} %"
        file = held_out.subset.paths[index]
        caption = f"{Path(file).name}: {said}; is {class_names[label]}, {100 * answer[label]:.0f} %"
        parts.append(thumbnails([read_rgb(file)], caption))
    return parts


def _doubts(out_of_fold: HeldOut, class_names: Sequence[str]) -> list[str]:
    doubts = label_doubts(out_of_fold.probabilities, out_of_fold.subset.labels)
    return [
        f"<h2>Labels to look at again: {len(doubts)}</h2>",
        f"<p>Classifiers that never saw them say otherwise, the surest first.{_shown(doubts)}</p>",
        *(_doubt(out_of_fold.subset, class_names, doubt) for doubt in doubts[:_SHOWN]),
    ]


def _data_set(pictures: Subset, class_names: Sequence[str], features: np.ndarray) -> list[str]:
    duplicates = near_duplicates(features)
    return [
        "<h2>Map</h2><p>Pictures with like features lie together; a dot tells its file when pointed at.</p>",
        _map(pictures, class_names, features),
        f"<h2>Near duplicates: {len(duplicates)}</h2>",
        f"<p>Cross-validation keeps copies in one fold.{_shown(duplicates)}</p>",
        *(_pair(pictures, class_names, pair) for pair in duplicates[:_SHOWN]),
    ]


def _drawn(draw: Callable[[Path], None]) -> bytes:
    """Give the PNG that a function draws to a file."""
    with scratch_folder() as directory, plot_style():
        file = directory / "plot.png"
        draw(file)
        return file.read_bytes()


def _shown(found: Sequence[object]) -> str:
    return f" The first {_SHOWN} are shown." if len(found) > _SHOWN else ""


def _map(pictures: Subset, class_names: Sequence[str], features: np.ndarray) -> str:
    drawn, points = map_of(features)
    low, high = points.min(axis=0), points.max(axis=0)
    scaled = (points - low) / np.maximum(high - low, 1e-9) * (_MAP_WIDTH - 20, _MAP_HEIGHT - 20) + 10
    colours = [_colour(index, len(class_names)) for index in range(len(class_names))]
    names = [f"{class_names[label]}: {path}" for label, path in zip(pictures.labels, pictures.paths, strict=True)]
    dots = [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colours[pictures.labels[index]]}" fill-opacity=".7">'
        f"<title>{html.escape(one_line(names[index]))}</title></circle>"
        for index, (x, y) in zip(drawn, scaled, strict=True)
    ]
    legend = [
        f'<span class=class><i style="background:{colour}"></i> {html.escape(one_line(name))}</span>'
        for colour, name in zip(colours, class_names, strict=True)
    ]
    return f'<p>{"".join(legend)}</p><svg viewBox="0 0 {_MAP_WIDTH} {_MAP_HEIGHT}">{"".join(dots)}</svg>'


def _pair(pictures: Subset, class_names: Sequence[str], pair: tuple[int, int, float]) -> str:
    first, second, cosine = pair
    names = " and ".join(
        f"{class_names[pictures.labels[index]]}/{Path(pictures.paths[index]).name}" for index in (first, second)
    )
    shown = [read_rgb(pictures.paths[index]) for index in (first, second)]
    return thumbnails(shown, f"{names}, cosine {cosine:.3f}")


def _doubt(pictures: Subset, class_names: Sequence[str], doubt: Doubt) -> str:
    given, suggested = class_names[doubt.given], class_names[doubt.suggested]
    path = pictures.paths[doubt.index]
    return thumbnails(
        [read_rgb(path)], f"{Path(path).name}: {given}; rather {suggested}, more probable by {doubt.margin:.2f}"
    )


def _colour(index: int, count: int) -> str:
    red, green, blue = colorsys.hls_to_rgb(index / max(count, 1), 0.45, 0.65)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
