"""Parts of a picture lie where they were cut out, and keep the answer."""

import numpy as np
import pytest
from PIL import Image
from textured import texture

from toolkit.data.pixels.decode import decode_pixels
from toolkit.explain.regions import Box, seen_box
from toolkit.metrics import softmax
from toolkit.spec import Preprocessing


def test_box_seen():
    cropped = Preprocessing((224, 224), crop_fraction=0.875)
    box = seen_box(512, 1024, cropped)
    assert (box.height, box.width) == pytest.approx((448, 448))
    assert (box.top, box.left) == pytest.approx((32, 288))
    assert seen_box(30, 90, Preprocessing((10, 10), resize="stretch")) == Box(0, 0, 30, 90)
    assert box.inner(Box(112, 0, 112, 56), (224, 224)) == Box(256, 288, 224, 112)


def test_the_smallest_region_keeps_the_answer_when_cut_out(textures, tmp_path):
    rng = np.random.default_rng(3)
    picture = rng.normal(128, 12, (96, 150, 3)).clip(0, 255).astype(np.uint8)
    picture[30:80, 40:90] = texture("down", 50, 50, rng, stroke=4)
    explanation = textures.explain(picture)
    region = explanation.smallest_region()
    assert region is not None
    assert region.share < 0.5
    part = explanation.cut_out(region.box)
    Image.fromarray(part).save(tmp_path / "part.png")
    pixels = decode_pixels(tmp_path / "part.png", textures.preprocessing)
    answer = softmax(textures.logits(pixels[None]))[0]
    assert textures.labels[answer.argmax()] == explanation.label
    assert answer.max() == pytest.approx(region.probability, abs=1e-4)
    assert answer.max() >= 0.9 * explanation.probabilities.max()
