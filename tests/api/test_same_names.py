"""Each command has a call with options of the same names, and the other way round."""

import inspect
import os
import re
import typing
from argparse import ArgumentParser

import pytest

import toolkit
from toolkit.api.options import is_for_python
from toolkit.cli.options import subcommands
from toolkit.cli.parser import build_parser

#: Options of printing, which a call has no use for.
PRINTING = {"help", "json", "csv", "verbose", "config"}
#: Commands with an action whose call has a name of its own.
NAMED = {
    "bundles verify": "verify_version",
    "bundles promote": "promote_version",
    "bundles rollback": "roll_back_version",
    "bundles share": "share_traffic",
    "import": "import_model",
    "bundles examples": "answer_examples",
    "bundles recommend": "recommend_engine",
}
#: Commands that are for a shell alone.
OF_A_SHELL = {"completion"}
#: Options that the command line must have, since its results last no longer than it, and a call need not.
ONLY_REQUIRED_THERE = {("finetune", "out")}


def leaves(parser: ArgumentParser, words: tuple[str, ...] = ()) -> dict[str, ArgumentParser]:
    found: dict[str, ArgumentParser] = {}
    for name, own in subcommands(parser).items():
        found |= leaves(own, (*words, name)) if subcommands(own) else {" ".join((*words, name)): own}
    return found


COMMANDS = {name: own for name, own in leaves(build_parser()).items() if name not in OF_A_SHELL}


def call_of(command: str) -> str:
    group, _, action = command.partition(" ")
    return NAMED.get(command, f"{action}_{group}" if action else group)


@pytest.mark.parametrize("command", COMMANDS)
def test_options_of_a_command_are_keywords_of_its_call(command):
    actions = reversed(COMMANDS[command]._actions)  # of several with one name, the first has its default
    options = {action.dest: action for action in actions if action.dest not in PRINTING}
    parameters = inspect.signature(getattr(toolkit, call_of(command))).parameters
    assert set(options) == {name for name in parameters if not is_for_python(name)}
    for name, action in options.items():
        default = parameters[name].default
        is_required = action.required and action.nargs not in ("?", "*")
        if is_required or default is inspect.Parameter.empty:
            assert is_required == (default is inspect.Parameter.empty) or (command, name) in ONLY_REQUIRED_THERE
            continue
        meant = [tuple(value) if isinstance(value, list | tuple) else value for value in (default, action.default)]
        meant = [os.fspath(value) if isinstance(value, os.PathLike) else value for value in meant]
        assert meant[0] == meant[1], name


def test_every_call_has_a_command():
    calls = {name for name, home in toolkit._HOME.items() if home.startswith("toolkit.api.") and name.islower()}
    assert calls == set(map(call_of, COMMANDS))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_call_is_documented_and_its_types_resolve(command):
    call = getattr(toolkit, call_of(command))
    function = call if inspect.isfunction(call) else toolkit._call_of(call)
    told = re.search(r"Args:\n(.*?)(\n\n|\Z)", inspect.getdoc(function) or "", re.DOTALL)
    parameters = inspect.signature(function).parameters
    assert re.findall(r"^    (\w+): ", told[1] if told else "", re.MULTILINE) == list(parameters)
    own = {**vars(toolkit), **vars(inspect.getmodule(inspect.unwrap(function)))}
    from toolkit.lazy import keras

    assert typing.get_type_hints(function, {**own, "Preprocessing": toolkit.Preprocessing, "keras": keras})
