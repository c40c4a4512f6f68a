"""A tar or zip file of class folders, unpacked once into a folder named by its content."""

import bz2
import gzip
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from toolkit.data.pixels.sizes import MAX_FILE_BYTES
from toolkit.data.sources.listing import SPLIT_OF, is_picture_name
from toolkit.errors import UserError
from toolkit.files import new_folder

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

#: Pictures are compressed already: what swells more than this, beyond a first gibibyte, is no archive of pictures.
MAX_EXPANSION = 100
_FREE_BYTES = 1 << 30
# A tar header's own text is read whole: names of a megabyte are an attack.
_MAX_HEADER_BYTES = 1 << 20
_EXTENDED_HEADERS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)


def is_archive_name(name: str) -> bool:
    """Tell if a file of this name claims to be a tar or zip file.

    >>> is_archive_name("pets.tar.gz"), is_archive_name("pets.csv")
    (True, False)
    """
    return name.lower().endswith(SUFFIXES)


def unpack(archive: Path, directory: Path) -> Path:
    """Write an archive's pictures below ``directory``, unless they are there, and find its class folders.

    Only pictures are unpacked: no links, no devices, no hidden files. ``directory``, whose name must stand for the
    archive's content, appears whole or not at all.

    Raises:
        UserError: the archive is damaged, names a place outside itself, holds no pictures, or swells beyond reason.
    """
    if not directory.is_dir():
        with new_folder(directory, shared=True) as staging:
            try:
                count = _unpack_members(archive, staging)
            except _DAMAGE as error:
                raise UserError(f"{archive}: a damaged or encrypted archive ({error})") from None
            except OSError as error:
                raise UserError(f"{archive}: cannot be unpacked into {directory.parent} ({error})") from None
            if not count:
                raise UserError(f"{archive}: no pictures in it; expected one folder of pictures per class")
    return _class_root(directory)


def _unpack_members(archive: Path, staging: Path) -> int:
    budget = _budget(archive)
    members = _zip_members if archive.suffix.lower() == ".zip" else _tar_members
    count = written = 0
    for name, size, stream in members(archive):
        target = staging / _safe_path(archive, name)
        written += size
        if size > MAX_FILE_BYTES or written > budget:
            raise UserError(f"{archive}: refused, at {name} it swells beyond {MAX_EXPANSION} times its size")
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            shutil.copyfileobj(stream, file)
        count += 1
    return count


def _safe_path(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise UserError(f"{archive}: refused, {name!r} names a place outside the archive")
    return path


def _is_wanted(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return is_picture_name(name) and not any(p == "__MACOSX" or (p.startswith(".") and p != "..") for p in parts)


def _zip_members(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    with zipfile.ZipFile(archive) as zipped:
        for info in zipped.infolist():
            # A member never yields more than its header announces: zipfile stops there, and checks its sum.
            if not info.is_dir() and _is_wanted(info.filename):
                with zipped.open(info) as stream:
                    yield info.filename, info.file_size, stream


def _tar_members(archive: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    reader = _open_tar(archive)
    with closing(reader), tarfile.open(fileobj=cast(Any, reader), mode="r|", tarinfo=_BoundedHeader) as tar:
        for info in tar:
            if info.isreg() and _is_wanted(info.name):
                stream = tar.extractfile(info)
                assert stream is not None
                yield info.name, info.size, stream
            tar.members = []  # type: ignore[attr-defined]  # they would pile up


def _open_tar(archive: Path) -> "_BoundedReader":
    with archive.open("rb") as file:
        magic = file.read(6)
    openers: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
    opener = next((opener for start, opener in openers.items() if magic.startswith(start)), open)
    return _BoundedReader(opener(archive, "rb"), archive)


class _BoundedReader:
    """Ends a compressed tar file that never ends, whether or not its members are wanted."""

    def __init__(self, stream: IO[bytes], archive: Path) -> None:
        self._stream, self._archive, self._left = stream, archive, _budget(archive)

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise UserError(f"{self._archive}: refused, it swells beyond {MAX_EXPANSION} times its size")
        return data

    def close(self) -> None:
        self._stream.close()


class _BoundedHeader(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_BoundedHeader":
        info = super().frombuf(buf, encoding, errors)
        if info.type in _EXTENDED_HEADERS and info.size > _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {info.size:,} bytes")
        return info


def _budget(archive: Path) -> int:
    return _FREE_BYTES + MAX_EXPANSION * archive.stat().st_size


def _class_root(directory: Path) -> Path:
    """Archives often wrap everything into one folder, or several."""
    while True:
        children = list(directory.iterdir())
        if len(children) != 1 or not children[0].is_dir() or children[0].name.lower() in SPLIT_OF:
            return directory
        if not any(child.is_dir() for child in children[0].iterdir()):
            return directory
        directory = children[0]
