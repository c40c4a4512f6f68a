"""Pictures as they are, below ``/predict``: a file as the body, or as fields of a form, and the likeliest classes out.

curl -F file=@cat.jpg http://127.0.0.1:8501/predict/pets
curl --data-binary @cat.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8501/predict/pets
"""

from typing import Any

import numpy as np
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from toolkit.inference import Predictor
from toolkit.serving import protocol
from toolkit.serving.models import Question
from toolkit.serving.protocol import RequestError
from toolkit.serving.protocols.routing import json_document, target
from toolkit.serving.service import Reply, Service

#: Classes in an answer at most, whatever ``top`` asks for.
MAX_TOP = 1000


def routes(service: Service) -> list[Route]:
    """Make the routes."""

    async def predict(request: Request) -> Response:
        top, wants_all = _options(request)
        names: list[str] = []
        kind = request.headers.get("content-type", "")

        def parse(body: bytes, predictor: Predictor) -> Question:
            pictures = _files(body, kind, names, service.options.max_pictures)
            return Question("serving_default", pictures, lambda index: names[index] or "the body")

        reply = await service.answer(request, *target(request), parse)
        return json_document(_document(reply, request.path_params["name"], names, top, wants_all))

    paths = ("/predict/{name}", "/predict/{name}/versions/{version}")
    return [Route(path, predict, methods=["POST"]) for path in paths]


def _options(request: Request) -> tuple[int, bool]:
    unknown = set(request.query_params) - {"top", "probabilities"}
    if unknown:
        raise RequestError(f"no option {min(unknown)!r}; there are 'top' and 'probabilities'")
    text, wanted = request.query_params.get("top", str(protocol.TOP_K)), request.query_params.get("probabilities", "0")
    if not (text.isascii() and text.isdecimal() and len(text) <= 4 and 1 <= int(text) <= MAX_TOP):
        raise RequestError(f"top must be a whole number from 1 to {MAX_TOP}, got {text[:40]!r}")
    if wanted not in ("0", "1", "false", "true"):
        raise RequestError(f"probabilities must be true or false, got {wanted[:40]!r}")
    return int(text), wanted in ("1", "true")


def _files(body: bytes, content_type: str, names: list[str], limit: int) -> list[bytes]:
    """Take the pictures out of a body, their files' names into ``names``."""
    kind, options = parse_options_header(content_type)
    names.clear()
    if kind == b"multipart/form-data":
        files = _of_form(body, options.get(b"boundary", b""), limit)
        if not files:
            raise RequestError("the form holds no picture; send one as a file, as curl -F file=@cat.jpg does")
        names += [name or f"file {number}" for number, (name, _) in enumerate(files, 1)]
        return [content for _, content in files]
    if kind == b"application/json":
        raise RequestError("send a picture's bytes, or a form with files; JSON is for /v1 and /v2", 415)
    if not body:
        raise RequestError("the body is empty; send a picture's bytes, or a form with files")
    names.append("")
    return [body]


def _of_form(body: bytes, boundary: bytes, limit: int) -> list[tuple[str, bytes]]:
    """Read a form's parts, in memory: name and content of each."""
    parts: list[tuple[str, list[bytes]]] = []
    header: list[bytes] = [b"", b""]
    ended = False

    def begin() -> None:
        protocol.require_few(len(parts) + 1, limit)
        parts.append(("", []))

    def field(data: bytes, start: int, end: int) -> None:
        header[0] += data[start:end]

    def value(data: bytes, start: int, end: int) -> None:
        header[1] += data[start:end]

    def end_header() -> None:
        if header[0].lower() == b"content-disposition":
            given = parse_options_header(header[1])[1]
            if b"filename" not in given:
                field_name = given.get(b"name", b"").decode("utf-8", "replace")[:40]
                raise RequestError(f"the form's field {field_name!r} is no file; curl sends one with -F file=@cat.jpg")
            parts[-1] = (given[b"filename"].decode("utf-8", "replace")[:200], parts[-1][1])
        header[:] = [b"", b""]

    def content(data: bytes, start: int, end: int) -> None:
        parts[-1][1].append(data[start:end])

    def finish() -> None:
        nonlocal ended
        ended = True

    try:
        parser = MultipartParser(boundary, {
            "on_part_begin": begin, "on_header_field": field, "on_header_value": value, "on_header_end": end_header,
            "on_part_data": content, "on_end": finish,
        })  # fmt: skip
        parser.write(body)
    except FormParserError as error:
        raise RequestError(f"the form cannot be read: {' '.join(str(error).split())[:200]}") from None
    if not ended:
        raise RequestError("the form is cut off: its last boundary is missing")
    return [(name, b"".join(pieces)) for name, pieces in parts]


def _document(reply: Reply, name: str, names: list[str], top: int, wants_all: bool) -> dict[str, Any]:
    predictor = reply.predictor
    rows = []
    for file, answer in zip(names, reply.answers, strict=True):
        row: dict[str, Any] = {"name": file} if file else {}
        best = predictor.top(answer.probabilities, top)
        row["top"] = [{"label": each.label, "probability": np.float32(each.probability)} for each in best]
        if answer.novelty is not None:
            row["novelty"] = np.float32(answer.novelty)
        row["none_of_these"] = predictor.reason(answer)
        if wants_all:
            row["probabilities"] = answer.probabilities
        rows.append(row)
    document: dict[str, Any] = {"model": name, "version": reply.version, "predictions": rows}
    if wants_all:
        document["labels"] = predictor.labels
    return document
