from pathlib import Path

import numpy as np
import pytest

from toolkit.data import ImageFolder, class_weights, scan_folder, split_folder, teaching_split
from toolkit.data.feed.split import default_fractions
from toolkit.errors import UserError


@pytest.fixture(scope="module")
def uneven(make_folder, tmp_path_factory):
    return scan_folder(make_folder(tmp_path_factory.mktemp("uneven"), {"a": 50, "b": 17, "c": 5, "d": 3}))


def parts(split):
    return split.train.paths, split.val.paths, split.test.paths


def test_subsets_are_disjoint_and_cover_everything(uneven):
    split = split_folder(uneven)
    everything = [path for part in parts(split) for path in part]
    assert len(everything) == len(set(everything))
    assert set(everything) == {str((uneven.root / path).absolute()) for path in uneven.paths}


def test_labels_stay_with_their_pictures(uneven):
    split = split_folder(uneven)
    for subset in (split.train, split.val, split.test):
        for path, label in zip(subset.paths, subset.labels, strict=True):
            assert path.startswith(str(uneven.root / uneven.class_names[label]) + "/")


@pytest.mark.parametrize("fractions", [(0.6, 0.2, 0.2), (0.8, 0.1, 0.1), (0.7, 0.3, 0.0)])
def test_every_class_is_shared_out_within_one_picture(uneven, fractions):
    split = split_folder(uneven, fractions=fractions)
    for label, count in enumerate(uneven.class_counts().values()):
        for subset, share in zip((split.val, split.test), fractions[1:], strict=True):
            assert abs(subset.labels.count(label) - share * count) <= 1
            assert (subset.labels.count(label) > 0) == (share > 0)


def test_same_seed_same_split_and_another_seed_another(uneven):
    assert parts(split_folder(uneven, seed=3)) == parts(split_folder(uneven, seed=3))
    assert parts(split_folder(uneven, seed=3)) != parts(split_folder(uneven, seed=4))


def test_split_of_the_same_files_elsewhere_is_the_same(make_folder, tmp_path, uneven):
    again = scan_folder(make_folder(tmp_path, {"d": 3, "c": 5, "b": 17, "a": 50}))
    assert split_folder(again).as_dict(again.root) == split_folder(uneven).as_dict(uneven.root)


def test_given_split_is_kept(make_folder, tmp_path):
    counts = {"train/a": 5, "train/b": 4, "val/a": 2, "val/b": 1, "test/a": 1, "test/b": 3}
    folder = scan_folder(make_folder(tmp_path, counts))
    split = split_folder(folder)
    for name, paths in split.as_dict(folder.root).items():
        assert all(path.startswith(f"{name}/") for path in paths)
    assert (len(split.train), len(split.val), len(split.test)) == (9, 3, 4)
    assert split.held_out == ("test", split.test)


def test_missing_val_is_taken_from_train_and_test_is_left_alone(make_folder, tmp_path):
    folder = scan_folder(make_folder(tmp_path, {"train/a": 20, "train/b": 12, "test/a": 4, "test/b": 4}))
    split = split_folder(folder)
    assert all("/train/" in path for path in split.train.paths + split.val.paths)
    assert not set(split.train.paths) & set(split.val.paths)
    assert [split.val.labels.count(label) for label in (0, 1)] == [5, 3]  # a quarter: 20 of 60 + 20
    assert len(split.test) == 8


def test_without_a_test_folder_val_is_held_out(make_folder, tmp_path):
    split = split_folder(scan_folder(make_folder(tmp_path, {"train/a": 3, "train/b": 3, "val/a": 1, "val/b": 1})))
    assert len(split.test) == 0
    assert split.held_out == ("val", split.val)


def test_class_too_small_to_split_is_an_error(make_folder, tmp_path):
    folder = scan_folder(make_folder(tmp_path, {"many": 9, "few": 2}))
    with pytest.raises(UserError, match=r"'few' has 2 readable pictures; at least 3"):
        split_folder(folder)


def test_class_without_training_pictures_is_an_error(make_folder, tmp_path):
    folder = scan_folder(make_folder(tmp_path, {"train/a": 3, "train/b": 3, "val/a": 2, "val/b": 2, "val/c": 2}))
    with pytest.raises(UserError, match=r"'c' has no readable pictures to train on"):
        split_folder(folder)


@pytest.mark.parametrize("fractions", [(0.5, 0.2, 0.2), (1.2, -0.1, -0.1), (1.0, 0.0, 0.0), (0.0, 0.5, 0.5)])
def test_impossible_shares_are_an_error(uneven, fractions):
    with pytest.raises(UserError, match="split shares"):
        split_folder(uneven, fractions=fractions)


def test_default_shares_follow_the_logarithm_of_the_size():
    assert default_fractions(1_000) == default_fractions(10_000) == (0.6, 0.2, 0.2)
    assert default_fractions(100_000) == pytest.approx((0.9106, 0.0447, 0.0447))
    assert default_fractions(1_000_000) == default_fractions(10**8) == (0.98, 0.01, 0.01)
    for size in (0, 1, 20_000, 300_000):
        assert sum(default_fractions(size)) == pytest.approx(1)


def test_unreadable_pictures_are_in_no_subset(make_folder, tmp_path):
    root = make_folder(tmp_path, {"a": 6, "b": 6})
    (root / "a" / "bad.png").write_text("no")
    folder = scan_folder(root)
    split = split_folder(folder)
    assert sum(map(len, parts(split))) == 12


def grouped(labels, groups, splits=()) -> ImageFolder:
    paths = tuple(f"{index:04d}.png" for index in range(len(labels)))
    names = tuple(str(label) for label in range(max(labels) + 1))
    return ImageFolder(Path("root"), names, paths, tuple(labels), tuple(splits), groups=tuple(groups))


@pytest.fixture(scope="module")
def patients() -> ImageFolder:
    """Two hundred patients with one to thirty pictures each, of a common, a less common and a rare kind."""
    rng = np.random.default_rng(3)
    labels, groups = [], []
    for patient in range(200):
        count = int(rng.integers(1, 31))
        labels += rng.choice(3, count, p=(0.7, 0.25, 0.05)).tolist()
        groups += [f"p{patient}"] * count
    return grouped(labels, groups)


@pytest.mark.parametrize("fractions", [(0.6, 0.2, 0.2), (0.8, 0.2, 0.0), (0.96, 0.02, 0.02)])
def test_no_group_is_in_two_subsets_and_the_classes_are_shared_out_all_the_same(patients, fractions):
    split = split_folder(patients, fractions=fractions, seed=1)
    group_of = {str((patients.root / p).absolute()): g for p, g in zip(patients.paths, patients.groups, strict=True)}
    groups = [{group_of[path] for path in part} for part in parts(split)]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 200
    totals = np.bincount(patients.labels)
    for subset, share in zip((split.train, split.val, split.test), fractions, strict=True):
        shares = np.bincount(subset.labels, minlength=3) / totals if len(subset) else np.zeros(3)
        np.testing.assert_allclose(shares, share, atol=0.05)
    assert parts(split) == parts(split_folder(patients, fractions=fractions, seed=1))
    assert parts(split) != parts(split_folder(patients, fractions=fractions, seed=2))


def test_pictures_without_a_group_are_on_their_own():
    folder = grouped([0, 1] * 50, ["", ""] * 40 + ["together"] * 20)
    split = split_folder(folder)
    assert [len(part) for part in parts(split)] == [60, 20, 20]
    together = {str((folder.root / path).absolute()) for path in folder.paths[80:]}
    assert [len(together & set(part)) for part in parts(split)] in ([20, 0, 0], [0, 20, 0], [0, 0, 20])


def test_class_in_too_few_groups_is_an_error():
    folder = grouped([0] * 6 + [1] * 6, list("abcdef") + ["x"] * 3 + ["y"] * 3)
    with pytest.raises(UserError, match="'1' is in fewer than 3 groups"):
        split_folder(folder)


def test_given_splits_that_tear_a_group_are_an_error():
    splits = ["train", "train", "val", "val"]
    with pytest.raises(UserError, match="group 'g' is in both train and val"):
        split_folder(grouped([0, 1, 0, 1], ["a", "g", "b", "g"], splits))
    split = split_folder(grouped([0, 1, 0, 1], ["a", "b", "c", ""], splits))
    assert [len(part) for part in parts(split)] == [2, 2, 0]


def test_missing_val_is_taken_from_train_by_group():
    labels, groups = [0, 1] * 20, [f"g{i // 4}" for i in range(40)]
    folder = grouped([*labels, 0, 1], [*groups, "t", "t"], ["train"] * 40 + ["test"] * 2)
    split = split_folder(folder)
    assert [len(part) for part in parts(split)] == [28, 12, 2] or [len(part) for part in parts(split)] == [32, 8, 2]
    name = {str((folder.root / p).absolute()): g for p, g in zip(folder.paths, folder.groups, strict=True)}
    assert not {name[p] for p in split.train.paths} & {name[p] for p in split.val.paths}


def test_class_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.random.default_rng(0).choice(4, 500, p=(0.5, 0.3, 0.15, 0.05))
    expected = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    weights = class_weights(labels)
    np.testing.assert_allclose([weights[label] for label in range(4)], expected)
    assert np.mean([weights[label] for label in labels]) == pytest.approx(1)
    assert set(class_weights([0, 2], 4)) == {0, 2}


def test_every_picture_teaches_where_nothing_is_split(uneven):
    split, lots = teaching_split(uneven)
    assert (len(split.train), len(split.val), len(split.test)) == (75, 0, 0)
    assert len(lots.lot_of) == 75


@pytest.mark.parametrize(("keep_val", "counts"), [(False, (8, 0, 4)), (True, (6, 2, 4))])
def test_validation_teaches_unless_kept_and_test_never_does(make_folder, tmp_path, keep_val, counts):
    for name, count in {"train": 3, "val": 1, "test": 2}.items():
        make_folder(tmp_path / name, {"a": count, "b": count})
    split, lots = teaching_split(scan_folder(tmp_path), keep_val=keep_val)
    assert (len(split.train), len(split.val), len(split.test)) == counts
    assert len(lots.lot_of) == len(split.train)
    assert not any("/test/" in path for path in split.train.paths)


def test_a_folder_of_test_pictures_has_nothing_to_teach(make_folder, tmp_path):
    make_folder(tmp_path / "test", {"a": 3, "b": 3})
    make_folder(tmp_path / "val", {"a": 3, "b": 3})
    with pytest.raises(UserError, match="nothing to train on"):
        teaching_split(scan_folder(tmp_path), keep_val=True)


def test_one_picture_a_class_teaches(make_folder, tmp_path):
    assert len(teaching_split(scan_folder(make_folder(tmp_path, {"a": 1, "b": 1})))[0].train) == 2
