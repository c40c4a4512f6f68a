import numpy as np
import pytest

from toolkit.data.feed.arrays import load_pixels
from toolkit.data.pixels.ground import common_ground, exchange_ground, has_opposite_ground


def _stroke(ground: int, ink: int) -> np.ndarray:
    pixels = np.full((32, 32, 3), ground, np.uint8)
    pixels[6:26, 14:18] = ink
    return pixels


def test_the_digits_stand_on_black(digits_split, lenet_preprocessing):
    pixels = load_pixels(digits_split.train.paths[:100], lenet_preprocessing)
    ground = common_ground(pixels)
    assert ground == pytest.approx(0, abs=0.1)
    assert not any(has_opposite_ground(picture, ground) for picture in pixels)
    assert all(has_opposite_ground(255 - picture, ground) for picture in pixels)


def test_pictures_without_a_ground_in_common_have_none():
    rng = np.random.default_rng(0)
    assert common_ground(np.stack([_stroke(ground, 90) for ground in rng.integers(0, 256, 40)])) is None
    assert common_ground(np.empty((0, 8, 8, 3), np.uint8)) is None


@pytest.mark.parametrize(("ground", "paper", "ink"), [(0.0, 200, 40), (0.0, 120, 60), (1.0, 20, 180)])
def test_the_opposite_ground_is_exchanged_and_the_marks_stand_out(ground, paper, ink):
    picture = _stroke(paper, ink)
    assert has_opposite_ground(picture, ground)
    turned = exchange_ground(picture, ground)
    assert not has_opposite_ground(turned, ground)
    assert set(np.unique(turned)) == {0, 255}
    assert turned[0, 0, 0] == round(255 * ground)


def test_a_shaded_paper_becomes_plain_ground():
    shade = np.linspace(150, 230, 32)[:, None, None].repeat(32, 1).repeat(3, 2)
    picture = shade.astype(np.uint8)
    picture[6:26, 14:18] = 30
    turned = exchange_ground(picture, 0.0)
    assert np.median(turned[:, :10]) == 0
    assert turned[6:26, 14:18].min() > 240


def test_a_blank_picture_is_left_as_it_is():
    assert not has_opposite_ground(np.full((8, 8, 3), 255, np.uint8), 0.0)
