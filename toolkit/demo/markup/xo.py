"""The board to draw an X or an O on, and the way of what was drawn through the network of three filters."""

from collections.abc import Callable, Sequence

import numpy as np

from toolkit.demo.inside.xo import FILTER_NAMES, SAMPLES, SIDE, STROKE, Worked
from toolkit.models.baselines import XO_FILTERS, XO_VOTES


def board(cells: str = SAMPLES["X"]) -> str:
    """Write the board, with a button for each sample of the notes."""
    squares = "".join(
        f'<button type="button" aria-pressed="{"true" if cell == STROKE else "false"}" tabindex="{-1 if index else 0}" '
        f'aria-label="row {index // SIDE + 1}, column {index % SIDE + 1}"></button>'
        for index, cell in enumerate(cells.replace("|", ""))
    )
    samples = "".join(
        f'<button type="button" data-cells="{cells.replace("|", "")}">{name}</button>'
        for name, cells in SAMPLES.items()
    )
    return f"""<div class="tk-xo"><p class="tk-hint">Draw on the board, by mouse, finger or arrow keys and space.</p>
<div class="tk-board" role="group" aria-label="Board of nine by nine">{squares}</div>
<div class="tk-choices" role="group" aria-label="Drawings">{samples}\
<button type="button" data-cells="{SIDE * SIDE * "."}">Clear</button></div></div>"""


def verdict(worked: Worked) -> str:
    """Write the answer, and the votes with their arithmetic."""
    words = f"an {worked.answer}" if worked.answer else "neither"
    return f"""<section class="tk-worked-xo" data-state="xo" data-answer="{worked.answer or "neither"}">
<p class="tk-top tk-verdict">It says: {words}</p>
<div class="tk-votes">{_votes("X", 0, worked)}{_votes("O", 1, worked)}</div>
<p class="tk-note">As in the notes, digits after the second are cut off: 7/9 is 0.77. Windows at the right and lower \
edge are partial.</p></section>"""


def maps(worked: Worked) -> str:
    """Write what each filter answers, and the poolings."""
    return f'<section data-state="maps">{"".join(_filter(index, worked) for index in range(len(XO_FILTERS)))}</section>'


def _filter(index: int, worked: Worked) -> str:
    kernel = np.array(XO_FILTERS[index], float)
    voters = (np.array(XO_VOTES[0][index]), np.array(XO_VOTES[1][index]))

    def vote(row: int, column: int) -> str:
        votes_for = [name for name, given in zip("XO", voters, strict=True) if given[row, column]]
        return f"<sup>{' '.join(votes_for)}</sup>" if votes_for else ""

    return f"""<div class="tk-filter-row"><p class="tk-eyebrow">Filter {index + 1}: a {FILTER_NAMES[index]}</p>
<div class="tk-maps">{_grid(kernel, "filter", "tk-f3", whole=True)}
{_grid(worked.maps[index], "mean of nine products", "tk-f7", data=f' data-map="{index}"')}
{_grid(worked.pooled[index], "after ReLU: largest of 2×2", "tk-f4")}
{_grid(worked.last[index], "largest of 2×2; who it votes for", "tk-f2", note=vote)}</div></div>"""


def _grid(
    values: np.ndarray,
    title: str,
    kind: str,
    *,
    data: str = "",
    whole: bool = False,
    note: Callable[[int, int], str] | None = None,
) -> str:
    cells = "".join(
        f'<i class="{"tk-for" if value > 0 else "tk-against"}" style="--share:{100 * min(abs(value), 1):.0f}%" '
        f'data-row="{row}" data-column="{column}">{f"{value:.0f}".replace("-", "−") if whole else cut(value)}'
        f"{note(row, column) if note else ''}</i>"
        for (row, column), value in np.ndenumerate(values)
    )
    return (
        f'<figure class="tk-grid {kind}" style="--columns:{values.shape[1]}"><div{data}>{cells}</div>'
        f"<figcaption>{title}</figcaption></figure>"
    )


def _votes(name: str, index: int, worked: Worked) -> str:
    given = np.array(XO_VOTES[index], bool)
    values: Sequence[float] = worked.last[given].tolist()
    share = float(worked.votes[index])
    is_best = worked.answer == name
    return f"""<div class="tk-vote{" tk-best" if is_best else ""}"><span class="tk-letter">{name}</span>
<span class="tk-track" aria-hidden="true"><span style="width:{100 * min(max(share, 0), 1):.1f}%"></span></span>
<span class="tk-share">{cut(share)}</span>
<span class="tk-sum">({" + ".join(cut(value) for value in values)}) / {len(values)}</span></div>"""


def cut(value: float) -> str:
    """Write a number with two decimals, the rest cut off as in the notes.

    >>> cut(7 / 9), cut(-1 / 9), cut(1.0)
    ('0.77', '−0.11', '1.00')
    """
    hundredths = int(round(100 * value, 6))
    return f"{hundredths / 100:.2f}".replace("-", "−")
