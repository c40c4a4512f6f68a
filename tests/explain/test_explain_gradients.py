"""Gradients by a map are those of the logits as that map alone changes."""

import numpy as np
import pytest

from toolkit.data.pixels.decode import normalize
from toolkit.explain.gradients import map_and_gradient


def test_gradients_go_through_one_map_alone(textures, halved):
    """The gradient by an early map is that of the logits as that map changes."""
    explanation = textures.explain(halved[0][0])
    halves = textures.halves(textures.model.get_layer("stage2_conv"))
    inputs = normalize(explanation.pixels[None], textures.preprocessing)
    weights = np.array([1, 0, 0], np.float32)
    cells, gradient = map_and_gradient(halves, inputs, weights)
    step = 1e-2 * gradient / np.linalg.norm(gradient)
    ahead, behind = (np.asarray(halves.back(cells[None] + sign * step))[0, 0] for sign in (1, -1))
    assert (ahead - behind) / 2e-2 == pytest.approx(np.linalg.norm(gradient), rel=0.05)
