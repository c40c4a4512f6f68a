"""Epochs are permutations that depend on the seed and the epoch's number alone; evaluation sees each picture once."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit.data.feed.arrays import BatchOptions
from toolkit.data.feed.pipeline import (
    computed_batches,
    evaluation_batches,
    picture_errors,
    steps_per_epoch,
    training_batches,
)
from toolkit.data.feed.split import Subset
from toolkit.data.pixels.decode import ImageError, decode_pixels, normalize
from toolkit.spec import Preprocessing

PREPROCESSING = Preprocessing(size=(16, 24), resize="stretch", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
NUM = 23
BATCH = 5


@pytest.fixture(scope="module")
def subset(tmp_path_factory):
    root = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(0)
    paths = []
    for index in range(NUM):
        paths.append(str(root / f"{index}.png"))
        Image.fromarray(rng.integers(1, 256, (16, 24, 3), np.uint8)).save(paths[-1])
    return Subset(tuple(paths), tuple(range(NUM)))  # the label says which picture it is


def epochs(subset, count, *, first_epoch=0, seed=1, augment="none"):
    """Inputs and labels of some epochs, each as two arrays."""
    steps = steps_per_epoch(subset, BATCH)
    dataset = training_batches(subset, PREPROCESSING, BatchOptions(BATCH, seed, first_epoch, augment=augment))
    batches = [(x.numpy(), y.numpy()) for x, y in dataset.take(steps * count)]
    chunks = [batches[i * steps : (i + 1) * steps] for i in range(count)]
    return [tuple(np.concatenate(column) for column in zip(*chunk, strict=True)) for chunk in chunks]


def originals(subset):
    return np.stack([decode_pixels(path, PREPROCESSING) for path in subset.paths])


def pixels_of(inputs):
    values = inputs * np.asarray(PREPROCESSING.std) + np.asarray(PREPROCESSING.mean)
    return np.rint(values * 255).astype(int)


def test_every_epoch_is_a_permutation_and_no_two_are_alike(subset):
    runs = epochs(subset, 4)
    for _, labels in runs:
        assert sorted(labels) == list(range(NUM))
    orders = {tuple(labels) for _, labels in runs}
    assert len(orders) == 4
    assert tuple(range(NUM)) not in orders


def test_inputs_are_the_normalised_pictures_their_labels_belong_to(subset):
    expected = normalize(originals(subset), PREPROCESSING)
    for inputs, labels in epochs(subset, 2):
        assert inputs.dtype == np.float32
        assert labels.dtype == np.int32
        np.testing.assert_allclose(inputs, expected[labels], atol=1e-5)


@pytest.mark.parametrize("augment", ["none", "shift", "shift_flip"])
def test_starting_at_an_epoch_gives_what_the_unbroken_run_gave_bit_for_bit(subset, augment):
    unbroken = epochs(subset, 4, augment=augment)
    for first in (1, 3):
        resumed = epochs(subset, 4 - first, first_epoch=first, augment=augment)
        for (inputs, labels), (expected_inputs, expected_labels) in zip(resumed, unbroken[first:], strict=True):
            assert np.array_equal(labels, expected_labels)
            assert np.array_equal(inputs, expected_inputs)


def test_seed_decides_order_and_augmentation(subset):
    one, again, other = (epochs(subset, 1, seed=seed, augment="shift")[0] for seed in (1, 1, 2))
    assert np.array_equal(one[0], again[0])
    assert not np.array_equal(one[1], other[1])
    assert not np.array_equal(one[0][np.argsort(one[1])], other[0][np.argsort(other[1])])


def shift_and_flip_of(picture, original):
    """The shift, and whether mirrored, that make ``picture`` of ``original``; None if nothing does."""
    for flipped in (False, True):
        upright = picture[:, ::-1] if flipped else picture
        padded = np.pad(original, ((2, 2), (3, 3), (0, 0)))
        for dy in range(5):
            for dx in range(7):
                if np.array_equal(upright, padded[dy : dy + 16, dx : dx + 24]):
                    return dy - 2, dx - 3, flipped
    return None


@pytest.mark.parametrize("augment", ["shift", "shift_flip"])
def test_augmentation_moves_by_at_most_an_eighth_and_differs_from_epoch_to_epoch(subset, augment):
    pictures = originals(subset).astype(int)
    runs = epochs(subset, 4, augment=augment)
    moves = [
        shift_and_flip_of(picture, pictures[label])
        for inputs, labels in runs
        for picture, label in zip(pixels_of(inputs), labels, strict=True)
    ]
    assert None not in moves
    assert {dy for dy, _, _ in moves} == set(range(-2, 3))
    assert {dx for _, dx, _ in moves} == set(range(-3, 4))
    num_flipped = sum(flipped for _, _, flipped in moves)
    assert num_flipped == 0 if augment == "shift" else 0.3 < num_flipped / len(moves) < 0.7
    by_epoch = [inputs[np.argsort(labels)] for inputs, labels in runs]
    assert not np.array_equal(by_epoch[0], by_epoch[1])


def test_last_batch_of_an_epoch_holds_what_is_left(subset):
    dataset = training_batches(subset, PREPROCESSING, BatchOptions(BATCH, 0))
    assert steps_per_epoch(subset, BATCH) == 5
    assert [len(labels) for _, labels in dataset.take(10)] == [5, 5, 5, 5, 3] * 2


@pytest.fixture
def spoilt(subset, tmp_path):
    """The same pictures, of which one has been cut short and one deleted since they were scanned."""
    paths = [str(tmp_path / Path(path).name) for path in subset.paths]
    for old, new in zip(subset.paths, paths, strict=True):
        shutil.copy(old, new)
    data = Path(paths[4]).read_bytes()
    Path(paths[4]).write_bytes(data[: len(data) // 2])
    Path(paths[9]).unlink()
    return Subset(tuple(paths), subset.labels)


@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
@pytest.mark.parametrize("batches", ["training", "evaluation"])
def test_picture_that_has_become_unreadable_is_named_or_costs_itself_alone(
    subset, spoilt, caplog, batches, cache_bytes
):
    def labels(subset):
        if batches == "evaluation":
            dataset = evaluation_batches(subset, PREPROCESSING, batch_size=BATCH, cache_bytes=cache_bytes)
        else:
            dataset = training_batches(subset, PREPROCESSING, BatchOptions(BATCH, 0, cache_bytes=cache_bytes)).take(5)
        pictures = [(x.numpy(), y.numpy()) for x, y in dataset]
        return pictures, sorted(np.concatenate([own for _, own in pictures]).tolist())

    with (
        pytest.raises(ImageError, match=r"(4\.png: damaged or truncated|9\.png: no such file)") as error,
        picture_errors(),
    ):
        labels(spoilt)
    assert "\n" not in str(error.value)
    pictures, found = labels(replace(spoilt, skip_bad=True))
    assert found == [label for label in range(NUM) if label not in (4, 9)]
    expected = normalize(originals(subset), PREPROCESSING)
    for inputs, own in pictures:
        np.testing.assert_allclose(inputs, expected[own], atol=1e-5)
    warnings = [record.message for record in caplog.records if "left out" in record.message]
    assert len(warnings) == 2
    assert "4.png: damaged" in "".join(warnings)


def test_single_picture_is_a_data_set(subset):
    alone = Subset(subset.paths[:1], subset.labels[:1])
    assert [labels.tolist() for _, labels in epochs(alone, 3)] == [[0]] * 3


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_evaluation_sees_every_picture_once_in_order(subset, batch_size):
    expected = normalize(originals(subset), PREPROCESSING)
    for _ in range(2):
        batches = list(evaluation_batches(subset, PREPROCESSING, batch_size=batch_size))
        assert np.concatenate([y for _, y in batches]).tolist() == list(range(NUM))
        np.testing.assert_allclose(np.concatenate([x for x, _ in batches]), expected, atol=1e-5)


def test_computed_batches_come_in_order_with_shapes_that_fit_needs():
    dataset = computed_batches(lambda number: (np.full((1 + number % 2, 3), number, np.float32), np.zeros(1)), 4)
    assert [spec.shape.as_list() for spec in dataset.element_spec] == [[None, 3], [None]]
    assert [(len(x), x[0, 0]) for x, _ in dataset.as_numpy_iterator()] == [(1, 0), (2, 1), (1, 2), (2, 3)]


def test_fault_in_the_first_batch_is_told_as_it_is():
    def broken(number):
        raise ValueError("no such picture")

    with pytest.raises(ValueError, match=r"^no such picture$"):
        computed_batches(broken)


SCRIPT_THAT_HOLDS_ITERATORS = """
import json, sys
from toolkit.data.feed.arrays import BatchOptions
from toolkit.data.feed.pipeline import training_batches
from toolkit.data.feed.split import Subset
from toolkit.spec import Preprocessing

paths = json.loads(sys.argv[1])
subset = Subset(tuple(paths), tuple(range(len(paths))))
iterators = [
    iter(training_batches(subset, Preprocessing(size=(128, 128)), BatchOptions(32, seed, cache_bytes=seed % 2 << 30)))
    for seed in range(4)
]
for batches in iterators:
    next(batches)
print("the end")
"""


@pytest.mark.slow
def test_script_that_still_holds_iterators_ends(subset):
    command = [sys.executable, "-c", SCRIPT_THAT_HOLDS_ITERATORS, json.dumps(subset.paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "the end\n"), done.stderr
