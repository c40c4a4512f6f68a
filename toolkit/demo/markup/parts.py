"""The parts of all tabs' markup. Whatever comes from outside is escaped."""

from collections.abc import Iterable
from functools import lru_cache
from html import escape as escape_html
from pathlib import Path

import numpy as np
from PIL import Image

from toolkit.data.pixels.decode import ImageError, read_rgb
from toolkit.demo.encoding import image_url

#: Longest side of a thumbnail, twice its size on the page for sharp screens.
THUMBNAIL = 144

HEADER = """<header class="tk-header">
<h1>What does the network see?</h1>
<p>Drop pictures in, or draw one: a neural network running on this server names them, and says how sure it is.</p>
</header>"""


def problem_card(title: str, detail: str, advice: str = "") -> str:
    """Write a problem that the visitor can mend."""
    hint = f'<p class="tk-hint">{escape(advice)}</p>' if advice else ""
    return f"""<section class="tk-card tk-problem" data-state="problem" role="alert">
<p class="tk-eyebrow">{escape(title)}</p>
<p class="tk-detail">{escape(detail)}</p>
{hint}</section>"""


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


def best_guess(label: str, probability: float) -> str:
    """Word the best label where the answer is none of them: a guess, not the answer.

    >>> best_guess("8", 0.74)
    'best guess 8, 74.0 %'
    """
    return f"best guess {label}, {percent(probability)}"


def bundle_name(bundle: str) -> str:
    """Write a bundle's name; the secret in that of a visitor's own is left out.

    >>> bundle_name("digits/1"), bundle_name("yours/x7_k/2")
    ('digits/1', 'yours/2')
    """
    return f"{bundle.partition('/')[0]}/{bundle.rpartition('/')[2]}"


def milliseconds(value: float) -> str:
    """Write a duration with two significant digits or more.

    >>> milliseconds(0.1234), milliseconds(1.234), milliseconds(56.7)
    ('0.12 ms', '1.2 ms', '57 ms')
    """
    if value < 1:
        return f"{value:.2f} ms"
    return f"{value:.1f} ms" if value < 10 else f"{value:,.0f} ms"


def sides(shape: Iterable[int | None]) -> str:
    """Write a shape.

    >>> sides((7, 7, 1024))
    '7×7×1,024'
    """
    return "×".join("?" if side is None else f"{side:,}" for side in shape)


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
def thumbnail(path: Path) -> str:
    """Make a data URL of a small form of a picture; empty where it cannot be read."""
    try:
        return data_url(read_rgb(path))
    except ImageError:
        return ""


def data_url(pixels: np.ndarray, longest: int = THUMBNAIL) -> str:
    """Make a data URL of uint8 RGB.

    Args:
        pixels: uint8 (height, width, 3).
        longest: side of the picture that is sent, at most.
    """
    image = Image.fromarray(pixels)
    kind = "png" if max(image.size) < longest else "webp"  # tiny ones keep every pixel
    image.thumbnail((longest, longest))
    return image_url(image, kind)
