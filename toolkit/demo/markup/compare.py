"""The markup of tab Compare: a table for each network, a row for each engine it was run by."""

from collections.abc import Sequence
from itertools import groupby

from toolkit.bundle import Manifest
from toolkit.demo.comparison import Row, verdict
from toolkit.demo.markup.classify import NONE_OF_THESE
from toolkit.demo.markup.parts import best_guess, bundle_name, escape, milliseconds, percent

WAITING = """<section class="tk-card tk-empty tk-compare" data-state="empty">
<p class="tk-eyebrow">The networks say</p>
<p class="tk-top">Show them a picture.</p>
<p class="tk-hint">Every network you choose is run by every engine you choose, on the same picture: how sure it is,
how long it takes, how large its file is, and whether they agree.</p>
</section>"""


def comparison(rows: Sequence[Row], manifests: dict[str, Manifest], awaited: int = 0) -> str:
    """Write what the networks said so far.

    Args:
        rows: answers, those of one bundle side by side.
        manifests: of the bundles.
        awaited: rows that are still to come.
    """
    slowest = max((row.milliseconds for row in rows), default=0.0) or 1.0
    largest = max((row.size for row in rows), default=0) or 1
    tables = "".join(
        _table(list(own), manifests[bundle], (slowest, largest), _most(rows, manifests, bundle))
        for bundle, own in groupby(rows, lambda row: row.bundle)
    )
    waiting = f'<p class="tk-awaited" role="status">{awaited} more to ask …</p>' if awaited else ""
    state = "working" if awaited else "done"
    return f"""<section class="tk-card tk-compare" data-state="{state}">
<p class="tk-eyebrow">The networks say</p>
{_verdict(rows)}{tables}{waiting}</section>"""


def _most(rows: Sequence[Row], manifests: dict[str, Manifest], bundle: str) -> str:
    """The answer that most networks of the same classes give: others cannot agree with it."""
    labels = set(manifests[bundle].labels)
    return verdict([row for row in rows if set(manifests[row.bundle].labels) == labels])[0]


def _verdict(rows: Sequence[Row]) -> str:
    label, count, total = verdict(rows)
    if not total:
        return ""
    name = escape(label or NONE_OF_THESE)
    if total == 1:
        said = ""
    elif count == total:
        said = "both agree" if total == 2 else f"all {total} agree"
    else:
        said = f"{count} of {total} say so"
    return (
        f'<p class="tk-top{" tk-long" if len(label) > 16 else ""}"><span class="tk-label">{name}</span> '
        f'<span class="tk-sure">{said}</span></p>'
    )


def _table(rows: Sequence[Row], manifest: Manifest, scale: tuple[float, int], most: str) -> str:
    facts = f"{escape(manifest.model)} · {_count(manifest.num_params)} parameters"
    accuracy = manifest.metrics.get("top1")
    if accuracy is not None:
        facts += f" · {100 * accuracy:.1f} % {manifest.subset}"
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("engine", "says", "time", "size"))
    body = "".join(_row(row, scale, most) for row in rows)
    name = escape(bundle_name(rows[0].bundle))
    return f"""<table class="tk-rows"><caption><b>{name}</b> <span>{facts}</span></caption>
<thead><tr>{heads}</tr></thead>
<tbody>{body}</tbody></table>{_glance(rows)}"""


def _row(row: Row, scale: tuple[float, int], most: str) -> str:
    head = f'<th scope="row"><span class="tk-engine">{escape(row.engine)}</span>{_kind(row)}</th>'
    if row.problem:
        return f'<tr class="tk-failed">{head}<td colspan="3">{escape(row.problem)}</td></tr>'
    best = row.predictions[0]
    label = row.label or NONE_OF_THESE
    sure = percent(best.probability) if row.label else best_guess(best.label, best.probability)
    slowest, largest = scale
    other = ("" if row.label == most else " tk-other") + ("" if row.label else " tk-none")
    return (
        f'<tr>{head}<td class="tk-says{other}"><span class="tk-name" title="{escape(label)}">{escape(label)}</span> '
        f'<span class="tk-share">{escape(sure)}</span>{_bar(best.probability)}</td>'
        f'<td class="tk-number">{milliseconds(row.milliseconds)}{_bar(row.milliseconds / slowest)}</td>'
        f'<td class="tk-number">{megabytes(row.size)}{_bar(row.size / largest)}</td></tr>'
    )


def _kind(row: Row) -> str:
    if row.is_float:
        return '<span class="tk-kind">float</span>'
    return f'<span class="tk-kind tk-quantized">{escape(row.engine.partition("-")[2] or "quantized")}</span>'


def _bar(share: float) -> str:
    return f'<span class="tk-track" aria-hidden="true"><span style="width:{100 * share:.1f}%"></span></span>'


def _glance(rows: Sequence[Row]) -> str:
    """The quantized form against the float one: what it saves, and what it costs on this picture."""
    answered = [row for row in rows if not row.problem]
    float_row = next((row for row in answered if row.is_float), None)
    others = [row for row in answered if not row.is_float]
    if float_row is None or not others:
        return ""
    row = min(others, key=lambda row: row.milliseconds)
    same = row.label == float_row.label
    faster = float_row.milliseconds / max(row.milliseconds, 1e-6)
    points = 100 * (row.difference or 0.0)
    answer = "the same answer" if same else "another answer"
    kind = escape(row.engine.partition("-")[2] or "quantized")
    return (
        f'<p class="tk-glance{"" if same else " tk-differs"}"><b>{kind} against float</b>'
        f"<span>{faster:.2g}× as fast</span><span>{float_row.size / max(row.size, 1):.1f}× smaller</span>"
        f"<span>{answer}, {'less than 0.1' if points < 0.1 else f'{points:.1f}'} points apart</span></p>"
    )


def megabytes(size: int) -> str:
    """Write a number of bytes with two significant digits or more.

    >>> megabytes(246_000), megabytes(1_040_000), megabytes(23_900_000)
    ('0.25 MB', '1.0 MB', '24 MB')
    """
    value = size / 1e6
    if value < 1:
        return f"{value:.2g} MB"
    return f"{value:.1f} MB" if value < 10 else f"{value:.0f} MB"


def _count(number: int) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number:,}"
