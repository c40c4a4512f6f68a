"""A tar or zip file of class folders, unpacked once into a folder named by its content."""

import bz2
import gzip
import json
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from toolkit.data.pixels.sizes import MAX_FILE_BYTES
from toolkit.data.sources.content import HEAD_BYTES, is_picture_content, is_picture_name
from toolkit.data.sources.junk import is_junk_path
from toolkit.data.sources.listing import HIDDEN, JUNK, Listing, list_folder
from toolkit.errors import UserError, WriteError
from toolkit.files import new_folder
from toolkit.progress import step

LINK = "a link"

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")

#: Pictures are compressed already: what swells more than this, beyond a first gibibyte, is no archive of pictures.
MAX_EXPANSION = 100
_FREE_BYTES = 1 << 30
#: The pictures' folder within the one an archive is unpacked into.
FILES = "files"
_LEFT_OUT = "left_out.json"
_UTF8_FLAG = 0x800
# What Windows calls OEM code pages, by chardet's names for them.
_CODE_PAGES = {
    "gb18030": "gb18030",
    "big5": "big5",
    "big5-hkscs": "big5hkscs",
    "cp932": "cp932",
    "cp949": "cp949",
    "cp437": "cp437",
    "cp850": "cp850",
    "ibm866": "cp866",
}
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


@dataclass(frozen=True)
class ArchiveLimits:
    """Bounds for archives of strangers, beside those for all.

    Attributes:
        files: in the archive, of any kind, folders counted.
        size: bytes that its pictures may take once unpacked, or all of a compressed tar file.
    """

    files: int
    size: int


@dataclass(frozen=True)
class _Member:
    """A file of an archive; ``stream`` is open while it is this member's turn, and there is none for a link."""

    name: str
    size: int = 0
    stream: IO[bytes] | None = None
    same_as: str = ""  # name of the earlier member that a hard link repeats
    reason: str = ""  # why it is left out


def list_archive(
    archive: Path, directory: Path, split_folders: Mapping[str, str] | None = None, class_names: Iterable[str] = ()
) -> Listing:
    """List the class folders of an archive, whose pictures are unpacked below ``directory`` unless they are there.

    Raises:
        UserError: see ``unpack`` and ``list_folder``.
    """
    left_out = unpack(archive, directory)
    files = directory / FILES
    try:
        listing = list_folder(files, split_folders, class_names, see_through=True)
    except UserError as error:  # about a folder that nobody but us has seen
        raise UserError(str(error).replace(str(files), str(archive))) from None
    return replace(listing, ignored=tuple(sorted((*listing.ignored, *left_out))))


def unpack(archive: Path, directory: Path, limits: ArchiveLimits | None = None) -> list[tuple[str, str]]:
    """Write an archive's pictures below ``directory``, unless they are there, and the names of what is left out.

    Only pictures are unpacked, by their names or else their first bytes: no links, no devices. ``directory``, whose
    name must stand for the archive's content, appears whole or not at all; the pictures lie in its folder ``FILES``.

    Returns:
        What is left out: names, each with the reason.

    Raises:
        UserError: the archive is damaged, names a place outside itself, holds no pictures, swells beyond reason or is
            beyond the limits.
    """
    if directory.is_dir():
        return _left_out(directory)
    if not archive.stat().st_size:
        raise UserError(f"{archive}: an empty file; pack or download it again")
    with new_folder(directory, shared=True) as staging:
        try:
            left_out = _unpack_members(archive, staging / FILES, limits)
        except _DAMAGE as error:
            raise UserError(f"{archive}: a damaged or encrypted archive ({error})") from None
        except OSError as error:
            reason = f"{archive}: cannot be unpacked into {directory.parent} ({error.strerror or error})"
            raise WriteError(reason, directory) from None
        if not (staging / FILES).exists():
            raise UserError(f"{archive}: no pictures in it; expected one folder of pictures per class")
        (staging / _LEFT_OUT).write_text(json.dumps(left_out), encoding="ascii")
    return left_out


def _left_out(directory: Path) -> list[tuple[str, str]]:
    return [(name, reason) for name, reason in json.loads((directory / _LEFT_OUT).read_bytes())]


def _unpack_members(archive: Path, staging: Path, limits: ArchiveLimits | None) -> list[tuple[str, str]]:
    budget = limits.size if limits else _budget(archive)
    members = _zip_members if archive.suffix.lower() == ".zip" else _tar_members
    written: dict[str, int] = {}
    left_out = []
    total = 0
    with step("unpacking the archive") as told:
        for member in members(archive, limits):
            head = member.stream.read(HEAD_BYTES) if member.stream and not member.reason else b""
            if member.same_as:
                reason = "" if member.same_as in written else LINK
            else:
                is_picture = is_picture_name(member.name) or is_picture_content(head)
                reason = member.reason or ("" if is_picture else "not a picture")
            if reason:
                left_out.append((member.name, reason))
                continue
            target = staging / _safe_path(archive, member.name)
            size = written[member.same_as] if member.same_as else member.size
            total += size
            if size > MAX_FILE_BYTES or total > budget:
                raise UserError(f"{archive}: refused, at {member.name} it swells beyond {_words(limits)}")
            target.parent.mkdir(parents=True, exist_ok=True)
            if member.stream:
                with target.open("wb") as file:
                    file.write(head)
                    shutil.copyfileobj(member.stream, file)
            else:
                shutil.copyfile(staging / _safe_path(archive, member.same_as), target)
            written[member.name] = size
            told(len(written))
    return left_out


def _safe_path(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or re.match("[A-Za-z]:", name):
        raise UserError(f"{archive}: refused, {name!r} names a place outside the archive")
    return path


def _own_reason(name: str) -> str:
    if is_junk_path(name):
        return JUNK
    return HIDDEN if PurePosixPath(name).name.startswith(".") and ".." not in name else ""


def _zip_members(archive: Path, limits: ArchiveLimits | None) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as zipped:
        infos = zipped.infolist()
        _require_few(archive, len(infos), limits)
        for info, name in zip(infos, _zip_names(infos), strict=True):
            if name.endswith("/"):
                continue
            reason = LINK if stat.S_ISLNK(info.external_attr >> 16) else _own_reason(name)
            if reason:
                yield _Member(name, reason=reason)
                continue
            # A member never yields more than its header announces: zipfile stops there, and checks its sum.
            with zipped.open(info) as stream:
                yield _Member(name, info.file_size, stream)


def _zip_names(infos: Sequence[zipfile.ZipInfo]) -> list[str]:
    """Decode the names: Windows' own tools write backslashes, and bytes in their country's code page.

    Only UTF-8 is ever declared. Python takes all else for code page 437, from which the bytes come back.
    """
    declared = [bool(info.flag_bits & _UTF8_FLAG) for info in infos]
    raw = [b"" if d else info.orig_filename.encode("cp437") for info, d in zip(infos, declared, strict=True)]
    encoding = name_encoding([name for name in raw if not name.isascii()])
    return [
        (info.orig_filename if d else name.decode(encoding, errors="replace")).replace("\\", "/")
        for info, d, name in zip(infos, declared, raw, strict=True)
    ]


def name_encoding(names: Sequence[bytes]) -> str:
    """Guess the code page that an archive's names are in, from all that are not ASCII.

    >>> name_encoding([name.encode("gbk") for name in ("猫/1.jpg", "狗/1.jpg")])
    'gb18030'
    """
    parts = dict.fromkeys(part for name in names for part in re.split(rb"[/\n]", name) if not part.isascii())
    text = b"\n".join(parts)
    try:
        text.decode("utf-8")
        return "utf-8"
    except UnicodeDecodeError:
        pass
    import chardet

    guesses = [(guess["encoding"] or "").lower() for guess in chardet.detect_all(text, ignore_threshold=True)]
    likely = [_CODE_PAGES[guess] for guess in guesses if guess in _CODE_PAGES]
    # People name folders in letters, and not in the lines and fractions that Western code pages have too.
    return next((page for page in likely if _reads_as_letters(text, page)), likely[0] if likely else "cp437")


def _reads_as_letters(text: bytes, encoding: str) -> bool:
    try:
        return all(c.isascii() or c.isalnum() for c in text.decode(encoding))
    except UnicodeDecodeError:
        return False


def _tar_members(archive: Path, limits: ArchiveLimits | None) -> Iterator[_Member]:
    reader = _open_tar(archive, limits)
    with closing(reader), tarfile.open(fileobj=cast(Any, reader), mode="r|", tarinfo=_BoundedHeader) as tar:
        for number, info in enumerate(tar, 1):
            _require_few(archive, number, limits)
            name = info.name.replace("\\", "/")
            reason = _own_reason(name)
            if info.isdir():
                pass
            elif info.isreg():
                yield _Member(name, info.size, None if reason else tar.extractfile(info), reason=reason)
            elif info.islnk() and not reason:
                yield _Member(name, same_as=info.linkname.replace("\\", "/"))
            else:
                yield _Member(name, reason=reason or (LINK if info.issym() or info.islnk() else "not a regular file"))
            tar.members = []  # type: ignore[attr-defined]  # they would pile up


def _open_tar(archive: Path, limits: ArchiveLimits | None) -> "_BoundedReader":
    with archive.open("rb") as file:
        magic = file.read(6)
    openers: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
    opener = next((opener for start, opener in openers.items() if magic.startswith(start)), open)
    return _BoundedReader(opener(archive, "rb"), archive, limits)


class _BoundedReader:
    """Ends a compressed tar file that never ends, whether or not its members are wanted."""

    def __init__(self, stream: IO[bytes], archive: Path, limits: ArchiveLimits | None) -> None:
        self._stream, self._archive, self._limits = stream, archive, limits
        self._left = limits.size if limits else _budget(archive)

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise UserError(f"{self._archive}: refused, it swells beyond {_words(self._limits)}")
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


def _words(limits: ArchiveLimits | None) -> str:
    return f"{limits.size / 1e6:,.0f} MB" if limits else f"{MAX_EXPANSION} times its size"


def _require_few(archive: Path, files: int, limits: ArchiveLimits | None) -> None:
    if limits and files > limits.files:
        raise UserError(f"{archive}: refused, it holds more than {limits.files:,} files; make several of it")
