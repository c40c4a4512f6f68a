"""Plots of a run, as PNG."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.draw.labels import drawable
from toolkit.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: More classes than this make squares too small to tell apart.
MAX_CONFUSION_CLASSES = 100
_LABELLED_CLASSES = 40
_COUNTED_CLASSES = 20
_LETTER = 0.07  # inches
_CAPTION = 22  # letters of a name that fit over a picture


def plot_curves(history: list[dict[str, Any]], path: Path, *, title: str) -> None:
    """Draw loss and accuracy by epoch, training against validation, and the learning rate."""
    figure = _figure(12, 3.6)
    epochs = [row["epoch"] for row in history]
    *axes, rate = figure.subplots(1, 3)
    for axis, metric in zip(axes, ("loss", "accuracy"), strict=True):
        for key, name, style in ((metric, "training", "-"), (f"val_{metric}", "validation", "--")):
            axis.plot(epochs, [row[key] for row in history], style, label=name)
        axis.set_ylabel(metric)
        axis.legend()
    rate.plot(epochs, [row["lr"] for row in history], ".-", color="tab:grey")
    rate.set_ylabel("learning rate")
    for axis in (*axes, rate):
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    figure.suptitle(title)
    _save(figure, path)


def plot_confusion(matrix: np.ndarray, class_names: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix; shades are shares of each true class, numbers are counts."""
    with drawable(class_names if len(matrix) <= _LABELLED_CLASSES else ()) as names:
        _save(_confusion(matrix, names), path)


def _confusion(matrix: np.ndarray, class_names: Sequence[str]) -> "Figure":
    size = min(12.0, 2.5 + 0.4 * len(matrix)) + _LETTER * max(map(len, class_names), default=0)
    figure = _figure(size + 1, size)
    axis = figure.subplots()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, label="share of the true class")
    axis.set_xlabel("called")
    axis.set_ylabel("true")
    if class_names:
        axis.set_xticks(range(len(matrix)), class_names, rotation=90)
        axis.set_yticks(range(len(matrix)), class_names)
    if len(matrix) <= _COUNTED_CLASSES:
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axis.text(column, row, f"{count:,}", ha="center", va="center", fontsize=7, color=colour)
    return figure


def plot_learning_curve(
    points: Sequence[tuple[int, float, float]], path: Path, *, gain: tuple[float, float, float] | None = None
) -> None:
    """Draw accuracy over the number of training pictures, with bands of one and of two standard errors.

    Args:
        points: number of pictures, accuracy and its standard error, fractions, by number.
        path: of the PNG.
        gain: least, likely and most accuracy that twice as many pictures as the last point's would bring.
    """
    figure = _figure(6.2, 3.4)
    axis = figure.subplots()
    counts, accuracies, errors = (np.array(column, float) for column in zip(*points, strict=True))
    for width in (2, 1):
        low, high = (100 * np.clip(accuracies + sign * width * errors, 0, 1) for sign in (-1, 1))
        label = "± 1 and 2 standard errors" if width == 1 else None
        axis.fill_between(counts, low, high, color="tab:blue", alpha=0.15, linewidth=0, label=label)
    axis.plot(counts, 100 * accuracies, "o-", color="tab:blue", label="measured")
    ticks = [point[0] for point in points]
    if gain is not None:
        ticks.append(2 * points[-1][0])
        expected = 100 * (accuracies[-1] + np.array(gain))
        axis.plot([counts[-1], ticks[-1]], [100 * accuracies[-1], expected[1]], ":", color="tab:orange")
        bar = [[expected[1] - expected[0]], [expected[2] - expected[1]]]
        axis.errorbar(
            [ticks[-1]], [expected[1]], np.maximum(bar, 0), fmt="o", color="tab:orange", capsize=4, label="expected"
        )
    axis.set_xscale("log")
    axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axis.minorticks_off()
    axis.set_xlabel("training pictures")
    axis.set_ylabel("accuracy on unseen pictures, %")
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")
    _save(figure, path)


def plot_reliability(bins: np.ndarray, path: Path) -> None:
    """Draw how often answers are right over how sure they are, ``bins`` being those of ``metrics.reliability``."""
    figure = _figure(4.2, 4.2)
    axis = figure.subplots()
    counts, sure, right = bins.T
    axis.plot([0, 100], [0, 100], ":", color="tab:grey", label="as sure as right")
    axis.plot(100 * sure, 100 * right, "-", color="tab:blue", alpha=0.5)
    axis.scatter(100 * sure, 100 * right, 10 + 190 * counts / counts.max(), color="tab:blue", alpha=0.8)
    axis.set_xlabel("the network says, %")
    axis.set_ylabel("it is right, %")
    axis.set_xlim(0, 102)
    axis.set_ylim(0, 102)
    axis.set_aspect("equal")
    axis.grid(alpha=0.3)
    axis.legend(loc="upper left")
    _save(figure, path)


def plot_gradient_norms(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw each layer's gradient norm, input to output, after the first, the middle and the last epoch."""
    figure = _figure(12, 4)
    axis = figure.subplots()
    chosen = {rows[index]["epoch"]: rows[index]["norms"] for index in (0, len(rows) // 2, len(rows) - 1)}
    for epoch, norms in chosen.items():
        axis.semilogy(list(norms.values()), ".-", label=f"after epoch {epoch}")
    names = list(rows[0]["norms"])
    if len(names) <= _LABELLED_CLASSES:
        axis.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    else:
        axis.set_xlabel("layer, input to output")
    axis.set_ylabel("gradient norm")
    axis.grid(alpha=0.3)
    axis.legend()
    _save(figure, path)


def plot_mistakes(
    pixels: np.ndarray, answers: Sequence[np.ndarray], labels: Sequence[int], class_names: Sequence[str], path: Path
) -> None:
    """Draw pictures, uint8 (n, height, width, 3), each under what it was called and what it is, as probabilities."""
    called = [int(answer.argmax()) for answer in answers]
    shown = sorted({*called, *labels})
    with drawable([class_names[label] for label in shown], longest=_CAPTION) as drawn:
        names = dict(zip(shown, drawn, strict=True))
        captions = [
            f"{100 * answer[ours]:.0f} %: called {names[ours]}\n{100 * answer[true]:.0f} %: is {names[true]}"
            for ours, true, answer in zip(called, labels, answers, strict=True)
        ]
        _save(_pictures(pixels, captions), path)


def _pictures(pixels: np.ndarray, captions: Sequence[str], *, columns: int = 6) -> "Figure":
    num_rows = max(1, math.ceil(len(pixels) / columns))
    figure = _figure(2 * columns, 2.5 * num_rows)
    axes = np.ravel(figure.subplots(num_rows, columns, squeeze=False))
    for axis in axes:
        axis.axis("off")
    for axis, picture, caption in zip(axes, pixels, captions, strict=False):
        axis.imshow(picture)
        axis.set_title(caption, fontsize=8)
    return figure


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: "Figure", path: Path) -> None:
    with replacing(path) as partial:
        figure.savefig(partial, dpi=110, bbox_inches="tight", pad_inches=0.1)
