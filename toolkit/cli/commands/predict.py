"""The command that classifies pictures, and prints answers as they come."""

import csv
import json
import sys
import textwrap
from argparse import Namespace
from typing import Any

from toolkit.cli.options import given
from toolkit.errors import one_line


def predict(arguments: Namespace) -> None:
    from toolkit.api.predicting import Picture, Request
    from toolkit.inference.inputs import find_pictures, nothing_answered

    request = Request(**given(arguments, Request))
    request.check()
    pictures = [Picture.found(found) for found in find_pictures(arguments.images)]
    printer = _Json() if arguments.json else _Csv() if arguments.csv else _Text()
    refused: list[dict[str, Any]] = []  # those before the first answer: if none follows, one line will do
    answered = num_refused = 0
    for answer in request.answers(pictures):
        num_refused += "error" in answer
        answered += "error" not in answer
        refused.append(answer)
        if answered:
            for row in refused:
                _print(row, printer)
            refused.clear()
    if not answered:
        raise nothing_answered([f"{row['path']}: {row['error']}" for row in refused])
    printer.end()
    if num_refused:
        raise SystemExit(1)


def _print(answer: dict[str, Any], printer: "_Text") -> None:
    if "error" in answer:
        print(one_line(f"toolkit: error: {answer['path']}: {answer['error']}"), file=sys.stderr)
    printer(answer)


class _Text:
    """A line for each answer."""

    def __call__(self, answer: dict[str, Any]) -> None:
        if "error" in answer:
            return
        named = ", ".join(f"{p['label']} {100 * p['probability']:.1f} %" for p in answer["predictions"])
        if answer["rejected"]:
            unlike = "unlike the pictures of every class; " if answer.get("reason") == "unfamiliar" else ""
            named = f"none of these ({unlike}{named})"
        print(one_line(f"{answer['path']}: {named}"))

    def end(self) -> None: ...


class _Json(_Text):
    """One document, a list of answers and errors."""

    def __init__(self) -> None:
        self._row = ""  # waits to learn if a comma follows it: whole lines alone get past a bar on the terminal

    def __call__(self, answer: dict[str, Any]) -> None:
        print(f"{self._row}," if self._row else "[")
        self._row = textwrap.indent(json.dumps(answer, indent=1, ensure_ascii=False), " ")

    def end(self) -> None:
        print(f"{self._row}\n]")


class _Csv(_Text):
    """A table of answers: the best label in the first columns, those after it in the last."""

    def __init__(self) -> None:
        self._table = csv.writer(sys.stdout, lineterminator="\n")
        self._has_header = False

    def __call__(self, answer: dict[str, Any]) -> None:
        if "error" in answer:
            return
        best, *others = answer["predictions"]
        if not self._has_header:
            further = [f"{field}_{rank}" for rank in range(2, len(others) + 2) for field in ("label", "probability")]
            novelty = ["reason", "novelty"] if "novelty" in answer else []
            self._table.writerow(["path", "label", "probability", "rejected", *further, *novelty])
            self._has_header = True
        cells = [cell for other in others for cell in other.values()]
        rejected = str(answer["rejected"]).lower()
        cells += [answer["reason"], answer["novelty"]] if "novelty" in answer else []
        self._table.writerow([answer["path"], best["label"], best["probability"], rejected, *cells])
