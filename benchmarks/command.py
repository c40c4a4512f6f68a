"""The day and the command that a record notes, so that a reader can measure again, and its file."""

import json
import shlex
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def given() -> dict[str, str]:
    """Give the part of a record that says when and how it was made."""
    return {"date": date.today().isoformat(), "command": given_command()}


def given_command() -> str:
    """Give this program's command line as it was typed, but without the machine's folders.

    Paths inside the project are told from its top, others that are absolute or lead upwards by their last name alone.
    """
    program, *words = sys.argv
    return shlex.join(["python", _shown(str(Path(program).resolve())), *map(_shown, words)])


def write_record(record: Mapping[str, Any], out: Path | None) -> None:
    """Write a record as JSON, where a place for it is given; its folder is made."""
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def _shown(word: str) -> str:
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    path = Path(value)
    if path.is_absolute() or ".." in path.parts:
        path = path.resolve()
        value = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
    return option + equals + value
