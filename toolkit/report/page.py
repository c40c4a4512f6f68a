"""The look of HTML reports: one file each that fetches nothing, light or dark as the reader's system is."""

import base64
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from html import escape
from typing import Any

import numpy as np

from toolkit.data.scan.show import jpeg
from toolkit.errors import one_line
from toolkit.report.classification import ClassRow, confused_pairs

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --quiet: #59636e; --paper: #fff; --line: #d1d9e0 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --quiet: #9198a1; --paper: #0d1117; --line: #3d444d } }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem; font: 15px/1.5 system-ui, sans-serif }
body { background: var(--paper); color: var(--ink) }
h1 { font-size: 1.6rem; margin: 0 } h2 { font-size: 1.2rem; margin: 2.5rem 0 .5rem } h3 { font-size: 1rem }
.headlines { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.2rem 0 }
.headlines section { border: 1px solid var(--line); border-radius: 10px; flex: 1 1 18rem; padding: 1rem 1.4rem }
.headlines b { display: block; font-size: 3.4rem; font-variant-numeric: tabular-nums; line-height: 1.15 }
.headlines p { margin: .3rem 0 0 } .quiet { color: var(--quiet) }
.range { background: var(--line); border-radius: 3px; height: 6px; margin: .5rem 0; position: relative }
.range i { background: #2f81f7; border-radius: 3px; height: 6px; min-width: 3px; position: absolute }
.beside { display: flex; flex-wrap: wrap; gap: 0 2.5rem } .beside > div { max-width: min(100%, 34rem) }
.scroll { overflow-x: auto } .scroll td:first-child { min-width: 9rem }
p.subtitle { color: var(--quiet); margin: .2rem 0 1.2rem }
ul.figures { display: flex; flex-wrap: wrap; gap: .75rem; list-style: none; padding: 0 }
ul.figures li { border: 1px solid var(--line); border-radius: 6px; padding: .6rem 1rem }
ul.figures b { display: block; font-size: 1.4rem; font-variant-numeric: tabular-nums }
img { max-width: 100%; height: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid var(--line); padding: .2rem .9rem .2rem 0; text-align: left }
td.number, th.number { text-align: right }
summary { cursor: pointer; font-weight: 600; margin: 1rem 0 .5rem }
figure { display: inline-block; margin: .3rem; width: 15.5rem; vertical-align: top; font-size: .8rem }
figure img { height: 7rem; margin-right: .2rem }
svg { width: 100%; border: 1px solid var(--line) }
.class { display: inline-block; margin-right: 1rem } .class i { display: inline-block; width: .8em; height: .8em }
"""


class Figure(str):
    """A number that is written out already; a table aligns it as one."""


#: Of lines and letters in plots: seen on white and on black.
_INK = "#7d8590"
_PAIRS = 15  # of classes confused, that are shown


def document(title: str, body: str) -> str:
    """Make the page: ``title`` is text, ``body`` HTML."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{STYLE}</style></head><body>
{body}
</body></html>
"""


def figures(values: dict[str, float]) -> str:
    """Show a few fractions large, as percentages, each over its name."""
    cells = (f"<li><b>{100 * value:.2f} %</b>{escape(name)}</li>" for name, value in values.items())
    return f'<ul class="figures">{"".join(cells)}</ul>'


def headline(share: float, name: str, low: float, high: float, remark: str) -> str:
    """Show a fraction very large, as a percentage, with its 95 % interval, over a remark in HTML."""
    return (
        f"<section>{escape(name)}<b>{100 * share:.1f} %</b>"
        f'<div class="range"><i style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></i></div>'
        f"<p>95 % interval: {100 * low:.1f} to {100 * high:.1f} %</p>"
        f'<p class="quiet">{remark}</p></section>'
    )


def table(heading: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Lay out rows under a heading that folds them away; what is no text, or a ``Figure``, is aligned to the right."""
    rows = [list(row) for row in rows]
    kinds = ["" if not rows or _is_text(cell) else ' class="number"' for cell in (rows or [header])[0]]

    def line(tag: str, cells: Sequence[Any]) -> str:
        return "<tr>" + "".join(f"<{tag}{k}>{_text(v)}</{tag}>" for k, v in zip(kinds, cells, strict=True)) + "</tr>"

    body = "\n".join(line("td", row) for row in rows)
    laid_out = f"<table>{line('th', header)}\n{body}</table>"
    return f'<details open><summary>{heading}</summary><div class="scroll">{laid_out}</div></details>'


def score_tables(rows: Sequence[ClassRow], matrix: np.ndarray) -> list[str]:
    """Lay out the scores of every class, and the most frequent mistakes of the confusion matrix if there are any."""
    tables = [table("Classes", ["class", "pictures", "precision %", "recall %", "F1 %"], map(astuple, rows))]
    pairs = confused_pairs(matrix, _PAIRS)
    if pairs:
        named = [[rows[true].name, rows[called].name, count] for true, called, count in pairs]
        tables.append(table("Most frequent mistakes", ["is", "was called", "times"], named))
    return tables


def picture(heading: str, png: bytes, level: int = 2) -> str:
    """Put a plot under a heading of this level."""
    image = f'<img alt="{heading}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
    return f"<h{level}>{heading}</h{level}>\n{image}"


def beside(*parts: str) -> str:
    """Put parts of HTML beside each other, or below each other where the page is narrow."""
    return f'<div class="beside">{"".join(f"<div>{part}</div>" for part in parts)}</div>'


def thumbnails(pictures: Iterable[np.ndarray], caption: str, *, height: int = 112) -> str:
    """Put small copies of pictures, uint8 RGB (height, width, 3), beside each other over a caption."""
    images = "".join(f'<img alt="" src="{jpeg(pixels, height)}">' for pixels in pictures)
    return f"<figure>{images}<figcaption>{escape(one_line(caption))}</figcaption></figure>"


@contextmanager
def plot_style() -> Iterator[None]:
    """Draw what is drawn in this ``with`` without a background, in a colour for light and dark pages."""
    import matplotlib

    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    nothing = ("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor")
    style: Any = dict.fromkeys(inked, _INK) | dict.fromkeys(nothing, "none")
    with matplotlib.rc_context(style):
        yield


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not isinstance(value, Figure)


def _text(value: Any) -> str:
    return f"{100 * value:.2f}" if isinstance(value, float) else escape(one_line(str(value)))
