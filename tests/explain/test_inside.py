"""A network's maps, filters and their statistics."""

import pytest

from toolkit.explain.inside import feature_maps, statistics


def test_statistics_are_those_of_the_maps(textures, halved):
    explanation = textures.explain(halved[0][0])
    rows = statistics(explanation)
    assert [row.stage for row in rows] == ["stage1", "stage2", "stage3"]
    _, cells = feature_maps(explanation, "stage2")
    assert rows[1].mean == pytest.approx(cells.mean())
    assert rows[1].zeros == pytest.approx((cells == 0).mean())
    assert rows[1].silent == (cells == 0).all(axis=(0, 1)).sum()
