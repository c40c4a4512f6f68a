"""A page about a fine-tuning: what it came to, what was tried, and the data set as its features show it."""

import colorsys
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from toolkit.data.feed.split import Subset
from toolkit.data.pixels.decode import read_rgb
from toolkit.files import scratch_folder, write_file
from toolkit.metrics import accuracy_report
from toolkit.report import classification, plots
from toolkit.report.page import document, figures, picture, plot_style, score_tables, table, thumbnails
from toolkit.transfer.insight import Doubt, label_doubts, map_of, near_duplicates

if TYPE_CHECKING:
    from toolkit.transfer.finetune import Step
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
    """

    steps: Sequence["Step"] = ()
    trials: Sequence["Trial"] = ()
    remarks: Sequence[str] = ()


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

    Accuracy with its interval, scores by class, the confusion matrix and the surest mistakes on pictures that did not
    teach; what was tried; then a map of the training pictures, near duplicates among them, and labels to look at again.

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
    duplicates = [] if features is None else near_duplicates(features)
    out_of_fold = next((own for own in held_out if own.name == OUT_OF_FOLD), None)
    doubts = [] if out_of_fold is None else label_doubts(out_of_fold.probabilities, out_of_fold.subset.labels)
    title = f"{len(pictures):,} pictures in {len(class_names)} classes"
    body = [f"<h1>{title}</h1>"]
    for number, own in enumerate(held_out):
        body += _results(own, class_names, number > 0)
    body += _told(told or Told())
    if features is not None:
        body += [
            "<h2>Map</h2><p>Pictures with like features lie together; a dot tells its file when pointed at.</p>",
            _map(pictures, class_names, features),
            f"<h2>Near duplicates: {len(duplicates)}</h2>",
            f"<p>Cross-validation keeps copies in one fold.{_shown(duplicates)}</p>",
            *(_pair(pictures, class_names, pair) for pair in duplicates[:_SHOWN]),
        ]
    if out_of_fold is not None:
        body += [
            f"<h2>Labels to look at again: {len(doubts)}</h2>",
            f"<p>Classifiers that never saw them say otherwise, the surest first.{_shown(doubts)}</p>",
            *(_doubt(out_of_fold.subset, class_names, doubt) for doubt in doubts[:_SHOWN]),
        ]
    write_file(path, document(title, "\n".join(body)))


def _told(told: Told) -> list[str]:
    parts = [f"<p>{html.escape(remark)}</p>" for remark in told.remarks]
    if told.steps:
        rows = [
            [step.name, step.subset, "unknown" if step.accuracy is None else step.accuracy, "kept" if step.kept else ""]
            for step in told.steps
        ]
        parts.append(table("Training", ["step", "measured on", "accuracy %", ""], rows))
    if told.trials:
        rows = [
            [trial.name, trial.accuracy, f"{trial.log_loss:.3f}", "chosen" if trial.chosen else ""]
            for trial in told.trials
        ]
        parts.append(table("Classifiers tried", ["reads", "out-of-fold accuracy %", "log loss", ""], rows))
        parts.append(
            "<p>Each was fitted five times, on four fifths of the pictures, and judged on the others. The least log "
            "loss was chosen.</p>"
        )
    return parts


def _interval(held_out: HeldOut, top1: float) -> str:
    """Write the accuracy's 95 % interval, that of a share by Agresti and Coull (1998)."""
    centre, error = top1, held_out.standard_error
    if error is None:
        count = len(held_out.subset)
        centre = (top1 * count + 2) / (count + 4)
        error = (centre * (1 - centre) / (count + 4)) ** 0.5
    low, high = max(0.0, centre - 1.96 * error), min(1.0, centre + 1.96 * error)
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def _results(held_out: HeldOut, class_names: Sequence[str], is_further: bool) -> list[str]:
    if not len(held_out.subset):
        return []
    labels, answers = np.asarray(held_out.subset.labels), held_out.probabilities
    rows = classification.class_table(answers, labels, class_names)
    matrix = classification.confusion_matrix(answers, labels)
    overall = accuracy_report(answers, labels, tuple(class_names))
    values = {f"{held_out.name} top-1": overall["top1"]}
    if len(class_names) > 5:
        values["top-5"] = overall["top5"]
    shown = {name.replace("_", " "): value for name, value in classification.macro_means(rows).items()}
    parts = [f"<h2>Accuracy, {held_out.name}</h2>"] if is_further else []
    how = "which did not teach the classifier"
    if held_out.name == OUT_OF_FOLD:
        how = "each answered by a classifier that was fitted without it"
    interval = f"with 95 % confidence the accuracy on pictures like them is {_interval(held_out, overall['top1'])}"
    parts += [figures(values | shown), f"<p>{len(labels):,} pictures, {how}; {interval}.</p>"]
    if len(matrix) <= plots.MAX_CONFUSION_CLASSES:
        parts.append(picture("Confusion matrix", _confusion(matrix, class_names)))
    parts += score_tables(rows, matrix)
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


def _confusion(matrix: np.ndarray, class_names: Sequence[str]) -> bytes:
    with scratch_folder() as directory, plot_style():
        file = directory / "confusion.png"
        plots.plot_confusion(matrix, class_names, file)
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
        f"<title>{html.escape(names[index])}</title></circle>"
        for index, (x, y) in zip(drawn, scaled, strict=True)
    ]
    legend = [
        f'<span class=class><i style="background:{colour}"></i> {html.escape(name)}</span>'
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
