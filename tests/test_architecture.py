"""The walks in ``docs/architecture.md`` name functions that exist, and its rows are those of the import contract."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def _names() -> list[str]:
    walks = PAGE[PAGE.index("### A JPEG") : PAGE.index("## What may import what")]
    rows = [row for row in walks.splitlines() if row.startswith("| ") and "`" in row.rpartition(" | ")[2]]
    found = []
    for row in rows:
        module = ""
        for name in re.findall(r"`([\w.]+)`", row.rpartition(" | ")[2]):
            module = name.rpartition(".")[0] or module  # a bare name is of the module named before it
            found.append(name if "." in name else f"{module}.{name}")
    return found


@pytest.mark.parametrize("name", _names())
def test_each_step_of_a_walk_is_there(name):
    parts, found = name.split("."), None
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(["toolkit", *parts[:count]]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[count:]:
            found = getattr(found, attribute)
        break
    assert found is not None


def test_the_rows_are_those_that_are_checked():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    checked = re.findall(r"toolkit\.(\w+)", " ".join(contracts[0]["layers"]))
    table = PAGE[PAGE.index("| row | modules |") : PAGE.index("`bundle` stands low")]
    cells = [row.split(" | ")[1] for row in table.splitlines()[2:] if row.startswith("|")]
    assert sorted(re.findall(r"`(\w+)`", " ".join(cells))) == sorted(checked)
