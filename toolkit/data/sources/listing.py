"""Lists of a data set's files and their classes; nothing is opened yet but a CSV file's own text."""

import csv
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.errors import UserError

#: Names that mark a folder as already split; the first of each row is the name used from then on.
SPLIT_NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}

SPLIT_OF = {alias: split for split, aliases in SPLIT_NAMES.items() for alias in aliases}
_IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".heic", ".heif", ".avif")
)
_COLUMNS = ("path", "label", "group", "split")


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
    """A data set's files, sorted by path, before any of them was opened."""

    root: Path
    files: tuple[ListedFile, ...]
    labels: tuple[str, ...]  # sorted, those without files included
    ignored: tuple[str, ...] = field(default=(), repr=False)  # relative paths of what claims to be no picture


def list_folder(root: Path) -> Listing:
    """One folder per class, or ``train``/``val``/``test`` folders which hold them. Hidden files are left out.

    Raises:
        UserError: no such folder, or no class folders in it.
    """
    class_dirs = _class_dirs(root)
    found = sorted(
        ListedFile(path.relative_to(root).as_posix(), label, split)
        for label, split, directory in class_dirs
        for path in _files_below(directory)
    )
    files = tuple(file for file in found if is_picture_name(file.path))
    ignored = tuple(file.path for file in found if not is_picture_name(file.path))
    return Listing(root, files, tuple(sorted({label for label, _, _ in class_dirs})), ignored)


def list_csv(file: Path) -> Listing:
    """A table ``path,label[,group[,split]]``, in that order or under those headings; paths are relative to the file.

    Raises:
        UserError: not such a table; the message names the line.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            rows = list(_csv_rows(file, text))
    except UnicodeDecodeError:
        raise UserError(f"{file}: not UTF-8 text; expected a table of path,label[,group[,split]]") from None
    except (OSError, csv.Error) as error:
        raise UserError(f"{file}: cannot be read as CSV ({error})") from None
    if not rows:
        raise UserError(f"{file}: no rows; expected a table of path,label[,group[,split]]")
    files = tuple(sorted(row for _, row in rows))
    _require_one_row_per_picture(file, rows)
    if len({bool(row.split) for row in files}) > 1:
        raise UserError(f"{file}: some rows name a split and some do not; name it in every row or in none")
    return Listing(file.parent, files, tuple(sorted({row.label for row in files})))


def is_picture_name(name: str) -> bool:
    """Tell if a file of this name claims to be a picture.

    >>> is_picture_name("cats/1.JPG"), is_picture_name("notes.txt")
    (True, False)
    """
    return os.path.splitext(name)[1].lower() in _IMAGE_SUFFIXES


def _class_dirs(root: Path) -> list[tuple[str, str, Path]]:
    top = _subfolders(root)
    if not top:
        raise UserError(f"{root}: no class folders in it; expected one sub-folder of pictures per class")
    if any(d.name.lower() in SPLIT_NAMES["train"] for d in top) and all(d.name.lower() in SPLIT_OF for d in top):
        return [(c.name, SPLIT_OF[s.name.lower()], c) for s in top for c in _subfolders(s)]
    return [(d.name, "", d) for d in top]


def _subfolders(directory: Path) -> list[Path]:
    return sorted(d for d in directory.iterdir() if d.is_dir() and not d.name.startswith("."))


def _files_below(directory: Path) -> Iterator[Path]:
    """Links to folders are followed, but not back to a folder seen before, nor out to one that holds this class."""
    above = [_identity(parent) for parent in directory.resolve().parents]
    seen = {*above}
    for parent, folders, files in os.walk(directory, followlinks=True):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        identity = _identity(parent)
        if identity in seen:
            folders.clear()
            continue
        seen.add(identity)
        yield from (Path(parent, f) for f in sorted(files) if not f.startswith("."))


def _identity(directory: str | Path) -> tuple[int, int]:
    status = os.stat(directory)
    return status.st_dev, status.st_ino


def _csv_rows(file: Path, text: Iterable[str]) -> Iterator[tuple[int, ListedFile]]:
    reader = csv.reader(text, skipinitialspace=True, strict=True)
    columns: tuple[str, ...] = _COLUMNS
    for row in reader:
        if not any(row):
            continue
        if reader.line_num == 1 and {"path", "label"} <= {cell.strip().lower() for cell in row}:
            columns = tuple(cell.strip().lower() for cell in row)
            continue
        yield reader.line_num, _csv_row(file, reader.line_num, dict(zip(columns, map(str.strip, row), strict=False)))


def _csv_row(file: Path, line: int, cells: dict[str, str]) -> ListedFile:
    path, label = cells.get("path", ""), cells.get("label", "")
    if not path or not label:
        raise UserError(f"{file} line {line}: expected path,label[,group[,split]], got {','.join(cells.values())!r}")
    split = cells.get("split", "").lower()
    if split and split not in SPLIT_OF:
        raise UserError(f"{file} line {line}: unknown split {split!r}; known: {', '.join(SPLIT_NAMES)}")
    return ListedFile(path, label, SPLIT_OF.get(split, ""), cells.get("group", ""))


def _require_one_row_per_picture(file: Path, rows: list[tuple[int, ListedFile]]) -> None:
    first_line: dict[str, int] = {}
    for line, row in rows:
        path = os.path.normpath(row.path)
        if path in first_line:
            raise UserError(f"{file} line {line}: {row.path} stands in line {first_line[path]} already")
        first_line[path] = line
