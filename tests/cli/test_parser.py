"""Values of options that argparse has no type for."""

import argparse

import pytest

from toolkit.api.options import seconds as seconds_of
from toolkit.cli.options import parse, subcommands
from toolkit.cli.parser import build_parser


def all_parsers(parser):
    yield parser
    for own in subcommands(parser).values():
        yield from all_parsers(own)


@pytest.mark.parametrize("parser", list(all_parsers(build_parser())), ids=lambda parser: parser.prog)
def test_every_command_and_every_argument_has_a_help(parser):
    actions = [action for action in parser._actions if not isinstance(action, argparse._SubParsersAction)]
    assert [action.dest for action in actions if not action.help] == []
    assert parser.description


def budget(text):
    return build_parser().parse_args(f"finetune data --model m --out saved/m --budget={text}".split()).budget


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("10", 600)])
def test_budget_is_a_time(text, seconds):
    assert seconds_of(budget(text)) == seconds


@pytest.mark.parametrize("text", ["0", "-3m", "soon", "inf", "nan", "10d", "m"])
def test_what_is_no_time_is_refused(text, capsys):
    with pytest.raises(SystemExit):
        budget(text)
    assert f"expected a time such as 90s, 10m or 1.5h, got {text!r}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("--epochs 3", "--set run.epochs=3"),
        ("--batch-size=64", "--set run.batch_size=64"),
        ("--exprot x", "--export"),
    ],
)
def test_a_setting_given_as_an_option_is_told_how_to_give_it(words, meant, capsys):
    with pytest.raises(SystemExit):
        parse(build_parser(), ["train", "data", "--model", "lenet5", *words.split()])
    assert capsys.readouterr().err.endswith(f"; did you mean {meant}?\n")
