"""Options of a command: from the command line, and beneath it from a file that ``--config`` names."""

import argparse
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.api.options import setting_text
from toolkit.errors import UserError, did_you_mean, nearest, unknown_name

_NO_OPTIONS = ("help", "config")


def given(arguments: argparse.Namespace, function: Callable[..., Any]) -> dict[str, Any]:
    """Take the arguments of a call from those of the command: they have the same names."""
    return {name: value for name, value in vars(arguments).items() if name in inspect.signature(function).parameters}


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line whose options may stand in a TOML file; what the command line says counts.

    Options that may be given several times, such as ``--set``, add to those of the file.

    Raises:
        UserError: the file cannot be read, or has options that the command has not.
    """
    file = _config_file(argv)
    command = _command_parser(parser, argv)
    if file is not None and command is not parser:
        _take_defaults(command, file)
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:  # the command's own usage helps, not that of all
        command.error(f"unrecognized arguments: {' '.join(unknown)}{_meant(command, unknown)}")
    if file is None and getattr(arguments, "config", None) is not None:
        raise UserError("write --config in full, with its file behind it")
    return arguments


def _meant(command: argparse.ArgumentParser, unknown: Sequence[str]) -> str:
    """Ask whether the nearest option was meant, or a setting that ``--set`` takes."""
    name, _, value = unknown[0].partition("=")
    options = [option for action in command._actions for option in action.option_strings]
    meant = nearest(name, options, count=1)
    if "--set" in options and name.startswith("--"):
        from toolkit.training.config import settings_called

        given = value or (unknown[1] if len(unknown) > 1 else "VALUE")
        meant = [f"--set {setting}={given}" for setting in settings_called(name[2:])] or meant
    return did_you_mean(meant)


def _config_file(argv: Sequence[str]) -> str | None:
    """Find the file before anything is parsed: it may hold what the command line lacks."""
    for index, word in enumerate(argv):
        if word == "--":
            break
        if word.startswith("--config="):
            return word.removeprefix("--config=")
        if word == "--config" and index + 1 < len(argv):
            return argv[index + 1]
    return None


def _command_parser(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.ArgumentParser:
    for word in argv:
        parser = subcommands(parser).get(word, parser)
    return parser


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """List the commands that a parser divides into, by name."""
    found = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found[0].choices) if found else {}


def _take_defaults(parser: argparse.ArgumentParser, file: str) -> None:
    """Make the file's options the defaults of the command's."""
    actions, configured = _by_name(parser), set()
    for key, value in _read(file).items():
        action = actions.get(key.replace("-", "_"))
        if action is None:
            known = sorted({own.dest for own in actions.values()})
            raise UserError(f"{file}: {unknown_name(f'option of `{parser.prog}`', key, known)}")
        try:
            action.default = _value(action, value)
        except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
            raise UserError(f"{file}: {key} = {value!r}: {error}") from None
        action.required = False
        configured.add(action.dest)
        if not action.option_strings:
            action.nargs = "*" if action.nargs in ("+", "*") else "?"
    for group in parser._mutually_exclusive_groups:
        group.required = group.required and configured.isdisjoint(action.dest for action in group._group_actions)
    # What the file has no word for comes first on the command line.
    parser._actions.sort(key=lambda action: not action.option_strings and action.dest in configured)


def _by_name(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Find a command's options by their names, with and without dashes, and by those of the call's keywords."""
    found: dict[str, argparse.Action] = {}
    for action in parser._actions:
        if action.dest not in _NO_OPTIONS and not isinstance(action, argparse._SubParsersAction):
            for name in (action.dest, *(word.lstrip("-").replace("-", "_") for word in action.option_strings[-1:])):
                found.setdefault(name, action)
    return found


def _read(file: str) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{file}: no such file, which --config names") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f'{file}: is no TOML ({error}); expected lines such as model = "googlenet"') from None


def _value(action: argparse.Action, value: Any) -> Any:
    """Read a value as the option would read its words."""
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise ValueError("expected true or false")
        return action.const if value else action.default
    if isinstance(value, bool):
        if action.nargs != "?" or action.const is None:
            raise ValueError("expected a value, not true or false")
        return action.const if value else action.default
    if action.nargs in ("+", "*") or isinstance(action, argparse._AppendAction):
        return [_single(action, item) for item in _listed(value)]
    return _single(action, ",".join(map(str, value)) if isinstance(value, list) else value)


def _listed(value: Any) -> Iterator[Any]:
    """Give the items of a list, or of a table as ``KEY=VALUE``."""
    if isinstance(value, Mapping):
        for key, own in value.items():
            if isinstance(own, Mapping):
                yield from (f"{key}.{item}" for item in _listed(own))
            else:
                yield f"{key}={setting_text(own)}"
    else:
        yield from value if isinstance(value, list) else [value]


def _single(action: argparse.Action, value: Any) -> Any:
    if isinstance(value, bool | list | Mapping):
        raise ValueError("expected a text or a number")
    text = os.fspath(value) if isinstance(value, os.PathLike) else str(value)
    read = action.type(text) if callable(action.type) else text
    if action.choices is not None and read not in action.choices:
        raise ValueError(f"expected one of {', '.join(map(str, action.choices))}")
    return read
