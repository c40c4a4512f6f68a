"""An explanation in words and as a document say the same of what was seen, and where."""

import numpy as np
import pytest
from textured import texture

from toolkit.explain.words import as_document, describe


@pytest.fixture(scope="module")
def explanation(textures):
    picture = np.full((96, 240, 3), 128, np.uint8)
    picture[:, 100:140] = texture("down", 96, 40, np.random.default_rng(0), stroke=4)
    return textures.explain(picture)


def test_what_is_seen_of_a_wide_picture(explanation):
    lines = describe(explanation, [], None, "")
    assert lines[0].startswith("answer: down ")
    assert lines[1] == "seen of the picture's 240×96 pixels: 40 % of it, 96×96 pixels at 72, 0"
    assert "no smaller part of what was seen keeps the answer" in lines
    document = as_document(explanation, [], None, "")
    assert document["seen"] == {"top": 0, "left": 72, "height": 96, "width": 96}
    assert document["smallest_region"] is None


def test_places_and_parts(explanation):
    found, region = explanation.heat_map("down", against="across"), explanation.smallest_region()
    text = "\n".join(describe(explanation, [found], region, ""))
    assert "for down against across, strongest " in text
    assert f"% across and {100 * found.peak[0]:.0f} % down" in text
    assert f"lead in logits {explanation.logits[1] - explanation.logits[0]:+.2f}: stage3_conv " in text
    assert f"enough for the answer: {region.box}" in text
    document = as_document(explanation, [found], region, "")
    assert document["smallest_region"]["share"] == region.share
    assert sum(document["heat_maps"][0]["by_stage"].values()) == pytest.approx(found.values.sum(), abs=1e-3)


@pytest.mark.parametrize(
    ("reason", "words"),
    [("unsure", "none of these (down "), ("unfamiliar", "none of these (unlike the pictures of ")],
)
def test_answer_that_means_none_of_these(explanation, reason, words):
    lines = describe(explanation, [], explanation.smallest_region(), reason)
    assert lines[0].startswith(f"answer: {words}")
    assert lines[0].endswith(" %)")
    assert any(line.startswith(("enough for down: ", "no smaller part of what was seen keeps down")) for line in lines)
    document = as_document(explanation, [], None, reason)
    assert (document["rejected"], document["reason"]) == (True, reason)
