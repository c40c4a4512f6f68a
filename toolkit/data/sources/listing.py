"""Lists of a data set's files and their classes: every file is on one, to be read or with the reason why not."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from toolkit.data.sources.alike import alike_key
from toolkit.data.sources.content import is_picture_name, why_no_picture
from toolkit.data.sources.junk import is_junk, is_output
from toolkit.data.sources.layout import (
    EMPTY,
    NO_CLASS,
    OUTPUT,
    ClassFolder,
    chain_of,
    entries_of,
    find_layout,
    identity,
    is_folder,
)
from toolkit.errors import UserError, one_line

JUNK = "of another program or the system"
HIDDEN = "hidden"
LINKED = "a link to a folder around it or without pictures"
LIST = "the list of pictures to leave out"
#: Name of that list in a folder.
LIST_NAME = "quarantine.txt"


@dataclass(frozen=True, order=True)
class ListedFile:
    """A file that claims to be a picture; ``path`` is relative to the listing's root, or absolute.

    ``split`` is one of ``SPLIT_NAMES`` or empty; pictures that share a ``group`` belong in one subset.
    """

    path: str
    label: str
    split: str = ""
    group: str = ""


@dataclass(frozen=True)
class Listing:
    """A data set's files, sorted by path, before any of them was decoded.

    ``labels`` are sorted, those without files included; ``ignored`` are relative paths and reasons of all other files.
    """

    root: Path
    files: tuple[ListedFile, ...]
    labels: tuple[str, ...]
    ignored: tuple[tuple[str, str], ...] = field(default=(), repr=False)


def list_folder(
    root: Path,
    split_folders: Mapping[str, str] | None = None,
    class_names: Iterable[str] = (),
    *,
    see_through: bool = False,
) -> Listing:
    """List one folder per class, or ``train``/``val``/``test`` folders which hold them; see ``find_layout``.

    Args:
        root: a folder.
        split_folders: see ``find_layout``.
        class_names: see ``find_layout``.
        see_through: folders that only wrap the others become part of the listing's root.

    Raises:
        UserError: no class folders in it, or what they are is not clear.
    """
    layout = find_layout(root, split_folders, class_names)
    label_of = _labels(root, layout.classes)
    files, ignored = [], []
    top = Path(layout.top) if see_through else root
    base, base_of_ignored = len(os.path.join(top, "")), len(os.path.join(root, ""))
    for path, where, reason in _walk(str(root), {folder.path: folder for folder in layout.classes}, layout.left_out):
        if where is None or reason:
            ignored.append((path[base_of_ignored:], reason))
        else:
            files.append(ListedFile(path[base:], label_of[where.label], where.split))
    labels = tuple(sorted({label_of[folder.label] for folder in layout.classes}))
    return Listing(top, tuple(sorted(files)), labels, tuple(sorted(ignored)))


def join_classes(listing: Listing, expected: Sequence[str] = ()) -> Listing:
    """Make one class of those that look the same: the ``expected`` one of them, or the one with most pictures."""
    counts = Counter(file.label for file in listing.files)
    joined = {
        alike_key(name): name for name in sorted(listing.labels, key=lambda name: (counts[name], name == name.strip()))
    }
    joined |= {alike_key(name): name for name in reversed(expected)}
    files = tuple(replace(file, label=joined[alike_key(file.label)]) for file in listing.files)
    return replace(listing, files=files, labels=tuple(sorted({joined[alike_key(name)] for name in listing.labels})))


def class_name(folder_name: str) -> str:
    r"""Make a label of a folder's name: text that can be written anywhere.

    Bytes that are not UTF-8 are taken for Windows' Western ones, and control characters become blanks.

    >>> class_name("K\udce4fer"), class_name("line\nbreak")
    ('Käfer', 'line break')
    """
    if any("\ud800" <= character <= "\udfff" for character in folder_name):
        folder_name = os.fsencode(folder_name).decode("cp1252", errors="replace")
    return "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in folder_name)


def describe_ignored(ignored: Iterable[tuple[str, str]]) -> str:
    """Count files that are left out by their reasons, with an example of each.

    >>> describe_ignored([("a/x.txt", "not a picture"), ("b.jpg", "hidden"), ("c.jpg", "hidden")])
    '2 hidden (b.jpg …), 1 not a picture (a/x.txt)'
    """
    rows = [row for row in ignored if row[1] != LIST]
    first = {reason: path for path, reason in reversed(rows)}
    return ", ".join(
        f"{count:,} {reason} ({one_line(first[reason])}{' …' if count > 1 else ''})"
        for reason, count in Counter(reason for _, reason in rows).most_common()
    )


def _labels(root: Path, folders: Iterable[ClassFolder]) -> dict[str, str]:
    label_of = {folder.label: class_name(folder.label) for folder in folders}
    names: dict[str, str] = {}
    for name, label in label_of.items():
        if names.setdefault(label, name) != name:
            raise UserError(f"{root}: two class folders read {label!r}, {names[label]!r} and {name!r}; rename one")
    return label_of


def _walk(
    root: str, classes: Mapping[str, ClassFolder], left_out: Mapping[str, str]
) -> Iterator[tuple[str, ClassFolder | None, str]]:
    """Every file below ``root`` with its class, or the reason why it is left out."""
    around = {parent for path in (*classes, *left_out) for parent in _parents(path, root)}
    chain = chain_of(root) | {identity(root)}
    folders = [root]
    while folders:
        folder = folders.pop()
        for entry in entries_of(folder):
            if not is_folder(entry):
                yield entry.path, None, _own_reason(entry, at_top=folder == root) or NO_CLASS
            elif entry.path in classes:
                for path, reason in _files_of_class(entry.path, chain):
                    yield path, classes[entry.path], reason
            elif entry.path in left_out:
                yield from ((path, None, reason) for path, reason in _files_below(entry.path, left_out[entry.path]))
            elif entry.path in around:
                folders.append(entry.path)
            elif entry.is_symlink():
                yield entry.path, None, LINKED
            else:
                reason = _why_no_folder(entry) or EMPTY
                yield from ((path, None, why) for path, why in _files_below(entry.path, reason))


def _files_of_class(directory: str, chain: set[tuple[int, int]]) -> Iterator[tuple[str, str]]:
    """Links to folders are followed, but not back to a folder seen before, nor out to one that holds this class."""
    seen = chain | chain_of(directory)
    folders = [directory]
    while folders:
        folder = folders.pop()
        if identity(folder) in seen:
            continue
        seen.add(identity(folder))
        inner = []
        try:
            entries = entries_of(folder)
        except UserError as error:
            yield folder, error.reason(folder)
            continue
        for entry in entries:
            if not is_folder(entry):
                yield entry.path, _own_reason(entry)
            elif reason := _why_no_folder(entry):
                yield from _files_below(entry.path, reason)
            else:
                inner.append(entry.path)
        folders += reversed(inner)


def _files_below(directory: str, reason: str) -> Iterator[tuple[str, str]]:
    """Every file in a folder that is left out, but not what links lead to."""
    is_plain = reason not in (JUNK, HIDDEN, OUTPUT)  # of those nobody asks what they are
    folders = [directory]
    while folders:
        folder = folders.pop()
        try:
            entries = entries_of(folder)
        except UserError as error:
            yield folder, error.reason(folder)
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                own = _why_no_folder(entry) if is_plain else ""
                if own:
                    yield from _files_below(entry.path, own)
                else:
                    folders.append(entry.path)
            elif not is_folder(entry):
                yield entry.path, (_own_reason(entry) if is_plain else "") or reason


def _own_reason(entry: os.DirEntry[str], *, at_top: bool = False) -> str:
    """Name the reason that leaves a file out wherever it lies; ``""`` for a picture."""
    if is_picture_name(entry.name) and not entry.name.startswith((".", "~$")):
        return JUNK if is_junk(entry.name) else ""
    if at_top and entry.name == LIST_NAME:
        return LIST
    if is_junk(entry.name):
        return JUNK
    return HIDDEN if entry.name.startswith(".") else why_no_picture(entry.path)


def _why_no_folder(entry: os.DirEntry[str]) -> str:
    """Name the reason that leaves a folder out within a class or beside all of them; ``""`` if there is none."""
    if is_junk(entry.name):
        return JUNK
    return OUTPUT if is_output(entry.path) else HIDDEN if entry.name.startswith(".") else ""


def _parents(path: str, root: str) -> Iterator[str]:
    while len(path) > len(root):
        path = os.path.dirname(path)
        yield path
