"""Errors that a person can mend as one line, with the option that names another place where one cannot be written."""

import argparse
import errno
import os
import tempfile
from pathlib import Path

from toolkit.cli.output import is_of_stdout
from toolkit.errors import UserError, WriteError, one_line
from toolkit.files import is_disk_full

# Options that name what is written.
_OUTPUTS = (
    "export",
    "out",
    "cache",
    "report",
    "onnx",
    "draw",
    "filters",
    "augment_preview",
    "quarantine",
    "tf_serving",
)
# Arguments that name what is read, and written beside.
_INPUTS = ("bundle", "data", "directory", "target")


def in_words(error: UserError | OSError, arguments: argparse.Namespace) -> str:
    """Word an error in one line; ``""`` where that would not tell a person what to do."""
    if isinstance(error, OSError):
        return one_line(_of_the_system(error, arguments))
    return one_line(f"{error}{_another_place(error.place, arguments) if isinstance(error, WriteError) else ''}")


def _of_the_system(error: OSError, arguments: argparse.Namespace) -> str:
    if is_of_stdout(error):
        return f"{error.filename} cannot be written ({error.strerror})"
    place = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    if place and error.strerror:
        return f"{place}: {error.strerror}{_another_place(place, arguments) if is_disk_full(error) else ''}"
    if is_disk_full(error):
        return f"a file cannot be written ({error.strerror}); --verbose shows which"
    if error.errno == errno.ENOENT and "temporary directory" in str(error):  # of Python's tempfile
        return f"{error.strerror}; name a writable folder by TMPDIR"
    return ""


def _another_place(place: str, arguments: argparse.Namespace) -> str:
    """Tell by which option or variable another place is named."""
    from toolkit.machine import cache_dir

    named: dict[str, object] = {f"--{name.replace('_', '-')}": getattr(arguments, name, None) for name in _OUTPUTS}
    if not any(_is_within(place, getattr(arguments, name, None)) for name in _INPUTS):
        named |= {"TOOLKIT_CACHE": cache_dir(), "TMPDIR": tempfile.gettempdir()}
    option = next((name for name, given in named.items() if _is_within(place, given)), "")
    return f"; name another place by {option}" if option else ""


def _is_within(place: str, given: object) -> bool:
    return isinstance(given, str | Path) and Path(place).absolute().is_relative_to(Path(given).absolute())
