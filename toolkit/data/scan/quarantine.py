"""Pictures to leave out: by a list that a person can read and edit, or else those that are plainly placeholders.

Nothing is ever moved or deleted.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from toolkit.data.pixels.decode import FORMATS
from toolkit.errors import UserError
from toolkit.files import write_file

LIST_NAME = "quarantine.txt"

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

_PLACEHOLDER_NAME = re.compile(
    r"(not|no|un)[ _-]?(found|image|photo|picture|avail)|missing|place[ _-]?holder|removed|default", re.IGNORECASE
)


def quarantine_file(source: Path) -> Path:
    """Path of a data set's list: inside a folder, beside anything else."""
    return source / LIST_NAME if source.is_dir() else source.with_name(f"{source.name}.{LIST_NAME}")


def read_quarantine(file: Path) -> dict[str, str]:
    """Read reasons by path, or raise a ``UserError`` if the list cannot be read."""
    try:
        lines = file.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    rows = (line.partition("\t") for line in lines if line.strip() and not line.startswith("#"))
    return {_unquote(file, path): reason.strip() or "listed" for path, _, reason in rows}


def write_quarantine(file: Path, reasons: Mapping[str, str]) -> None:
    """Write the list, whole or not at all."""
    rows = [f"{_quote(path)}\t{' '.join(reason.split())}\n" for path, reason in sorted(reasons.items())]
    write_file(file, _HEADING + "".join(rows))


def find_placeholders(paths: Sequence[str], facts: np.ndarray) -> dict[str, str]:
    """Pictures that stand for a missing one, as picture hosts serve them ("this image could not be found").

    Such a picture is readable and wrong. It is taken for one if it is nearly all one grey value among pictures that
    are not, and has a file format of its own or a name that says so; or if it is blank altogether. Given are readable
    pictures with one row of ``toolkit.data.scan.facts.FACTS`` each; the answer has reasons by path.
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
    return found


def _quote(path: str) -> str:
    is_plain = not path.startswith(("#", '"')) and not re.search(r"[\t\r\n]", path) and path == path.strip()
    return path if is_plain else json.dumps(path)


def _unquote(file: Path, text: str) -> str:
    if not text.startswith('"'):
        return text.strip()
    try:
        return str(json.loads(text))
    except json.JSONDecodeError:
        raise UserError(f"{file}: {text!r} is not a quoted path") from None
