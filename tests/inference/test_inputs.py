"""Files, folders, patterns and lists on standard input, and the pictures that they stand for."""

import io
import os
import sys

import pytest
from PIL import Image

from toolkit.errors import UserError
from toolkit.inference.inputs import Input, find_pictures


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder as computers leave it, and the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "album" / "sub").mkdir(parents=True)
    for name in ("b.jpg", "a.png", "sub/c.JPG", "sub/without_suffix", "sub/[v1].png"):
        Image.new("RGB", (3, 3)).save(tmp_path / "album" / name, "PNG")
    return tmp_path


def paths(*given):
    return [one.path for one in find_pictures(given)]


ALBUM = ["album/a.png", "album/b.jpg", "album/sub/[v1].png", "album/sub/c.JPG", "album/sub/without_suffix"]


def test_folders_are_walked_in_order_and_go_by_content(place):
    assert paths("album") == ALBUM
    assert paths("album/sub", "album/a.png") == [*ALBUM[2:], "album/a.png"]


def test_what_systems_leave_in_folders_is_left_out_and_counted(place, caplog):
    for folder in ("@eaDir", "__MACOSX", ".thumbnails"):
        (place / "album" / folder).mkdir()
        Image.new("RGB", (3, 3)).save(place / "album" / folder / "b.jpg")
    for file in ("Thumbs.db", ".hidden.jpg", "notes.txt", "sub/more.txt"):
        (place / "album" / file).write_text("no picture")
    os.mkfifo(place / "album" / "pipe.jpg")
    (place / "album" / "sub" / "up").symlink_to("..")
    with caplog.at_level("INFO", "toolkit"):
        assert paths("album") == ALBUM
    assert caplog.messages == [
        "left out: 2 not a picture (album/notes.txt …), 1 in a hidden folder (album/.thumbnails/b.jpg), "
        "1 in @eaDir (album/@eaDir/b.jpg), 1 in __MACOSX (album/__MACOSX/b.jpg), 1 hidden (album/.hidden.jpg), "
        "1 named Thumbs.db (album/Thumbs.db), 1 neither a file nor a folder (album/pipe.jpg)"
    ]
    assert paths("album/.hidden.jpg") == ["album/.hidden.jpg"]  # named by itself


def test_patterns_that_no_shell_expanded(place):
    assert paths("album/*.png") == ["album/a.png"]
    assert paths("album/**") == ALBUM
    assert paths("alb*") == ALBUM
    assert paths("album/sub/[v1].png") == ["album/sub/[v1].png"]  # there is such a file
    assert find_pictures(["album", "*.webp"])[-1] == Input("*.webp", "no file matches")


@pytest.mark.parametrize(
    "content", [b"album/b.jpg\nalbum/sub\n", b"album/b.jpg\0album/sub\0", b"album/b.jpg\r\nalbum/sub"]
)
def test_lists_on_standard_input(place, monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert paths("album/a.png", "-") == ["album/a.png", "album/b.jpg", *ALBUM[2:]]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "no paths on standard input"), (b"\n \n", "no paths"), (b"\xff\xd8\xff\xe0", "got a picture")],
)
def test_lists_that_are_none(monkeypatch, content, message):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    with pytest.raises(UserError, match=message):
        find_pictures(["-"])


def test_names_that_are_no_utf8(place):
    os.link(place / "album" / "b.jpg", os.fsencode(place) + b"/caf\xe9.jpg")
    assert paths("*.jpg") == [os.fsdecode(b"caf\xe9.jpg")]


def test_what_is_not_there_is_a_reason_while_something_is(place):
    (place / "empty").mkdir()
    (place / "texts").mkdir()
    (place / "texts" / "notes.txt").write_text("no picture")
    found = find_pictures(["gone.jpg", "album/a.png", "https://a.org/b.jpg", "empty", "texts"])
    assert [(one.path, one.reason.partition(";")[0]) for one in found] == [
        ("gone.jpg", "no such file"),
        ("album/a.png", ""),
        ("https://a.org/b.jpg", "an address, and nothing is downloaded"),
        ("empty", "no pictures in this folder"),
        ("texts", "no pictures in this folder"),
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["gone.jpg"], r"^gone\.jpg: no such file$"),
        (["a.jpg", "b.jpg", "c*.jpg"], r"^a\.jpg: no such file \(and 2 more that cannot be answered\)$"),
        (["https://a.org/b.jpg"], "curl -LO"),
        (["file:///b.jpg"], "give the path alone"),
    ],
)
def test_nothing_there_at_all_is_one_line(place, given, message):
    with pytest.raises(UserError, match=message):
        find_pictures(given)
