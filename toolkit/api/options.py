"""Options as a person gives them, and as a file from which the same command runs again."""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import UserError
from toolkit.files import write_file

if TYPE_CHECKING:
    from toolkit.data.sources.source import Source

#: Name of the file of options that every run leaves in its folder, a bundle in ``assets.extra``.
RUN_FILE = "run.toml"

_UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds(time: str | float) -> float:
    """Read a time such as ``"90s"``, ``"10m"`` or ``"1.5h"``; a number alone is minutes.

    >>> seconds("90s"), seconds("1.5h"), seconds(10)
    (90.0, 5400.0, 600.0)

    Raises:
        UserError: it is none, or not more than 0.
    """
    text = str(time)
    number = text[:-1] if text[-1:] in _UNITS else text
    try:
        value = float(number) * _UNITS.get(text[-1:], 60)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise UserError(f"expected a time such as 90s, 10m or 1.5h, got {text!r}")
    return value


def source_of(
    data: "str | os.PathLike[str]", split_folders: str | Mapping[str, str] | None, join_classes: bool
) -> "str | os.PathLike[str] | Source":
    """Join a data set's path with what is said about how to read it.

    Args:
        data: a path, or a ``toolkit.Source``, to which the rest is added.
        split_folders: ``"train=FOLDER,val=FOLDER"``, ``"none"``, or folders by the names of splits.
        join_classes: see ``toolkit.Source``.
    """
    if split_folders is None and not join_classes:
        return data
    from toolkit.data.sources.source import as_source, parse_split_folders

    own = as_source(data)
    if isinstance(split_folders, Mapping):
        split_folders = ",".join(f"{split}={folder}" for split, folder in split_folders.items()) or "none"
    folders = own.split_folders if split_folders is None else parse_split_folders(split_folders)
    return replace(own, split_folders=folders, join_classes=join_classes or own.join_classes)


def overrides_of(settings: Mapping[str, Any] | Any) -> tuple[str, ...]:
    """Write settings as ``KEY=VALUE``, whether they come so or as a dictionary.

    >>> overrides_of({"run.epochs": 5, "data.balanced": True, "data.augment": "mirror"})
    ('run.epochs=5', 'data.balanced=true', 'data.augment=mirror')
    """
    if isinstance(settings, Mapping):
        return tuple(f"{key}={setting_text(value)}" for key, value in settings.items())
    return (settings,) if isinstance(settings, str) else tuple(settings)


def setting_text(value: Any) -> str:
    """Write a value as ``--set KEY=VALUE`` reads it: JSON, or a text as it is.

    >>> setting_text(None), setting_text((0.8, 0.1, 0.1)), setting_text({"version": "v1"}), setting_text("v1")
    ('null', '[0.8, 0.1, 0.1]', '{"version": "v1"}', 'v1')
    """
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    return json.dumps(value, default=lambda number: number.item())  # NumPy's


def write_options(place: Path, command: str, options: Mapping[str, Any]) -> None:
    """Write a run's options, as ``--config`` and the call of the same name read them.

    Args:
        place: the folder that gets the file.
        command: its name.
        options: by name; what is None is left out.
    """
    import tomli_w

    from toolkit import __version__

    told = _with_source(options)
    table = {name: _plain(value) for name, value in told.items() if value is not None and not is_for_python(name)}
    head = f"# toolkit {command} --config {RUN_FILE}   (toolkit {__version__})\n"
    write_file(place / RUN_FILE, head + tomli_w.dumps(table))


def _with_source(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Say with options of their own how a data set is read, which its ``Source`` may say."""
    from toolkit.data.sources.source import as_source

    if options.get("data") is None or "split_folders" not in options:
        return options
    source = as_source(source_of(options["data"], options["split_folders"], options["join_classes"]))
    read = {"data": source.path, "split_folders": source.named_splits, "join_classes": source.join_classes}
    return {**options, **read}


def is_for_python(name: str) -> bool:
    """Tell if a keyword of a call takes objects, so that a command has no such option."""
    return name == "callbacks" or name.startswith("on_")


def _plain(value: Any) -> Any:
    from toolkit.spec import Preprocessing

    if isinstance(value, Preprocessing):
        return json.dumps(value.as_dict())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return list(overrides_of(value))
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return _plain(value.tolist()) if hasattr(value, "tolist") else value  # numbers and arrays of NumPy
