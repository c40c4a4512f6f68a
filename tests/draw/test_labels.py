"""Class names as text in pictures: no formula, no box, no font that is not there."""

import io

import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure

from toolkit.draw.labels import _fonts_for, drawable
from toolkit.errors import one_line


def ink(text: str) -> np.ndarray:
    figure = Figure(figsize=(6, 1))
    figure.text(0.05, 0.3, text)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="rgba")
    return np.frombuffer(buffer.getvalue(), np.uint8)


@pytest.mark.filterwarnings("error::UserWarning")  # Matplotlib's, of a glyph that is missing
def test_every_name_is_drawn_as_it_stands(hostile_names, not_utf8):
    with drawable([*hostile_names, not_utf8]) as drawn:
        for name, text in zip([*hostile_names, not_utf8], drawn, strict=True):
            ink(text)
            if name.isascii() and name.isprintable() and len(name) < 40:
                assert text.replace(r"\$", "$") == name
    assert drawn[0] == r"\$1_to_\$5"
    assert drawn[-1] == r"caf\xe9"


def test_a_dollar_sign_is_ink():
    with drawable(["$5", "5"]) as (price, number):
        assert (ink(price) != ink(number)).any()


def test_long_names_keep_both_ends():
    with drawable(["train_" + "x" * 100 + "_left", "short"], longest=20) as (long, short):
        assert (len(long), long[:6], long[-5:], short) == (20, "train_", "_left", "short")


def test_letters_that_no_font_has_are_code_points_and_said(caplog):
    caplog.set_level("INFO", "toolkit")
    with drawable(["cat", "b\U0010fffd"]) as drawn:  # of private use, nobody's
        assert drawn == ["cat", "bU+10FFFD"]
    assert "no font here has the letters of b\U0010fffd:" in caplog.text


def letters_of(font: str) -> set[int]:
    return set(font_manager.get_font(font).get_charmap())


@pytest.mark.parametrize("reverse", [False, True])
def test_a_font_is_found_that_has_the_letters(reverse, monkeypatch):
    """Matplotlib lists fonts as the file system does."""
    fonts = sorted(font_manager.fontManager.ttflist, key=lambda font: font.fname, reverse=reverse)
    monkeypatch.setattr(font_manager.fontManager, "ttflist", fonts)
    _fonts_for.cache_clear()
    regular, bold = "STIXNonUnicode", "STIXNonUnicode:weight=700"
    known = letters_of(font_manager.findfont("DejaVu Sans")) | letters_of(font_manager.findfont(bold))
    letter = chr(min(letters_of(font_manager.findfont(regular)) - known))
    with drawable(["cat", letter]) as drawn:
        assert drawn == ["cat", letter]
    _fonts_for.cache_clear()


def test_lines_stay_lines():
    assert one_line("a\nb\r\x1b[31m\u2028") == r"a\nb\r\x1b[31m\u2028"
    assert one_line("Käfer 犬 العربية") == "Käfer 犬 العربية"
