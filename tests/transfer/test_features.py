import dataclasses
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import keras
import killable
import numpy as np
import pytest
from caches import rewrite

from toolkit import create_model, model_info
from toolkit.data import ImageError
from toolkit.data.feed.arrays import load_pixels
from toolkit.data.pixels.decode import normalize
from toolkit.engines.extract import TOLERANCE, relative_difference
from toolkit.errors import UserError
from toolkit.transfer import AugmentedViews, Extraction, FeatureCache, FeatureExtractor
from toolkit.transfer.cache import close_store, open_store
from toolkit.transfer.features import NUM_TRIALS
from toolkit.transfer.freeze import cut_tensor

PREPROCESSING = model_info("lenet5").preprocessing


@pytest.fixture(scope="module")
def small():
    """A network that computes in no time. Not to be changed."""
    keras.utils.set_random_seed(1)
    return create_model("lenet5", num_classes=3)


@pytest.fixture
def pictures(digits, tmp_path):
    """Eleven pictures of one's own, to be renamed and changed."""
    (tmp_path / "pictures").mkdir()
    return [shutil.copy(path, tmp_path / "pictures") for path in sorted(digits.glob("*/*.png"))[::170]]


@pytest.fixture
def extract(small, tmp_path, told):
    """Extract with a cache of one's own; answers the features and how many were computed."""

    def run(paths, *, model=small, preprocessing=PREPROCESSING, views=None, **how):
        told.clear()
        with FeatureExtractor(
            model, preprocessing, cache_dir=tmp_path / "cache", how=Extraction(**{"batch_size": 2, **how})
        ) as extractor:
            found = extractor.extract(paths, views=views)
        seen = [(done, total) for _, done, total in told]
        assert [total for _, total in seen] == [found.num_computed] * len(seen)
        assert not seen or seen[-1][0] == found.num_computed
        assert bool(found.engine) == bool(seen)
        return found.values if views else found.plain, found.num_computed

    return run


def expected_features(model, paths, preprocessing=PREPROCESSING, stage=None):
    inputs = normalize(load_pixels(paths, preprocessing), preprocessing)
    frozen = keras.Model(model.input, cut_tensor(model, stage))
    return keras.ops.convert_to_numpy(frozen(inputs, training=False))


def assert_close(features, expected):
    assert relative_difference(features, expected) <= max(TOLERANCE.values())


def test_features_are_the_networks(extract, residual, pictures):
    preprocessing = model_info("resnet20").preprocessing
    features, computed = extract(pictures, model=residual, preprocessing=preprocessing)
    expected = expected_features(residual, pictures, preprocessing)
    assert computed == len(pictures) == 11
    assert features.dtype == np.float16
    assert features.shape == expected.shape == (11, 64)
    assert expected.std(axis=0).max() > 0.01
    assert_close(features, expected)


@pytest.mark.parametrize("engine", ["auto", "keras"])
def test_maps_at_a_stage_are_the_networks(extract, residual, pictures, engine):
    preprocessing = model_info("resnet20").preprocessing
    how = {"stage": "stage2", "dtype": "float32", "engine": engine}
    features, _ = extract(pictures, model=residual, preprocessing=preprocessing, **how)
    expected = expected_features(residual, pictures, preprocessing, stage="stage2")
    assert features.shape == expected.shape == (11, 16, 16, 32)
    assert features.dtype == np.float32
    assert relative_difference(features, expected) <= (1e-5 if engine == "keras" else max(TOLERANCE.values()))


def test_second_time_nothing_is_computed_and_the_answer_is_the_same(extract, pictures):
    first, _ = extract(pictures)
    second, computed = extract(pictures)
    assert computed == 0
    np.testing.assert_array_equal(first, second)


def test_ten_added_pictures_are_ten_computed_and_order_is_kept(extract, pictures, digits):
    some, _ = extract(pictures)
    added = [str(path) for path in sorted(digits.glob("*/*.png"))[5:1700:170]]
    everything, computed = extract([*added, *pictures[::-1]])
    assert computed == len(added) == 10
    np.testing.assert_array_equal(everything[10:], some[::-1])


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


def test_other_content_weights_graph_cut_or_preprocessing_are_computed_anew(extract, small, pictures):
    extract(pictures)
    shutil.copy(pictures[1], pictures[0])
    assert extract(pictures)[1] == 0  # its new content is known from the other file
    data = Path(pictures[0]).read_bytes()
    Path(pictures[0]).write_bytes(data + b"\0")
    assert extract(pictures)[1] == 1
    changed = keras.models.clone_model(small)
    changed.set_weights(small.get_weights())
    changed.layers[1].kernel.assign(changed.layers[1].kernel * 1.5)
    features, computed = extract(pictures, model=changed)
    assert computed == 11
    assert_close(features, expected_features(changed, pictures))
    assert extract(pictures, stage="stage1")[1] == 11
    assert extract(pictures, dtype="float32")[1] == 11
    cropped = dataclasses.replace(PREPROCESSING, crop_fraction=0.9, resize="crop")
    assert extract(pictures, preprocessing=cropped)[1] == 11


def test_equal_weights_in_another_graph_are_another_network(extract, pictures):
    def network(strides):
        x = inputs = keras.Input((32, 32, 1))
        for number, stride in enumerate(strides, start=1):
            x = keras.layers.Conv2D(4, 3, strides=stride, activation="relu", name=f"stage{number}_conv")(x)
        x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
        return keras.Model(inputs, keras.layers.Dense(2, name="head_logits")(x))

    keras.utils.set_random_seed(3)
    one, other = network((2, 1)), network((1, 2))
    other.set_weights(one.get_weights())
    first, _ = extract(pictures[:3], model=one)
    second, computed = extract(pictures[:3], model=other)
    assert computed == 3
    assert relative_difference(second, first) > 0.01


def test_new_classifier_finds_the_features_of_the_old_one(extract, small, pictures):
    first, _ = extract(pictures)
    other = create_model("lenet5", num_classes=7)
    for ours, theirs in zip(other.layers[:-1], small.layers[:-1], strict=True):
        ours.set_weights(theirs.get_weights())
    second, computed = extract(pictures, model=other)
    assert computed == 0
    np.testing.assert_array_equal(first, second)


def test_views_are_cached_each_and_the_first_is_the_plain_picture(extract, pictures):
    plain, _ = extract(pictures)
    three, computed = extract(pictures, views=AugmentedViews(3, seed=1))
    assert (computed, three.shape) == (22, (3, 11, 84))
    np.testing.assert_array_equal(three[0], plain)
    assert all(relative_difference(three[i], three[j]) > 0.01 for i, j in ((0, 1), (0, 2), (1, 2)))
    two, computed = extract(pictures[::-1], views=AugmentedViews(2, seed=1))
    assert computed == 0
    np.testing.assert_array_equal(two[:, ::-1], three[:2])
    _, computed = extract(pictures, views=AugmentedViews(3, seed=2))
    assert computed == 22


def test_answer_beyond_the_budget_lies_on_disk_and_leaves_nothing_behind(extract, pictures, tmp_path):
    small, _ = extract(pictures)
    large, computed = extract(pictures, memory_budget=100)
    assert computed == 0
    assert isinstance(large.base if large.base is not None else large, np.memmap)
    assert not isinstance(small.base, np.memmap)
    np.testing.assert_array_equal(large, small)
    names = {path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert names == {"data.mdb", "lock.mdb", "in-use"}


def test_damaged_entry_is_computed_again(extract, small, pictures, tmp_path):
    first, _ = extract(pictures)
    with FeatureExtractor(small, PREPROCESSING, cache_dir=tmp_path / "cache") as extractor:
        context = extractor.context
    cache = FeatureCache(tmp_path / "cache", context)
    key = next(cache.store.keys(b""))
    cache.close()
    rewrite(tmp_path, key, lambda entry: bytes(entry[:-1]) + bytes([entry[-1] ^ 255]))
    second, computed = extract(pictures)
    assert computed == 1
    np.testing.assert_array_equal(second, first)
    assert extract(pictures)[1] == 0


def test_what_was_done_before_a_failure_is_kept(extract, pictures, digits, monkeypatch):
    def in_order(tasks, size):  # taken from the end
        return [tasks[start : start + size] for start in range(0, len(tasks), size)][::-1]

    monkeypatch.setattr(sys.modules["toolkit.transfer.features"], "_chunks", in_order)
    good = [str(path) for path in sorted(digits.glob("*/*.png"))[: 60 + NUM_TRIALS]]
    Path(pictures[0]).write_text("no picture")
    with pytest.raises(ImageError, match="not a picture in a supported format"):
        extract([*good, pictures[0]])
    assert extract(good)[1] < len(good)


def test_missing_picture_and_impossible_settings_are_said(extract, pictures):
    with pytest.raises(ImageError, match=r"gone\.png: no such file"):
        extract(["gone.png"])
    with pytest.raises(UserError, match="unknown stage 'stage9'"):
        extract(pictures, stage="stage9")
    with pytest.raises(UserError, match="cached as float16 or float32, got dtype 'int8'"):
        extract(pictures, dtype="int8")
    with pytest.raises(UserError, match="unknown engine"):
        extract(pictures, engine="abacus")


@pytest.fixture(scope="module")
def many(digits_folder):
    """Paths and labels of a hundred and twenty pictures, of all classes."""
    chosen = range(0, len(digits_folder), len(digits_folder) // 120)
    return [str(digits_folder.root / digits_folder.paths[i]) for i in chosen], [digits_folder.labels[i] for i in chosen]


def contents(cache_dir):
    """Every entry of a cache, as it lies there."""
    store = open_store(cache_dir)
    with store.begin() as transaction:
        entries = {key: bytes(transaction.get(key)) for key in store.keys(b"")}
    close_store(store)
    return entries


@pytest.fixture(scope="module")
def unbroken(many, tmp_path_factory):
    """The result of a fine-tuning that nobody disturbs, and the content of its cache."""
    directory = tmp_path_factory.mktemp("unbroken")
    process = killable.start(directory / "cache", *many, directory / "result.npz")
    process.join()
    assert process.exitcode == 0
    return dict(np.load(directory / "result.npz")), contents(directory / "cache")


def assert_unbroken(result_file, cache_dir, unbroken):
    result = dict(np.load(result_file))
    for name in ("train", "kernel", "bias"):
        np.testing.assert_array_equal(result[name], unbroken[0][name])
    assert contents(cache_dir) == unbroken[1]
    return result


@pytest.mark.parametrize("num_kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_finetuning_killed_again_and_again_comes_to_the_unbroken_runs_result(many, unbroken, tmp_path, num_kills):
    rng = random.Random(num_kills)
    num_landed = 0
    for _ in range(3 * num_kills):
        if num_landed == num_kills:
            break
        # Spread over extraction, up to 1, and most of the choice of the classifier, up to 2, where the last one falls;
        # then a moment of chance.
        moment = 1.75 * (num_landed + 1) / num_kills
        done = killable.CONTEXT.Value("d")
        process = killable.start(tmp_path / "cache", *many, tmp_path / "killed.npz", done, 0.005)
        while process.is_alive() and done.value < moment:
            time.sleep(0.001)
        process.join(rng.uniform(0, 0.02))
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)  # 0 where it ended before it was struck
        num_landed += process.exitcode != 0
    assert num_landed == num_kills
    process = killable.start(tmp_path / "cache", *many, tmp_path / "result.npz")
    process.join()
    result = assert_unbroken(tmp_path / "result.npz", tmp_path / "cache", unbroken)
    assert result["seen"] == 0


@pytest.mark.slow
def test_two_processes_that_fill_one_cache_share_the_work(many, unbroken, tmp_path):
    results = [tmp_path / f"{number}.npz" for number in range(2)]
    processes = [killable.start(tmp_path / "cache", *many, result, None, 0.01) for result in results]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    seen = [int(assert_unbroken(result, tmp_path / "cache", unbroken)["seen"]) for result in results]
    assert sum(seen) < 1.6 * int(unbroken[0]["seen"])
