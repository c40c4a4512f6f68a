"""Averaging over crops and networks, against the same sums by hand."""

import numpy as np
import pytest

from toolkit.ensemble.crops import plan_crops
from toolkit.ensemble.cut import decode_crops
from toolkit.ensemble.ensemble import Ensemble, Member
from toolkit.errors import UserError
from toolkit.spec import Preprocessing

SMALL = Preprocessing(size=(6, 6), crop_fraction=0.75)
GREY = Preprocessing(size=(6, 6), crop_fraction=0.75, channel_order="grey", mean=(0.5,), std=(0.5,))
WIDE = Preprocessing(size=(8, 8))


class Brightness:
    """Answers how bright the left third, and remembers how many crops it was given at once."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.batches: list[int] = []

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        self.batches.append(len(pixels))
        share = (self.factor * pixels[:, :, :2].mean(axis=(1, 2, 3)) / 255).astype(np.float32)
        return np.stack([share, 1 - share], axis=1)


def pictures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(count)
    return [rng.integers(0, 256, (10 + i, 14, 3), np.uint8) for i in range(count)]


def test_members_count_alike_however_many_crops_they_are_shown():
    first, second = Brightness(1.0), Brightness(0.5)
    plans = plan_crops(SMALL, 10), plan_crops(WIDE, 1)
    ensemble = Ensemble([Member(first, SMALL, plans[0]), Member(second, WIDE, plans[1])])
    images = pictures(3)
    expected = [
        (
            Brightness(1.0).probabilities(decode_crops(image, SMALL, plans[0])).mean(axis=0)
            + Brightness(0.5).probabilities(decode_crops(image, WIDE, plans[1])).mean(axis=0)
        )
        / 2
        for image in images
    ]
    answer = ensemble.probabilities(ensemble.decode_all(images))
    assert (answer.dtype, answer.shape) == (np.float32, (3, 2))
    np.testing.assert_allclose(answer, expected, atol=1e-6)
    np.testing.assert_array_equal(ensemble.from_decoded([ensemble.decode(image) for image in images]), answer)


def test_networks_that_want_the_same_crops_share_them():
    ensemble = Ensemble(
        [Member(Brightness(f), p, plan_crops(p, 10)) for f, p in ((1, SMALL), (0.5, GREY), (0.2, SMALL))]
    )
    assert ensemble.num_crops == 10
    assert [crops.shape for crops in ensemble.decode(pictures(1)[0])] == [(10, 6, 6, 3)]
    assert Ensemble([*ensemble.members, Member(Brightness(1), WIDE, plan_crops(WIDE))]).num_crops == 11


@pytest.mark.parametrize(("crops", "together", "at_once"), [(1, 128, [3]), (10, 12, [30]), (144, 1, [64] * 6 + [48])])
def test_memory_is_bounded_whatever_the_number_of_crops(crops, together, at_once):
    engine = Brightness(1.0)
    ensemble = Ensemble([Member(engine, SMALL, plan_crops(SMALL, crops))])
    assert ensemble.pictures_at_once == together
    ensemble.probabilities(ensemble.decode_all(pictures(3)))
    assert engine.batches == at_once


def test_ready_pixels_are_seen_by_all_members_where_they_fit_them():
    pixels = np.stack([np.resize(picture, (6, 6, 3)) for picture in pictures(4)])
    bright, dim = Member(Brightness(1.0), SMALL, plan_crops(SMALL, 10)), Member(Brightness(0.5), GREY, plan_crops(GREY))
    expected = (Brightness(1.0).probabilities(pixels) + Brightness(0.5).probabilities(pixels)) / 2
    np.testing.assert_allclose(Ensemble([bright, dim]).from_pixels(pixels), expected, atol=1e-6)
    with pytest.raises(UserError, match="pixels of different sizes; give them pictures"):
        Ensemble([bright, Member(Brightness(1.0), WIDE, plan_crops(WIDE))]).from_pixels(pixels)


def test_the_largest_input_is_the_first_members_that_has_it():
    sizes = [Preprocessing(size=size) for size in ((8, 8), (9, 9), (9, 9))]
    members = [Member(Brightness(1.0), preprocessing, plan_crops(preprocessing)) for preprocessing in sizes]
    assert Ensemble(members).largest_input is sizes[1]
