"""The action that shows a bundle at work on its own pictures."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from toolkit.cli.options import given
from toolkit.cli.output import print_json, print_table


def show_examples(arguments: Namespace) -> None:
    from toolkit.api.bundles.versions import answer_examples as call

    report = call(**given(arguments, call))
    rows = report["rows"]
    if arguments.json:
        return print_json(report)
    header = ["picture", "true label", "the network says", "probability %", ""]
    print_table([[*_cells(row), _verdict(row)] for row in rows], header)
    told = [row for row in rows if row["true_label"] is not None]
    right = sum(_verdict(row) == "right" for row in told)
    return print(f"{right} of {len(told)} right" if told else "their true labels are not known")


def _cells(row: dict[str, Any]) -> list[Any]:
    return [Path(row["path"]).name, row["true_label"], row["label"], 100 * row["probability"]]


def _verdict(row: dict[str, Any]) -> str:
    if row["rejected"]:
        return "refused"
    return "" if row["true_label"] is None else "right" if row["label"] == row["true_label"] else "wrong"
