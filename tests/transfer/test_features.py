import dataclasses
import shutil
from pathlib import Path

import keras
import lmdb
import numpy as np
import pytest

from toolkit import create_model, model_info
from toolkit.data import ImageError
from toolkit.data.arrays import load_pixels
from toolkit.data.decode import normalize
from toolkit.engines.convert import feature_tensor
from toolkit.transfer import extract_features

PREPROCESSING = model_info("resnet20").preprocessing


@pytest.fixture
def pictures(digits, tmp_path):
    """Eleven pictures of one's own, to be renamed and changed."""
    (tmp_path / "pictures").mkdir()
    return [shutil.copy(path, tmp_path / "pictures") for path in sorted(digits.glob("*/*.png"))[::170]]


@pytest.fixture
def extract(residual, tmp_path):
    """Extract with a cache of one's own; answers the features and how many were computed."""

    def run(paths, *, model=residual, preprocessing=PREPROCESSING, batch_size=4):
        steps = []
        features = extract_features(
            *(model, paths, preprocessing),
            cache_dir=tmp_path / "cache",
            batch_size=batch_size,
            progress=lambda done, total: steps.append((done, total)),
        )
        assert steps == [
            (min(i + batch_size, steps[-1][1]), steps[-1][1]) for i in range(0, len(steps) * batch_size, batch_size)
        ]
        return features, steps[-1][0] if steps else 0

    return run


def expected_features(model, paths, preprocessing=PREPROCESSING):
    inputs = normalize(load_pixels(paths, preprocessing), preprocessing)
    return keras.Model(model.input, feature_tensor(model))(inputs, training=False).numpy()


def test_features_are_the_networks_within_float16(extract, residual, pictures):
    features, computed = extract(pictures)
    expected = expected_features(residual, pictures)
    assert computed == len(pictures) == 11
    assert features.dtype == np.float16
    assert features.shape == expected.shape == (11, 64)
    assert expected.std(axis=0).max() > 0.01
    np.testing.assert_allclose(features, expected, rtol=2e-3, atol=1e-3)


def test_second_time_nothing_is_computed_and_the_answer_is_the_same(extract, pictures):
    first, _ = extract(pictures)
    second, computed = extract(pictures)
    assert computed == 0
    np.testing.assert_array_equal(first, second)


def test_only_what_is_missing_is_computed_and_order_is_kept(extract, pictures):
    some, _ = extract(pictures[3:7])
    everything, computed = extract(pictures[::-1])
    assert computed == 7
    np.testing.assert_array_equal(everything[::-1][3:7], some)


def test_renamed_and_repeated_pictures_are_found_by_content(extract, pictures, tmp_path):
    first, _ = extract(pictures)
    moved = [str(Path(path).rename(tmp_path / f"renamed {i}.png")) for i, path in enumerate(pictures)]
    second, computed = extract([*moved, moved[2]])
    assert computed == 0
    np.testing.assert_array_equal(second, np.concatenate([first, first[2:3]]))


def test_equal_pictures_are_computed_once(extract, pictures):
    features, computed = extract([pictures[0], pictures[1], pictures[0]])
    assert computed == 2
    np.testing.assert_array_equal(features[0], features[2])


def test_other_content_weights_or_preprocessing_are_computed_anew(extract, residual, pictures):
    extract(pictures)
    shutil.copy(pictures[1], pictures[0])
    assert extract(pictures)[1] == 0  # its new content is known from the other file
    data = Path(pictures[0]).read_bytes()
    Path(pictures[0]).write_bytes(data + b"\0")
    assert extract(pictures)[1] == 1
    changed = keras.models.clone_model(residual)
    changed.set_weights(residual.get_weights())
    changed.layers[1].kernel.assign(changed.layers[1].kernel * 1.5)
    features, computed = extract(pictures, model=changed)
    assert computed == 11
    np.testing.assert_allclose(features, expected_features(changed, pictures), rtol=2e-3, atol=1e-3)
    assert (
        extract(pictures, preprocessing=dataclasses.replace(PREPROCESSING, crop_fraction=0.9, resize="crop"))[1] == 11
    )


def test_new_classifier_finds_the_features_of_the_old_one(extract, residual, pictures):
    first, _ = extract(pictures)
    other = create_model("resnet20", num_classes=7)
    for ours, theirs in zip(other.layers[:-1], residual.layers[:-1], strict=True):
        ours.set_weights(theirs.get_weights())
    second, computed = extract(pictures, model=other)
    assert computed == 0
    np.testing.assert_array_equal(first, second)


def test_damaged_entry_is_computed_again(extract, pictures, tmp_path):
    first, _ = extract(pictures)
    with lmdb.open(str(tmp_path / "cache"), map_size=1 << 30) as environment, environment.begin(write=True) as write:
        key, entry = next(iter(write.cursor()))
        write.put(key, entry[:-1] + bytes([entry[-1] ^ 255]))
    second, computed = extract(pictures)
    assert computed == 1
    np.testing.assert_allclose(first.astype(np.float32), second, rtol=2e-3, atol=1e-3)
    assert extract(pictures)[1] == 0


def test_batches_done_before_a_failure_are_kept(extract, pictures):
    Path(pictures[9]).write_text("no picture")
    with pytest.raises(ImageError):
        extract(pictures, batch_size=3)
    assert extract(pictures[:6], batch_size=3)[1] == 0
