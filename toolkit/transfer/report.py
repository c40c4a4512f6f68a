"""A page about a fine-tuning: what it came to on held-out pictures, and the data set as its features show it."""

import colorsys
import html
import tempfile
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from toolkit.data.feed.split import Subset
from toolkit.data.pixels.decode import read_rgb
from toolkit.files import write_file
from toolkit.metrics import accuracy_report
from toolkit.report import classification, plots
from toolkit.report.page import document, figures, picture, plot_style, table, thumbnails
from toolkit.transfer.insight import Doubt, label_doubts, map_of, near_duplicates

if TYPE_CHECKING:
    from toolkit.transfer.finetune import Step

_MAP_WIDTH, _MAP_HEIGHT = 900, 640
_SHOWN = 40
_MISTAKES = 24
_PAIRS = 15


@dataclass(frozen=True)
class HeldOut:
    """Held-out pictures and a network's answers for them.

    Attributes:
        name: of the subset.
        subset: paths and labels.
        probabilities: float32 (pictures, classes).
    """

    name: str
    subset: Subset
    probabilities: np.ndarray


def write_report(
    path: str | Path,
    *,
    pictures: Sequence[str | Path],
    labels: Sequence[int],
    class_names: Sequence[str],
    features: np.ndarray | None,
    steps: Sequence["Step"] = (),
    held_out: HeldOut | None = None,
) -> dict[str, int]:
    """Write one HTML file that holds everything it shows.

    Accuracy, scores by class, the confusion matrix and the surest mistakes on held-out pictures; then a map of the
    training and validation pictures, near duplicates among them, and labels to look at again.

    Args:
        path: of the file; replaced if there is one.
        pictures: files.
        labels: integer class per picture.
        class_names: in label order.
        features: (pictures, features), pooled; without them only results are shown.
        steps: of the fine-tuning, to show what each came to.
        held_out: what the network answered.

    Returns:
        ``{"near_duplicates", "label_doubts", "pictures"}``, how many there are of each.

    Raises:
        UserError: the file cannot be written.
    """
    duplicates = [] if features is None else near_duplicates(features)
    doubts = [] if features is None else label_doubts(features, labels)
    title = f"{len(pictures):,} pictures in {len(class_names)} classes"
    body = [f"<h1>{title}</h1>", *_steps(steps), *_results(held_out, class_names)]
    if features is not None:
        body += [
            "<h2>Map</h2><p>Pictures with like features lie together; a dot tells its file when pointed at.</p>",
            _map(pictures, labels, class_names, features),
            f"<h2>Near duplicates: {len(duplicates)}</h2>",
            f"<p>Copies on both sides of a split make accuracy look better.{_shown(duplicates)}</p>",
            *(_pair(pictures, class_names, labels, pair) for pair in duplicates[:_SHOWN]),
            f"<h2>Labels to look at again: {len(doubts)}</h2>",
            f"<p>Classifiers that never saw them say otherwise, the surest first.{_shown(doubts)}</p>",
            *(_doubt(pictures, class_names, doubt) for doubt in doubts[:_SHOWN]),
        ]
    write_file(path, document(title, "\n".join(body)))
    return {"near_duplicates": len(duplicates), "label_doubts": len(doubts), "pictures": len(pictures)}


def _steps(steps: Sequence["Step"]) -> list[str]:
    if not steps:
        return []
    rows = [[step.name, step.val_accuracy, "kept" if step.kept else ""] for step in steps]
    return [table("Training", ["step", "right on validation %", ""], rows)]


def _results(held_out: HeldOut | None, class_names: Sequence[str]) -> list[str]:
    if held_out is None:
        return []
    labels, answers = np.asarray(held_out.subset.labels), held_out.probabilities
    rows = classification.class_table(answers, labels, class_names)
    matrix = classification.confusion_matrix(answers, labels)
    overall = accuracy_report(answers, labels, tuple(class_names))
    values = {f"{held_out.name} top-1": overall["top1"]}
    if len(class_names) > 5:
        values["top-5"] = overall["top5"]
    shown = {name.replace("_", " "): value for name, value in classification.macro_means(rows).items()}
    parts = [figures(values | shown)]
    if len(matrix) <= plots.MAX_CONFUSION_CLASSES:
        parts.append(picture("Confusion matrix", _confusion(matrix, class_names)))
    parts.append(table("Classes", ["class", "pictures", "precision %", "recall %", "F1 %"], map(astuple, rows)))
    pairs = classification.confused_pairs(matrix, _PAIRS)
    if pairs:
        named = [[class_names[true], class_names[called], count] for true, called, count in pairs]
        parts.append(table("Most frequent mistakes", ["is", "was called", "times"], named))
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
    with tempfile.TemporaryDirectory() as directory, plot_style():
        file = Path(directory) / "confusion.png"
        plots.plot_confusion(matrix, class_names, file)
        return file.read_bytes()


def _shown(found: Sequence[object]) -> str:
    return f" The first {_SHOWN} are shown." if len(found) > _SHOWN else ""


def _map(
    pictures: Sequence[str | Path], labels: Sequence[int], class_names: Sequence[str], features: np.ndarray
) -> str:
    drawn, points = map_of(features)
    low, high = points.min(axis=0), points.max(axis=0)
    scaled = (points - low) / np.maximum(high - low, 1e-9) * (_MAP_WIDTH - 20, _MAP_HEIGHT - 20) + 10
    colours = [_colour(index, len(class_names)) for index in range(len(class_names))]
    dots = [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colours[labels[index]]}" fill-opacity=".7">'
        f"<title>{html.escape(class_names[labels[index]])}: {html.escape(str(pictures[index]))}</title></circle>"
        for index, (x, y) in zip(drawn, scaled, strict=True)
    ]
    legend = [
        f'<span class=class><i style="background:{colour}"></i> {html.escape(name)}</span>'
        for colour, name in zip(colours, class_names, strict=True)
    ]
    return f'<p>{"".join(legend)}</p><svg viewBox="0 0 {_MAP_WIDTH} {_MAP_HEIGHT}">{"".join(dots)}</svg>'


def _pair(
    pictures: Sequence[str | Path], class_names: Sequence[str], labels: Sequence[int], pair: tuple[int, int, float]
) -> str:
    first, second, cosine = pair
    names = " and ".join(f"{class_names[labels[index]]}/{Path(pictures[index]).name}" for index in (first, second))
    return thumbnails([read_rgb(pictures[first]), read_rgb(pictures[second])], f"{names}, cosine {cosine:.3f}")


def _doubt(pictures: Sequence[str | Path], class_names: Sequence[str], doubt: Doubt) -> str:
    given, suggested = class_names[doubt.given], class_names[doubt.suggested]
    name = Path(pictures[doubt.index]).name
    return thumbnails(
        [read_rgb(pictures[doubt.index])], f"{name}: {given}; rather {suggested}, more probable by {doubt.margin:.2f}"
    )


def _colour(index: int, count: int) -> str:
    red, green, blue = colorsys.hls_to_rgb(index / max(count, 1), 0.45, 0.65)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
