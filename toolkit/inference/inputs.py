"""The pictures that a command is given: files, folders, patterns, and lists on standard input."""

import glob
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from toolkit.errors import UserError
from toolkit.files import no_such_file

log = logging.getLogger("toolkit")

_ENCODED = (b"\xff\xd8\xff", b"\x89PNG")  # beginnings of pictures that no list of paths has


class Input(NamedTuple):
    """A picture to classify, or with a ``reason`` something that is none."""

    path: str
    reason: str = ""


def find_pictures(given: Sequence[str]) -> list[Input]:
    """List the pictures that arguments stand for, in their order, those of a folder sorted.

    Args:
        given: each a file, a folder with sub-folders, a pattern such as ``"photos/*.jpg"`` or ``"photos/**"`` which
            the shell has left as it is, or ``-`` for a list on standard input, one path a line or between null
            characters. What a folder holds beside pictures is left out; how much that is, is logged.

    Raises:
        UserError: none of it is there.
    """
    left_out: list[tuple[str, str]] = []
    found = [found for name in given for found in _expand(name, left_out)]
    if left_out:
        from toolkit.data.sources.listing import describe_ignored

        log.info("left out: %s", describe_ignored(left_out))
    if all(one.reason for one in found):
        raise nothing_answered([f"{one.path}: {one.reason}" for one in found])
    return found


def nothing_answered(reasons: Sequence[str]) -> UserError:
    """Word in one line that no picture has an answer.

    >>> nothing_answered(["a.jpg: no such file", "b.jpg: no such file", "c.jpg: damaged"])
    UserError('a.jpg: no such file (and 2 more that cannot be answered)')
    """
    others = len(reasons) - 1
    return UserError(reasons[0] + (f" (and {others:,} more that cannot be answered)" if others else ""))


def _expand(name: str, left_out: list[tuple[str, str]]) -> Iterator[Input]:
    if name == "-":
        for listed in _listed():
            yield from _expand_path(listed, left_out)
    elif glob.has_magic(name) and not os.path.lexists(name):
        matches = sorted(glob.glob(name, recursive=True))
        if not matches:
            yield Input(name, "no file matches")
        for match in matches:
            if os.path.isfile(match) or "**" not in name:  # whose folders' files are matches themselves
                yield from _expand_path(match, left_out)
    else:
        yield from _expand_path(name, left_out)


def _listed() -> list[str]:
    content = sys.stdin.buffer.read() if sys.stdin else b""
    if content.startswith(_ENCODED):
        raise UserError("-: expected a list of paths, got a picture; give its path, or /dev/stdin")
    lines = content.split(b"\0") if b"\0" in content else content.removeprefix(b"\xef\xbb\xbf").splitlines()
    names = [os.fsdecode(line) for line in lines if line.strip()]
    if not names:
        raise UserError("-: no paths on standard input; expected one a line, as `find` prints them")
    return names


def _expand_path(path: str, left_out: list[tuple[str, str]]) -> Iterator[Input]:
    if not os.path.lexists(path):
        yield Input(path, no_such_file(path).removeprefix(f"{path}: "))
    elif os.path.isdir(path):
        before = len(left_out)
        found = list(_walk(path, left_out))
        yield from found
        if not found:
            beside = f"; {len(left_out) - before:,} other files are" if len(left_out) > before else ""
            yield Input(path, f"no pictures in this folder{beside}")
    else:
        yield Input(path)


def _walk(directory: str, left_out: list[tuple[str, str]]) -> Iterator[Input]:
    from toolkit.data.sources.junk import is_junk

    problems: list[OSError] = []
    seen = set()  # links are followed, but not back
    for parent, folders, files in os.walk(directory, followlinks=True, onerror=problems.append):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        for folder in sorted(folders):
            reason = "in a hidden folder" if folder[0] == "." else f"in {folder}" if is_junk(folder) else ""
            if reason:
                left_out += [(path, reason) for path in _files(os.path.join(parent, folder))]
        folders[:] = sorted(f for f in folders if f[0] != "." and not is_junk(f))
        for file in sorted(files):
            path = os.path.join(parent, file)
            reason = "hidden" if file[0] == "." else _other_than_picture(path)
            if reason:
                left_out.append((path, reason))
            else:
                yield Input(path)
        for error in problems:
            yield Input(str(error.filename), f"cannot be read ({error.strerror})")
        problems.clear()


def _files(directory: str) -> list[str]:
    return sorted(os.path.join(parent, file) for parent, _, files in os.walk(directory) for file in files)


def _other_than_picture(path: str) -> str:
    """Name what a folder's file is; ``""`` for a picture, by its name or else by its content."""
    from toolkit.data.sources.content import why_no_picture
    from toolkit.data.sources.junk import is_junk

    name = os.path.basename(path)
    if is_junk(name):
        return f"named {name}"
    if not os.path.isfile(path):
        return "neither a file nor a folder"
    return reason if (reason := why_no_picture(path)) == "not a picture" else ""
