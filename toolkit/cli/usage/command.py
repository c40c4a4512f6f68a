"""A command or an action of one, with what every one has: help that names come from tables in, and common options."""

import argparse
from pathlib import Path
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(
    commands: Commands, name: str, summary: str, *, json: bool = True, interrupted: str = ""
) -> argparse.ArgumentParser:
    """Add a command; ``interrupted`` says after Ctrl+C how to go on."""
    parser = add_action(commands, name, summary, json=json)
    parser.set_defaults(handler=name, interrupted=interrupted and f"; {interrupted}")
    return parser


def add_action(actions: Commands, name: str, summary: str, *, json: bool = True) -> argparse.ArgumentParser:
    description = summary[0].upper() + summary[1:] + "."
    parser = actions.add_parser(name, help=summary, description=description, formatter_class=_HelpFormatter)
    if json:
        parser.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    told = "take options from this TOML file, by their names; those of the command line count"
    parser.add_argument("--config", type=Path, metavar="FILE.toml", help=told)
    parser.add_argument("-v", "--verbose", action="store_true", help="show what the libraries log")
    return parser


class _HelpFormatter(argparse.HelpFormatter):
    """Fills ``{engines}`` and the like into the help of options, from the tables that hold the names."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = super()._get_help_string(action)
        if text and "{" in text:
            from toolkit.cli.names import NAMES  # for the help page that shows them, and for nothing else

            text = text.format(**{table: ", ".join(map(str, names)) for table, names in NAMES.items()})
        return text
