import shutil

import numpy as np
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
    rng = np.random.default_rng(9)
    for index in range(2):
        Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).save(root / f"train/a/{index}.bmp")
    assert len({(root / f"train/a/{index}.bmp").stat().st_size for index in range(2)}) == 1
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
    assert report["ignored"] == [{"path": "a/notes.txt", "reason": "not a picture"}]
    assert report["warnings"] == [
        "1 unreadable pictures; training needs --skip-bad, or a list made with --quarantine",
        "classes with fewer than 10 pictures: b (9)",
        "left out: 1 not a picture (a/notes.txt)",
    ]


def test_split_that_training_would_use_is_shown(make_folder, tmp_path):
    make_folder(tmp_path, {"a": 20, "b": 10})
    assert findings(tmp_path)["split"] == {
        "train": {"a": 12, "b": 6},
        "val": {"a": 4, "b": 2},
        "test": {"a": 4, "b": 2},
    }


def test_class_that_cannot_be_split_is_a_warning(make_folder, tmp_path):
    report = findings(make_folder(tmp_path, {"a": 20, "b{n}": 2}))
    assert report["split"] == {}
    assert "classes with fewer than 10 pictures: b{n} (2)" in report["warnings"]
    assert "'b{n}' has 2 readable pictures; at least 3 are needed to split it" in report["warnings"][-1]


def test_near_copy_in_another_split_leaks_and_in_another_class_conflicts(make_folder, tmp_path, photographs):
    root = make_folder(tmp_path, {"train/a": 10, "train/b": 10, "val/a": 10, "val/b": 10})
    Image.fromarray(photographs[0]).save(root / "train/a/photo.png")
    Image.fromarray(photographs[0]).save(root / "val/b/photo.jpg", quality=60)
    report = findings(root)
    group = [["train/a/photo.png", "val/b/photo.jpg"]]
    assert report["near_duplicates"] == report["near_leaks"] == report["near_conflicts"] == group
    assert report["duplicates"] == report["leaks"] == report["conflicts"] == []


def test_traits_are_counted(make_folder, tmp_path, photographs):
    root = make_folder(tmp_path, {"a": 10, "b": 10})
    images = [Image.fromarray(view) for view in photographs[:7]]
    images[0].convert("L").save(root / "a/grey.png")
    images[1].convert("L").convert("RGB").save(root / "a/grey_in_colour.jpg")
    images[2].convert("CMYK").save(root / "a/cmyk.jpg")
    Image.fromarray(np.asarray(images[3].convert("L")).astype(np.uint16) * 257).save(root / "a/deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    images[4].save(root / "a/rotated.jpg", exif=exif)
    images[5].save(root / "a/animated.gif", save_all=True, append_images=[images[6]])
    images[6].convert("RGBA").save(root / "a/transparent.png")
    Image.fromarray(np.asarray(images[3].convert("L")).astype(np.uint16) * 16).save(root / "a/twelve_bits.png")
    images[5].save(root / "a/scanned.tif")
    report = findings(root)
    assert report["traits"] == {
        "greyscale": 4,
        "cmyk": 1,
        "16-bit": 2,
        "exif-rotated": 1,
        "animated": 1,
        "transparent": 1,
        "low-range": 1,
    }
    assert any("4 greyscale, 1 cmyk" in text for text in report["warnings"])
    assert (
        "1 of 29 pictures have 16 bits and no value beyond 8 or 12: they are read in that range" in report["warnings"]
    )
    assert any("1 of 29 pictures are TIFF or AVIF or HEIF, which a bundle's" in text for text in report["warnings"])


def test_pictures_that_show_nothing_are_counted(make_folder, tmp_path):
    root = make_folder(tmp_path, {"a": 10, "b": 10})
    for index in range(15):
        Image.new("RGBA", (30, 30), (0, 0, 0, index)).save(root / f"a/nothing{index}.png")
    assert "15 of 35 pictures show nothing: each is of one colour as the network sees it" in findings(root)["warnings"]


def test_sizes_and_formats_that_make_suspicious(make_folder, tmp_path, photographs):
    root = make_folder(tmp_path, {"a": 10, "b": 10})  # 12 × 10 each
    Image.fromarray(np.arange(9, dtype=np.uint8).reshape(1, 3, 3) * 28).save(root / "a/dot.png")
    Image.fromarray(np.tile(photographs[0][:20], (1, 2, 1))).save(root / "a/long.png")
    Image.fromarray(photographs[1]).save(root / "a/actually.jpg", "PNG")
    report = examine_folder(scan_folder(root), input_size=(13, 8))
    assert report["mistyped"] == [{"path": "a/actually.jpg", "format": "PNG"}]
    odd = {row["path"]: row["reason"] for row in report["odd_sizes"]}
    assert "4 pixels or fewer" in odd.pop("a/dot.png")
    assert "5 times as long as wide" in odd.pop("a/long.png")
    assert len(odd) == 20
    assert set(odd.values()) == {"smaller than the network's 13 × 8"}
    assert report["sizes"] == {"smallest": [1, 3], "median": [12, 10], "largest": [160, 200]}
