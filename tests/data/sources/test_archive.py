"""Archives that other systems made: their names, their links, and what is left out of them."""

import io
import stat
import tarfile
import zipfile

import pytest

from toolkit.data import scan_folder
from toolkit.data.sources.archive import ArchiveLimits, name_encoding, unpack
from toolkit.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def pictures(make_folder, tmp_path) -> list[bytes]:
    root = make_folder(tmp_path / "source", {"x": 4})
    return [path.read_bytes() for path in sorted(root.rglob("*.png"))]


def write_zip(path, members: dict[bytes, bytes]):
    """Write names byte for byte, which ``zipfile`` itself never does."""
    stand_ins = {bytes([65 + index]) * len(name): name for index, name in enumerate(members)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        for stand_in, data in zip(stand_ins, members.values(), strict=True):
            zipped.writestr(stand_in.decode(), data)
    data = buffer.getvalue()
    for stand_in, name in stand_ins.items():
        assert data.count(stand_in) >= 2
        data = data.replace(stand_in, name)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("encoding", "classes"),
    [
        ("gbk", ("猫", "狗")),
        ("gbk", ("数据集/苹果", "数据集/香蕉")),
        ("cp932", ("ネコ", "イヌ")),
        ("cp932", ("猫", "犬")),
        ("cp932", ("りんご", "みかん")),
        ("big5", ("貓咪", "狗狗")),
        ("cp949", ("고양이", "강아지")),
        ("cp866", ("Кошки", "Собаки")),
        ("cp437", ("Käfer", "Biene")),
        ("cp850", ("maçã", "limão")),
        ("utf-8", ("Käfer", "猫")),
        ("ascii", ("cat", "dog")),
    ],
)
def test_zip_names_of_any_code_page(tmp_path, pictures, encoding, classes):
    members = {f"{name}/picture.png".encode(encoding): data for name, data in zip(classes, pictures, strict=False)}
    folder = scan_folder(write_zip(tmp_path / "a.zip", members))
    assert sorted(folder.class_names) == sorted(name.split("/")[-1] for name in classes)


def test_name_encoding_of_nothing_but_ascii():
    assert name_encoding([]) == "utf-8"


def test_backslashes_of_powershell_are_folders(tmp_path, pictures):
    names = ("data\\cat\\a one.png", "data\\cat\\b two.png", "data\\dog\\c.three.png", "data\\notes-of-mine.txt")
    members = {name.encode(): data for name, data in zip(names, [*pictures[:3], b"text"], strict=True)}
    folder = scan_folder(write_zip(tmp_path / "a.zip", members))
    assert folder.paths == ("cat/a one.png", "cat/b two.png", "dog/c.three.png")
    assert folder.ignored == (("data/notes-of-mine.txt", "not a picture"),)


@pytest.mark.parametrize("name", ["C:\\data\\cat.png", "..\\..\\evil.png", "\\root\\evil.png", "c:evil.png"])
def test_windows_names_that_lead_outside_are_refused(tmp_path, pictures, name):
    members = {b"cat/picture.png": pictures[0], b"dog/picture.png": pictures[1], name.encode(): pictures[2]}
    with pytest.raises(UserError, match="outside the archive"):
        scan_folder(write_zip(tmp_path / "a.zip", members))


def test_what_is_left_out_of_a_zip_file_is_named_and_links_are_not_made(tmp_path, pictures):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        for index, data in enumerate(pictures):
            zipped.writestr(f"pets/{'cat' if index % 2 else 'dog'}/n{index}", data)  # without an extension
        zipped.writestr("pets/README", "text")
        zipped.writestr("__MACOSX/pets/cat/._n1", "junk")
        link = zipfile.ZipInfo("pets/cat/link.png")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        zipped.writestr(link, "/etc/passwd")
    for _ in range(2):  # unpacked, and found again
        folder = scan_folder(tmp_path / "a.zip")
        assert len(folder) == 4
        assert folder.ignored == (
            ("__MACOSX/pets/cat/._n1", "of another program or the system"),
            ("pets/README", "not a picture"),
            ("pets/cat/link.png", "a link"),
        )


def test_hard_links_in_a_tar_file_are_read(tmp_path, pictures):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        for name, data in (("dog/0.png", pictures[0]), ("cat/0.png", pictures[1]), ("cat/notes", b"text")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in (("cat/1.png", "cat/0.png"), ("cat/2.png", "/etc/passwd"), ("cat/3", "cat/notes")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.LNKTYPE, target
            tar.addfile(info)
    folder = scan_folder(tmp_path / "a.tar.gz")
    assert folder.paths == ("cat/0.png", "cat/1.png", "dog/0.png")
    assert (folder.root / "cat/1.png").read_bytes() == pictures[1]
    assert folder.ignored == (("cat/2.png", "a link"), ("cat/3", "a link"), ("cat/notes", "not a picture"))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archives_of_strangers_are_bounded(tmp_path, pictures, kind):
    archive = tmp_path / f"a.{kind}"
    members = {f"x/{index}.png": data for index, data in enumerate(pictures)}
    if kind == "zip":
        write_zip(archive, {name.encode(): data for name, data in members.items()})
    else:
        with tarfile.open(archive, "w") as tar:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    total = archive.stat().st_size  # of a plain tar file all that is read, so that headers count
    unpack(archive, tmp_path / "all", ArchiveLimits(4, total))
    assert len([path for path in (tmp_path / "all" / "files").rglob("*") if path.is_file()]) == 4
    with pytest.raises(UserError, match=rf"a.{kind}: refused, it holds more than 3 files"):
        unpack(archive, tmp_path / "few", ArchiveLimits(3, total))
    with pytest.raises(UserError, match=rf"a.{kind}: refused, .*swells beyond 0 MB"):
        unpack(archive, tmp_path / "small", ArchiveLimits(4, len(pictures[0])))
    assert not {"few", "small"} & {path.name for path in tmp_path.iterdir()}
