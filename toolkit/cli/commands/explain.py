"""The command that shows where in a picture a network's evidence lies, and the inside of the network."""

from argparse import Namespace
from typing import Any

from toolkit.cli.options import given
from toolkit.cli.output import print_json, print_table


def explain(arguments: Namespace) -> None:
    from toolkit.api.explaining import explain as call

    result = call(**given(arguments, call))
    if arguments.json:
        return print_json(result)
    if "stages" in result:
        return _print_statistics(result["stages"])
    for line in result.words:
        print(line)
    return print(f"drawn to {arguments.out}") if arguments.out else None


def _print_statistics(rows: list[dict[str, Any]]) -> None:
    table = [
        [
            *(row["stage"], row["layer"], "×".join(map(str, row["shape"]))),
            *(f"{row[key]:.4g}" for key in ("mean", "deviation", "largest")),
            *(100 * row["zeros"], row["silent"]),
        ]
        for row in rows
    ]
    print_table(table, ["stage", "layer", "map", "mean", "deviation", "largest", "zeros %", "silent channels"])
