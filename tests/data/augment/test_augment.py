"""Each augmentation does what its paper says, to each picture for itself, and the same wherever it runs."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from toolkit.data import augment
from toolkit.data.augment.draws import Draws, example_keys
from toolkit.data.augment.randaugment import CHANGES, RandAugment
from toolkit.errors import UserError

SIZE = (28, 32)
KEYS = example_keys(7, 3, np.arange(64))
SINGLE = [name for name in augment.AUGMENTATIONS if name not in ("mixup", "cutmix")]


@pytest.fixture(scope="module")
def pictures(photographs):
    """Sixty-four views of photographs, uint8 (64, 32, 37, 3): 28 × 32 with the margin of a crop."""
    canvas = augment.canvas_size(augment.parse("random_crop"), SIZE)
    views = [photographs[i % 40][i : i + canvas[0], 2 * i : 2 * i + canvas[1]] for i in range(64)]
    return np.stack(views)


def run(spec, pictures, keys=KEYS):
    ops = augment.parse(spec)
    height, width = augment.canvas_size(ops, SIZE)
    return augment.apply(ops, pictures[:, :height, :width], keys, SIZE)


# --- all of them


@pytest.mark.parametrize("name", [*SINGLE, "mirror,rotate,resized_crop,pca_colour,erase"])
def test_each_takes_and_gives_uint8_of_the_right_size_and_changes_something(pictures, name):
    out = run(name, pictures)
    assert (out.dtype, out.shape) == (np.uint8, (64, *SIZE, 3))
    plain = pictures[:, : SIZE[0], : SIZE[1]]
    changed = np.mean([not np.array_equal(a, b) for a, b in zip(out, plain, strict=True)])
    assert changed > 0.3


@pytest.mark.parametrize("name", SINGLE)
def test_each_follows_from_the_picture_and_its_key_whatever_the_batch(pictures, name):
    whole = run(name, pictures)
    assert np.array_equal(whole, run(name, pictures))
    parts = [run(name, pictures[part], KEYS[part]) for part in (slice(0, 1), slice(1, 40), slice(40, 64))]
    assert np.array_equal(whole, np.concatenate(parts))
    order = np.random.default_rng(0).permutation(64)
    assert np.array_equal(whole[order], run(name, pictures[order], KEYS[order]))
    if name != "colour_shift":
        assert not np.array_equal(whole, run(name, pictures, example_keys(7, 4, np.arange(64))))
        assert not np.array_equal(whole, run(name, pictures, example_keys(8, 3, np.arange(64))))


@pytest.mark.parametrize("name", SINGLE)
def test_each_is_the_same_inside_tf_data(pictures, name):
    ops = augment.parse(name)
    height, width = augment.canvas_size(ops, SIZE)
    pixels = pictures[:, :height, :width]
    batches = tf.data.Dataset.from_tensor_slices((pixels, KEYS)).batch(10)
    mapped = batches.map(
        lambda x, k: tf.numpy_function(lambda x, k: augment.apply(ops, x, k, SIZE), [x, k], tf.uint8),
        num_parallel_calls=4,
    )
    assert np.array_equal(np.concatenate([batch.numpy() for batch in mapped]), augment.apply(ops, pixels, KEYS, SIZE))


def test_same_augmentation_twice_draws_anew(pictures):
    once, twice = run("random_colour_shift", pictures), run("random_colour_shift,random_colour_shift", pictures)
    first = once.astype(int) - pictures[:, : SIZE[0], : SIZE[1]]
    second = twice.astype(int) - once
    assert not np.array_equal(first, second)


# --- their text


def test_text_is_read():
    parsed = augment.parse("mirror, resized_crop:0.25/1 ,colour_shift:10/-5")
    assert [type(op).__name__ for op in parsed] == ["Mirror", "ResizedCrop", "ColourShift"]
    assert parsed[1].min_area == 0.25
    assert dataclasses.astuple(parsed[2]) == (10, -5, 20)
    assert augment.parse(("mirror", "rotate:20")) == augment.parse("mirror,rotate:20")
    assert augment.parse("none") == augment.parse("") == augment.parse(()) == ()
    assert augment.parse("shift_flip") == augment.parse("shift,mirror")
    for name in augment.AUGMENTATIONS:
        assert len(augment.parse(name)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("miror", "did you mean 'mirror'"),
        ("rotate:far", "expected rotate:degrees"),
        ("rotate:nan", "degrees must be 0 to 180"),
        ("mirror:2", "probability must be 0 to 1, got 2"),
        ("mirror:0.5/1", "2 parameters, expected mirror:probability"),
        ("random_crop:0", "share must be 0.25 to 1"),
        ("warp:0.5", "invalid literal"),
    ],
)
def test_wrong_text_is_one_clear_line(text, message):
    with pytest.raises(UserError, match="augmentation") as error:
        augment.parse(text)
    assert message in str(error.value)


# --- one by one


def test_mirror_exchanges_left_and_right_of_the_given_share(pictures):
    x = pictures[:, : SIZE[0], : SIZE[1]]
    keys = example_keys(0, 0, np.arange(2000))
    out = augment.apply(augment.parse("mirror:0.3"), np.tile(x[:1], (2000, 1, 1, 1)), keys, SIZE)
    mirrored = (out == x[0][:, ::-1]).all(axis=(1, 2, 3))
    same = (out == x[0]).all(axis=(1, 2, 3))
    assert (mirrored ^ same).all()
    assert 0.26 < mirrored.mean() < 0.34


def test_random_crop_is_a_window_and_reaches_every_place():
    canvas = augment.canvas_size(augment.parse("random_crop"), SIZE)
    assert canvas == (32, 37)
    coordinates = np.stack([*np.meshgrid(np.arange(37), np.arange(32)), np.zeros((32, 37))], axis=-1).astype(np.uint8)
    keys = example_keys(0, 0, np.arange(2000))
    out = augment.apply(augment.parse("random_crop"), np.tile(coordinates, (2000, 1, 1, 1)), keys, SIZE)
    assert (np.diff(out[..., 0], axis=2) == 1).all()
    assert (np.diff(out[..., 1], axis=1) == 1).all()
    assert {tuple(corner) for corner in out[:, 0, 0, :2]} == {(x, y) for x in range(6) for y in range(5)}


def test_resized_crop_shows_the_stated_share_of_the_picture():
    """A picture whose colours are its coordinates tells which window was cut out."""
    size, count = (128, 128), 400
    canvas = augment.canvas_size(augment.parse("resized_crop"), size)
    ramp = np.linspace(0, 255, canvas[0])
    picture = np.stack([*np.meshgrid(ramp, ramp), np.zeros(canvas)], axis=-1).round().astype(np.uint8)
    keys = example_keys(1, 0, np.arange(count))
    out = augment.apply(augment.parse("resized_crop:0.2/0.8"), np.tile(picture, (count, 1, 1, 1)), keys, size)
    span = out[:, -1, -1, :2].astype(float) - out[:, 0, 0, :2]  # width and height of the window, in 255ths
    width, height = span[:, 0] / 255, span[:, 1] / 255
    area, aspect = width * height, width / height
    assert 0.17 < area.min() < 0.25
    assert 0.72 < area.max() < 0.83
    assert area.mean() == pytest.approx(0.5, abs=0.04)
    assert 0.7 < aspect.min() < 0.8
    assert 1.25 < aspect.max() < 1.4


def test_rotation_turns_by_what_it_says():
    size = (101, 101)
    picture = np.zeros((*size, 3), np.uint8)
    picture[48:53, 80:85] = 255  # right of the centre
    out = augment.apply(
        augment.parse("rotate:30"), np.tile(picture, (200, 1, 1, 1)), example_keys(2, 0, np.arange(200)), size
    )
    weights = out[..., 0].astype(float)
    y, x = np.mgrid[:101, :101]
    total = weights.sum(axis=(1, 2))
    dx, dy = (weights * (x - 50)).sum(axis=(1, 2)) / total, (weights * (y - 50)).sum(axis=(1, 2)) / total
    assert np.hypot(dx, dy) == pytest.approx(np.full(200, 32), abs=0.5)
    angles = np.degrees(np.arctan2(dy, dx))
    assert 28 < angles.max() < 30.6
    assert -30.6 < angles.min() < -28
    assert abs(angles.mean()) < 3


def test_shear_slides_rows_in_proportion_to_their_height():
    size = (101, 101)
    picture = np.zeros((*size, 3), np.uint8)
    picture[:, 49:52] = 255
    out = augment.apply(
        augment.parse("shear:20"), np.tile(picture, (100, 1, 1, 1)), example_keys(2, 0, np.arange(100)), size
    )
    x = np.arange(101)
    centres = (out[..., 0] * x).sum(axis=2) / out[..., 0].sum(axis=2)
    lean = (centres[:, 90] - centres[:, 10]) / 80
    assert abs(centres[:, 50] - 50).max() < 0.5
    assert 0.9 * np.tan(np.radians(20)) < abs(lean).max() < 1.02 * np.tan(np.radians(20))


def test_warp_moves_inside_and_leaves_the_border(pictures):
    size = (96, 96)
    ramp = np.linspace(0, 255, 96)
    picture = np.stack([*np.meshgrid(ramp, ramp), np.zeros((96, 96))], axis=-1).round().astype(np.uint8)
    out = augment.apply(
        augment.parse("warp:4/0.25"), np.tile(picture, (50, 1, 1, 1)), example_keys(2, 0, np.arange(50)), size
    )
    moved = abs(out.astype(int) - picture)[..., :2]
    assert moved[:, 0].max() <= 2
    assert moved[:, :, -1].max() <= 2
    most = 0.25 * 24 * 255 / 95  # a quarter of a cell, in grey values
    assert 0.8 * most < moved.max() <= most + 2
    assert abs(np.diff(out.astype(int), axis=2)).max() < 3 * np.diff(ramp).max()  # without a tear


def test_a_shift_of_nothing_moves_nothing(pictures):
    assert np.array_equal(run("shift:0", pictures), pictures[:, : SIZE[0], : SIZE[1]])


def test_colour_shifts_add_what_they_say(pictures):
    x = pictures[:, : SIZE[0], : SIZE[1]].astype(int)
    assert np.array_equal(run("colour_shift", pictures), np.clip(x + np.array([20, -20, 20]), 0, 255))
    shifted = run("random_colour_shift:9", np.full_like(pictures, 100)).astype(int) - 100
    assert (shifted == shifted[:, :1, :1]).all()
    assert set(shifted[:, 0, 0].ravel()) == set(range(-9, 10))


def test_pca_colour_has_the_covariance_of_the_paper():
    """The added amounts vary as alpha · eigenvalue along the eigenvectors: covariance P (0.1 · diag λ)² Pᵀ."""
    from toolkit.data.augment.colour import IMAGENET_EIGENVALUES, IMAGENET_EIGENVECTORS

    np.testing.assert_allclose(IMAGENET_EIGENVECTORS.T @ IMAGENET_EIGENVECTORS, np.eye(3), atol=2e-3)
    grey = np.full((20_000, 1, 1, 3), 128, np.uint8)
    keys = example_keys(0, 0, np.arange(len(grey)))
    amounts = augment.apply(augment.parse("pca_colour:0.3"), grey, keys, (1, 1))[:, 0, 0].astype(float) - 128
    expected = IMAGENET_EIGENVECTORS @ np.diag((0.3 * 255 * IMAGENET_EIGENVALUES) ** 2) @ IMAGENET_EIGENVECTORS.T
    np.testing.assert_allclose(np.cov(amounts.T), expected, rtol=0.05, atol=0.2)
    assert abs(amounts.mean(axis=0)).max() < 0.4


def test_erasing_fills_one_rectangle_with_noise():
    size, count = (64, 64), 1000
    flat = np.full((count, *size, 3), 7, np.uint8)
    out = augment.apply(augment.parse("erase:0.4/0.05/0.3"), flat, example_keys(0, 0, np.arange(count)), size)
    touched = (out != 7).any(axis=-1)
    assert 0.35 < touched.any(axis=(1, 2)).mean() < 0.45
    for mask in touched[touched.any(axis=(1, 2))]:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        area = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert mask.sum() > 0.95 * area  # noise may hit 7
        assert 0.04 * 4096 < area < 0.32 * 4096
    noise = out[touched]
    assert noise.mean() == pytest.approx(127.5, abs=2)


def test_randaugment_uses_all_fourteen_changes_and_leaves_all_at_magnitude_zero_but_the_histograms(photographs):
    assert len(CHANGES) == 14
    pixels = np.tile(np.asarray(photographs[3])[None, :48, :48], (300, 1, 1, 1))
    keys = example_keys(0, 0, np.arange(300))
    strong = RandAugment(changes=1, magnitude=15)(pixels, Draws(keys), (48, 48))
    # identity, autocontrast, equalize, posterize and solarize give one result each, the others two: by their sign
    assert len(np.unique(strong.reshape(300, -1), axis=0)) == 5 + 2 * 9
    weak = RandAugment(changes=1, magnitude=0)(pixels, Draws(keys), (48, 48))
    assert len(np.unique(weak.reshape(300, -1), axis=0)) == 3  # itself, autocontrast, equalize


# --- those that mix


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    labels = np.eye(5, dtype=np.float32)[rng.integers(0, 5, 16)]
    return rng.normal(size=(16, 20, 24, 3)).astype(np.float32), labels


def test_mixup_blends_pictures_and_labels_by_one_share(batch):
    inputs, labels = batch
    shares = []
    for epoch in range(200):
        x, y = augment.mix(augment.parse("mixup:0.4"), inputs, labels, example_keys(0, epoch, np.arange(16)))
        assert x.dtype == y.dtype == np.float32
        assert y.sum(axis=1) == pytest.approx(np.ones(16))
        # x = s · x + (1 - s) · x[partner]: solve for s and the partner with least squares over the pairs
        best = min(
            (
                (i, *np.linalg.lstsq(np.stack([inputs[0].ravel(), inputs[i].ravel()], 1), x[0].ravel(), rcond=None)[:2])
                for i in range(1, 16)
            ),
            key=lambda row: row[2][0],
        )
        if best[2][0] < 1e-3:
            share = best[1][0]
            assert best[1].sum() == pytest.approx(1, abs=1e-4)
            np.testing.assert_allclose(y[0], share * labels[0] + (1 - share) * labels[best[0]], atol=1e-4)
            shares.append(share)
    assert len(shares) > 150
    assert np.var(shares) == pytest.approx(1 / (4 * (2 * 0.4 + 1)), rel=0.3)  # of Beta(0.4, 0.4)


def test_cutmix_pastes_one_rectangle_and_mixes_labels_by_its_area(batch):
    _, labels = batch
    inputs = np.broadcast_to(np.arange(16, dtype=np.float32)[:, None, None, None], (16, 20, 24, 3))
    for epoch in range(100):
        x, y = augment.mix(augment.parse("cutmix"), inputs, labels, example_keys(0, epoch, np.arange(16)))
        for i in range(16):
            foreign = x[i, ..., 0] != i
            partner = int(x[i, ..., 0][foreign][0]) if foreign.any() else i
            share = 1 - foreign.mean()
            if foreign.any():
                rows, columns = np.flatnonzero(foreign.any(axis=1)), np.flatnonzero(foreign.any(axis=0))
                assert foreign.sum() == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
                np.testing.assert_allclose(y[i], share * labels[i] + (1 - share) * labels[partner], atol=1e-6)


def test_of_two_that_mix_one_is_drawn_for_each_batch(batch):
    both = augment.parse("mixup,cutmix")
    kinds = {"mixup": 0, "cutmix": 0}
    for epoch in range(60):
        keys = example_keys(0, epoch, np.arange(16))
        x, _ = augment.mix(both, *batch, keys)
        for name in kinds:
            kinds[name] += int(np.array_equal(x, augment.mix(augment.parse(name), *batch, keys)[0]))
    assert min(kinds.values()) > 15
    assert sum(kinds.values()) == 60


def test_draws_are_uniform_and_independent():
    draws = Draws(example_keys(0, 0, np.arange(1000)))
    first, second = draws.uniform(shape=(100,)), draws.uniform(shape=(100,))
    for values in (first, second, draws.branch(1).uniform(shape=(100,))):
        assert values.mean() == pytest.approx(0.5, abs=0.005)
        assert values.var() == pytest.approx(1 / 12, abs=0.002)
        assert np.histogram(values, 20, (0, 1))[0].std() < 300  # of 5,000 each
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.01
    assert abs(np.corrcoef(first[:-1].ravel(), first[1:].ravel())[0, 1]) < 0.01
    normal = draws.normal(shape=(100,))
    assert normal.mean() == pytest.approx(0, abs=0.01)
    assert normal.std() == pytest.approx(1, abs=0.01)
    assert np.unique(example_keys(0, 0, np.arange(100_000))).size == 100_000
