"""The parts that protocols' routes share: a bundle and version out of a path, JSON out."""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from toolkit.serving import protocol
from toolkit.serving.protocol import RequestError


def target(request: Request) -> tuple[str, int | None]:
    """Give the bundle's name and the version, if one is named, that a path holds as ``name`` and ``version``.

    Raises:
        RequestError: what stands for a version can be none.
    """
    name, text = request.path_params["name"], request.path_params.get("version")
    return name, None if text is None else _number(name, text)


def _number(name: str, text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= 18:
        return int(text)
    shown = text if len(text) <= 40 else f"{text[:40]}…"
    raise RequestError(f"Servable not found for request: Specific({name}, {shown})", 404)


def json_response(content: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer JSON that is written already."""
    return Response(content, status, headers, media_type="application/json")


def json_document(document: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer a document as JSON."""
    return json_response(protocol.dump(document), status, headers)
