"""Files and folders that appear whole or not at all, whatever kills their writer; texts of any editor."""

import codecs
import errno
import hashlib
import os
import platform
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from toolkit.errors import UserError, WriteError

_PREFIX = ".partial-"
_ABANDONED_SECONDS = 7 * 24 * 3600  # of a process on another machine, which cannot be asked
# Errors of the system that only writing meets, and that libraries in other languages only tell in words.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
#: Errors of the system that are no fault of what is written, but of the disk or of who may write there.
DISK_ERRORS = (*_FULL, errno.EACCES, errno.EPERM, errno.EIO)
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def disk_reason(error: BaseException) -> str:
    """Give the system's words for why something could not be written; nothing where an error is about something else.

    >>> disk_reason(OSError(28, "No space left on device")), disk_reason(ValueError("no such label"))
    ('No space left on device', '')
    """
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno) if error.errno in DISK_ERRORS else ""  # HDF5 has longer words of its own
    return next((words for words in map(os.strerror, _FULL) if words in str(error)), "")


def is_disk_full(error: OSError) -> bool:
    """Tell if an error is one that only writing meets: a full disk, a quota, a read-only disk."""
    return error.errno in _FULL


@contextmanager
def writing(place: str | os.PathLike[str]) -> Iterator[None]:
    """Have whatever libraries raise where a disk is full or read-only name the place that is being written.

    Raises:
        WriteError: ``place`` cannot be written, or another one that is needed for it.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason, named = disk_reason(error), place
        if isinstance(error, OSError) and isinstance(error.filename, str) and not _is_of(error.filename, place):
            reason, named = reason if is_disk_full(error) else "", error.filename  # else it may have been read
        if not reason:
            raise
        raise WriteError(f"{named}: cannot be written ({reason})", named) from None


def _is_of(file: str, place: str | os.PathLike[str]) -> bool:
    """Tell if a file is written for ``place``: below it, or as a partial one beside it."""
    path, own = Path(file).absolute(), Path(place).absolute()
    beside = path.relative_to(own.parent).parts[:1] if path.is_relative_to(own.parent) else ()
    return path.is_relative_to(own) or any(name.startswith(_PREFIX) for name in beside)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path to write to, which takes the place of ``path`` at the end, or is removed after an error.

    The path given lies beside ``path`` and ends as its name does, for libraries that go by a file's suffix.

    Raises:
        WriteError: the file cannot be written.
    """
    path = Path(path)
    partial = path.with_name(f"{staging_path(path.parent).name}-{path.name}")
    try:
        with writing(path):
            yield partial
            os.replace(partial, path)
    except OSError as error:
        raise WriteError(f"{path}: cannot be written ({error.strerror or error})", path) from None
    finally:
        with suppress(OSError):  # nothing there, or a disk that has become read-only
            partial.unlink()


def write_file(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a file, text as UTF-8, so that readers find the old content or the new.

    Raises:
        WriteError: the file cannot be written.
    """
    with replacing(path) as partial:
        # File names in a text may hold bytes that are not UTF-8.
        partial.write_bytes(content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content)


def require_place(path: str | os.PathLike[str]) -> None:
    """Refuse a place where no file can be written, before work is done for that file.

    Raises:
        WriteError: a folder is there, or none that it could be in.
    """
    place = Path(path).absolute()
    if place.is_dir() or not place.parent.is_dir():
        missing = os.strerror(errno.ENOTDIR) if place.parent.exists() else "no such folder"
        raise WriteError(f"{path}: cannot be written ({'it is a folder' if place.is_dir() else missing})", path)


def require_writable(directory: str | os.PathLike[str], option: str = "") -> None:
    """Refuse a folder where nothing can be written, before hours of training and not after them.

    Args:
        directory: may be there, or be made later.
        option: of a command, by which another is named.

    Raises:
        UserError: see there.
    """
    existing = Path(directory).absolute()
    while not existing.exists():
        existing = existing.parent
    try:  # what the permissions say is not the whole of it
        with tempfile.TemporaryDirectory(prefix=".toolkit-", dir=existing):
            pass
    except OSError as error:
        raise UserError(
            f"{directory}: cannot be created below {existing}, which is not a writable folder ({error.strerror}); "
            f"name another place{f' by {option}' if option else ''}"
        ) from None


def read_text(file: Path, *, errors: str = "strict") -> str:
    r"""Read a text of UTF-8 or UTF-16, with or without a byte-order mark, and of any system's line ends, as ``\n``.

    Args:
        file: a text file.
        errors: what to do with bytes that are not UTF-8, see ``bytes.decode``.

    Raises:
        UnicodeDecodeError: neither, and ``errors`` is strict.
        OSError: it cannot be read.
    """
    data = file.read_bytes()
    mark, encoding = next((row for row in _MARKS if data.startswith(row[0])), (b"", ""))
    if not encoding:
        # Every other byte of Western text is zero in UTF-16, and none is in UTF-8.
        encoding = "utf-8" if b"\0" not in data else "utf-16-le" if b"\0" in data[1:2] else "utf-16-be"
    text = data[len(mark) :].decode(encoding, errors if encoding == "utf-8" else "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")


@contextmanager
def new_folder(directory: str | os.PathLike[str], *, shared: bool = False) -> Iterator[Path]:
    """Give a folder to write into, which becomes ``directory`` at the end, or is removed after an error.

    Args:
        directory: must not exist, or be empty.
        shared: several processes may write the same content at once: that of the first stays.

    Raises:
        WriteError: the folder cannot be made or filled, or is there and not empty.
    """
    directory = Path(directory).absolute()
    staging = staging_path(directory.parent)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(directory.parent)
        staging.mkdir()
    except OSError as error:
        # A file where the parent should be is "File exists" to mkdir, which sounds like the folder itself.
        reason = os.strerror(errno.ENOTDIR) if isinstance(error, FileExistsError) else error.strerror
        raise WriteError(f"{directory}: cannot be made ({reason})", directory) from None
    try:
        with writing(directory):
            yield staging
        try:
            os.replace(staging, directory)
        except OSError as error:
            if not (shared and directory.is_dir()):
                raise WriteError(f"{directory}: cannot be made ({error.strerror})", directory) from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def spare_file(num_bytes: int, directory: str | os.PathLike[str] | None = None) -> Iterator[BinaryIO]:
    """Give a file without a name to map into memory, by default among temporary ones; gone when nobody has it open.

    All of it is on the disk: touching a page for which there is no room would end the process.

    Raises:
        WriteError: there is no room for it.
    """
    place = directory or tempfile.gettempdir()
    with writing(place), tempfile.TemporaryFile(dir=place) as file:
        allocate(file.fileno(), num_bytes)
        yield file


@contextmanager
def scratch_folder(prefix: str = "toolkit-") -> Iterator[Path]:
    """Give a temporary folder, which is removed at the end.

    Raises:
        WriteError: there is no room among temporary files.
    """
    place = tempfile.gettempdir()
    with writing(place), tempfile.TemporaryDirectory(prefix=prefix) as directory:
        yield Path(directory)


def allocate(descriptor: int, num_bytes: int) -> None:
    """Take room on the disk for the first bytes of a file, which keeps what is in it.

    Raises:
        OSError: there is no room.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, num_bytes)
    elif os.fstat(descriptor).st_size < num_bytes:
        os.ftruncate(descriptor, num_bytes)


@contextmanager
def plain_path(directory: Path) -> Iterator[Path]:
    """Give a folder a path for TensorFlow, which takes ``[v1]`` in one for a pattern and knows UTF-8 only."""
    text = str(directory)
    if not set("[]*?\\").intersection(text) and text.isprintable():
        yield directory
        return
    with scratch_folder() as scratch:
        link = scratch / "folder"
        link.symlink_to(directory.absolute(), target_is_directory=True)
        yield link


def remove_folder(directory: Path) -> None:
    """Remove a folder that whoever looks for it finds whole or not at all."""
    gone = staging_path(directory.parent)
    os.replace(directory, gone)
    shutil.rmtree(gone, ignore_errors=True)


def staging_path(directory: Path, prefix: str = _PREFIX) -> Path:
    """Name what is fresh below ``directory`` after this process, so that ``remove_abandoned`` knows its writer."""
    return directory / f"{prefix}{os.getpid()}-{_machine()}-{secrets.token_hex(4)}"


def remove_abandoned(directory: Path, prefix: str = _PREFIX) -> None:
    """Remove what processes left half-written that are gone: known by their number here, elsewhere by age."""
    for staging in directory.glob(f"{prefix}*"):
        process, machine, *_ = [*staging.name.removeprefix(prefix).split("-"), ""]
        with suppress(OSError):  # gone meanwhile, or somebody else's
            is_old = time.time() - staging.stat().st_mtime > _ABANDONED_SECONDS
            if is_old or (machine == _machine() and not _is_running(process)):
                staging.unlink() if staging.is_file() else shutil.rmtree(staging, ignore_errors=True)


def _machine() -> str:
    """Name where a process's number means that process: a host, or a container on it."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return hashlib.sha256(f"{platform.node()} {namespace}".encode()).hexdigest()[:8]


def _is_running(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OverflowError, PermissionError):
        return True
    return True


def no_such_file(path: str | os.PathLike[str]) -> str:
    """One line for a path where nothing is.

    >>> no_such_file("x.jpg")
    'x.jpg: no such file'
    >>> no_such_file("https://a.org/x.jpg")
    'https://a.org/x.jpg: an address, and nothing is downloaded; fetch it first, with `curl -LO`, and give the file'
    """
    name = os.fspath(path)
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", name):
        return f"{name}: no such file"
    if name.startswith("file:"):
        return f"{name}: an address; give the path alone"
    return f"{name}: an address, and nothing is downloaded; fetch it first, with `curl -LO`, and give the file"
