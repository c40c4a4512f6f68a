"""Crops cut on the host, against pixels decoded without any cutting."""

import numpy as np
import pytest

from toolkit.data.pixels import sizes
from toolkit.data.pixels.decode import decode_pixels
from toolkit.ensemble.crops import Crop, is_plain, plan_crops
from toolkit.ensemble.cut import decode_crops, load_crops
from toolkit.spec import Preprocessing

SQUARE = Preprocessing(size=(24, 24), crop_fraction=0.75)  # resized to 32, eight pixels of room


@pytest.mark.parametrize("shape", [(301, 226), (100, 333), (64, 64), (1, 1)])
@pytest.mark.parametrize(
    "preprocessing",
    [SQUARE, Preprocessing(size=(24, 24)), Preprocessing(size=(20, 32), resize="stretch")],
    ids=["crop", "no margin", "stretch"],
)
def test_single_crop_is_what_the_network_sees_anyway(shape, preprocessing):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (*shape, 3), np.uint8)
    plan = plan_crops(preprocessing)
    assert is_plain(preprocessing, plan)
    expected = decode_pixels(picture, preprocessing)
    np.testing.assert_array_equal(decode_crops(picture, preprocessing, plan), expected[None])
    # The same crop among others goes the general way, and must be the same.
    together = decode_crops(picture, preprocessing, (*plan, Crop(plan[0].shorter_side, mirror=True)))
    np.testing.assert_array_equal(together, np.stack([expected, expected[:, ::-1]]))


@pytest.mark.parametrize("crops", [1, 10])
def test_several_pictures_keep_their_order(crops):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (30 + index, 50, 3), np.uint8) for index in range(5)]
    plan = plan_crops(SQUARE, crops)
    expected = np.stack([decode_crops(picture, SQUARE, plan) for picture in pictures])
    np.testing.assert_array_equal(load_crops(pictures, SQUARE, plan), expected)


@pytest.mark.parametrize("shape", [(2, 900), (900, 5)])
def test_crops_of_a_long_picture_are_those_of_the_whole(shape, monkeypatch):
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    plan = (*plan_crops(SQUARE, 144), *plan_crops(SQUARE, 50, (32, 40)))
    alone = decode_crops(picture, SQUARE, plan)
    monkeypatch.setattr(sizes, "LONG", 10**9)
    difference = np.abs(alone.astype(int) - decode_crops(picture, SQUARE, plan))
    assert difference.max() <= 1
    assert np.mean(difference > 0) < 1e-3
