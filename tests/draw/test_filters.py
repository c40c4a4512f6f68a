"""The page of edge detectors: each filter, the picture and the worked answer, in numbers."""

import xml.etree.ElementTree as ElementTree

import pytest

from toolkit.draw import draw_filters
from toolkit.draw.filters import FILTERS
from toolkit.errors import UserError


def test_the_page_holds_filters_and_answers(tmp_path):
    path = tmp_path / "filters.svg"
    draw_filters(path)
    texts = ["".join(text.itertext()) for text in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]
    assert {*FILTERS, "picture", "answer"} <= set(texts)
    # 9 of the filter, 36 of the picture and 16 of the answer, three titles.
    assert len(texts) == len(FILTERS) * (3 + 9 + 36 + 16)
    horizontal = texts[texts.index("horizontal") :]
    answer = horizontal[horizontal.index("answer") - 16 : horizontal.index("answer")]
    assert answer == ["0"] * 4 + ["30", "10", "-10", "-30"] * 2 + ["0"] * 4


def test_a_file_that_cannot_be_drawn_to_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"cannot draw to 'filters\.txt'"):
        draw_filters(tmp_path / "filters.txt")
