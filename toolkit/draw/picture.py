"""Boxes on a page: down a column, stage by stage, and on in the next."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.draw.blocks import Box, boxes
from toolkit.errors import UserError
from toolkit.files import replacing
from toolkit.lazy import keras

SUFFIXES = (".svg", ".png")

# Inches.
LINE = 0.19
PADDING = 0.09
GAP = 0.34
SUM = 0.25  # below a box: the sum its shortcut runs into
HEADER = 0.3
TITLE = 0.5
BETWEEN = 0.16  # stages
GUTTER = 0.45  # columns

FILLS = {"convolution": "#dce8f7", "pooling": "#fbe6d1", "dense": "#e1f0da", "other": "#f2f2f2"}
EDGES = {"convolution": "#3f6fa8", "pooling": "#bd7a2b", "dense": "#558a41", "other": "#8a8a8a"}
INK, FAINT, BAND, BAND_EDGE = "#222222", "#6b6b6b", "#f7f7f8", "#e3e3e6"


@dataclass(frozen=True)
class Widths:
    """Of all columns: room for counts, the boxes, room for shortcuts."""

    left: float
    box: float
    right: float

    @property
    def column(self) -> float:
        return self.left + self.box + self.right


@dataclass(frozen=True)
class Placed:
    """A box, its upper left corner in inches from the page's, and its height."""

    box: Box
    x: float
    y: float
    height: float

    @property
    def end(self) -> float:
        """The start of the arrow to the next box: below the box, or below its sum."""
        return self.y + self.height + (SUM if self.box.shortcut is not None else 0)


def draw_model(model: "keras.Model", path: Path, *, title: str = "") -> None:
    """Draw a flat functional model to a file.

    Args:
        model: a ``keras.Model``.
        path: where to; its suffix, ``.svg`` or ``.png``, is the format.
        title: heading; the model's name by default.

    Raises:
        UserError: another suffix, or a folder that is not there.
    """
    check_path(path)
    draw_boxes(boxes(model), path, title=title or model.name)


def draw_boxes(drawn: list[Box], path: Path, *, title: str) -> None:
    """Draw the blocks of a network, see ``toolkit.draw.blocks``, to an ``.svg`` or ``.png`` file."""
    widths = _widths(drawn)
    placed = _layout(drawn, widths)
    width = max(item.x for item in placed) + widths.box + widths.right + 0.05
    height = max(item.end for item in placed) + GAP + 0.1
    with page(path, width, height) as figure:
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        axes.axis("off")
        axes.text(0.12, TITLE / 2, title, fontsize=13, fontweight="bold", va="center", color=INK)
        _draw_bands(axes, placed, widths)
        for item in placed:
            _draw_box(axes, item, widths.box)
        for before, after in zip(placed, [*placed[1:], None], strict=True):
            _draw_arrow(axes, before, after, widths)


@contextmanager
def page(path: Path, width: float, height: float) -> Iterator[Any]:
    """Yield a Matplotlib figure of that size in inches, and write it to ``path`` afterwards."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "toolkit", "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(width, height))
        yield figure
        # Without a date, the same drawing gives the same file.
        with replacing(path) as partial:
            figure.savefig(partial, dpi=120, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)


def check_path(path: Path) -> None:
    """Refuse, before anything is built, a file that could not be written.

    Raises:
        UserError: the suffix is none of ``SUFFIXES``, or the folder is not there.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"cannot draw to {path.name!r}; give a file name that ends in {' or '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise UserError(f"no folder {path.parent} to draw into")


def _widths(drawn: list[Box]) -> Widths:
    longest = max(len(line) for box in drawn for line in box.lines)
    shortcuts = {box.shortcut for box in drawn}
    return Widths(
        left=0.85 if any(box.repeats > 1 for box in drawn) else 0.3,
        box=max(2.3, 0.075 * longest + 0.3),
        right=1.4 if shortcuts - {None, ""} else 0.5 if "" in shortcuts else 0.3,
    )


def _layout(drawn: list[Box], widths: Widths) -> list[Placed]:
    """Fill as many columns as make the page about as wide as high."""
    heights = [LINE * (len(box.lines) + bool(box.note())) + 2 * PADDING for box in drawn]
    steps = [
        height + GAP + (SUM if box.shortcut is not None else 0) for box, height in zip(drawn, heights, strict=True)
    ]
    total = sum(steps) + (HEADER + BETWEEN) * len({box.stage for box in drawn})
    columns = max(1, round(math.sqrt(total / widths.column)))
    columns_left = columns - 1
    placed: list[Placed] = []
    x, y, stage = 0.05 + widths.left, TITLE, ""
    for box, height, step in zip(drawn, heights, steps, strict=True):
        if columns_left and y + step / 2 > TITLE + total / columns:
            x, y, stage, columns_left = x + widths.column + GUTTER, TITLE, "", columns_left - 1
        if box.stage != stage:
            y += HEADER + (BETWEEN if stage else 0)
            stage = box.stage
        placed.append(Placed(box, x, y, height))
        y += step
    return placed


def _draw_bands(axes: Any, placed: list[Placed], widths: Widths) -> None:
    """A background for each stage, in each column that it stands in."""
    from matplotlib.patches import FancyBboxPatch

    bands: dict[tuple[str, float], list[Placed]] = {}
    for item in placed:
        bands.setdefault((item.box.stage, item.x), []).append(item)
    for (stage, x), items in bands.items():
        left, top, bottom = x - widths.left + 0.05, items[0].y - HEADER + 0.02, items[-1].end + GAP - 0.1
        size = widths.column - 0.1, bottom - top
        style: dict[str, Any] = {"boxstyle": "round,pad=0,rounding_size=0.08", "fc": BAND, "ec": BAND_EDGE, "lw": 0.8}
        axes.add_patch(FancyBboxPatch((left, top), *size, **style))
        axes.text(left + 0.11, top + 0.14, stage, fontsize=8.5, fontweight="bold", va="center", color=FAINT)


def _draw_box(axes: Any, item: Placed, width: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    box, middle = item.box, item.x + width / 2
    style: dict[str, Any] = {
        "boxstyle": "round,pad=0,rounding_size=0.06",
        "fc": FILLS[box.kind],
        "ec": EDGES[box.kind],
        "lw": 1.1,
    }
    axes.add_patch(FancyBboxPatch((item.x, item.y), width, item.height, zorder=3, **style))
    centred = {"ha": "center", "va": "center", "zorder": 4}
    for number, line in enumerate(box.lines):
        axes.text(middle, item.y + PADDING + LINE * (number + 0.5), line, fontsize=8.5, color=INK, **centred)
    if box.note():
        y = item.y + item.height - PADDING - LINE / 2
        axes.text(middle, y, box.note(), fontsize=7.5, style="italic", color=FAINT, **centred)
    if box.repeats > 1:
        count = {"s": f"{box.repeats} ×", "fontsize": 11, "fontweight": "bold", "color": INK}
        axes.text(item.x - 0.1, item.y + item.height / 2, ha="right", va="center", **count)
    if box.shortcut is not None:
        _draw_shortcut(axes, item, width, box.shortcut)


def _draw_shortcut(axes: Any, item: Placed, width: float, words: str) -> None:
    """From above the box, around it on the right, to the sum below; dashed where it is no identity."""
    from matplotlib.patches import Circle

    middle, right = item.x + width / 2, item.x + width + 0.2
    top, total = item.y - 0.13, item.end - 0.085
    line = (0, (3, 2)) if words else "solid"
    axes.plot([middle, right, right, middle], [top, top, total, total], color=FAINT, lw=1.1, ls=line, zorder=2)
    axes.plot([middle] * 2, [item.y + item.height, total], color=INK, lw=1.1, zorder=2)
    axes.add_patch(Circle((middle, total), 0.085, fc="white", ec=INK, lw=1, zorder=4))
    cross = {"color": INK, "lw": 0.9, "zorder": 5}
    axes.plot([middle - 0.045, middle + 0.045], [total, total], **cross)
    axes.plot([middle, middle], [total - 0.045, total + 0.045], **cross)
    text = words.replace(", ", ",\n", 1)
    axes.text(right + 0.07, item.y + item.height / 2, text, fontsize=7.5, va="center", color=FAINT, linespacing=1.4)


def _draw_arrow(axes: Any, before: Placed, after: Placed | None, widths: Widths) -> None:
    """To the next box, around the corner where a column ends, and beside it the shape that passes."""
    start, middle = before.end, before.x + widths.box / 2
    shape = "×".join("?" if side is None else f"{side}" for side in before.box.shape)
    axes.text(middle - 0.1, start + 0.11, shape, fontsize=7.5, ha="right", va="center", color=FAINT)
    head = {"arrowstyle": "-|>", "color": INK, "lw": 1.1, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9}
    if after is None or before.box.name not in after.box.inputs:
        axes.annotate("", (middle, start + 0.22), (middle, start), arrowprops=head, zorder=2)
        if after is not None:  # a branch: say where it comes from
            target = after.x + widths.box / 2
            axes.annotate("", (target, after.y), (target, after.y - 0.12), arrowprops=head, zorder=2)
            origin = f"from {', '.join(after.box.inputs)}"
            axes.text(target + 0.1, after.y - 0.09, origin, fontsize=7.5, va="center", color=FAINT)
    elif before.x == after.x:
        axes.annotate("", (middle, after.y), (middle, start), arrowprops=head, zorder=2)
    else:
        down, up, target = start + 0.28, after.y - HEADER - 0.06, after.x + widths.box / 2
        between = after.x - widths.left - GUTTER / 2
        path = [middle, middle, between, between, target, target], [start, down, down, up, up, after.y - 0.1]
        axes.plot(*path, color=INK, lw=1.1, zorder=2)
        axes.annotate("", (target, after.y), (target, after.y - 0.12), arrowprops=head, zorder=2)
