"""The server's OpenAPI description, at ``/openapi.json``, and a page that a person reads, at ``/docs``."""

import html
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

import toolkit
from toolkit.serving.protocol import SIGNATURES
from toolkit.serving.protocols.routing import json_document
from toolkit.serving.service import Service
from toolkit.serving.traffic import KEY_HEADER

_Schema = dict[str, Any]


def routes(service: Service) -> list[Route]:
    """Make the routes."""
    has_keys = service.options.api_keys is not None

    async def description(request: Request) -> Response:
        return json_document(describe(has_keys=has_keys))

    async def page(request: Request) -> Response:
        return HTMLResponse(as_page(describe(has_keys=has_keys)))

    return [Route("/openapi.json", description), Route("/docs", page)]


def describe(*, has_keys: bool) -> _Schema:
    """Write the OpenAPI 3.1 document; ``has_keys`` tells that a request needs an API key."""
    paths: dict[str, _Schema] = {
        "/healthz": _get("alive", "Tell that the process lives.", {"status": _STRING}),
        "/readyz": _get("ready", "Tell whether every bundle is loaded; 503 until then.", {"ready": _BOOLEAN}),
        "/metrics": {"get": _operation("metrics", "Counters and latencies in Prometheus' form.", _TEXT)},
    }
    for further, suffix in (("", ""), ("/versions/{version}", "_version"), ("/labels/{label}", "_label")):
        path = f"/v1/models/{{name}}{further}"
        paths[path] = _get(f"status{suffix}", "TensorFlow Serving: the state of versions.", {}, path)
        paths[f"{path}/metadata"] = _get(f"metadata{suffix}", "TensorFlow Serving: the signatures.", {}, path)
        summary = "TensorFlow Serving: answer pictures, as rows (instances) or as columns (inputs)."
        paths[f"{path}:predict"] = _post(f"predict_v1{suffix}", summary, {"application/json": _V1_BODY}, path)
    paths["/v2"] = _get("server_v2", "Open Inference: name the server and its extensions.", {"name": _STRING})
    paths["/v2/health/live"] = _get("live_v2", "Open Inference: tell that the process lives.", {"live": _BOOLEAN})
    paths["/v2/health/ready"] = _get("ready_v2", "Open Inference: as /readyz.", {"ready": _BOOLEAN})
    index = _operation("index_v2", "Open Inference: list the versions and their states.", {"type": "array"})
    paths["/v2/repository/index"] = {"post": index}
    for path, suffix in (("/v2/models/{name}", ""), ("/v2/models/{name}/versions/{version}", "_version")):
        paths[path] = _get(f"model_v2{suffix}", "Open Inference: name the tensors.", {"name": _STRING}, path)
        paths[f"{path}/ready"] = _get(
            f"model_ready_v2{suffix}", "Open Inference: is it loaded?", {"ready": _BOOLEAN}, path
        )
        summary = "Open Inference: answer pictures; binary tensors may follow the JSON."
        paths[f"{path}/infer"] = _post(f"infer_v2{suffix}", summary, {"application/json": _V2_BODY}, path)
    for path, suffix in (("/predict/{name}", ""), ("/predict/{name}/versions/{version}", "_version")):
        bodies = {"multipart/form-data": _FORM, "image/jpeg": _BYTES, "application/octet-stream": _BYTES}
        summary = "Name the likeliest classes of pictures sent as they are."
        paths[path] = _post(
            f"predict{suffix}", summary, bodies, path, [_query("top", 5), _query("probabilities", False)]
        )
    for path in ("/v1/models/{name}:predict", "/v2/models/{name}/infer", "/predict/{name}"):  # which name no version
        paths[path]["post"]["parameters"].append(_TRAFFIC_KEY)
    document: _Schema = {
        "openapi": "3.1.0",
        "info": {"title": "toolkit", "version": toolkit.__version__, "description": "Classifiers of pictures."},
        "paths": paths,
        "components": {
            "schemas": {"Error": {"type": "object", "properties": {"error": _STRING}, "required": ["error"]}}
        },
    }
    if has_keys:
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        document["security"] = [{"bearer": []}, {"header": []}]
    return document


def as_page(document: _Schema) -> str:
    """Write the document as one HTML page that needs nothing from elsewhere."""
    rows = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            bodies = ", ".join(operation.get("requestBody", {}).get("content", {}))
            cells = (method.upper(), f"<code>{html.escape(path)}</code>", html.escape(operation["summary"]), bodies)
            rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return _PAGE.replace("ROWS", "\n".join(rows)).replace("VERSION", html.escape(document["info"]["version"]))


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>toolkit: the server's routes</title>
<style>
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% } td, th { padding: .35rem .6rem; text-align: left; vertical-align: top }
tr { border-bottom: 1px solid #8884 } pre { background: #8882; overflow-x: auto; padding: .8rem }
</style></head><body>
<h1>The server's routes</h1>
<p>toolkit VERSION. For programs: <a href="openapi.json">openapi.json</a>.</p>
<pre>curl -F file=@cat.jpg http://127.0.0.1:8501/predict/NAME
curl --data-binary @cat.jpg -H 'Content-Type: image/jpeg' 'http://127.0.0.1:8501/predict/NAME?top=3&amp;probabilities=true'</pre>
<table><thead><tr><th>Method</th><th>Path</th><th>Does</th><th>Takes</th></tr></thead><tbody>
ROWS
</tbody></table></body></html>
"""

_STRING: _Schema = {"type": "string"}
_BOOLEAN: _Schema = {"type": "boolean"}
_TEXT: _Schema = {"text/plain": {"schema": _STRING}}
_BYTES: _Schema = {"type": "string", "format": "binary"}
_FORM: _Schema = {"type": "object", "properties": {"file": {"type": "array", "items": _BYTES}}, "required": ["file"]}
_B64: _Schema = {"type": "object", "properties": {"b64": _STRING}, "required": ["b64"], "additionalProperties": False}
_V1_BODY: _Schema = {
    "type": "object",
    "properties": {
        "signature_name": {"type": "string", "enum": list(SIGNATURES)},
        "instances": {"type": "array", "items": _B64, "minItems": 1},
        "inputs": {"type": "array", "items": _B64, "minItems": 1},
    },
}
_V2_TENSOR: _Schema = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "enum": ["image_bytes", "pixels"]},
        "datatype": {"type": "string", "enum": ["BYTES", "UINT8"]},
        "shape": {"type": "array", "items": {"type": "integer"}},
        "parameters": {"type": "object"},
        "data": {"type": "array"},
    },
    "required": ["name", "datatype", "shape"],
}
_V2_BODY: _Schema = {
    "type": "object",
    "properties": {
        "id": _STRING,
        "inputs": {"type": "array", "items": _V2_TENSOR, "minItems": 1, "maxItems": 1},
        "outputs": {"type": "array", "items": {"type": "object", "properties": {"name": _STRING}}},
        "parameters": {"type": "object"},
    },
    "required": ["inputs"],
}
_TRAFFIC_KEY: _Schema = {
    "name": KEY_HEADER,
    "in": "header",
    "required": False,
    "description": "Requests with the same value are answered by the same label's version, where labels share them.",
    "schema": _STRING,
}
_ERRORS = {
    "400": "The request is not as it must be; the message says where.",
    "401": "An API key is needed.",
    "404": "No such bundle or version.",
    "408": "The body came too slowly.",
    "413": "Too many bytes, or pixels.",
    "415": "The body is of a kind that is not taken.",
    "429": "Too many requests wait already; Retry-After says when to try again.",
    "503": "The bundle cannot be loaded, or not yet.",
}


def _query(name: str, default: Any) -> _Schema:
    kind = {"type": "boolean"} if isinstance(default, bool) else {"type": "integer", "minimum": 1, "maximum": 1000}
    return {"name": name, "in": "query", "required": False, "schema": kind | {"default": default}}


def _operation(name: str, summary: str, answered: _Schema, path: str = "") -> _Schema:
    content = answered if "text/plain" in answered else {"application/json": {"schema": answered}}
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    responses: dict[str, _Schema] = {"200": {"description": "The answer.", "content": content}}
    responses |= {code: {"description": text, "content": error} for code, text in _ERRORS.items()}
    operation: _Schema = {"operationId": name, "summary": summary, "responses": responses}
    parameters = []
    if "{name}" in path:
        parameters.append({"name": "name", "in": "path", "required": True, "schema": _STRING})
    if "{version}" in path:
        whole = {"type": "integer", "minimum": 0}
        parameters.append({"name": "version", "in": "path", "required": True, "schema": whole})
    if "{label}" in path:
        parameters.append({"name": "label", "in": "path", "required": True, "schema": _STRING})
    return operation | {"parameters": parameters} if parameters else operation


def _get(name: str, summary: str, properties: _Schema, path: str = "") -> _Schema:
    return {"get": _operation(name, summary, {"type": "object", "properties": properties}, path)}


def _post(
    name: str, summary: str, bodies: dict[str, _Schema], path: str, further: list[_Schema] | None = None
) -> _Schema:
    operation = _operation(name, summary, {"type": "object"}, path)
    operation["requestBody"] = {"required": True, "content": {kind: {"schema": body} for kind, body in bodies.items()}}
    operation["parameters"] += further or []
    return {"post": operation}
