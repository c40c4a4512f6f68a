"""Tables, arrays, IDX files and archives become the same pictures, classes and splits as a folder."""

import gzip
import io
import os
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit.data import scan_arrays, scan_folder, split_folder
from toolkit.data.sources import archive
from toolkit.errors import UserError

MNIST = Path(os.environ.get("TOOLKIT_DATA", "nowhere")) / "mnist"
RNG = np.random.default_rng(5)
GREY = RNG.integers(0, 256, (12, 9, 7), np.uint8)
LABELS = np.arange(12, dtype=np.uint8) % 3


def pixels_of(folder) -> np.ndarray:
    return np.stack([np.asarray(Image.open(folder.root / path)) for path in folder.paths])


# --- CSV


@pytest.fixture
def table(make_folder, tmp_path):
    make_folder(tmp_path / "pictures", {"one": 4, "two": 2})
    return tmp_path / "table.csv"


def test_csv_by_position(table):
    table.write_text("pictures/one/001.png,cat\npictures/two/000.png,dog\npictures/one/000.png , cat\n")
    folder = scan_folder(table)
    assert folder.class_names == ("cat", "dog")
    assert folder.paths == ("pictures/one/000.png", "pictures/one/001.png", "pictures/two/000.png")
    assert folder.labels == (0, 0, 1)
    assert folder.splits == folder.groups == ()


def test_csv_by_headings_with_groups_and_splits(table, tmp_path):
    absolute = tmp_path / "pictures" / "two" / "001.png"
    table.write_text(
        "\ufeffsplit,Label,path,group,note\ntraining,cat,pictures/one/000.png,tom,x\n"
        f'Train,"dog, big",{absolute},,y\nvalid,cat,pictures/one/001.png,tim,z\n\n'
    )
    folder = scan_folder(table)
    assert dict(zip(folder.paths, folder.splits, strict=True)) == {
        str(absolute): "train",
        "pictures/one/000.png": "train",
        "pictures/one/001.png": "val",
    }
    assert dict(zip(folder.paths, folder.groups, strict=True))["pictures/one/000.png"] == "tom"
    assert folder.class_names == ("cat", "dog, big")
    split = split_folder(folder)
    assert split.as_dict(folder.root)["val"] == ["pictures/one/001.png"]
    assert split.as_dict(folder.root / "pictures" / "one")["train"][0] == str(absolute)
    assert set(split.train.paths) == {str(absolute), str(tmp_path / "pictures/one/000.png")}


def test_csv_names_missing_and_bad_pictures(table):
    table.write_text("pictures/one/001.png,cat\npictures/two/000.png,dog\ngone.png,cat\n")
    assert scan_folder(table).problems == (("gone.png", "no such file"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("a.png\n", "line 1: expected path,label"),
        ("path,label\na.png,cat\nb.png,\n", "line 3: expected path,label"),
        ("a.png,cat\n./a.png,dog\n", "line 2: ./a.png stands in line 1 already"),
        ("a.png,cat,,evening\n", "line 1: unknown split 'evening'"),
        ("a.png,cat,,train\nb.png,dog\n", "some rows name a split and some do not"),
        ('a.png,"cat\n', "cannot be read as CSV"),
    ],
)
def test_bad_csv_is_one_clear_line(table, text, message):
    table.write_text(text)
    with pytest.raises(UserError, match=r"table\.csv") as error:
        scan_folder(table)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_csv_in_another_encoding_is_one_clear_line(table):
    table.write_bytes("a.png,Kätzchen\n".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        scan_folder(table)


# --- arrays


@pytest.mark.parametrize("shape", [(12, 9, 7), (12, 9, 7, 1), (12, 9, 7, 3)])
def test_arrays_come_back_bit_for_bit_in_order(shape):
    pixels = RNG.integers(0, 256, shape, np.uint8)
    folder = scan_arrays(pixels, LABELS, class_names=("x", "a", "m"))
    assert folder.class_names == ("x", "a", "m")
    assert folder.labels == tuple(LABELS)
    assert np.array_equal(pixels_of(folder), pixels[..., 0] if shape[-1] == 1 else pixels)


def test_arrays_are_written_once_and_told_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path))
    scan_arrays(GREY, LABELS)
    (first,) = (tmp_path / "arrays").iterdir()
    status = (first / "index.csv").stat()
    scan_arrays(GREY.copy(), LABELS)
    assert list((tmp_path / "arrays").iterdir()) == [first]
    assert (first / "index.csv").stat().st_mtime_ns == status.st_mtime_ns
    scan_arrays(GREY, LABELS[::-1])
    assert len(list((tmp_path / "arrays").iterdir())) == 2


def test_arrays_with_many_classes_keep_their_labels_and_take_splits_and_groups():
    labels = np.arange(12)
    splits = ["train"] * 6 + ["val"] * 6
    folder = scan_arrays(GREY, labels % 11, splits=splits, groups=[f"g{i // 2}" for i in range(12)])
    assert folder.class_names == tuple(map(str, range(11)))
    assert folder.labels == tuple(labels % 11)
    assert list(folder.splits) == splits
    assert folder.groups[:4] == ("g0", "g0", "g1", "g1")


def test_columns_may_be_arrays_and_names_lines_of_a_file():
    splits, groups = np.array(["train"] * 6 + ["val"] * 6), np.arange(12) // 2
    folder = scan_arrays(GREY, LABELS, class_names=["x\n", "a\n", " m"], splits=splits, groups=groups)
    assert (folder.class_names, list(folder.splits)) == (("x", "a", "m"), splits.tolist())
    assert folder.groups[:4] == ("0", "0", "1", "1")


@pytest.mark.parametrize(
    ("pixels", "labels", "options"),
    [
        (GREY.astype(float), LABELS, {}),
        (GREY[0], LABELS, {}),
        (np.zeros((12, 4, 4, 4), np.uint8), LABELS, {}),
        (GREY, LABELS[:-1], {}),
        (GREY, LABELS.astype(float), {}),
        (GREY, LABELS, {"class_names": ("a", "b")}),
        (GREY, LABELS, {"splits": ["train"]}),
        (GREY[:0], LABELS[:0], {}),
    ],
)
def test_other_arrays_are_refused(pixels, labels, options):
    with pytest.raises(UserError):
        scan_arrays(pixels, labels, **options)


# --- IDX


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx(folder: Path, prefix: str, pixels: np.ndarray, labels: np.ndarray, *, packed: bool) -> None:
    for name, array in ((f"images-idx{pixels.ndim}", pixels), ("labels-idx1", labels)):
        data = idx(array)
        path = folder / f"{prefix}-{name}-ubyte{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(data) if packed else data)


@pytest.mark.parametrize("packed", [True, False])
def test_folder_of_idx_files_is_train_and_test(tmp_path, packed):
    write_idx(tmp_path, "train", GREY[:8], LABELS[:8], packed=packed)
    write_idx(tmp_path, "t10k", GREY[8:], LABELS[8:], packed=packed)
    folder = scan_folder(tmp_path)
    assert folder.class_names == ("0", "1", "2")
    assert folder.splits == ("train",) * 8 + ("test",) * 4
    assert folder.labels == tuple(LABELS)
    assert np.array_equal(pixels_of(folder), GREY)


def test_one_idx_file_is_not_split_and_many_classes_are_in_numeric_order(tmp_path):
    labels = np.arange(12, dtype=np.uint8)
    colour = np.stack([GREY] * 3, axis=-1)
    write_idx(tmp_path, "emnist-train", colour, labels, packed=True)
    folder = scan_folder(tmp_path / "emnist-train-images-idx4-ubyte.gz")
    assert folder.class_names == tuple(map(str, range(12)))
    assert folder.splits == ()
    assert np.array_equal(pixels_of(folder), colour)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (idx(GREY)[:-1], idx(LABELS), "truncated"),
        (b"\0\0\x0d\x03" + idx(GREY)[4:], idx(LABELS), "not an IDX file of unsigned bytes"),
        (idx(GREY), idx(LABELS[:-1]), "12 pictures but 11 labels"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, 2**32 - 1, 2**31, 2**31), idx(LABELS), "more than the file can hold"),
        (gzip.compress(idx(GREY), mtime=0)[:-20], gzip.compress(idx(LABELS), mtime=0), "damaged"),
        (gzip.compress(idx(GREY)[:-9], mtime=0), gzip.compress(idx(LABELS), mtime=0), "truncated"),
    ],
)
def test_damaged_idx_is_one_clear_line_and_leaves_nothing(tmp_path, monkeypatch, images, labels, message):
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    suffix = ".gz" if images[:2] == b"\x1f\x8b" else ""
    (tmp_path / f"train-images-idx3-ubyte{suffix}").write_bytes(images)
    (tmp_path / f"train-labels-idx1-ubyte{suffix}").write_bytes(labels)
    with pytest.raises(UserError, match=message):
        scan_folder(tmp_path / f"train-images-idx3-ubyte{suffix}")
    assert list((tmp_path / "cache").glob("idx/*")) == []


def test_idx_without_labels_or_training_part_is_refused(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(GREY))
    with pytest.raises(UserError, match="no train-labels-idx1-ubyte beside it"):
        scan_folder(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").unlink()
    write_idx(tmp_path, "t10k", GREY, LABELS, packed=False)
    with pytest.raises(UserError, match="nothing is there to train on"):
        scan_folder(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(not MNIST.is_dir(), reason="TOOLKIT_DATA names no folder with mnist")
def test_mnist():
    folder = scan_folder(MNIST)
    assert (len(folder), folder.splits.count("train")) == (70_000, 60_000)
    assert list(folder.class_counts().values()) == [6903, 7877, 6990, 7141, 6824, 6313, 6876, 7293, 6825, 6958]


# --- archives


def members(make_folder, tmp_path, counts) -> dict[str, bytes]:
    root = make_folder(tmp_path / "source", counts)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.png"))}


def write_archive(path: Path, files: dict[str, bytes], extra: list[tarfile.TarInfo] | None = None) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as zipped:
            for name, data in files.items():
                zipped.writestr(name, data)
        return path
    with tarfile.open(path, "w:" + {".gz": "gz", ".bz2": "bz2", ".xz": "xz"}.get(path.suffix, "")) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in extra or []:
            tar.addfile(info)
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_archive_is_its_folder(make_folder, tmp_path, cache, name):
    files = members(make_folder, tmp_path, {"train/cats": 3, "train/dogs": 3, "test/cats": 1})
    junk = {"pets/readme.txt": b"x", "__MACOSX/pets/train/cats/._000.png": b"x", "pets/.hidden/0.png": b"x"}
    path = write_archive(tmp_path / name, {f"pets/{key}": data for key, data in files.items()} | junk)
    folder = scan_folder(path)
    direct = scan_folder(tmp_path / "source")
    assert (folder.paths, folder.labels, folder.splits) == (direct.paths, direct.labels, direct.splits)
    assert all((folder.root / key).read_bytes() == data for key, data in files.items())
    unpacked = sorted(cache.glob("unpacked/*"))
    assert scan_folder(path.rename(tmp_path / f"renamed-{name}")).root == folder.root
    assert sorted(cache.glob("unpacked/*")) == unpacked


@pytest.mark.parametrize("name", ["../../evil.png", "/tmp/evil.png", "cats/../../../evil.png", "cats\\..\\evil.png"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_name_that_leads_outside_is_refused(make_folder, tmp_path, cache, name, kind):
    files = members(make_folder, tmp_path, {"cats": 1, "dogs": 1})
    path = write_archive(tmp_path / f"a.{kind}", files | {name: next(iter(files.values()))})
    with pytest.raises(UserError, match="outside the archive"):
        scan_folder(path)
    assert list(cache.glob("unpacked/*")) == []
    assert not list(tmp_path.rglob("evil.png"))


def test_links_and_devices_in_a_tar_file_are_not_made(make_folder, tmp_path, cache):
    files = members(make_folder, tmp_path, {"cats": 2, "dogs": 2})
    extra = []
    for name, kind in (("cats/link.png", tarfile.SYMTYPE), ("cats/hard.png", tarfile.LNKTYPE)):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        extra.append(info)
    device = tarfile.TarInfo("cats/device.png")
    device.type = tarfile.CHRTYPE
    path = write_archive(tmp_path / "a.tar", files, [*extra, device])
    assert scan_folder(path).paths == tuple(files)
    assert not any(path.is_symlink() for path in cache.rglob("*"))


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_bomb_is_refused_and_leaves_nothing(make_folder, tmp_path, cache, monkeypatch, name, wanted):
    monkeypatch.setattr(archive, "_FREE_BYTES", 1 << 20)
    files = members(make_folder, tmp_path, {"cats": 1, "dogs": 1})
    path = tmp_path / name
    bomb = {"cats/bomb.png" if wanted else "cats/bomb.txt": bytes(64 << 20)}
    if name == "a.zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
            for member, data in (files | bomb).items():
                zipped.writestr(member, data)
        if not wanted:  # a zip file's members are not read unless they are wanted
            assert len(scan_folder(path)) == 2
            return
    else:
        write_archive(path, files | bomb)
    with pytest.raises(UserError, match="swells"):
        scan_folder(path)
    assert list(cache.glob("unpacked/*")) == []


def test_tar_header_of_gigabytes_is_not_read(tmp_path, cache):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 8 << 30
    with gzip.open(tmp_path / "a.tar.gz", "wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 20))
    with pytest.raises(UserError, match="a header of 8,589,934,592 bytes"):
        scan_folder(tmp_path / "a.tar.gz")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.zip", b"PK\3\4 not really", "damaged"),
        ("a.tar.gz", gzip.compress(b"x" * 5000, mtime=0)[:-30], "damaged"),
        ("a.tar", b"x" * 10_000, "damaged"),
        ("a.txt", b"x", "not a folder of class folders, a CSV file"),
    ],
)
def test_damaged_archives_and_other_files_are_one_clear_line(tmp_path, cache, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message):
        scan_folder(tmp_path / name)
    assert list(cache.glob("unpacked/*")) == []


@pytest.mark.parametrize("members", [("cats/1.png",), ("pets/cats/1.png", "pets/dogs/1.png"), ("1.png", "2.png")])
def test_what_is_wrong_in_an_archive_is_said_of_the_archive(tmp_path, cache, members):
    with pytest.raises(UserError) as error:
        scan_folder(write_archive(tmp_path / "a.zip", dict.fromkeys(members, b"x")))
    assert str(error.value).startswith(f"{tmp_path / 'a.zip'}: ")
    assert str(cache) not in str(error.value)


def test_what_is_wrong_in_a_table_is_said_of_the_table(table):
    table.write_text("path,label\npictures/one/000.png,cat\n")
    with pytest.raises(UserError, match=r"table\.csv: only one class"):
        scan_folder(table)


def test_archive_without_pictures_is_refused(tmp_path, cache):
    with pytest.raises(UserError, match="no pictures in it"):
        scan_folder(write_archive(tmp_path / "a.zip", {"cats/readme.txt": b"x"}))
