"""Names that people gave to classes, as text in pictures and on pages.

A name may hold anything that a folder's name can: dollar signs, between which Matplotlib reads a formula, a line break,
bytes that are no UTF-8, letters that its font does not have, two hundred of them.
"""

import functools
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from toolkit.errors import one_line

log = logging.getLogger("toolkit")

_FONT = "DejaVu Sans"  # Matplotlib's own, always there
# Fonts whose pictures are coloured, which Matplotlib cannot draw, and a font of one box for each script.
_NO_FONTS = ("Color", "Last Resort")


@contextmanager
def drawable(names: Sequence[str], *, longest: int = 40) -> Iterator[list[str]]:
    r"""Give ``names`` as Matplotlib draws them, in fonts that have their letters where any installed one does.

    What no font has is written as code points, and said. Names of more than ``longest`` letters are cut in their
    middle. Draw and save within the ``with``.

    >>> with drawable(["$1_to_$5", "a\nb"]) as drawn:
    ...     print(*drawn)
    \$1_to_\$5 a\nb
    """
    import matplotlib

    lines = [one_line(name) for name in names]
    families, missing = _fonts_for("".join(sorted(set("".join(lines)))))
    if missing:
        some = [line for line in lines if set(line) & set(missing)]
        log.info(
            "no font here has the letters of %s: pictures show code points in their place, pages and tables the names; "
            "fonts such as Noto's (fonts-noto-cjk) have them",
            ", ".join(some[:3]) + (" …" if len(some) > 3 else ""),
        )
    with matplotlib.rc_context({"font.family": list(families)}):
        yield [_drawn(line, missing, longest) for line in lines]


def _drawn(line: str, missing: str, longest: int) -> str:
    if len(line) > longest:
        start = longest * 2 // 3
        line = f"{line[:start]}…{line[start + 1 - longest :]}"
    shown = "".join(f"U+{ord(char):04X}" if char in missing else char for char in line)
    return shown.replace("$", r"\$")


@functools.cache
def _fonts_for(letters: str) -> tuple[tuple[str, ...], str]:
    """Choose font families that have ``letters``, and tell the letters that none has."""
    from matplotlib import font_manager

    families = [_FONT]
    path = font_manager.findfont(_FONT)
    missing = _without(letters, path)
    if missing:
        manager = font_manager.fontManager
        upright = [font for font in manager.ttflist if font.style == "normal"]
        # Of a family the face that Matplotlib draws with: a bold one may have letters that the regular one has not.
        upright.sort(key=lambda font: -manager.score_weight(font.weight, "normal"))
        fonts = {font.name: font.fname for font in upright if not any(no in font.name for no in _NO_FONTS)}
        left = {name: _without(missing, path) for name, path in sorted(fonts.items())}
        while missing and left:
            best = min(left, key=lambda name: len(left[name]))
            if left[best] == missing:
                break
            families.append(best)
            missing = left[best]
            left = {name: "".join(c for c in rest if c in missing) for name, rest in left.items()}
    return tuple(families), missing


def _without(letters: str, font: str) -> str:
    from matplotlib.font_manager import get_font

    try:
        face = get_font(font)
    except (OSError, RuntimeError):  # a font that FreeType cannot read
        return letters
    return "".join(letter for letter in letters if not face.get_char_index(ord(letter)))
