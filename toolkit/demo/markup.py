"""The parts of the page that Gradio has no component for, as HTML. Whatever comes from outside is escaped."""

import base64
import io
from collections.abc import Sequence
from functools import lru_cache
from html import escape as escape_html
from pathlib import Path

from toolkit.bundle import Manifest
from toolkit.demo.classifier import Answer

#: Longest side of an example's thumbnail, twice its size on the page for sharp screens.
_THUMBNAIL = 144

#: Said instead of a label when the best is too improbable.
NONE_OF_THESE = "none of these"

HEADER = """<header class="tk-header">
<h1>What does the network see?</h1>
<p>Drop a picture in; a neural network running on this server names it and says how sure it is.</p>
</header>"""

NOTHING_YET = (
    """<section class="tk-card tk-empty" data-state="empty">
<p class="tk-eyebrow">The network says</p>
<p class="tk-top">Show me a picture.</p>
<ol class="tk-bars" aria-hidden="true">"""
    + 5 * '<li><span class="tk-track"></span></li>'
    + """</ol>
</section>"""
)


def answer_card(answer: Answer) -> str:
    """Write the best label, or that it is none of them, a bar per class, and the time it took."""
    best = answer.predictions[0]
    label = NONE_OF_THESE if answer.rejected else best.label
    sure = f"{best.label} {percent(best.probability)} at best" if answer.rejected else percent(best.probability)
    bars = "".join(
        f'<li><span class="tk-name" title="{escape(p.label)}">{escape(p.label)}</span>'
        f'<span class="tk-track" aria-hidden="true"><span style="width:{100 * p.probability:.2f}%"></span></span>'
        f'<span class="tk-share">{percent(p.probability)}</span></li>'
        for p in answer.predictions
    )
    return f"""<section class="tk-card{" tk-none" if answer.rejected else ""}" data-state="answer">
<p class="tk-eyebrow">The network says</p>
<p class="tk-top{" tk-long" if len(label) > 16 else ""}"><span class="tk-label">{escape(label)}</span>
<span class="tk-sure">{escape(sure)}</span></p>
<ol class="tk-bars">{bars}</ol>
<p class="tk-facts"><b>{milliseconds(answer.milliseconds)}</b> to decode and classify, \
{escape(answer.bundle)} on {escape(answer.engine)}</p>
</section>"""


def problem_card(title: str, detail: str, advice: str = "") -> str:
    """Write a problem that the visitor can mend."""
    hint = f'<p class="tk-hint">{escape(advice)}</p>' if advice else ""
    return f"""<section class="tk-card tk-problem" data-state="problem" role="alert">
<p class="tk-eyebrow">{escape(title)}</p>
<p class="tk-detail">{escape(detail)}</p>
{hint}</section>"""


def about(manifest: Manifest, engine: str) -> str:
    """Write the network's facts and its accuracy on held-out pictures, with ``engine`` where that was measured."""
    height, width = manifest.preprocessing.size
    colour = "grey" if manifest.preprocessing.channel_order == "grey" else "colour"
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
        where = f"on {count:,.0f} held-out pictures" if count else "on held-out pictures"
        lines += f"<br><b>{100 * accuracy:.1f} %</b> {where}"
    if manifest.forced:
        lines += f'<br><span class="tk-warn">Exported against its checks: {escape("; ".join(manifest.forced))}</span>'
    return f'<p class="tk-about">{lines}</p>'


def examples_strip(paths: Sequence[Path]) -> str:
    """Write a button per readable example picture, or nothing."""
    buttons = "".join(
        f'<button type="button" class="tk-example" data-index="{index}" aria-label="Example {index + 1}">'
        f'<img src="{source}" alt=""></button>'
        for index, path in enumerate(paths)
        if (source := _thumbnail(path))
    )
    return f'<p class="tk-eyebrow">Or try one of these</p><div class="tk-examples">{buttons}</div>' if buttons else ""


def percent(probability: float) -> str:
    """Write a probability as people read it; neither certainty nor impossibility is claimed by rounding.

    >>> percent(0.9942), percent(0.99996), percent(0.00001)
    ('99.4 %', '> 99.9 %', '< 0.1 %')
    """
    if 0.9995 <= probability < 1:
        return "> 99.9 %"
    if 0 < probability < 0.0005:
        return "< 0.1 %"
    return f"{100 * probability:.1f} %"


def milliseconds(value: float) -> str:
    """Write a duration with two significant digits or more.

    >>> milliseconds(1.234), milliseconds(56.7)
    ('1.2 ms', '57 ms')
    """
    return f"{value:.1f} ms" if value < 10 else f"{value:,.0f} ms"


def escape(text: str) -> str:
    """Escape text for HTML that also passes through Gradio's templates unread.

    >>> escape("<b>${x}{{y}}")
    '&lt;b&gt;&#36;&#123;x&#125;&#123;&#123;y&#125;&#125;'
    """
    for mark in "${}":
        text = text.replace(mark, f"\0{ord(mark)}\0")
    pieces = escape_html(text).split("\0")
    return "".join(f"&#{piece};" if index % 2 else piece for index, piece in enumerate(pieces))


@lru_cache(maxsize=256)
def _thumbnail(path: Path) -> str:
    """Make a data URL, so that no folder of the server has to be opened to the browser."""
    from PIL import Image

    from toolkit.data.pixels.decode import ImageError, read_rgb

    try:
        image = Image.fromarray(read_rgb(path))
    except ImageError:
        return ""
    image_format = "png" if max(image.size) < _THUMBNAIL else "webp"  # tiny ones keep every pixel
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, image_format)
    return f"data:image/{image_format};base64,{base64.b64encode(buffer.getvalue()).decode()}"
