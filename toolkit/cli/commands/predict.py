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
    from toolkit.inference import Prediction


def predict(arguments: Namespace) -> None:
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
    found = _found_over_ray(arguments, paths) if arguments.cluster else _found(arguments, paths)
    with step("classifying", len(pictures)) as told:
        for done, (path, reason) in enumerate(pictures, start=1):
            answer = {"error": reason} if reason else next(found)
            if isinstance(answer, UserError):
                answer = {"error": answer.reason(path)}
            yield {"path": path} | answer
            told(done)


def _found(arguments: Namespace, paths: list[str]) -> Iterator[dict[str, Any] | UserError]:
    from toolkit.inference import Predictor

    bundles = [arguments.bundle, *arguments.others]
    predictor = Predictor.load_several(bundles, arguments.engine, crops=arguments.crops, scales=arguments.scales)
    for answer in predictor.iter_answers(paths):
        if isinstance(answer, UserError):
            yield answer
        else:
            best = predictor.top(answer.probabilities, arguments.top_k)
            yield _document(best, predictor.reason(answer), answer.novelty)


def _document(predictions: list["Prediction"], reason: str, novelty: float | None) -> dict[str, Any]:
    """Put an answer together; of bundles that do not tell novelty, without it."""
    document = {"predictions": [vars(prediction) for prediction in predictions], "rejected": bool(reason)}
    return document if novelty is None else document | {"reason": reason, "novelty": novelty}


def _found_over_ray(arguments: Namespace, paths: list[str]) -> Iterator[dict[str, Any] | UserError]:
    from toolkit.workflows.ray_predict import PredictOptions, predict_over_ray

    answers = predict_over_ray(
        [arguments.bundle, *arguments.others],
        paths,
        PredictOptions(arguments.engine, arguments.crops, arguments.scales, arguments.top_k),
        address=arguments.cluster,
    )
    for answer in answers:
        if isinstance(answer, UserError):
            yield answer
        else:
            yield _document(answer.predictions, answer.reason, answer.novelty)


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
