"""Class names in the order of a network's outputs: of a text, or as a network's file brings them."""

import ast
import json
import logging
import unicodedata
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkit.errors import UserError
from toolkit.files import no_such_file, read_text

log = logging.getLogger("toolkit")

#: Where tools put the names that belong to a file, in or beside its folder.
BESIDE = ("labels.txt", "assets/labels.txt")
_MAX_BYTES = 10_000_000  # of a text within a file
#: Control characters, halves of characters and ends of lines. No names without the joiners of Persian and of emoji.
_NOT_IN_NAMES = ("Cc", "Cs", "Zl", "Zp")


def read_labels(file: Path) -> tuple[str, ...]:
    """Read class names, one a line; where each begins with its number, as Teachable Machine writes them, without it.

    Raises:
        UserError: no such file, or no names in it.
    """
    if not file.is_file():
        raise UserError(f"{file}: a folder; expected a file of class names" if file.is_dir() else no_such_file(file))
    return _lines(str(file), read_text(file, errors="replace"))


def find_labels(file: Path) -> tuple[str, ...]:
    """Find the class names that a network's file brings, and say where they were found.

    An ONNX file may hold them as a note: of this package, or of Ultralytics; a LiteRT file in a text that is packed
    within, as TensorFlow's model metadata has it. Else they are looked for in ``labels.txt``, in the folder of a
    SavedModel or beside the file.

    Args:
        file: an ``.onnx``, ``.tflite``, ``.keras`` or ``.h5`` file, or a SavedModel's folder.

    Raises:
        UserError: there are none, they cannot be read, or an ONNX file is damaged.
    """
    names = _noted(file)
    place = str(file)
    if not names:
        folders = [file, file.parent] if file.is_dir() else [file.parent]
        texts = [folder / name for folder in folders for name in BESIDE if (folder / name).is_file()]
        if not texts:
            raise UserError(
                f"{file}: does not bring the names of its classes; give them with --labels, a text with a name a line "
                "in the order of its outputs"
            )
        names, place = read_labels(texts[0]), str(texts[0])
    log.info("%d classes, by their names in %s: %s", len(names), place, _some(names))
    return names


def _noted(file: Path) -> tuple[str, ...]:
    suffix = "" if file.is_dir() else file.suffix.lower()
    if suffix == ".onnx":
        return _noted_in_onnx(file)
    if suffix == ".tflite" and zipfile.is_zipfile(file):
        return _packed(file)
    return ()


def _noted_in_onnx(file: Path) -> tuple[str, ...]:
    from toolkit.factory.graphs.onnx_file import read_notes

    notes = read_notes(file)
    for key, read in (("labels", json.loads), ("names", ast.literal_eval)):
        try:
            found: Any = read(notes.get(key, ""))
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, dict) and sorted(found, key=str) == sorted(range(len(found)), key=str):
            found = [found[number] for number in range(len(found))]
        if isinstance(found, list) and found and all(isinstance(name, str) for name in found):
            return _names(f"{key} in {file}", found)
    return ()


def _packed(file: Path) -> tuple[str, ...]:
    """Class names of a LiteRT file, where it holds one text; a damaged one is as good as none."""
    try:
        with zipfile.ZipFile(file) as packed:
            texts = [each for each in packed.infolist() if each.filename.endswith(".txt")]
            if len(texts) != 1 or texts[0].file_size > _MAX_BYTES:
                return ()
            text = packed.read(texts[0]).decode("utf-8", errors="replace")
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError):
        return ()
    return _lines(f"{texts[0].filename} in {file}", text)


def _lines(place: str, text: str) -> tuple[str, ...]:
    """Take the names that stand in a text, which may be numbered."""
    names = [line.strip() for line in text.splitlines() if line.strip()]
    if all(name.startswith(f"{number} ") for number, name in enumerate(names)):
        names = [name.partition(" ")[2].strip() for name in names]
    return _names(place, names)


def _names(place: str, names: Sequence[str]) -> tuple[str, ...]:
    if any(letter == "\ufffd" or unicodedata.category(letter) in _NOT_IN_NAMES for letter in "".join(names)):
        raise UserError(f"{place}: not a text; expected class names, one a line")
    if len(set(names)) != len(names) or not names:
        raise UserError(f"{place}: expected class names, one a line, each once, got {len(names)} lines")
    return tuple(names)


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names if len(names) <= 5 else [*names[:3], "…", names[-1]])
