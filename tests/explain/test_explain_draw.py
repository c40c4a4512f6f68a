"""Drawings fit the picture as it is; sheets show maps and filters."""

import numpy as np
import pytest
from PIL import Image

from toolkit.errors import UserError
from toolkit.explain import draw
from toolkit.explain.draw import draw_explanation, draw_features, draw_filters, overlay
from toolkit.explain.inside import feature_maps, first_filters


def test_overlay_has_the_picture_s_shape_and_dims_what_was_not_seen(textures):
    picture = np.full((200, 500, 3), 200, np.uint8)
    explanation = textures.explain(picture)
    drawn = overlay(explanation, explanation.heat_map())
    assert drawn.shape == picture.shape
    assert (drawn[:, :149] == 90).all()
    assert (drawn[:, 351:] == 90).all()
    untouched = overlay(explanation, explanation.heat_map(), strength=0.0)
    assert (untouched[:, 155:345] == 200).all()


def test_sheets_and_pages_are_written(textures, halved, tmp_path):
    explanation = textures.explain(halved[0][0])
    heat_maps = [explanation.heat_map(label) for label in textures.labels[:2]]
    draw_explanation(tmp_path / "page.png", explanation, heat_maps, None, "")
    name, cells = feature_maps(explanation, "stage1")
    assert (name, cells.shape) == ("stage1_conv", (48, 48, 12))
    draw_features(tmp_path / "maps.png", name, cells)
    name, filters = first_filters(textures)
    assert filters.shape == (12, 3, 3, 3)
    draw_filters(tmp_path / "filters.png", name, filters)
    for file in ("page.png", "maps.png", "filters.png"):
        with Image.open(tmp_path / file) as image:
            assert image.format == "PNG"
            assert min(image.size) > 100
    with pytest.raises(UserError, match="cannot be written"):
        draw_filters(tmp_path / "nowhere" / "x.png", name, filters)


def test_page_says_none_of_these_above_the_probabilities(textures, halved, tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(draw, "_bars", lambda axis, rows, title: titles.append(title))
    explanation = textures.explain(halved[0][0])
    for reason in ("", "unsure"):
        draw_explanation(tmp_path / "page.png", explanation, [], None, reason)
    assert titles == ["probability, %", "none of these; probability, %"]
