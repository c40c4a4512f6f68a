"""Folders as people have them: which are splits, which are classes, and what only lies beside them."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from toolkit.bundle import MANIFEST
from toolkit.data import Source, scan_folder, split_folder
from toolkit.data.sources import junk, layout
from toolkit.data.sources.listing import list_folder
from toolkit.errors import UserError


def counts(root: Path, **options) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """Files by split and class, and those left out by reason."""
    listing = list_folder(root, **options)
    found: dict[str, dict[str, int]] = {}
    for file in listing.files:
        own = found.setdefault(file.split, {})
        own[file.label] = own.get(file.label, 0) + 1
    return found, dict(Counter(reason for _, reason in listing.ignored))


def pets(*folders: str, n: int = 2) -> dict[str, int]:
    return {f"{folder}/{name}": n for folder in folders for name in ("cat", "dog")}


TWO = {"cat": 2, "dog": 2}


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("train", "dev", "test"), ("train", "val", "test")),
        (("Train_set", "Test_set"), ("train", "test")),
        (("seg_train", "seg_test"), ("train", "test")),
        (("train_images", "val_images"), ("train", "val")),
        (("TrainImages", "TestImages"), ("train", "test")),
        (("train2017", "val2017"), ("train", "val")),
        (("TRAINING", "VALIDATION"), ("train", "val")),
        (("pets-training", "pets-testing"), ("train", "test")),
        (("trainset", "testset"), ("train", "test")),
        (("training data", "validation data"), ("train", "val")),
        (("1_train", "2_valid"), ("train", "val")),
        (("val", "test"), ("val", "test")),
        (("train",), ("train",)),
    ],
)
def test_splits_are_known_by_words_in_their_names(make_folder, tmp_path, names, splits):
    assert counts(make_folder(tmp_path, pets(*names))) == (dict.fromkeys(splits, TWO), {})


@pytest.mark.parametrize("wrapper", ["", "data/", "archive/data/pets/"])
@pytest.mark.parametrize("inner", ["{}", "{}/{}", "{}/images"])
def test_folders_around_are_seen_through(make_folder, tmp_path, wrapper, inner):
    names = [wrapper + inner.format(split, split) for split in ("seg_train", "seg_test")]
    assert counts(make_folder(tmp_path, pets(*names)))[0] == {"train": TWO, "test": TWO}


def test_folders_around_classes_are_seen_through_beside_files_and_folders_without_pictures(make_folder, tmp_path):
    make_folder(tmp_path, pets("a/b") | {"cover": 0, "docs": 0})
    (tmp_path / "docs" / "notes.txt").write_text("mine")
    (tmp_path / "README").write_text("ours")
    Image.new("RGB", (9, 9)).save(tmp_path / "a" / "cover.png")
    assert counts(tmp_path) == ({"": TWO}, {"not a picture": 2, layout.NO_CLASS: 1})


@pytest.mark.parametrize("wrapper", ["", "data/", "train/", "test/"])
def test_a_folder_of_a_known_class_is_not_seen_through(make_folder, tmp_path, wrapper):
    make_folder(tmp_path, {f"{wrapper}Cat/front": 2, f"{wrapper}Cat/back": 1})
    (found,) = counts(tmp_path, class_names=("cat", "dog"))[0].values()
    assert found == {"Cat": 3}


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_classes_that_a_scan_is_given_are_known(make_folder, tmp_path, kind):
    root = make_folder(tmp_path / "data", {"cat/front": 2, "cat/back": 1})
    source = root if kind == "folder" else shutil.make_archive(str(tmp_path / "a"), "zip", root)
    assert scan_folder(source, class_names=("cat", "dog")).class_counts() == {"cat": 3, "dog": 0}


def test_known_classes_may_hold_the_same_folders(make_folder, tmp_path):
    root = make_folder(tmp_path, {f"{name}/{side}": 1 for name in ("cat", "dog") for side in ("front", "back")})
    assert counts(root, class_names=("cat", "dog")) == ({"": {"cat": 2, "dog": 2}}, {})


def test_a_split_of_one_class_is_not_seen_through(make_folder, tmp_path):
    root = make_folder(tmp_path, pets("train") | {"test/cat/front": 1, "test/cat/back": 1})
    assert counts(root)[0] == {"train": TWO, "test": {"cat": 2}}


@pytest.mark.parametrize(
    ("beside", "reason"),
    [
        ({"examples": 3}, layout.BESIDE),
        ({"seg_pred/seg_pred": 3}, layout.BESIDE),
        ({"chest_xray/train/cat": 2, "chest_xray/train/dog": 1}, layout.BESIDE),
        ({"unlabelled/more": 3}, layout.BESIDE),
    ],
)
def test_what_lies_beside_splits_is_left_out_and_named(make_folder, tmp_path, beside, reason):
    root = make_folder(tmp_path, pets("train", "val", "test") | beside)
    assert counts(root) == ({"train": TWO, "val": TWO, "test": TWO}, {reason: 3})


@pytest.mark.parametrize("test", ["test", "test/test", "test/unknown", "test_images"])
def test_unlabelled_test_pictures_are_left_out_and_named(make_folder, tmp_path, test):
    root = make_folder(tmp_path, pets("train", "val") | {test: 3})
    assert counts(root) == ({"train": TWO, "val": TWO}, {layout.UNLABELLED: 3})


def test_splits_within_classes(make_folder, tmp_path):
    root = make_folder(tmp_path, {"cat/train": 3, "cat/test": 1, "dog/train": 2, "dog/Test": 1})
    assert counts(root)[0] == {"train": {"cat": 3, "dog": 2}, "test": {"cat": 1, "dog": 1}}


@pytest.mark.parametrize(
    "names",
    [("fold1", "fold2"), ("a", "b"), ("train", "holdout"), ("train", "test", "holdout"), ("part/one", "part/two")],
)
def test_same_classes_below_folders_of_other_names_stop_with_one_line(make_folder, tmp_path, names):
    root = make_folder(tmp_path, pets(*names))
    with pytest.raises(UserError, match="--split-folders") as error:
        scan_folder(root)
    assert "\n" not in str(error.value)
    assert os.path.basename(names[-1]) in str(error.value)


def test_owner_says_which_folders_are_splits(make_folder, tmp_path):
    root = make_folder(tmp_path, pets("fold1", "fold2", "more"))
    folder = scan_folder(Source(root, {"fold1": "train", "fold2": "val"}))
    assert Counter(folder.splits) == {"train": 4, "val": 4}
    assert Counter(reason for _, reason in folder.ignored) == {layout.BESIDE: 4}
    assert scan_folder(Source(root, {})).class_names == ("fold1", "fold2", "more")
    with pytest.raises(UserError, match=r"no folder 'fold3' in it"):
        scan_folder(Source(root, {"fold3": "train"}))


def test_classes_named_like_splits_stay_classes(make_folder, tmp_path):
    assert counts(make_folder(tmp_path, {"test_tube": 2, "train_station": 3})) == (
        {"": {"test_tube": 2, "train_station": 3}},
        {},
    )


def test_vehicles_with_a_train_are_asked_about(make_folder, tmp_path):
    root = make_folder(tmp_path, {"train/steam": 2, "train/diesel": 2, "car": 2, "bus": 2})
    with pytest.raises(UserError, match="may be classes; say which"):
        scan_folder(root)
    assert scan_folder(Source(root, {})).class_names == ("bus", "car", "train")


def test_splits_without_class_folders_are_refused(make_folder, tmp_path):
    with pytest.raises(UserError, match=r"test and train hold pictures but no class folders; .* CSV"):
        scan_folder(make_folder(tmp_path, {"train": 2, "test": 2}))


def test_nothing_to_train_on_is_said_by_the_split_and_not_by_the_scan(make_folder, tmp_path):
    folder = scan_folder(make_folder(tmp_path, pets("val", "test")))
    with pytest.raises(UserError, match="test and val but nothing to train on; name a folder train") as error:
        split_folder(folder)
    assert "\n" not in str(error.value)


# --- by content


@pytest.mark.parametrize("name", ["n0123", "photo.jpg_large", "x.pjpeg", "y.jpg?w=640", "z.", "UPPER.JPG", "w.txt"])
def test_a_picture_of_any_name_is_read(make_folder, tmp_path, name):
    root = make_folder(tmp_path, TWO)
    Image.new("RGB", (9, 9), "red").save(root / "cat" / name, "JPEG")
    folder = scan_folder(root)
    assert f"cat/{name}" in folder.paths
    assert folder.ignored == folder.problems == ()


def test_a_class_may_begin_with_a_dot_and_other_hidden_things_are_named(make_folder, tmp_path):
    root = make_folder(tmp_path, {".NET": 2, "Java": 2, "Java/.old": 3, ".git/objects": 1, ".empty": 0})
    Image.new("RGB", (9, 9)).save(root / "Java" / ".hidden.png")
    assert counts(root) == ({"": {".NET": 2, "Java": 2}}, {"hidden": 4, "of another program or the system": 1})


def test_thumbnails_and_databases_of_other_programs_are_left_out(make_folder, tmp_path):
    beside = {"cat/@eaDir/000.jpg": 3, "__MACOSX/cat": 1, "lost+found": 0, "@eaDir": 1, "$RECYCLE.BIN": 1}
    root = make_folder(tmp_path, TWO | beside)
    for name in ("cat/Thumbs.db", "cat/.DS_Store", "dog/desktop.ini", "dog/._001.png", "cat/SYNOPHOTO_THUMB_M.jpg"):
        (root / name).write_bytes(b"\0\5\x16\7")
    assert counts(root) == ({"": TWO}, {"of another program or the system": 11})


# --- what the package wrote itself


def test_bundle_run_search_and_cache_in_the_data_are_left_out(make_folder, tmp_path, monkeypatch):
    root = make_folder(tmp_path, TWO)
    outputs = {
        "saved_models/pets": ["1/" + MANIFEST],
        "runs/first": ["config.json", "environment.json", "labels.txt", "splits.json", "report.html"],
        "cat/run": ["config.json", "environment.json", "labels.txt", "splits.json"],
        "search": ["search.json", "search.db"],
        "cache": ["unpacked/0/files/x.png"],
        ".partial-12ab": ["config.json"],
        "saved_models/.staging-1": ["assets.extra/manifest.json"],
    }
    for folder, names in outputs.items():
        for name in [*names, "plots/curves.png"]:
            (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / "dog/000.png", root / folder / name)
    monkeypatch.setenv("TOOLKIT_CACHE", str(root / "cache"))
    found, left_out = counts(root)
    assert found == {"": TWO}
    assert set(left_out) == {layout.OUTPUT, "of another program or the system"}
    assert sum(left_out.values()) == sum(len(names) + 1 for names in outputs.values())


def test_marks_are_those_that_runs_and_searches_begin_with():
    from toolkit.workflows import train, tune

    assert junk._MARKS[0] == (MANIFEST,)
    plan = json.dumps(train._Plan.files.__code__.co_consts, default=str)
    assert all(name in plan for name in junk._MARKS[1])
    assert junk._MARKS[2] == (tune._SEARCH, tune._STORE)
