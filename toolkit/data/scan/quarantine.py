"""Pictures to leave out: by a list that a person can read and edit, or else those that are plainly placeholders.

Nothing is ever moved or deleted.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from toolkit.data.pixels.decode import FORMATS
from toolkit.data.sources.alike import path_key
from toolkit.data.sources.listing import LIST_NAME
from toolkit.errors import UserError, nearest
from toolkit.files import read_text, write_file

_HEADING = """\
# Pictures that are left out of training and evaluation: a path, a tab, the reason.
# As long as this file is here it decides alone: delete a line to keep its picture, add one to leave a picture out.
"""

#: A placeholder is mostly of one grey value: this share of its pixels …
FLAT = 0.75
#: … or this one, when nothing else speaks against it.
BLANK = 0.99
#: Two pictures, or this share of them, are exceptions. Where more are mostly flat, flatness means nothing: digits on
#: black, goods on white.
RARE = 0.02
#: Among fewer pictures than this nothing stands out.
MIN_PICTURES = 20

_MAX_COMPARED = 5_000  # paths, in search of the nearest
_PLACEHOLDER_NAME = re.compile(
    r"(not|no|un)[ _-]?(found|image|photo|picture|avail)|missing|place[ _-]?holder|removed|default", re.IGNORECASE
)


def quarantine_file(source: Path) -> Path:
    """Path of a data set's list: inside a folder, beside anything else."""
    return source / LIST_NAME if source.is_dir() else source.with_name(f"{source.name}.{LIST_NAME}")


def match_quarantine(file: Path, root: Path, paths: Sequence[str]) -> dict[str, str]:
    """Read the list and find what it means among ``paths``, which are relative to ``root``: reasons by these.

    As editors and file managers write paths: absolute, with ``./`` or backslashes, in quotes, in another Unicode form.
    A folder stands for all that is in it.

    Raises:
        UserError: it cannot be read, or has an entry that means nothing; the nearest path is named.
    """
    known = set(paths)
    alike: dict[str, list[str]] = {}
    for path in paths:
        alike.setdefault(path_key(path), []).append(path)
    reasons: dict[str, str] = {}
    for readings, reason in _entries(file):
        variants = [variant for reading in readings for variant in _variants(reading, root)]
        found = next((variant for variant in variants if variant in known), None)
        same = next((alike[key] for key in map(path_key, variants) if len(alike.get(key, ())) == 1), [])
        meant = [found] if found else same or _below(variants, paths)
        if not meant and not any(os.path.lexists(os.path.join(root, variant)) for variant in variants):
            raise UserError(f"{file}: {readings[-1]!r} matches no picture of {root}{_nearest(variants[-1], paths)}")
        reasons |= dict.fromkeys(meant, reason)
    return dict(sorted(reasons.items()))


def write_quarantine(file: Path, reasons: Mapping[str, str]) -> None:
    """Write the list, whole or not at all."""
    rows = [f"{_quote(path)}\t{' '.join(reason.split())}\n" for path, reason in sorted(reasons.items())]
    write_file(file, _HEADING + "".join(rows))


def find_placeholders(paths: Sequence[str], labels: Sequence[str], facts: np.ndarray) -> dict[str, str]:
    """Pictures that stand for a missing one, as picture hosts serve them ("this image could not be found").

    Such a picture is readable and wrong. It is taken for one if it is nearly all one grey value among pictures that
    are not, and has a file format of its own or a name that says so; or if it is blank altogether. Where all pictures
    of a class are so, that is what the class is of. Given are readable pictures with a class and one row of
    ``toolkit.data.scan.facts.FACTS`` each; the answer has reasons by path.
    """
    few = max(2, int(RARE * len(paths)))
    if len(paths) < MIN_PICTURES or np.sum(facts["flat"] >= 0.5) > few:
        return {}
    counts = np.bincount(facts["format"], minlength=len(FORMATS))
    found: dict[str, str] = {}
    for index in map(int, np.flatnonzero(facts["flat"] >= FLAT)):
        name, format_name = os.path.basename(paths[index]), FORMATS[facts["format"][index]]
        share = f"{100 * facts['flat'][index]:.0f} % of it is one grey value"
        if counts[facts["format"][index]] <= few:
            found[paths[index]] = f"a placeholder: {share}, and it is a {format_name} among {len(paths):,} pictures"
        elif _PLACEHOLDER_NAME.search(name):
            found[paths[index]] = f"a placeholder: {share}, and its name says so"
        elif facts["flat"][index] >= BLANK:
            found[paths[index]] = f"blank: {share}"
    others = {label for path, label in zip(paths, labels, strict=True) if path not in found}
    return {path: found[path] for path, label in zip(paths, labels, strict=True) if path in found and label in others}


def _quote(path: str) -> str:
    is_plain = not path.startswith(("#", '"')) and not re.search(r"[\t\r\n]", path) and path == path.strip()
    return path if is_plain else json.dumps(path)


def _entries(file: Path) -> Iterator[tuple[list[str], str]]:
    """Readings of each line's path, the likeliest first, and its reason."""
    try:
        lines = read_text(file, errors="surrogateescape").split("\n")
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    for line in lines:
        text, _, reason = line.strip().partition("\t")
        if text and not text.startswith("#"):
            yield _readings(file, text.strip()), reason.strip() or "listed"


def _readings(file: Path, text: str) -> list[str]:
    if text[0] not in "\"'" or text[-1] != text[0] or len(text) < 3:
        if text.startswith('"'):
            raise UserError(f"{file}: {text!r} is not a quoted path")
        return [text]
    # As this package quotes, or as Windows does, where a backslash is only that.
    try:
        return [str(json.loads(text)), text[1:-1]]
    except json.JSONDecodeError:
        return [text[1:-1]]


def _variants(path: str, root: Path) -> list[str]:
    """Relative paths that an entry may mean."""
    found = []
    for text in dict.fromkeys((path, path.replace("\\", "/"))):
        found.append(os.path.normpath(text))
        for base in dict.fromkeys((str(root.absolute()), str(root.resolve()))):
            if os.path.normpath(text).startswith(os.path.join(base, "")):
                found.append(os.path.relpath(text, base))
        if re.match(r"/|[A-Za-z]:/", text):  # of another machine: its end may be here
            parts = os.path.normpath(text).split("/")[1:]
            found += ["/".join(parts[start:]) for start in range(len(parts))]
    return found


def _below(variants: Sequence[str], paths: Sequence[str]) -> list[str]:
    folders = tuple(f"{variant}/" for variant in variants)
    return [path for path in paths if path.startswith(folders)]


def _nearest(path: str, paths: Sequence[str]) -> str:
    folder, name = os.path.split(path)
    # To compare one with fifty thousand takes seconds: those of its folder or of its name come first.
    likely = [other for other in paths if os.path.dirname(other) == folder or os.path.basename(other) == name]
    near = nearest(path, likely or paths[:_MAX_COMPARED], count=1, least=0)
    return f"; the nearest is {near[0]!r}" if near else ""
