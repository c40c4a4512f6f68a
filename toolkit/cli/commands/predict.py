"""The command that classifies pictures, and prints answers as they come."""

import csv
import json
import sys
import textwrap
from argparse import Namespace
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from toolkit.cli.inputs import Input, find_pictures, nothing_answered
from toolkit.errors import UserError, one_line

if TYPE_CHECKING:
    from toolkit.inference.predictor import NamedAnswer


def predict(arguments: Namespace) -> None:
    if arguments.server:
        _require_served(arguments)
    else:
        from toolkit.bundle import find_bundle

        for bundle in (arguments.bundle, *arguments.others):
            find_bundle(bundle)
    pictures = find_pictures(arguments.images)
    printer = _Json() if arguments.json else _Csv() if arguments.csv else _Text()
    refused: list[dict[str, Any]] = []  # those before the first answer: if none follows, one line will do
    answered = num_refused = 0
    for answer in _answers(arguments, pictures):
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


def _answers(arguments: Namespace, pictures: list[Input]) -> Iterator[dict[str, Any]]:
    from toolkit.inference.choice import require_engine
    from toolkit.progress import step

    require_engine(arguments.engine)
    paths = [picture.path for picture in pictures if not picture.reason]
    ask = _found_over_ray if arguments.cluster else _found_by_server if arguments.server else _found
    found = ask(arguments, paths)
    with step("classifying", len(pictures)) as told:
        for done, (path, reason) in enumerate(pictures, start=1):
            answer = UserError(reason) if reason else next(found)
            yield {"path": path} | _document(answer, path)
            told(done)


def _found(arguments: Namespace, paths: list[str]) -> "Iterator[NamedAnswer | UserError]":
    from toolkit.inference import Predictor

    bundles = [arguments.bundle, *arguments.others]
    predictor = Predictor.load_several(bundles, arguments.engine, crops=arguments.crops, scales=arguments.scales)
    for answer in predictor.iter_answers(paths):
        yield answer if isinstance(answer, UserError) else predictor.named(answer, arguments.top_k)


def _found_over_ray(arguments: Namespace, paths: list[str]) -> "Iterator[NamedAnswer | UserError]":
    from toolkit.workflows.ray_predict import PredictOptions, predict_over_ray

    return predict_over_ray(
        [arguments.bundle, *arguments.others],
        paths,
        PredictOptions(arguments.engine, arguments.crops, arguments.scales, arguments.top_k),
        address=arguments.cluster,
    )


def _found_by_server(arguments: Namespace, paths: list[str]) -> "Iterator[NamedAnswer | UserError]":
    from toolkit.client import Client

    name, _, version = str(arguments.bundle).partition("/")
    with Client(arguments.server, name, int(version) if version.isdecimal() else version or None) as client:
        yield from client.iter_answers(paths, top_k=arguments.top_k)


def _require_served(arguments: Namespace) -> None:
    """Refuse what a server cannot be asked for."""
    if str(arguments.bundle).count("/") > 1 or arguments.bundle.is_absolute():
        raise UserError(
            f"{arguments.bundle}: with --server expected the name of a bundle that it serves: NAME, NAME/VERSION or "
            f"NAME/LABEL"
        )
    own = {"--with": arguments.others, "--crops": arguments.crops != 1, "--scales": arguments.scales}
    own |= {"--engine": arguments.engine != "auto", "--cluster": arguments.cluster}
    if given := [option for option, value in own.items() if value]:
        raise UserError(
            f"{given[0]} has no effect on a server, which was started with settings of its own; leave it out"
        )


def _document(answer: "NamedAnswer | UserError", path: str) -> dict[str, Any]:
    """Put an answer together; of bundles that do not tell novelty, without it."""
    if isinstance(answer, UserError):
        return {"error": answer.reason(path)}
    document = {"predictions": [vars(prediction) for prediction in answer.predictions], "rejected": bool(answer.reason)}
    return document if answer.novelty is None else document | {"reason": answer.reason, "novelty": answer.novelty}


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
