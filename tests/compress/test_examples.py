import numpy as np
import pytest

from toolkit.compress.examples import StoredExamples, batches_of, spread, write_examples
from toolkit.data.feed.arrays import load_pixels
from toolkit.data.feed.split import Subset
from toolkit.data.pixels.decode import normalize
from toolkit.errors import UserError
from toolkit.spec import Preprocessing

RGB = Preprocessing((8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
PIXELS = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), np.uint8)
LABELS = np.arange(50) % 5


@pytest.fixture(params=["files", "arrays", "batches", "floats"])
def examples(request, digits_split, lenet_preprocessing):
    """Fifty examples in every form, their preprocessing, and their normalised inputs and labels."""
    if request.param == "files":
        subset = Subset(digits_split.train.paths[::20][:50], digits_split.train.labels[::20][:50])
        inputs = normalize(load_pixels(subset.paths, lenet_preprocessing), lenet_preprocessing)
        return subset, lenet_preprocessing, inputs, np.asarray(subset.labels)
    inputs = normalize(PIXELS, RGB)
    given = {
        "arrays": (PIXELS, LABELS),
        "batches": [(PIXELS[:30], LABELS[:30]), (PIXELS[30:], LABELS[30:])],
        "floats": (inputs, LABELS),
    }
    return given[request.param], RGB, inputs, LABELS


def test_the_other_process_reads_what_was_given(examples, tmp_path):
    given, preprocessing, inputs, labels = examples
    stored = StoredExamples(tmp_path, "train", write_examples(given, preprocessing, tmp_path, "train"), preprocessing)
    assert len(stored) == 50
    read = list(stored.in_order(16).as_numpy_iterator())
    assert [len(batch) for batch, _ in read] == [16, 16, 16, 2]
    np.testing.assert_allclose(np.concatenate([batch for batch, _ in read]), inputs, atol=1e-6)
    np.testing.assert_array_equal(np.concatenate([own for _, own in read]), labels)


def test_epochs_are_shuffled_whole_and_reproducible(examples, tmp_path):
    given, preprocessing, inputs, _ = examples
    stored = StoredExamples(tmp_path, "train", write_examples(given, preprocessing, tmp_path, "train"), preprocessing)
    stream = stored.shuffled(16, seed=1, augment="none").as_numpy_iterator()
    epochs = [np.concatenate([next(stream)[0] for _ in range(4)]) for _ in range(2)]
    for epoch in epochs:
        np.testing.assert_allclose(np.sort(epoch.sum(axis=(1, 2, 3))), np.sort(inputs.sum(axis=(1, 2, 3))), atol=1e-2)
    assert not np.array_equal(*epochs)
    again = next(stored.shuffled(16, seed=1, augment="none").as_numpy_iterator())
    np.testing.assert_array_equal(again[0], epochs[0][:16])


def test_pixels_are_augmented_as_in_training(tmp_path):
    stored = StoredExamples(tmp_path, "train", write_examples((PIXELS, LABELS), RGB, tmp_path, "train"), RGB)
    plain, changed = (
        next(stored.shuffled(50, seed=0, augment=augment).as_numpy_iterator())[0] for augment in ("none", "mirror:1")
    )
    np.testing.assert_allclose(changed, plain[:, :, ::-1])


def test_augmentation_of_normalised_inputs_is_refused(tmp_path):
    floats = (normalize(PIXELS, RGB), LABELS)
    stored = StoredExamples(tmp_path, "train", write_examples(floats, RGB, tmp_path, "train"), RGB)
    with pytest.raises(UserError, match="'mirror' needs pictures as files"):
        stored.shuffled(8, seed=0, augment="mirror")


def test_calibration_is_spread_over_the_whole(examples):
    given, preprocessing, inputs, _ = examples
    chosen = spread(given, preprocessing, 10)
    np.testing.assert_allclose(chosen, inputs[:10] if isinstance(given, list) else inputs[::5], atol=1e-6)
    assert len(spread(given, preprocessing, 1000)) == 50


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((PIXELS, LABELS[:3]), "50 pictures and 3 labels"),
        ((PIXELS[:, :4], LABELS), r"expected uint8 pixels \(N, 8, 8, 3\) .* got uint8 \(32, 4, 8, 3\)"),
        ((PIXELS.astype(int), LABELS), "got int64"),
        ((PIXELS, LABELS / 2), "one integer label per picture, got float64"),
        ([PIXELS], r"expected batches \(inputs, labels\), got ndarray"),
        (3, "got int"),
        ([], "got no pictures"),
    ],
)
def test_examples_that_do_not_fit_are_named(given, message):
    with pytest.raises(UserError, match=message):
        list(batches_of(given, RGB))


def test_batches_may_come_from_any_source():
    grey = Preprocessing((8, 8), channel_order="grey", mean=(0.5,), std=(0.5,))
    batches = [(np.full((3, 8, 8, 1), value, np.float32), np.array([0, 1, 0])) for value in (0.0, 1.0)]
    assert sum(len(labels) for _, labels in batches_of(iter(batches), grey)) == 6
    assert spread(iter(batches), grey, 4).mean(axis=(1, 2, 3)).tolist() == [0, 0, 0, 1]
