import shutil

import pytest
from PIL import Image

from toolkit.data import scan_folder
from toolkit.data.doctor import examine_folder


@pytest.fixture
def root(make_folder, tmp_path):
    return make_folder(tmp_path, {"train/a": 12, "train/b": 12, "val/a": 10, "val/b": 10})


def findings(root):
    return examine_folder(scan_folder(root))


def test_sound_folder_has_no_findings(root):
    report = findings(root)
    assert report["n"] == 44
    assert report["classes"] == {"a": 22, "b": 22}
    assert report["splits"] == {"train": 24, "val": 20}
    for kind in ("corrupt", "ignored", "duplicates", "leaks", "conflicts", "warnings"):
        assert report[kind] == []


def test_equal_files_in_one_class_and_split_are_only_duplicates(root):
    shutil.copy(root / "train/a/003.png", root / "train/a/copy.png")
    report = findings(root)
    assert report["duplicates"] == [["train/a/003.png", "train/a/copy.png"]]
    assert report["leaks"] == report["conflicts"] == []
    assert report["warnings"] == ["1 groups of identical files"]


def test_equal_files_across_splits_leak(root):
    shutil.copy(root / "train/a/003.png", root / "val/a/other.png")
    report = findings(root)
    assert report["duplicates"] == report["leaks"] == [["train/a/003.png", "val/a/other.png"]]
    assert report["conflicts"] == []
    assert any("span training and held-out" in text for text in report["warnings"])


def test_equal_files_across_classes_conflict(root):
    shutil.copy(root / "train/a/003.png", root / "train/b/other.png")
    report = findings(root)
    assert report["duplicates"] == report["conflicts"] == [["train/a/003.png", "train/b/other.png"]]
    assert report["leaks"] == []
    assert any("in two classes" in text for text in report["warnings"])


def test_files_of_equal_size_but_other_bytes_are_no_duplicates(root):
    for index in range(2):
        Image.new("RGB", (6, 6), (index, 0, 0)).save(root / f"train/a/flat{index}.bmp")
    assert len({(root / f"train/a/flat{index}.bmp").stat().st_size for index in range(2)}) == 1
    assert findings(root)["n"] == 46
    assert findings(root)["duplicates"] == []


def test_folder_without_splits_has_no_leaks(make_folder, tmp_path):
    make_folder(tmp_path, {"a": 10, "b": 10})
    shutil.copy(tmp_path / "a/000.png", tmp_path / "a/again.png")
    report = findings(tmp_path)
    assert report["splits"] == {}
    assert report["leaks"] == []
    assert len(report["duplicates"]) == 1


@pytest.mark.parametrize(("counts", "imbalanced"), [({"a": 100, "b": 10}, False), ({"a": 101, "b": 10}, True)])
def test_more_than_ten_to_one_is_imbalanced(make_folder, tmp_path, counts, imbalanced):
    warnings = findings(make_folder(tmp_path, counts))["warnings"]
    assert any("imbalanced: the largest class has 101 pictures, the smallest 10" in w for w in warnings) == imbalanced


def test_small_classes_bad_pictures_and_other_files_are_told(make_folder, tmp_path):
    make_folder(tmp_path, {"a": 10, "b": 9})
    (tmp_path / "a" / "bad.jpg").write_text("no")
    (tmp_path / "a" / "notes.txt").write_text("mine")
    report = findings(tmp_path)
    assert [row["path"] for row in report["corrupt"]] == ["a/bad.jpg"]
    assert "not a picture" in report["corrupt"][0]["reason"]
    assert report["ignored"] == ["a/notes.txt"]
    assert report["warnings"] == [
        "1 unreadable pictures; training needs --skip-bad",
        "classes with fewer than 10 pictures: b (9)",
        "1 files are not pictures and were ignored",
    ]
