"""Tables of pictures and their classes, as people and competitions write them."""

import csv
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from toolkit.data.sources.alike import path_key
from toolkit.data.sources.content import is_picture_name
from toolkit.data.sources.junk import is_junk
from toolkit.data.sources.layout import SPLIT_NAMES, SPLIT_OF
from toolkit.data.sources.listing import ListedFile, Listing, class_name
from toolkit.errors import UserError
from toolkit.files import read_text

SUFFIXES = (".csv", ".tsv")

_COLUMNS = ("path", "label", "group", "split")
# Headings without case and punctuation; where several of a row are there, the first counts.
_HEADINGS = {
    "path": (
        *("path", "filepath", "imagepath", "imgpath", "relpath", "filename", "imagefilename", "imagefile", "file"),
        *("fname", "imagename", "imgname", "image", "images", "img", "picture", "photo", "imageid", "imgid"),
        *("idcode", "id", "name"),
    ),
    "label": (
        *("label", "labels", "class", "classname", "labelname", "category", "categoryname", "target", "species"),
        *("breed", "diagnosis", "dx", "tag", "tags", "classid", "labelid", "categoryid", "y"),
    ),
    "group": ("group", "groupid"),
    "split": ("split", "subset", "set", "partition"),
}
_DELIMITERS = (",", ";", "\t", "|")
_MAX_BESIDE = 100  # folders beside a table that may be the one its paths start from
_SAMPLE = 50  # rows that tell what the columns are
_EXPECTED = "expected path,label[,group[,split]]"

_Row = tuple[int, list[str]]  # the number of its line, and its cells


def is_table_name(name: str) -> bool:
    """Tell if a file of this name claims to be a table.

    >>> is_table_name("labels.CSV"), is_table_name("labels.txt")
    (True, False)
    """
    return name.lower().endswith(SUFFIXES)


def list_csv(file: Path) -> Listing:
    """List the pictures of a table ``path,label[,group[,split]]``, in that order or under such headings.

    Cells are separated by commas, semicolons, tabs or bars. Headings may have other usual names, such as
    ``filename,class``. Paths are relative to the table, or to one folder beside it, or absolute; they may have
    backslashes or lack their extension.

    Raises:
        UserError: not such a table, or it may be read in two ways; the message names the line.
    """
    try:
        text = read_text(file)
    except UnicodeDecodeError:
        raise UserError(f"{file}: not UTF-8 text; expected a table of path,label[,group[,split]]") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read as CSV ({error.strerror or error})") from None
    places = _Places(file)
    try:
        cells = _cells(text, _delimiter(text, places))
    except csv.Error as error:
        raise UserError(f"{file}: cannot be read as CSV ({error})") from None
    columns, rows = _columns(file, cells, places)
    if not rows:
        raise UserError(f"{file}: no rows; expected a table of path,label[,group[,split]]")
    places.choose_base([row[columns.index("path")] for _, row in rows[:_SAMPLE] if len(row) > columns.index("path")])
    found = [(line, _listed(file, line, dict(zip(columns, row, strict=False)), places)) for line, row in rows]
    _require_one_row_per_picture(file, found)
    files = tuple(sorted(row for _, row in found))
    if len({bool(row.split) for row in files}) > 1:
        raise UserError(f"{file}: some rows name a split and some do not; name it in every row or in none")
    return Listing(file.parent, files, tuple(sorted({row.label for row in files})))


def _cells(text: str, delimiter: str, limit: int | None = None) -> list[_Row]:
    text = re.sub(rf'" +(?={re.escape(delimiter)}|$)', '"', text, flags=re.MULTILINE)  # the reader minds these blanks
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, skipinitialspace=True, strict=True)
    rows = []
    for row in reader:
        if any(cell.strip() for cell in row):
            rows.append((reader.line_num, [cell.strip() for cell in row]))
        if limit and len(rows) == limit:
            break
    return rows


def _delimiter(text: str, places: "_Places") -> str:
    """Choose what separates the cells: where headings are known, or pictures are found, or rows are of one length."""

    def score(delimiter: str) -> tuple[int, int, bool]:
        try:
            rows = [row for _, row in _cells(text, delimiter, _SAMPLE)]
        except csv.Error:
            return (-1, 0, False)
        widths = {len(row) for row in rows}
        headings = sum(heading(cell) != "" for cell in rows[0]) if rows else 0
        found = sum(places.holds(cell) for row in rows for cell in row[:2])
        return (headings if headings > 1 else 0, found, len(widths) == 1 and widths != {1})

    scores = {delimiter: score(delimiter) for delimiter in _DELIMITERS}
    best = max(_DELIMITERS, key=lambda delimiter: scores[delimiter])  # of equals the first
    return best if scores[best] > (0, 0, False) else _DELIMITERS[0]


def heading(text: str) -> str:
    """Tell which column a heading names; nothing for one that is not known.

    >>> heading("File_Name"), heading("Class"), heading("cats/1.jpg")
    ('path', 'label', '')
    """
    plain = re.sub(r"[\W_]", "", text).lower()
    return next((column for column, names in _HEADINGS.items() if plain in names), "")


def _columns(file: Path, cells: list[_Row], places: "_Places") -> tuple[list[str], list[_Row]]:
    """Names of the columns, those of no use without one, and the rows below the headings."""
    if not cells:
        return list(_COLUMNS), []
    line, first = cells[0]
    sample = [row for _, row in cells[1:_SAMPLE]]
    known = [heading(cell) for cell in first]
    found = [sum(places.holds(row[i]) for row in sample if i < len(row)) for i in range(len(first))]
    if "path" in known and ("label" in known or len(first) > 1):
        pass
    elif "label" in known and not any(places.holds(cell) or is_picture_name(cell) for cell in first):
        if any(found):
            known[found.index(max(found))] = "path"
    elif not any(map(places.holds, first)) and any(found):  # headings of other words
        known = [""] * len(first)
        known[found.index(max(found))] = "path"
    else:
        width = len(first)
        is_turned = width == 2 and places.holds(first[1]) and not places.holds(first[0])
        return ["label", "path"] if is_turned else list(_COLUMNS), cells
    first, known, cells = _joined_classes(first, known, cells)
    columns = [""] * len(first)
    for column in _COLUMNS:
        candidates = [i for i, name in enumerate(known) if name == column]
        if column == "label" and not candidates:
            candidates = [i for i, name in enumerate(known) if not name and first[i] and not _is_index(first[i])]
        chosen = _choose(file, line, column, first, candidates)
        if chosen is not None:
            columns[chosen] = column
    return columns, cells[1:]


def _joined_classes(first: list[str], known: list[str], cells: list[_Row]) -> tuple[list[str], list[str], list[_Row]]:
    """Make one column of labels of a column a class, where each row has a 1 in one of them and 0 in the others."""
    places = [i for i, name in enumerate(known) if not name and first[i] and not _is_index(first[i])]
    if "label" in known or len(places) < 2 or len(cells) < 2:
        return first, known, cells
    width = len(first)
    headings, rows = [*first, "label"], []
    for line, row in cells[1:]:
        told = [row[i].strip() if i < len(row) else "" for i in places]
        is_one = [cell in ("1", "1.0") for cell in told]
        if sum(is_one) != 1 or not all(one or cell in ("0", "0.0") for one, cell in zip(is_one, told, strict=True)):
            return first, known, cells
        label = first[places[is_one.index(True)]].strip()
        rows.append((line, [*row[:width], *[""] * (width - len(row)), label]))
    return headings, [*known, "label"], [(cells[0][0], headings), *rows]


def _choose(file: Path, line: int, column: str, headings: Sequence[str], candidates: list[int]) -> int | None:
    """The column that is meant by one of several headings."""
    plain = [re.sub(r"[\W_]", "", text).lower() for text in headings]
    exact = [i for i in candidates if plain[i] == column]
    if column == "path" and len(candidates) > 1 and not exact:
        exact = sorted(candidates, key=lambda i: _HEADINGS["path"].index(plain[i]))[:1]
    candidates = exact[:1] or candidates
    if len(candidates) == 1:
        return candidates[0]
    if candidates or column in ("path", "label"):
        named = " and ".join(repr(headings[i]) for i in candidates[:4])
        seen = (
            f"{named} may each be the {column}"
            if candidates
            else f"no column for the {column} in {','.join(headings)!r}"
        )
        raise UserError(f"{file} line {line}: {seen}; head the one that is meant with {column!r}")
    return None


def _is_index(text: str) -> bool:
    """pandas writes its row numbers under no name, or reads them as ``Unnamed: 0``."""
    return text.lower().startswith("unnamed:") or text.lower() == "index"


def _listed(file: Path, line: int, cells: dict[str, str], places: "_Places") -> ListedFile:
    path, label = cells.get("path", ""), class_name(cells.get("label", ""))
    if not path or not label:
        raise UserError(f"{file} line {line}: {_EXPECTED}, got {','.join(cells.values())!r}")
    split = cells.get("split", "").lower()
    if split and split not in SPLIT_OF:
        raise UserError(f"{file} line {line}: unknown split {split!r}; known: {', '.join(SPLIT_NAMES)}")
    found = places.find(path)
    if len(found) > 1:
        raise UserError(f"{file} line {line}: {path!r} may be {' or '.join(found[:3])}; write the whole name")
    return ListedFile(found[0] if found else path, label, SPLIT_OF.get(split, ""), cells.get("group", ""))


def _require_one_row_per_picture(file: Path, rows: list[tuple[int, ListedFile]]) -> None:
    first_line: dict[str, int] = {}
    for line, row in rows:
        path = os.path.normpath(row.path)
        if path in first_line:
            raise UserError(f"{file} line {line}: {row.path} stands in line {first_line[path]} already")
        first_line[path] = line


@dataclass(frozen=True)
class _Names:
    """Files straight in a folder: by name, by name without regard to case and Unicode form, and without extension."""

    exact: frozenset[str]
    alike: dict[str, list[str]]
    stems: dict[str, list[str]]


class _Places:
    """Finder of a table's pictures: from the table's folder on, or from one folder beside it."""

    def __init__(self, table: Path) -> None:
        self._table = table
        self._base = ""
        self._names = cache(self._read_names)
        try:
            entries = sorted(os.scandir(table.parent), key=lambda entry: entry.name)
        except OSError:
            entries = []
        self._beside = [entry.name for entry in entries if entry.is_dir() and not is_junk(entry.name)][:_MAX_BESIDE]

    def holds(self, cell: str) -> bool:
        """Tell if a cell is a path that leads to a file."""
        return any(self._below(base, cell) for base in ("", *self._beside))

    def choose_base(self, paths: Sequence[str]) -> None:
        """Look from the folder beside the table that has ``paths``, unless one of them leads somewhere from its own.

        Raises:
            UserError: there are several.
        """
        if not any(self._below("", path) for path in paths):
            counts = {base: sum(bool(self._below(base, path)) for path in paths) for base in self._beside}
            best = [base for base, count in counts.items() if count and count == max(counts.values())]
            if len(best) > 1:
                places = " and in ".join(best[:3])
                raise UserError(f"{self._table}: {paths[0]!r} is in {places}; write the folder into the paths")
            self._base = best[0] if best else ""

    def find(self, path: str) -> list[str]:
        """Existing files that ``path`` can mean, relative to the table or absolute; of several each is as good."""
        return self._below(self._base, path)

    def _below(self, base: str, path: str) -> list[str]:
        slashed = path.replace("\\", "/")
        found = self._match(os.path.join(base, path)) or self._match(os.path.join(base, slashed))
        if found or not re.match(r"/|[A-Za-z]:/", slashed):
            return found
        # A path of another machine, or from before the folder was moved: its end is what is left of it.
        parts = slashed.split("/")
        tails = (self._match(os.path.join(base, *parts[start:])) for start in range(1, len(parts)))
        return next((tail for tail in tails if tail), [])

    def _match(self, path: str) -> list[str]:
        folder, name = os.path.split(path)
        names = self._names(folder)
        if name in names.exact:
            return [path]
        found = names.alike.get(path_key(name)) or ([] if is_picture_name(name) else names.stems.get(name, []))
        return [os.path.join(folder, other) for other in found]

    def _read_names(self, folder: str) -> _Names:
        try:
            entries = os.scandir(os.path.join(self._table.parent, folder))
            names = sorted(entry.name for entry in entries if not entry.is_dir())
        except (OSError, ValueError):
            names = []
        alike: dict[str, list[str]] = {}
        stems: dict[str, list[str]] = {}
        for name in names:
            alike.setdefault(path_key(name), []).append(name)
            if is_picture_name(name):
                stems.setdefault(os.path.splitext(name)[0], []).append(name)
        return _Names(frozenset(names), alike, stems)
