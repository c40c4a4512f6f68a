"""The pictures of the page of results, and how they are drawn."""

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.report.page import plot_style

# Seen on white and on black.
_COLOURS = ("#2f81f7", "#d9822b", "#2ea043", "#bf4bd1", "#e5534b", "#7d8590", "#1b9aaa", "#b08800")

Draw = Callable[[Any], None]
Values = Sequence[float | None]
Curves = dict[str, Sequence[float]]
#: Layers, training error and test error of the networks of a kind.
Depths = dict[str, list[tuple[int, float | None, float | None]]]
#: Where a curve ends, and its colour, by its name.
Ends = dict[str, tuple[float, float, str]]


@dataclass(frozen=True)
class Chart:
    """A picture: its name, what it shows, the figures it is drawn from, and what draws them onto axes."""

    name: str
    alt: str
    figures: Any
    draw: Draw
    size: tuple[float, float] = (7.5, 3.6)

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.figures, sort_keys=True).encode()).hexdigest()[:16]

    def svg(self) -> bytes:
        import matplotlib
        from matplotlib.figure import Figure

        out = io.BytesIO()
        # Letters as paths look the same everywhere; a fixed salt makes the same file of the same figures.
        with plot_style(), matplotlib.rc_context({"svg.hashsalt": self.name, "font.size": 9}):
            figure = Figure(figsize=self.size, layout="constrained")
            self.draw(figure)
            noted = {"Date": None, "Creator": None, "Description": self.digest}
            figure.savefig(out, format="svg", metadata=noted)
        return out.getvalue()


def rows_chart(
    name: str, alt: str, names: Sequence[str], series: dict[str, Values], label: str, log: bool = False
) -> Chart:
    """Make a picture of dots beside the names of rows, as high as they need."""
    return Chart(name, alt, [list(names), series], _dots(names, series, label, log=log), (7.5, 1.3 + 0.27 * len(names)))


def _dots(names: Sequence[str], series: dict[str, Values], label: str, *, log: bool = False) -> Draw:
    """Draw values of a few kinds beside the names of rows, each kind named where it is first seen."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        positions = range(len(names))
        for number, (kind, values) in enumerate(series.items()):
            colour, marker = _COLOURS[number % len(_COLOURS)], "oDs^v"[number % 5]
            found = [(value, place) for value, place in zip(values, positions, strict=True) if value is not None]
            if found:
                axes.plot(*zip(*found, strict=True), marker, color=colour, markersize=6, label=kind)
        axes.set_yticks(list(positions), list(names))
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel(label)
        if log:
            _log(axes, "x")
        else:
            left, right = axes.get_xlim()
            if "%" not in label or left < right / 2:  # seconds and rates are compared by their lengths
                axes.set_xlim(left=min(0.0, left))
        _bare(axes, "x")
        if len(series) > 1:
            legend = axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(series), frameon=False)
            for text, number in zip(legend.get_texts(), range(len(series)), strict=False):
                text.set_color(_COLOURS[number % len(_COLOURS)])

    return draw


def _log(axes: Any, which: str) -> None:
    """Make an axis logarithmic, with plain numbers, between decades only where there is room."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return f"{x:g}" if super().__call__(x, pos) else ""

    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(Plain())
    axis.set_minor_formatter(Plain())
    axes.tick_params(axis=which, which="minor", labelsize=7)


def panels(shown: dict[str, Curves], label: str, *, log: bool = False, spread: tuple[str, str] | None = None) -> Draw:
    """Draw curves side by side, a title each, over epochs or spread between two places that are named."""

    def draw(figure: Any) -> None:
        row = figure.subplots(1, len(shown), sharey=True)
        drawn = []
        for axes, (title, curves) in zip(row, shown.items(), strict=True):
            drawn.append(_lines(axes, curves, is_spread=spread is not None))
            if log:
                _log(axes, "y")
            axes.set_title(title)
            if spread:
                axes.set_xticks([0, 1], spread)
            else:
                axes.set_xlabel("epoch")
                axes.xaxis.get_major_locator().set_params(integer=True)
        row[0].set_ylabel(label)
        for axes, ends in zip(row, drawn, strict=True):
            _name_ends(axes, ends)

    return draw


def _lines(axes: Any, curves: Curves, *, is_spread: bool) -> Ends:
    """Draw curves, and tell where they end."""
    ends = {}
    for number, (name, values) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        x = [place / max(len(values) - 1, 1) if is_spread else place + 1 for place in range(len(values))]
        axes.plot(x, values, color=colour, linewidth=1.4)
        ends[name] = (x[-1], values[-1], colour)
    _bare(axes, "y")
    return ends


def _name_ends(axes: Any, ends: Ends) -> None:
    """Write the curves' names at their ends, spread so that they do not cover each other; the last thing to draw."""
    axes.figure.draw_without_rendering()
    to_share = axes.transData + axes.transAxes.inverted()
    gap = 10 * axes.figure.dpi / 72 / axes.get_window_extent().height
    shares = {name: float(to_share.transform((x, y))[1]) for name, (x, y, _) in ends.items()}
    last = -1.0
    for name in sorted(shares, key=shares.__getitem__):
        shares[name] = last = max(shares[name], last + gap)
    last = 1 + gap
    for name in sorted(shares, key=shares.__getitem__, reverse=True):  # back from above the top
        shares[name] = last = min(shares[name], last - gap)
    for name, share in shares.items():
        axes.text(1.02, share, name, transform=axes.transAxes, color=ends[name][2], fontsize=8, va="center")


def against_depth(depths: Depths) -> Draw:
    """Draw training and test errors of each kind of network against its layers."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        ends = {}
        for number, (kind, rows) in enumerate((kind, rows) for kind, rows in depths.items() if rows):
            for index, (subset, style) in enumerate((("training", "-"), ("test", "--")), start=1):
                points = [(row[0], row[index]) for row in rows]
                axes.plot(*zip(*points, strict=True), f"o{style}", color=_COLOURS[number])
                ends[f"{kind}, {subset}"] = (*points[-1], _COLOURS[number])
        axes.set_xlabel("layers with weights")
        axes.set_ylabel("error %")
        _bare(axes, "y")
        _name_ends(axes, ends)

    return draw


def _bare(axes: Any, grid: str) -> None:
    axes.grid(alpha=0.3, axis=grid)
    axes.spines[["top", "right"]].set_visible(False)
