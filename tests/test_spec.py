"""Preprocessing refuses what cannot be meant and states its arithmetic exactly."""

import dataclasses
import json

import pytest

from toolkit.spec import Preprocessing

IMAGENET = Preprocessing(size=(224, 224), crop_fraction=0.875, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def test_affine_is_the_normalisation_in_two_numbers():
    factor, offset = IMAGENET.affine()
    # A white pixel's red channel: (1 - 0.485) / 0.229, and 2.25 is what dividing by the variance would not give.
    assert 255 * factor[0] + offset[0] == pytest.approx(2.2489083, abs=1e-6)
    assert offset == pytest.approx((-2.1179039, -2.0357143, -1.8044444), abs=1e-6)


def test_grey_has_one_channel():
    grey = Preprocessing(size=(28, 20), channel_order="grey", mean=(0.5,), std=(0.5,))
    assert grey.input_shape == (28, 20, 1)
    assert grey.affine() == ((pytest.approx(2 / 255),), (-1.0,))


def test_resized_keeps_everything_else():
    small = IMAGENET.resized((96, 64))
    assert small.input_shape == (96, 64, 3)
    assert dataclasses.replace(small, size=(224, 224)) == IMAGENET


def test_as_dict_is_json_and_builds_the_same_again():
    stored = json.loads(json.dumps(IMAGENET.as_dict()))
    rebuilt = Preprocessing(**{key: tuple(v) if isinstance(v, list) else v for key, v in stored.items()})
    assert rebuilt == IMAGENET


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (0, 224)}, r"size must be a positive \(height, width\), got \(0, 224\)"),
        ({"crop_fraction": 0.0}, r"crop_fraction must be in \(0, 1\], got 0.0"),
        ({"crop_fraction": 1.01}, "got 1.01"),
        ({"channel_order": "grey"}, "'grey' needs 1 mean and std values"),
        ({"mean": (0.5,)}, "'rgb' needs 3 mean and std values"),
        ({"std": (0.2, 0.0, 0.2)}, "std must be positive"),
    ],
)
def test_nonsense_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(IMAGENET, **change)


def test_specifications_cannot_change_under_their_users():
    with pytest.raises(dataclasses.FrozenInstanceError):
        IMAGENET.scale = 1.0  # pyright: ignore[reportAttributeAccessIssue]
