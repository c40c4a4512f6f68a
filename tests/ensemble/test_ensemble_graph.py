"""The signatures of an exported ensemble, as TensorFlow alone answers them."""

import numpy as np
import pytest
import tensorflow as tf

from toolkit import Predictor
from toolkit.bundle import read_manifest
from toolkit.data.pixels.decode import decode_pixels, resize_rgb


@pytest.fixture(scope="module")
def loaded(ensemble):
    return tf.saved_model.load(str(ensemble))


def test_jpeg_bytes_in_one_call_get_the_mean_over_members_and_crops(loaded, jpegs, expected):
    answer = loaded.signatures["serving_default"](image_bytes=tf.constant(jpegs))
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-4)
    order = np.argsort(-expected, axis=1)[:, :5].astype(str).astype(bytes)
    np.testing.assert_array_equal(answer["top_labels"].numpy()[:, 0], order[:, 0])
    assert answer["top_scores"].shape == (len(jpegs), 5)
    assert loaded.signatures["serving_default"](image_bytes=tf.constant([], tf.string))["probabilities"].shape == (
        0,
        10,
    )


def test_pixels_are_one_crop_that_all_members_see(ensemble, loaded, bundle, other, jpegs):
    assert read_manifest(ensemble).preprocessing.size == (32, 32)  # the larger of the two
    first, second = Predictor.load(bundle, "litert"), Predictor.load(other, "litert")
    pixels = np.stack([decode_pixels(data, first.manifest.preprocessing) for data in jpegs])
    shrunk = np.stack([resize_rgb(crop, 24, 24, "bilinear") for crop in pixels])
    mean = (first.from_pixels(pixels) + second.from_pixels(shrunk)) / 2
    answer = loaded.signatures["pixels"](pixels=pixels)["probabilities"]
    np.testing.assert_allclose(answer, mean, atol=1e-3)  # 32 to 24 meets many ties in rounding
    np.testing.assert_allclose(Predictor.load(ensemble).from_pixels(pixels), answer, atol=1e-6)


@pytest.mark.slow
def test_features_are_those_of_the_members_side_by_side(loaded, bundle, other, jpegs):
    own = [
        tf.saved_model.load(str(path)).signatures["features"](image_bytes=tf.constant(jpegs))["features"]
        for path in (bundle, other)
    ]
    found = loaded.signatures["features"](image_bytes=tf.constant(jpegs))["features"]
    np.testing.assert_allclose(found, np.concatenate(own, axis=1), atol=1e-4)
    together = Predictor.load_several([bundle, other], "litert")  # and so are those of bundles averaged by hand
    np.testing.assert_allclose(together.features(jpegs), found, atol=1e-4)
