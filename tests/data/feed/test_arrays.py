"""Batches without TensorFlow are those of the pipeline, and neither depends on whether pictures were kept decoded."""

import dataclasses
import itertools
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from toolkit.data.feed.arrays import BatchOptions, SubsetPixels, array_batches, decode_ahead
from toolkit.data.feed.pipeline import evaluation_batches, steps_per_epoch, training_batches
from toolkit.data.feed.split import Subset
from toolkit.data.pixels.decode import ImageError, decode_pixels
from toolkit.spec import Preprocessing

PREPROCESSING = Preprocessing(size=(16, 24), resize="stretch", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
GREY = Preprocessing(size=(16, 24), resize="stretch", channel_order="grey", mean=(0.2,), std=(0.5,))
NUM, BATCH = 23, 5


@pytest.fixture(scope="module")
def subset(tmp_path_factory):
    """Pictures of the network's size, so that both decoders agree to the bit."""
    root = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(0)
    paths = [str(root / f"{index}.png") for index in range(NUM)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (16, 24, 3), np.uint8)).save(path)
    return Subset(tuple(paths), tuple(index % 4 for index in range(NUM)))


def take(batches, count):
    return [(np.asarray(x), np.asarray(y)) for x, y in itertools.islice(iter(batches), count)]


def assert_equal(one, other, atol=0.0):
    assert len(one) == len(other) > 0
    for (x, y), (expected_x, expected_y) in zip(one, other, strict=True):
        assert (x.dtype, x.shape, y.dtype) == (expected_x.dtype, expected_x.shape, expected_y.dtype)
        np.testing.assert_allclose(x, expected_x, atol=atol, rtol=0)
        np.testing.assert_allclose(y, expected_y, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("options", "preprocessing"),
    [
        ({}, PREPROCESSING),
        ({"augment": "shift_flip"}, GREY),
        ({"augment": ("rotate", "pca_colour", "erase"), "balanced": True}, PREPROCESSING),
        ({"augment": "mirror,mixup", "num_classes": 6}, PREPROCESSING),
        ({"augment": "cutmix", "balanced": True}, GREY),
    ],
)
def test_generator_and_pipeline_and_cache_and_no_cache_agree(subset, options, preprocessing):
    steps = 2 * steps_per_epoch(subset, BATCH)
    variants = [
        take(maker(subset, preprocessing, BatchOptions(BATCH, 4, cache_bytes=cache_bytes, **options)), steps)
        for maker in (training_batches, array_batches)
        for cache_bytes in (0, 1 << 30)
    ]
    for variant in variants[1:]:
        assert_equal(variant, variants[0], atol=2e-6)  # one multiply-add, fused or not
    if "mix" in str(options):
        width = options.get("num_classes", 4)
        assert all(y.shape[1] == width and y.dtype == np.float32 for _, y in variants[0])


@pytest.mark.parametrize("maker", [training_batches, array_batches])
def test_going_on_within_an_epoch_gives_what_the_unbroken_run_gave(subset, maker):
    options = BatchOptions(BATCH, 1, augment="shift_flip,erase,cutmix")
    unbroken = take(maker(subset, PREPROCESSING, options), 10)
    later = dataclasses.replace(options, first_epoch=1, first_step=2)
    assert_equal(take(maker(subset, PREPROCESSING, later), 3), unbroken[7:])


def test_crop_starts_from_larger_pictures(tmp_path, photographs):
    for index in range(4):
        Image.fromarray(photographs[index]).save(tmp_path / f"{index}.png")
    subset = Subset(tuple(str(tmp_path / f"{index}.png") for index in range(4)), (0, 1, 0, 1))
    preprocessing = Preprocessing(size=(56, 56), crop_fraction=0.5, scale=1.0)
    (batch,) = take(array_batches(subset, preprocessing, BatchOptions(4, 0, augment="random_crop")), 1)
    large = Preprocessing(size=(64, 64))
    for picture in batch[0].astype(np.uint8):
        windows = [
            decode_pixels(path, large)[top : top + 56, left : left + 56]
            for path in subset.paths
            for top in range(9)
            for left in range(9)
        ]
        assert any(np.array_equal(picture, window) for window in windows)


def test_pictures_are_decoded_once_if_they_fit(subset, monkeypatch):
    from toolkit.data.feed import arrays

    decoded = []
    original = arrays.decode_pixels
    monkeypatch.setattr(arrays, "decode_pixels", lambda *given: decoded.append(1) or original(*given))
    size = NUM * 16 * 24 * 3
    take(array_batches(subset, PREPROCESSING, BatchOptions(BATCH, 0, cache_bytes=size)), 15)
    assert len(decoded) == NUM
    SubsetPixels(subset, PREPROCESSING, size - 1)
    assert len(decoded) == NUM
    SubsetPixels(subset, PREPROCESSING, size)
    assert len(decoded) == 2 * NUM


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_evaluation_sees_every_picture_once_in_order_cached_or_not(subset, batch_size):
    count = steps_per_epoch(subset, batch_size)
    plain = take(evaluation_batches(subset, PREPROCESSING, batch_size=batch_size), count + 1)
    cached = take(evaluation_batches(subset, PREPROCESSING, batch_size=batch_size, cache_bytes=1 << 30), count + 1)
    assert np.concatenate([y for _, y in plain]).tolist() == list(subset.labels)
    assert_equal(cached, plain)


def test_unreadable_picture_is_an_error_and_not_a_gap(subset):
    broken = Subset((*subset.paths[:3], "/nowhere.png"), (0, 1, 2, 3))
    with pytest.raises(Exception, match="nowhere"):
        take(array_batches(broken, PREPROCESSING, BatchOptions(4, 0, cache_bytes=0)), 1)


def test_no_framework_is_needed(subset):
    script = """
import sys
import threading
for name in ("tensorflow", "keras", "jax", "torch"):
    sys.modules[name] = None
from toolkit.data.feed.arrays import BatchOptions, array_batches
from toolkit.data.feed.split import Subset
from toolkit.spec import Preprocessing
subset = Subset(tuple(sys.argv[1:]), tuple(range(len(sys.argv) - 1)))
batches = array_batches(subset, Preprocessing(size=(8, 8)), BatchOptions(2, 0, augment="mirror,randaugment,mixup"))
print(next(batches)[0].shape)
"""
    command = [sys.executable, "-c", script, *subset.paths[:3]]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "(2, 8, 8, 3)\n"


@pytest.mark.parametrize("batch_size", [1, 4, 64])
@pytest.mark.parametrize("count", [0, 1, 2, 23])
def test_batches_decoded_ahead_come_in_order_with_errors_in_their_places(batch_size, count):
    def decode(number, source):
        if source % 5 == 3:
            raise ImageError(str(number))
        return source * 10

    batches = list(decode_ahead(iter(range(count)), decode, batch_size=batch_size))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    found = [int(str(one)) if isinstance(one, ImageError) else one // 10 for batch in batches for one in batch]
    assert found == list(range(count))


def test_decoding_goes_on_while_the_caller_works():
    at_work = threading.Event()
    batches = decode_ahead(range(6), lambda number, source: number < 4 or at_work.wait(10), batch_size=2)
    next(batches)
    next(batches)
    at_work.set()  # the last batch waits for it, in a thread of its own
    assert next(batches) == [True, True]
