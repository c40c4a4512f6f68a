"""The markup of several pictures answered at once: how far it is, then a tile for each of them."""

import base64
from collections import Counter
from collections.abc import Sequence

from toolkit.demo.batch import Item, table
from toolkit.demo.markup.classify import NONE_OF_THESE
from toolkit.demo.markup.parts import best_guess, escape, milliseconds, percent

_CHIPS = 12  # labels that can be picked out, the most frequent ones
_UNREAD = "not read"


def working(name: str, done: int, total: int) -> str:
    """Write how far the answers are."""
    return f"""<section class="tk-batch" data-state="working" role="status">
<p class="tk-batch-title">Looking at {escape(name)} <span>{done:,} of {total:,}</span></p>
<div class="tk-track tk-progress"><span style="width:{100 * done / max(total, 1):.1f}%"></span></div>
</section>"""


def tiles(items: Sequence[Item], labels: Sequence[str], remark: str = "") -> str:
    """Write the answers: a summary, chips that pick out a label, the table to take home and a tile for each picture.

    Args:
        items: answered pictures.
        labels: of the network, by which folders' names are known for true labels.
        remark: on what is not among them.
    """
    if not items:
        return ""
    truths = [item.true_label(labels) for item in items]
    kinds = Counter(_kind(item) for item in items)
    shown = [*kinds.most_common(_CHIPS)]
    chips = "".join(
        f'<button type="button" class="tk-chip" data-kind="{escape(kind)}" aria-pressed="false">'
        f"<span>{escape(kind)}</span> <b>{count:,}</b></button>"
        for kind, count in shown
    )
    data = base64.b64encode(table(items, labels).encode("utf-8-sig")).decode()  # the mark tells spreadsheets UTF-8
    pairs = zip(items, truths, strict=True)
    written = "".join(_tile(index, item, truth) for index, (item, truth) in enumerate(pairs))
    note = f'<p class="tk-note">{escape(remark)}</p>' if remark else ""
    count = f"{len(items):,} picture{'s' if len(items) > 1 else ''}"
    return f"""<section class="tk-batch" data-state="done">
<header><p class="tk-batch-title">{count} <span>{_summary(items, truths)}</span></p>
<a class="tk-download" download="answers.csv" href="data:text/csv;charset=utf-8;base64,{data}">Download CSV</a></header>
{note}<div class="tk-chips" role="group" aria-label="Show only">{chips if len(kinds) > 1 else ""}</div>
<div class="tk-tiles">{written}</div>
</section>"""


def _kind(item: Item) -> str:
    if item.answer is None:
        return _UNREAD
    return NONE_OF_THESE if item.answer.rejected else item.answer.predictions[0].label


def _summary(items: Sequence[Item], truths: Sequence[str | None]) -> str:
    answers = [item.answer for item in items if item.answer]
    parts = []
    known = [(item, truth) for item, truth in zip(items, truths, strict=True) if truth is not None and item.answer]
    if known:
        right = sum(_kind(item) == truth for item, truth in known)
        refused = sum(item.answer.rejected for item, _ in known if item.answer)
        told = f", {refused:,} refused" if refused else ""
        parts.append(f"{right:,} of {len(known):,} right{told}, by their folders' names")
    if answers:
        took = sum(answer.milliseconds for answer in answers)
        parts.append(milliseconds(took) if took < 1000 else f"{took / 1000:.1f} s")
    return " · ".join(parts)


def _tile(index: int, item: Item, truth: str | None) -> str:
    kind, is_wrong = _kind(item), False
    if item.answer is None:
        said = f"{item.name}: {item.problem}"
        face = f'<span class="tk-unread">{escape(item.problem)}</span>'
        bar = f'<span class="tk-caption">{escape(item.name)}</span>'
    else:
        best = item.answer.predictions[0]
        share = "" if item.answer.rejected else f" {percent(best.probability)}"
        sure = best_guess(best.label, best.probability) if item.answer.rejected else percent(best.probability)
        is_wrong = truth not in (None, kind) and not item.answer.rejected
        said = f"{item.name}: {kind}, {sure}" + (f", true label: {truth}" if is_wrong else "")
        face = f'<img src="{item.thumbnail}" alt="">'
        wrong = f'<span class="tk-not">folder {escape(truth)}</span>' if is_wrong and truth else ""
        bar = (
            f'<span class="tk-caption"><b>{escape(kind)}</b>{share}</span>'
            f'<span class="tk-track"><span style="width:{100 * best.probability:.1f}%"></span></span>{wrong}'
        )
    state = "unread" if item.answer is None else "none" if item.answer.rejected else "named"
    state += " tk-is-wrong" if is_wrong else ""
    return (
        f'<button type="button" class="tk-tile tk-is-{state}" data-index="{index}" data-kind="{escape(kind)}" '
        f'aria-label="{escape(said)}" title="{escape(said)}"{"" if item.answer else " disabled"}>{face}{bar}</button>'
    )
