"""Deletion and insertion tell a good map from others."""

import numpy as np
from textured import texture

from toolkit.explain import HeatMap


def test_the_map_beats_a_random_and_a_central_one(textures):
    """On pictures with one textured corner, by deletion and by insertion."""
    rng = np.random.default_rng(2)
    areas = {name: [] for name in ("evidence", "random", "centre")}
    down, across = np.mgrid[:48, :48] - 23.5
    for number in range(6):
        pixels = rng.normal(128, 12, (48, 48, 3)).clip(0, 255).astype(np.uint8)
        top, left = (number % 2) * 24, (number // 2 % 2) * 24
        pixels[top : top + 24, left : left + 24] = texture(textures.labels[number % 3], 24, 24, rng)
        explanation = textures.explain(pixels)
        label = textures.labels[number % 3]
        values = {"random": np.kron(rng.random((6, 6)), np.ones((8, 8))), "centre": -np.hypot(down, across)}
        maps = {name: HeatMap(given, label, "", name) for name, given in values.items()}
        for name, found in (maps | {"evidence": explanation.heat_map(label)}).items():
            areas[name].append(explanation.faithfulness(found).areas)
    deletion, insertion = ({name: np.mean(rows, axis=0)[side] for name, rows in areas.items()} for side in (0, 1))
    assert deletion["evidence"] < min(deletion["random"], deletion["centre"])
    assert insertion["evidence"] > max(insertion["random"], insertion["centre"])
