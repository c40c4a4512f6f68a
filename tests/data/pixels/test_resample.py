"""Against Pillow's resize in float, channel by channel: the same but for sums that end on a half."""

import numpy as np
import pytest
from PIL import Image

from toolkit.data.pixels.resample import resample

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def pillows(pixels, height, width, interpolation):
    planes = [Image.fromarray(np.ascontiguousarray(plane)).convert("F") for plane in np.moveaxis(pixels, -1, 0)]
    resized = [np.asarray(plane.resize((width, height), FILTERS[interpolation])) for plane in planes]
    return np.clip(np.rint(np.stack(resized, axis=-1)), 0, 255)


@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize(
    ("size", "resized"),
    [
        ((375, 500), (224, 224)),
        ((500, 333), (384, 256)),
        ((1500, 2000), (224, 299)),  # large enough to be multiplied in parts
        ((28, 28), (32, 32)),
        ((32, 32), (224, 227)),
        ((1, 1), (7, 5)),
        ((1, 300), (64, 64)),
        ((1000, 9), (3, 9)),
        ((8, 8), (1, 1)),
    ],
)
def test_is_pillows_float_resize(size, resized, interpolation):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    ours, expected = resample(pixels, *resized, interpolation), pillows(pixels, *resized, interpolation)
    assert ours.dtype == np.uint8
    assert ours.shape == (*resized, 3)
    differences = np.abs(ours - expected)
    assert differences.max() <= 1
    assert np.count_nonzero(differences) <= max(2, ours.size / 5_000)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_takes_any_channels_and_strides(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 40, channels), np.uint8)
    turned = pixels.transpose(1, 0, 2)[::-1]
    expected = resample(np.ascontiguousarray(turned), 24, 24, "bilinear")
    np.testing.assert_array_equal(resample(turned, 24, 24, "bilinear"), expected)
    np.testing.assert_array_equal(
        resample(pixels[..., :1], 24, 24, "bilinear")[..., 0], resample(pixels, 24, 24, "bilinear")[..., 0]
    )


@pytest.mark.parametrize("interpolation", FILTERS)
def test_even_picture_stays_as_it_is(interpolation):
    for value in (0, 1, 128, 255):
        assert (resample(np.full((100, 70, 3), value, np.uint8), 33, 99, interpolation) == value).all()
