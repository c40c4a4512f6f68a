"""Values of options that argparse has no type for."""

import pytest

from toolkit.api.options import seconds as seconds_of
from toolkit.cli.parser import build_parser


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
