"""A data set as a person looks at it: classes, counts and a few pictures of each."""

import base64
import io
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from toolkit.data.pixels.decode import ImageError, read_rgb
from toolkit.errors import one_line

_CLASSES, _PICTURES = 12, 5  # that are shown
_HEIGHT = 56  # pixels of a picture


class Shown(Protocol):
    """The parts of a data set that are shown, see ``toolkit.data.ImageFolder``."""

    @property
    def root(self) -> Path: ...
    @property
    def source(self) -> Path | None: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def paths(self) -> tuple[str, ...]: ...
    @property
    def labels(self) -> tuple[int, ...]: ...
    @property
    def splits(self) -> tuple[str, ...]: ...
    @property
    def problems(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def quarantined(self) -> tuple[tuple[str, str], ...]: ...
    def __len__(self) -> int: ...
    def class_counts(self) -> dict[str, int]: ...


def in_words(folder: Shown) -> str:
    """Describe a data set in a few lines: pictures of each class, by split where it comes split."""
    counts, splits = folder.class_counts(), _by_split(folder)
    lines = [_title(folder)]
    width = max(len(one_line(name)) for name in [*list(counts)[:_CLASSES], ""])
    for name, count in list(counts.items())[:_CLASSES]:
        own = ", ".join(f"{split} {row[name]:,}" for split, row in splits.items())
        lines.append(f"  {one_line(name):{width}}  {count:>7,}" + (f"  ({own})" if own else ""))
    return "\n".join(lines + [f"  {note}" for note in _notes(folder)])


def _title(folder: Shown) -> str:
    return one_line(f"{folder.source or folder.root}: {len(folder):,} pictures in {len(folder.class_names)} classes")


def _notes(folder: Shown) -> list[str]:
    """Say what is not shown, and what is not used."""
    more = len(folder.class_names) - _CLASSES
    left_out = (("cannot be read", folder.problems), ("left out on purpose", folder.quarantined))
    notes = [f"{len(own):,} {label}" for label, own in left_out if own]
    return ([f"… and {more:,} more classes"] if more > 0 else []) + notes


def as_html(folder: Shown) -> str:
    """Show a data set as a table of its classes, each with its count and its first pictures."""
    counts, splits = folder.class_counts(), _by_split(folder)
    paths: dict[int, list[str]] = {}
    for path, label in zip(folder.paths, folder.labels, strict=True):
        own = paths.setdefault(label, [])
        if label < _CLASSES and len(own) < _PICTURES:
            own.append(path)
    rows = []
    for label, (name, count) in enumerate(list(counts.items())[:_CLASSES]):
        cells = [f"{count:,}", *(f"{row[name]:,}" for row in splits.values())]
        shown = "".join(_picture(folder.root, path) for path in paths.get(label, ()))
        numbers = "".join(f'<td style="text-align:right">{cell}</td>' for cell in cells)
        rows.append(f'<tr><td style="text-align:left">{escape(one_line(name))}</td>{numbers}<td>{shown}</td></tr>')
    header = "".join(f"<th>{escape(cell)}</th>" for cell in ("class", "pictures", *splits, ""))
    told = "".join(f"<br>{escape(note)}" for note in _notes(folder))
    return f"<b>{escape(_title(folder))}</b>{told}<table><tr>{header}</tr>{''.join(rows)}</table>"


def _by_split(folder: Shown) -> Mapping[str, dict[str, int]]:
    """Count pictures of each class in each split that the data set comes with."""
    found = {split: dict.fromkeys(folder.class_names, 0) for split in dict.fromkeys(folder.splits)}
    for split, label in zip(folder.splits, folder.labels, strict=False):
        found[split][folder.class_names[label]] += 1
    return found


def _picture(root: Path, path: str) -> str:
    try:
        pixels = read_rgb(str(root / path))
    except ImageError:  # it has changed since the scan
        return ""
    return f'<img alt="" title="{escape(one_line(path))}" style="display:inline;margin:1px" src="{jpeg(pixels)}">'


def jpeg(pixels: np.ndarray, height: int = _HEIGHT) -> str:
    """Write a small copy of a picture, uint8 RGB (height, width, 3), as the address of an HTML image."""
    image = Image.fromarray(pixels)
    image.thumbnail((2 * height, height))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
