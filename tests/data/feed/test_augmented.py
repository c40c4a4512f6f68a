import numpy as np
import pytest

from toolkit.data.feed.augmented import AugmentedViews
from toolkit.data.pixels.decode import resize_pixels
from toolkit.errors import UserError
from toolkit.spec import Preprocessing

PREPROCESSING = Preprocessing(size=(32, 48), resize="stretch")
# Red tells the column, green the row.
ROWS, COLUMNS = np.mgrid[0:200, 0:250]
GRADIENT = np.stack([COLUMNS, ROWS, np.zeros_like(ROWS)], axis=-1).astype(np.uint8)


def view(number, *, seed=0, picture=b"a picture's digest", rgb=GRADIENT, **views):
    return AugmentedViews(seed=seed, **views).pixels(rgb, PREPROCESSING, number, picture)


def test_view_zero_is_the_plain_picture():
    np.testing.assert_array_equal(view(0, seed=5), resize_pixels(GRADIENT, PREPROCESSING))


def test_views_follow_from_seed_number_and_picture():
    np.testing.assert_array_equal(view(3), view(3))
    others = [view(4), view(3, seed=1), view(3, picture=b"another picture")]
    assert all(not np.array_equal(view(3), other) for other in others)


def test_views_are_crops_within_the_stated_area_and_half_of_them_are_mirrored():
    mirrored = 0
    for number in range(1, 201):
        pixels = view(number).astype(int)
        assert pixels.shape == (32, 48, 3)
        left, right = pixels[16, 0, 0], pixels[16, -1, 0]
        mirrored += left > right
        # The outermost samples stand half a step inside the crop.
        width, height = abs(right - left) * 48 / 47, (pixels[-1, 24, 1] - pixels[0, 24, 1]) * 32 / 31
        assert 0.3 < width * height / (200 * 250) < 1.05
    assert 75 < mirrored < 125


def test_the_smallest_picture_has_views():
    assert view(1, rgb=np.full((1, 1, 3), 7, np.uint8)).shape == (32, 48, 3)


def test_names_tell_views_apart_and_the_plain_picture_has_no_seed():
    assert AugmentedViews(3, seed=1).name(0) == AugmentedViews(9, seed=2).name(0) == "plain"
    assert len({AugmentedViews(3, seed=seed).name(number) for seed in (1, 2) for number in (1, 2)}) == 4
    assert AugmentedViews(augment="mirror").name(1) != AugmentedViews().name(1)
    assert AugmentedViews(augment="mirror:0.5").name(1) == AugmentedViews(augment="mirror").name(1)


def test_views_are_made_by_any_augmentation_of_one_picture():
    assert np.array_equal(view(1, augment="mirror:1"), view(0)[:, ::-1])
    with pytest.raises(UserError, match="nothing can be mixed; got 'mirror, mixup'"):
        AugmentedViews(augment="mirror, mixup")
    with pytest.raises(UserError, match="unknown augmentation 'miror'"):
        AugmentedViews(augment="miror")
    with pytest.raises(UserError, match="views must be at least 1"):
        AugmentedViews(0)
