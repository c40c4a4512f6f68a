"""Help pages list what there is, whatever is added to the tables."""

import pytest

from toolkit.cli.names import NAMES
from toolkit.cli.parser import build_parser
from toolkit.compress import METHODS
from toolkit.engines import ENGINES


@pytest.mark.parametrize(
    ("command", "table"),
    [
        ("predict", "engines"),
        ("serve", "engines"),
        ("evaluate", "crops"),
        ("compress", "methods"),
        ("compress", "patterns"),
        ("finetune", "heads"),
        ("train", "recipes"),
        ("samples", "samples"),
        ("push", "shipped"),
    ],
)
def test_help_lists_the_names_of_its_table(command, table, capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args([command, "--help"])
    listed = ",".join(map(str, NAMES[table]))
    assert listed in "".join(capsys.readouterr().out.split())


def test_tables_hold_every_engine_and_method():
    assert {"litert-dynamic", "litert-float16", *ENGINES} <= set(NAMES["engines"])
    assert set(METHODS) <= set(NAMES["methods"])
