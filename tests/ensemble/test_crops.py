"""The crops that each scheme gives, cut out of pictures in which every pixel says where it is."""

import numpy as np
import pytest
from PIL import Image

from toolkit.data.pixels.decode import decode_pixels
from toolkit.ensemble.crops import plan_crops, resized_to
from toolkit.ensemble.cut import decode_crops
from toolkit.errors import UserError
from toolkit.spec import Preprocessing

SQUARE = Preprocessing(size=(24, 24), crop_fraction=0.75)  # resized to 32, eight pixels of room


def numbered(height: int, width: int) -> np.ndarray:
    """Every pixel says where it is: red its row, green its column."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([rows, columns, 0 * rows], axis=-1)


def starts(crops: np.ndarray) -> list[tuple[int, int]]:
    """Row and column of each crop's upper left pixel, of a mirrored crop that of its upper right one."""
    found = []
    for crop in crops:
        left = min(int(crop[0, 0, 1]), int(crop[0, -1, 1]))
        found.append((int(crop[0, 0, 0]), left))
        np.testing.assert_array_equal(crop[:, 0, 0], found[-1][0] + np.arange(len(crop)))
    return found


def test_ten_crops_are_the_corners_and_the_centre_of_the_central_square_and_their_mirrors():
    picture = numbered(32, 52)  # not resized: the shorter side is 32 already
    crops = decode_crops(picture, SQUARE, plan_crops(SQUARE, 10))
    corners = [(0, 10), (0, 18), (8, 10), (8, 18), (4, 14)]
    assert starts(crops) == [start for start in corners for _ in range(2)]
    np.testing.assert_array_equal(crops[1::2], crops[::2, :, ::-1])
    assert (crops[::2, 0, 0, 1] < crops[::2, 0, -1, 1]).all()  # the even ones are as they were
    np.testing.assert_array_equal(decode_crops(picture.transpose(1, 0, 2), SQUARE, plan_crops(SQUARE, 10))[2][..., :2],
                                  crops[4].transpose(1, 0, 2)[..., :2])  # fmt: skip


def test_144_crops_are_four_scales_of_three_squares_of_six_crops_and_their_mirrors():
    plan = plan_crops(Preprocessing(size=(224, 224)), 144)
    assert len(set(plan)) == len(plan) == 4 * 3 * 6 * 2
    assert sorted({crop.shorter_side for crop in plan}) == [256, 288, 320, 352]
    own = [crop for crop in plan_crops(SQUARE, 144, (32,)) if not crop.mirror]
    crops = decode_crops(numbered(32, 52), SQUARE, own)
    whole = [pixels for crop, pixels in zip(own, crops, strict=True) if crop.place is None]
    for crop, left in zip(whole, (0, 10, 20), strict=True):
        square = Image.fromarray(numbered(32, 52)[:, left : left + 32])
        np.testing.assert_array_equal(crop, decode_pixels(square, Preprocessing(size=(24, 24))))
    corners = starts([pixels for crop, pixels in zip(own, crops, strict=True) if crop.place is not None])
    assert corners[:5] == [(0, 0), (0, 8), (8, 0), (8, 8), (4, 4)]
    assert corners[10:] == [(0, 20), (0, 28), (8, 20), (8, 28), (4, 24)]


def test_fifty_crops_are_a_grid_over_the_whole_picture():
    plan = plan_crops(SQUARE, 50)
    crops = decode_crops(numbered(32, 52), SQUARE, plan)
    assert starts(crops)[::2] == [(row, column) for row in (0, 2, 4, 6, 8) for column in (0, 7, 14, 21, 28)]
    assert len(plan_crops(Preprocessing(size=(224, 224)), 50, (256, 384, 512))) == 150  # the paper's number


def test_scales_multiply_the_crops_and_default_to_the_networks_own():
    assert [crop.shorter_side for crop in plan_crops(SQUARE, 1, (24, 40))] == [24, 40]
    assert {crop.shorter_side for crop in plan_crops(SQUARE, 10)} == {32}
    assert {crop.shorter_side for crop in plan_crops(Preprocessing(size=(224, 224)), 10)} == {256}
    assert {crop.shorter_side for crop in plan_crops(Preprocessing(size=(32, 32), resize="stretch"), 10)} == {37}
    assert resized_to(Preprocessing(size=(24, 48)), 36).size == (36, 72)


def test_what_cannot_be_cut_is_refused():
    with pytest.raises(UserError, match="5 crops: expected one of 1, 10, 50, 144"):
        plan_crops(SQUARE, 5)
    with pytest.raises(UserError, match="scale 23 is smaller than the 24 × 24 pixels the network sees; give 24"):
        plan_crops(SQUARE, 10, (32, 23))
