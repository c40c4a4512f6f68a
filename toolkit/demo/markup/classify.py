"""The markup of tab Classify that Gradio has no component for. Whatever comes from outside is escaped."""

import json
from collections.abc import Sequence
from typing import Any

from toolkit.bundle import Example, Manifest
from toolkit.demo.classifier import Answer
from toolkit.demo.markup.parts import best_guess, bundle_name, data_url, escape, milliseconds, percent, thumbnail

#: Said instead of a label when the best is too improbable.
NONE_OF_THESE = "none of these"

#: Networks that take small grey pictures see what a hand draws.
_SMALL = 64
#: Width of a stroke on the canvas of 280 × 280: of the digits drawn for the tests, most are read with this one.
_BRUSH = 46


def accepted(suffixes: Sequence[str], place: str, largest: int, archives: Sequence[str] = (), most: int = 1) -> str:
    """Write what may be dropped, pasted and chosen, for the script ``files.js``; nothing is seen of it.

    Args:
        suffixes: of pictures, beside what the browser itself takes for one.
        place: id of the ``gr.Image`` that pictures are for.
        largest: size of a picture that is taken, in bytes.
        archives: suffixes of files that hold several.
        most: pictures that are taken at once; of more than one where one is taken, the first.
    """
    kinds = ",".join(("image/*", *suffixes, *archives))
    return (
        f'<span hidden data-accept="{escape(kinds)}" data-place="{escape(place)}" '
        f'data-archives="{escape(",".join(archives))}" data-most="{most}" data-largest="{largest}"></span>'
    )


def nothing_yet(manifest: Manifest | None = None) -> str:
    """Write the card that waits for a picture; it offers the canvas where the network takes what a hand draws."""
    is_drawable = manifest is not None and _is_grey(manifest) and max(manifest.preprocessing.size) <= _SMALL
    offer = '<button type="button" class="tk-offer" data-draw>Draw one</button>' if is_drawable else ""
    bars = 5 * '<li><span class="tk-track"></span></li>'
    return f"""<section class="tk-card tk-empty" data-state="empty">
<p class="tk-eyebrow">The network says</p>
<p class="tk-top">Show me a picture.{offer}</p>
<ol class="tk-bars" aria-hidden="true">{bars}</ol>
</section>"""


def drawing(manifest: Manifest | None = None) -> str:
    """Write the canvas, with light and dark as the network's training pictures have them."""
    if manifest is None or manifest.ground is None:
        is_dark = manifest is None or _is_grey(manifest)
    else:
        is_dark = manifest.ground < 0.5
    ground, ink = ("#000000", "#ffffff") if is_dark else ("#ffffff", "#000000")
    return f"""<div class="tk-drawing">
<div class="tk-canvas"><canvas width="280" height="280" data-ground="{ground}" data-ink="{ink}" data-width="{_BRUSH}" \
role="img" aria-label="Canvas to draw on"></canvas></div>
<p class="tk-hint"><span>Draw large; the network sees just this.</span><button type="button">Clear</button></p>
</div>"""


def threshold(manifest: Manifest, below: float | None = None) -> str:
    """Write the slider under which answers are refused, over the curve of what that costs; empty without a curve.

    Args:
        manifest: the bundle's.
        below: the threshold that was chosen; None for the bundle's own.
    """
    curve = manifest.rejection
    if curve is None or not curve.answered[0]:
        return ""
    own = manifest.reject_below or 0.0
    total = curve.answered[0]
    known: dict[str, Any] = {
        "below": curve.below,
        "answered": [count / total for count in curve.answered],
        "right": [right / count if count else None for right, count in zip(curve.right, curve.answered, strict=True)],
        "own": own,
        "start": f"{min(own, 0.99):.2f}",  # the slider's place nearest to it
        "total": total,
        "subset": manifest.subset,
    }
    answered = " ".join(f"{100 * x:g},{100 - 100 * y:.2f}" for x, y in zip(curve.below, known["answered"], strict=True))
    pairs = [(x, y) for x, y in zip(curve.below, known["right"], strict=True) if y is not None]
    right = " ".join(f"{100 * x:g},{100 - 100 * y:.2f}" for x, y in pairs)
    value = own if below is None else below
    return f"""<section class="tk-card tk-threshold" data-curve="{escape(json.dumps(known))}">
<p class="tk-eyebrow"><label for="tk-below">Say “{NONE_OF_THESE}” when less sure than <output></output></label>
<button type="button" data-reset hidden>reset</button></p>
<div class="tk-curve"><svg viewBox="0 0 99 100" preserveAspectRatio="none" aria-hidden="true">
<polygon points="0,100 {answered} 99,100"/><polyline points="{right}"/><line x1="0" x2="0" y1="0" y2="100"/></svg>
<span class="tk-key tk-key-right">right, of those answered</span>
<span class="tk-key tk-key-answered">answered</span></div>
<input id="tk-below" type="range" min="0" max="0.99" step="0.01" value="{min(value, 0.99):.2f}">
<p class="tk-cost" role="status"></p>
</section>"""


def _is_grey(manifest: Manifest) -> bool:
    return manifest.preprocessing.channel_order == "grey"


def answer_card(answer: Answer, note: str = "") -> str:
    """Write the best label, or that it is none of them, the true one if it is known, a bar per class, and the time."""
    best = answer.predictions[0]
    label = NONE_OF_THESE if answer.rejected else best.label
    sure = best_guess(best.label, best.probability) if answer.rejected else percent(best.probability)
    if answer.reason == "unfamiliar":
        sure = "unlike the pictures it learned from"
    bars = "".join(
        f'<li><span class="tk-name" title="{escape(p.label)}">{escape(p.label)}</span>'
        f'<span class="tk-track" aria-hidden="true"><span style="width:{100 * p.probability:.2f}%"></span></span>'
        f'<span class="tk-share">{percent(p.probability)}</span></li>'
        for p in answer.predictions
    )
    crops = f", {answer.crops} crops" if answer.crops > 1 else ""
    return f"""<section class="tk-card{" tk-none" if answer.rejected else ""}" data-state="answer">
<p class="tk-eyebrow">The network says</p>
<p class="tk-top{" tk-long" if len(label) > 16 else ""}"><span class="tk-label">{escape(label)}</span>
<span class="tk-sure">{escape(sure)}</span></p>
{_truth(answer)}{_turned(answer)}{f'<p class="tk-note">{escape(note)}</p>' if note else ""}
<ol class="tk-bars">{bars}</ol>
<p class="tk-facts"><b>{milliseconds(answer.milliseconds)}</b> to decode and classify, \
{escape(bundle_name(answer.bundle))} on {escape(answer.engine)}{crops}</p>
</section>"""


def _truth(answer: Answer) -> str:
    if answer.true_label is None:
        return ""
    if answer.rejected:
        why = "the picture too unfamiliar" if answer.reason == "unfamiliar" else "too unsure"
        verdict = f"{why} to say so" if answer.is_right else f"wrong, and {why} to say it"
    else:
        verdict = "right" if answer.is_right else "the network is wrong here"
    label = escape(answer.true_label)
    kind = "tk-right" if answer.is_right else "tk-wrong"
    return f'<p class="tk-truth {kind}">true label: <b title="{label}">{label}</b> – {verdict}</p>'


def _turned(answer: Answer) -> str:
    if answer.turned is None:
        return ""
    return (
        f'<p class="tk-note tk-turned"><img src="{data_url(answer.turned)}" alt="The picture with light and dark '
        'exchanged"><span>Light and dark are exchanged: the network learned from pictures the other way round, and '
        "was shown this.</span></p>"
    )


def about(manifest: Manifest, engine: str) -> str:
    """Write the network's facts and its measured accuracy, with ``engine`` where that was measured."""
    height, width = manifest.preprocessing.size
    colour = "grey" if _is_grey(manifest) else "colour"
    facts = [
        f"<b>{escape(manifest.model)}</b>",
        f"{manifest.num_params:,} parameters",
        f"{len(manifest.labels):,} classes",
        f"sees {width} × {height} {colour}",
    ]
    lines = " · ".join(f'<span class="tk-fact">{fact}</span>' for fact in facts)
    accuracy = manifest.metrics.get(f"top1_{engine}", manifest.metrics.get("top1"))
    if accuracy is not None:
        count = manifest.metrics.get("n")
        of_them = f"{count:,.0f} " if count else ""
        error = manifest.metrics.get("standard_error")
        spread = "" if error is None else f" ± {100 * error:.1f}"
        lines += f"<br><b>{100 * accuracy:.1f} %</b>{spread} on {of_them}{manifest.subset} pictures"
    if manifest.forced:
        lines += f'<br><span class="tk-warn">Exported against its checks: {escape("; ".join(manifest.forced))}</span>'
    return f'<p class="tk-about">{lines}</p>'


def examples_strip(examples: Sequence[Example]) -> str:
    """Write a button per readable example picture, with its true label where that is known, or nothing."""
    buttons = "".join(
        _example(index, source, example.label)
        for index, example in enumerate(examples)
        if (source := thumbnail(example.path))
    )
    if not buttons:
        return ""
    is_told = any(example.label is not None for example in examples)
    told = ", with their true labels" if is_told else ""
    return f'<p class="tk-eyebrow">Or try one of these{told}</p><div class="tk-examples">{buttons}</div>'


def _example(index: int, source: str, label: str | None) -> str:
    name = f"Example {index + 1}" + ("" if label is None else f", true label: {label}")
    caption = "" if label is None else f'<span class="tk-caption">{escape(label)}</span>'
    return (
        f'<button type="button" class="tk-example" data-index="{index}" aria-label="{escape(name)}" '
        f'title="{escape(name)}"><img src="{source}" alt="">{caption}</button>'
    )
