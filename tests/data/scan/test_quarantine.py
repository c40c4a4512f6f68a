"""Pictures left out: those on a list that a person may edit, or else such as stand for a missing one."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from toolkit.data import scan_folder, split_folder
from toolkit.data.scan.quarantine import match_quarantine, quarantine_file, write_quarantine
from toolkit.errors import UserError

HYMENOPTERA = Path(os.environ.get("TOOLKIT_DATA", "nowhere")) / "hymenoptera"


def placeholder() -> Image.Image:
    image = Image.new("RGB", (60, 60), (247, 247, 247))
    ImageDraw.Draw(image).text((6, 24), "NOT FOUND", fill=(60, 60, 60))
    return image


@pytest.fixture
def root(make_folder, tmp_path):
    return make_folder(tmp_path / "data", {"a": 20, "b": 20})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("x.gif", "it is a GIF among 41 pictures"),
        ("imageNotFound.png", "its name says so"),
        ("photo_unavailable.png", "its name says so"),
    ],
)
def test_placeholder_is_left_out_and_named(root, name, reason):
    placeholder().save(root / "a" / name)
    folder = scan_folder(root)
    assert len(folder) == 40
    ((path, why),) = folder.quarantined
    assert path == f"a/{name}"
    assert "one grey value" in why
    assert reason in why
    folder.require_clean()
    split = split_folder(folder)
    assert not any(name in p for subset in (split.train, split.val, split.test) for p in subset.paths)


def test_blank_picture_is_left_out(root):
    Image.new("RGB", (30, 30), "white").save(root / "a" / "17.png")
    assert [path for path, _ in scan_folder(root).quarantined] == ["a/17.png"]


def test_a_class_of_blank_pictures_is_one(root):
    (root / "lens covered").mkdir()
    for name in ("1.png", "2.png"):
        Image.new("RGB", (30, 30), "black").save(root / "lens covered" / name)
    folder = scan_folder(root)
    assert (len(folder), folder.quarantined) == (42, ())


def test_flat_picture_without_other_evidence_stays(root):
    placeholder().save(root / "a" / "17.png")
    assert scan_folder(root).quarantined == ()


def test_where_many_are_flat_none_is_a_placeholder(root):
    for index in range(5):
        Image.new("L", (20, 20), index).save(root / "b" / f"missing{index}.gif")
    assert scan_folder(root).quarantined == ()


def test_digits_have_no_placeholders(digits_folder):
    assert digits_folder.quarantined == ()


def test_list_decides_alone(root):
    placeholder().save(root / "a" / "x.gif")
    (root / "a" / "bad.png").write_text("no")
    (root / "quarantine.txt").write_text("# mine\n\nb/003.png\tblurred\na/bad.png\n")
    folder = scan_folder(root)
    assert folder.quarantined == (("a/bad.png", "listed"), ("b/003.png", "blurred"))
    assert folder.problems == ()
    assert "a/x.gif" in folder.paths
    assert "b/003.png" not in folder.paths


def test_list_elsewhere_can_be_named(root, tmp_path):
    write_quarantine(tmp_path / "list", {"b/003.png": "blurred"})
    assert scan_folder(root, quarantine=tmp_path / "list").quarantined == (("b/003.png", "blurred"),)
    with pytest.raises(UserError, match="none: cannot be read"):
        scan_folder(root, quarantine=tmp_path / "none")


def test_written_list_reads_back_whatever_the_names(tmp_path):
    names = ["a/b c.png", "#odd.png", '"quoted".png', "tab\there.png", "line\nbreak.png", " space.png", "ü\udcff.png"]
    write_quarantine(tmp_path / "list", {name: f"why\n{index}" for index, name in enumerate(names)})
    expected = {name: f"why {index}" for index, name in enumerate(names)}
    assert match_quarantine(tmp_path / "list", tmp_path, names) == expected


def test_list_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "list").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        write_quarantine(tmp_path / "list", {})
    assert [path.name for path in tmp_path.iterdir()] == ["list"]


def test_list_lies_in_a_folder_and_beside_a_file(tmp_path):
    assert quarantine_file(tmp_path) == tmp_path / "quarantine.txt"
    assert quarantine_file(tmp_path / "pets.zip") == tmp_path / "pets.zip.quarantine.txt"


@pytest.mark.skipif(not HYMENOPTERA.is_dir(), reason="TOOLKIT_DATA names no folder with hymenoptera")
def test_placeholder_among_the_ants_is_the_only_picture_left_out():
    folder = scan_folder(HYMENOPTERA)
    ((path, reason),) = folder.quarantined
    assert path == "train/ants/imageNotFound.gif"
    assert "94 % of it is one grey value" in reason
    assert np.bincount(folder.labels).tolist() == [193, 204]


@pytest.mark.parametrize(
    "line",
    [
        "a/003.png",
        "./a/003.png",
        ".\\a\\003.png",
        "a\\003.png",
        "  a/003.png  ",
        '"a/003.png"',
        "'a/003.png'",
        '"a\\003.png"',
        "{root}/a/003.png",
        '"{root}/a/../a/003.png"\tblurred',
        "C:\\Users\\me\\data\\a\\003.png",
        "/another/machine/data/a/003.png",
        "A/003.PNG",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_list_is_read_as_editors_and_file_managers_write_it(root, line, encoding):
    text = f"# mine\r\n\r\n{line.format(root=root)}\r\nb/000.png\twhy\r\n"
    (root / "quarantine.txt").write_bytes(text.encode(encoding))
    assert [path for path, _ in scan_folder(root).quarantined] == ["a/003.png", "b/000.png"]


def test_folder_in_the_list_stands_for_its_pictures(root, make_folder):
    make_folder(root, {"a/bad": 3})
    (root / "quarantine.txt").write_text("a/bad/\tall blurred\n")
    assert scan_folder(root).quarantined == tuple((f"a/bad/00{i}.png", "all blurred") for i in range(3))


@pytest.mark.parametrize(
    ("line", "nearest"),
    [("a/0003.png", "a/003.png"), ("c/007.png", "/007.png"), ("nonsense", ".png"), ('"a/0"', "a/0")],
)
def test_entry_that_means_nothing_is_one_clear_line(root, line, nearest):
    (root / "quarantine.txt").write_text(f"b/000.png\n{line}\n")
    with pytest.raises(UserError, match="matches no picture") as error:
        scan_folder(root)
    text = str(error.value)
    assert "\n" not in text
    assert str(root / "quarantine.txt") in text
    assert repr(line.strip('"')) in text
    assert nearest in text.partition("the nearest is ")[2]


def test_entry_for_a_file_that_is_left_out_anyway_is_no_error(root):
    (root / "a" / "notes.txt").write_text("mine")
    (root / "quarantine.txt").write_text("a/notes.txt\n")
    assert scan_folder(root).quarantined == ()


def test_list_with_names_that_are_not_utf8_comes_back(root):
    name = os.fsdecode(b"a/caf\xe9\n.png")
    os.rename(root / "a/003.png", root / name)
    write_quarantine(root / "quarantine.txt", {name: "why"})
    assert scan_folder(root).quarantined == ((name, "why"),)
