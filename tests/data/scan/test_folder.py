"""A folder is read without trusting it: what is no picture is named, and nothing in it makes a scan fail or swell."""

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit.data import scan_folder
from toolkit.errors import UserError


def png_header_only(width: int, height: int) -> bytes:
    """A PNG that claims a size and brings almost no data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def write_jpeg(path, size=(40, 30)):
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(noise).save(path, "JPEG")


def assert_one_line(error: pytest.ExceptionInfo, *parts: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    assert text.strip() == text
    for part in parts:
        assert part in text


def test_plain_folder_gives_sorted_classes_labels_and_paths(make_folder, tmp_path):
    folder = scan_folder(make_folder(tmp_path, {"dogs": 2, "cats": 3, "Ants": 1}))
    assert folder.class_names == ("Ants", "cats", "dogs")
    assert folder.paths == (
        *("Ants/000.png", "cats/000.png", "cats/001.png", "cats/002.png"),
        *("dogs/000.png", "dogs/001.png"),
    )
    assert folder.labels == (0, 1, 1, 1, 2, 2)
    assert folder.splits == folder.problems == folder.ignored == ()
    assert folder.class_counts() == {"Ants": 1, "cats": 3, "dogs": 2}
    assert len(folder) == 6


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("training", "validation", "testing"), ("Train", "VALID", "Test")]
)
def test_split_folders_are_known_by_all_their_names(make_folder, tmp_path, names):
    counts = {f"{split}/{name}": n for split, n in zip(names, (3, 2, 1), strict=True) for name in ("cats", "dogs")}
    folder = scan_folder(make_folder(tmp_path, counts))
    assert folder.class_names == ("cats", "dogs")
    by_split = {s: [p for p, own in zip(folder.paths, folder.splits, strict=True) if own == s] for s in folder.splits}
    assert {name: len(paths) for name, paths in by_split.items()} == {"train": 6, "val": 4, "test": 2}
    for split, given in zip(("train", "val", "test"), names, strict=True):
        assert all(path.startswith(f"{given}/") for path in by_split[split])


def test_class_named_test_beside_others_is_a_class(make_folder, tmp_path):
    folder = scan_folder(make_folder(tmp_path, {"test": 2, "exam": 2}))
    assert folder.class_names == ("exam", "test")
    assert folder.splits == ()


def test_hidden_files_are_left_out_and_other_files_are_listed(make_folder, tmp_path):
    make_folder(tmp_path, {"cats": 1, "dogs": 1, ".cache": 2, "cats/.thumbs": 2})
    (tmp_path / "cats" / "._000.png").write_bytes(b"\0\5\26\7")
    (tmp_path / "cats" / "notes.txt").write_text("mine")
    (tmp_path / "README.md").write_text("ours")
    folder = scan_folder(tmp_path)
    assert folder.paths == ("cats/000.png", "dogs/000.png")
    assert folder.ignored == (
        (".cache/000.png", "of another program or the system"),
        (".cache/001.png", "of another program or the system"),
        ("README.md", "not a picture"),
        ("cats/._000.png", "of another program or the system"),
        ("cats/.thumbs/000.png", "of another program or the system"),
        ("cats/.thumbs/001.png", "of another program or the system"),
        ("cats/notes.txt", "not a picture"),
    )
    assert folder.problems == ()


def test_pictures_in_nested_folders_belong_to_the_class_on_top_and_all_are_sorted(make_folder, tmp_path):
    folder = scan_folder(make_folder(tmp_path, {"cats/persian/white": 1, "cats/0": 1, "cats": 1, "dogs/pug": 2}))
    assert folder.paths == (
        *("cats/0/000.png", "cats/000.png", "cats/persian/white/000.png"),
        *("dogs/pug/000.png", "dogs/pug/001.png"),
    )
    assert folder.labels == (0, 0, 0, 1, 1)


def test_order_of_classes_can_be_given(make_folder, tmp_path):
    root = make_folder(tmp_path, {"a": 1, "b": 2})
    folder = scan_folder(root, class_names=("c", "b", "a"))
    assert folder.class_names == ("c", "b", "a")
    assert folder.labels == (2, 1, 1)


@pytest.mark.parametrize(
    ("counts", "parts"),
    [
        ({}, ("no class folders",)),
        ({"cats": 0, "dogs": 0}, ("no pictures", "cats, dogs")),
        ({"cats": 3}, ("only one class", "'cats'")),
        ({"cats": 3, "dogs": 0}, ("dogs", "without pictures")),
        ({"train/cats": 2, "train/dogs": 0, "val/cats": 2}, ("dogs", "without pictures")),
    ],
)
def test_unusable_folder_is_one_clear_line(make_folder, tmp_path, counts, parts):
    with pytest.raises(UserError) as error:
        scan_folder(make_folder(tmp_path, counts))
    assert_one_line(error, str(tmp_path), *parts)


def test_missing_folder_and_file_for_a_folder_are_one_clear_line(tmp_path):
    with pytest.raises(UserError) as error:
        scan_folder(tmp_path / "nowhere")
    assert_one_line(error, "nowhere", "no such folder")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError) as error:
        scan_folder(tmp_path / "file")
    assert_one_line(error, "not a folder")


def test_class_folder_outside_the_given_classes_is_named(make_folder, tmp_path):
    with pytest.raises(UserError) as error:
        scan_folder(make_folder(tmp_path, {"cats": 1, "dags": 1}), class_names=("cats", "dogs"))
    assert_one_line(error, "'dags'", "cats, dogs")


@pytest.fixture
def damaged(make_folder, tmp_path):
    """Two good pictures and every kind of bad one."""
    make_folder(tmp_path, {"cats": 1, "dogs": 1})
    write_jpeg(tmp_path / "whole.jpg")
    (tmp_path / "cats" / "truncated.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:900])
    (tmp_path / "whole.jpg").unlink()
    (tmp_path / "cats" / "text.jpg").write_text("<html>404 not found</html>")
    (tmp_path / "cats" / "huge.png").write_bytes(png_header_only(40_000, 40_000))
    (tmp_path / "cats" / "empty.png").write_bytes(b"")
    (tmp_path / "dogs" / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "dogs" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    return tmp_path


def test_every_kind_of_bad_picture_is_a_problem_with_a_reason(damaged):
    folder = scan_folder(damaged)
    assert folder.paths == ("cats/000.png", "dogs/000.png")
    reasons = dict(folder.problems)
    assert "truncated" in reasons.pop("cats/truncated.jpg")
    assert "pixels" in reasons.pop("cats/huge.png")
    assert "no such file" in reasons.pop("dogs/gone.png")
    assert set(reasons) == {"cats/text.jpg", "cats/empty.png", "dogs/phone.heic"}
    assert all("not a picture" in reason for reason in reasons.values())
    assert all(str(damaged) not in reason for _, reason in folder.problems)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from Linux's /proc")
def test_picture_that_claims_gigabytes_costs_no_memory(damaged):
    script = (
        "import re, sys; from toolkit.data import scan_folder; folder = scan_folder(sys.argv[1]);"
        "print(len(folder.problems), *re.findall(r'VmHWM:\\s+(\\d+) kB', open('/proc/self/status').read()))"
    )
    result = subprocess.run([sys.executable, "-c", script, str(damaged)], capture_output=True, text=True, check=True)
    num_problems, peak_kib = map(int, result.stdout.split())
    assert num_problems == 6
    assert 10_000 < peak_kib < 400_000  # the picture's pixels would be 4.8 million


def test_require_clean_names_the_file_the_count_and_the_way_out(damaged):
    with pytest.raises(UserError) as error:
        scan_folder(damaged).require_clean()
    assert_one_line(error, str(damaged / "cats" / "empty.png"), "not a picture", "(and 5 more)", "--skip-bad")


def test_clean_folder_passes_require_clean(make_folder, tmp_path):
    scan_folder(make_folder(tmp_path, {"cats": 1, "dogs": 1})).require_clean()


def test_folder_of_nothing_but_bad_pictures_says_how_many_and_offers_no_skipping(tmp_path):
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        for index in range(3):
            (tmp_path / name / f"{index}.jpg").write_text("no")
    with pytest.raises(UserError) as error:
        scan_folder(tmp_path)
    assert_one_line(error, "none of 6 pictures", "cats/0.jpg")
    assert "--skip-bad" not in str(error.value)


def test_class_of_nothing_but_bad_pictures_is_named(make_folder, tmp_path):
    make_folder(tmp_path, {"cats": 2, "dogs": 0})
    (tmp_path / "cats" / "bad.jpg").write_text("no")
    (tmp_path / "dogs" / "bad.jpg").write_text("no")
    with pytest.raises(UserError) as error:
        scan_folder(tmp_path)
    assert_one_line(error, f"{tmp_path}: class 'dogs': none of 1 pictures", "dogs/bad.jpg")


def test_empty_class_is_named_even_if_another_holds_a_bad_picture(make_folder, tmp_path):
    make_folder(tmp_path, {"cats": 2, "dogs": 0})
    (tmp_path / "cats" / "bad.jpg").write_text("no")
    with pytest.raises(UserError) as error:
        scan_folder(tmp_path)
    assert_one_line(error, f"{tmp_path}: class 'dogs' is without pictures")


def test_progress_ends_with_every_file(damaged, told):
    scan_folder(damaged)
    assert told[-1] == ("reading pictures", 8, 8)


def test_named_pipe_among_the_pictures_is_a_problem_and_not_waited_for(make_folder, tmp_path):
    make_folder(tmp_path, {"cats": 1, "dogs": 1})
    os.mkfifo(tmp_path / "cats" / "pipe.jpg")
    assert scan_folder(tmp_path).problems == (("cats/pipe.jpg", "not a regular file"),)


def test_links_to_folders_are_followed_but_not_in_circles_nor_out_to_other_classes(make_folder, tmp_path):
    make_folder(tmp_path, {"data/cats": 1, "data/dogs": 1, "elsewhere/more": 2})
    cats = tmp_path / "data" / "cats"
    (cats / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(cats)
    (cats / "self").symlink_to(".")
    (cats / "all").symlink_to("..")
    (cats / "again").symlink_to(tmp_path / "elsewhere" / "more")
    (cats / "nowhere").symlink_to(tmp_path / "nothing")
    folder = scan_folder(tmp_path / "data")
    assert folder.paths == ("cats/000.png", "cats/again/000.png", "cats/again/001.png", "dogs/000.png")


def test_scan_does_not_depend_on_the_order_files_were_made(make_folder, tmp_path):
    first = make_folder(tmp_path / "one", {"a": 6, "b": 6})
    second = tmp_path / "two"
    for name in ("b", "a"):
        (second / name).mkdir(parents=True)
        for path in sorted((first / name).iterdir(), reverse=True):
            os.link(path, second / name / path.name)
    one, two = scan_folder(first), scan_folder(second)
    assert (one.paths, one.labels) == (two.paths, two.labels)
