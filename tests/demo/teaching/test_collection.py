"""A visitor's pictures: taken in within limits, and looked at by the doctor."""

import io
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from toolkit.data import scan_folder
from toolkit.data.pixels.decode import ImageError
from toolkit.demo.teaching.collection import Collection
from toolkit.demo.teaching.limits import Limits
from toolkit.errors import UserError


def classes(collection: Collection) -> dict[str, int]:
    return {own["name"]: len(own["pictures"]) for own in collection.as_document()["classes"]}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Where the collection lies."""
    (tmp_path / "pictures").mkdir()
    return tmp_path / "pictures"


@pytest.fixture
def collection(folder) -> Collection:
    return Collection(folder, Limits(num_pictures=30, num_bytes=200_000, num_classes=4))


@pytest.fixture
def sent(tmp_path) -> Callable[[bytes], Path]:
    """Write what a visitor sent, under any name, to a file."""

    def write(data: bytes) -> Path:
        (tmp_path / "sent").write_bytes(data)
        return tmp_path / "sent"

    return write


def test_two_classes_are_offered_and_filled_picture_by_picture(picture, collection):
    first, second = (own["id"] for own in collection.as_document()["classes"])
    collection.rename(first, "  my\ncats ")
    for seed in range(3):
        collection.add(first, "cat.png", picture(seed))
    moved = collection.add(second, "dog.jpg", picture(9, kind="JPEG"))
    assert classes(collection) == {"my cats": 3, "Class 2": 1}
    collection.move(moved, first)
    collection.remove(collection.as_document()["classes"][0]["pictures"][0])
    assert classes(collection) == {"my cats": 3, "Class 2": 0}
    document = collection.as_document(known=[moved])
    assert len(document["thumbnails"]) == 2
    assert all(url.startswith("data:image/png;base64,") for url in document["thumbnails"].values())


def test_the_table_teaches_what_is_on_the_page_whatever_the_classes_are_called(picture, collection):
    first, second = (own["id"] for own in collection.as_document()["classes"])
    collection.rename(first, 'train, "1"; a|b')
    collection.rename(second, "../.git")
    for seed in range(4):
        collection.add((first, second)[seed % 2], "x.png", picture(seed))
    folder = scan_folder(collection.write_table(), remember=False)
    assert folder.class_counts() == {"../.git": 2, "train, '1'; a|b": 2}


def test_a_zip_of_class_folders_fills_the_classes_that_nobody_has_used(picture, zipped, collection, sent):
    members = {f"pets/{name}/{seed}.png": picture(seed) for seed, name in enumerate(["cats", "dogs", "dogs"])}
    assert collection.add_zip("pets.zip", sent(zipped(members))) == []
    assert classes(collection) == {"cats": 1, "dogs": 2}
    collection.add_zip("more.zip", sent(zipped({"Cats/7.png": picture(7), "owls/8.png": picture(8)})))
    assert classes(collection) == {"cats": 2, "dogs": 2, "owls": 1}


def test_what_a_zip_holds_beside_pictures_is_counted_and_the_unreadable_named(picture, zipped, collection, sent):
    members = {"a/1.png": picture(1), "b/2.png": b"no picture", "b/3.png": picture(3), "a/notes.txt": b"hello"}
    told = collection.add_zip("x.zip", sent(zipped(members)))
    assert told == [
        "b/2.png: not a picture in a supported format (JPEG, PNG, BMP, GIF, WEBP, TIFF, AVIF, HEIF)",
        "1 file was no picture of a class",
    ]
    assert classes(collection) == {"a": 1, "b": 1}


def _many(_, zipped) -> bytes:
    return zipped({f"a/{number}.png": b"" for number in range(10_000)})


def _bomb(_, zipped) -> bytes:
    return zipped({"a/1.png": bytes(50_000_000)})


def _link(*_) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        link = zipfile.ZipInfo("a/passwd.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc/passwd")
    return buffer.getvalue()


def _with(names) -> Callable:
    return lambda picture, zipped: zipped({name: picture(0) for name in names})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_many, r"x\.zip: refused, it holds more than 1,030 files"),
        (_bomb, r"x\.zip: refused, at a/1.png it swells beyond"),
        (_link, r"x\.zip: no pictures in it; expected one folder of pictures per class"),
        (_with(["../../a/1.png"]), r"x\.zip: refused, .* names a place outside the archive"),
        (_with(["1.png"]), r"x\.zip: no class folders in it but pictures straight in it"),
        (_with(f"{number}/1.png" for number in range(5)), r"5 classes, and at most 4 can be taught here"),
        (_with(f"a/{number}.png" for number in range(31)), r"31 pictures, and at most 30 can be"),
        (lambda *_: b"GIF89a", r"x\.zip: not a zip file; expected one with a folder of pictures for each class"),
        (lambda picture, zipped: zipped({"a/1.png": picture(1)})[40:], r"x\.zip: a damaged"),
    ],
)
def test_a_zip_that_asks_too_much_is_refused_whole_in_one_line(
    picture, zipped, collection, folder, sent, make, message
):
    with pytest.raises(UserError, match=message) as refused:
        collection.add_zip("x.zip", sent(make(picture, zipped)))
    assert str(folder.parent) not in str(refused.value)
    assert "toolkit-teach" not in str(refused.value)
    assert len(collection) == 0
    assert list(folder.iterdir()) == []


def test_quotas_are_told(picture, tmp_path):
    collection = Collection(tmp_path, Limits(num_pictures=2, num_pixels=2000, num_classes=2))
    (own, _) = (own["id"] for own in collection.as_document()["classes"])
    with pytest.raises(UserError, match="at most 2 classes"):
        collection.add_class()
    with pytest.raises(ImageError, match=r"big\.png: 10,000 pixels, and at most 2,000"):
        collection.add(own, "big.png", picture(1, (100, 100)))
    with pytest.raises(ImageError, match=r"letter\.jpg: not a picture"):
        collection.add(own, "letter.jpg", b"Dear network,")
    collection.add(own, "1.png", picture(1))
    collection.add(own, "2.png", picture(2))
    with pytest.raises(UserError, match="3 pictures, and at most 2"):
        collection.add(own, "3.png", picture(3))
    with pytest.raises(UserError, match="at least two"):
        collection.write_table()
    with pytest.raises(UserError, match="there is a class 'class 2' already"):
        collection.rename(own, "class  2")
    with pytest.raises(UserError, match="a class needs a name"):
        collection.rename(own, " \n")


def test_sizes_are_told_in_millions_of_bytes(tmp_path):
    collection = Collection(tmp_path, Limits(num_bytes=20_000_000))
    (own, _) = (own["id"] for own in collection.as_document()["classes"])
    with pytest.raises(UserError, match="30 MB of pictures, and at most 20 MB are taken here"):
        collection.add(own, "large.png", bytes(30_000_000))


def test_the_doctor_shows_copies_conflicts_and_what_is_missing(picture, collection):
    first, second = (own["id"] for own in collection.as_document()["classes"])
    assert collection.examine() == []
    twins = [collection.add(first, "a.png", picture(1)), collection.add(first, "b.png", picture(1))]
    assert "no pictures yet of Class 2" in collection.examine()[0].sentence
    pair = [collection.add(first, "c.png", picture(2)), collection.add(second, "d.png", picture(2))]
    collection.add(second, "e.png", picture(3))
    found = {finding.sentence.split(":")[0]: finding.groups for finding in collection.examine()}
    assert found["The same picture is in two classes"] == (tuple(pair),)
    assert found["Identical files"] == (tuple(twins),)
    assert found["Few pictures to learn from"] == ()
