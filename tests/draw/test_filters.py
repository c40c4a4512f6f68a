"""The page of edge detectors: each filter, the picture and the worked answer, in numbers."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from toolkit.draw import draw_filters, filter_layer
from toolkit.draw.filters import FILTERS
from toolkit.errors import UserError


def test_the_page_holds_filters_and_answers(tmp_path):
    path = tmp_path / "filters.svg"
    draw_filters(path)
    texts = ["".join(text.itertext()) for text in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]
    assert {*FILTERS, "picture", "answer"} <= set(texts)
    # The filter's numbers, 36 of the picture and those of the answer, three titles.
    sides = [len(kernel) for kernel in FILTERS.values()]
    assert len(texts) == sum(3 + side**2 + 36 + (6 - side + 1) ** 2 for side in sides)
    horizontal = texts[texts.index("horizontal") :]
    answer = horizontal[horizontal.index("answer") - 16 : horizontal.index("answer")]
    assert answer == ["0"] * 4 + ["30", "10", "-10", "-30"] * 2 + ["0"] * 4


def test_the_quiz_filter_answers_vertical_edges_and_no_horizontal_ones():
    layer = filter_layer("quiz")
    bright = np.repeat(np.array([[10.0, 10, 10, 0, 0, 0]]), 6, axis=0)
    answer = [layer(picture[None, :, :, None])[0, :, :, 0] for picture in (bright, bright.T)]
    assert np.array_equal(answer[0], [[20, 100, 20]] * 3)
    assert not np.any(answer[1])


def test_a_file_that_cannot_be_drawn_to_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"cannot draw to 'filters\.txt'"):
        draw_filters(tmp_path / "filters.txt")
