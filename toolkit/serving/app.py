"""The protocol over HTTP: routes, limits, and work kept off the event loop."""

import logging
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor

import anyio
from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from toolkit.errors import UserError
from toolkit.inference import Predictor
from toolkit.machine import num_threads
from toolkit.serving import protocol
from toolkit.serving.models import ModelTable, answer
from toolkit.serving.protocol import RequestError

log = logging.getLogger(__name__)

#: A larger request body is refused.
MAX_BODY_BYTES = 64 * 1024 * 1024
#: More pictures in one request are refused.
MAX_INSTANCES = 256

_INTERNAL = "internal error; the server's log has the details"


def build_app(table: ModelTable) -> Starlette:
    """Build the ASGI application over ``table``."""
    # Predictions run on so many threads at once; whatever else arrives waits its turn without one.
    slots = anyio.CapacityLimiter(max(2, num_threads()))
    decoders = ThreadPoolExecutor(num_threads(), thread_name_prefix="decode")

    async def health(request: Request) -> Response:
        return _json(protocol.dump({"status": "ok"}))

    async def status(request: Request) -> Response:
        name, version = _target(request)
        if ":" in name:  # as in NAME:predict, which wants a POST
            raise HTTPException(405, headers={"Allow": "POST"})
        statuses = await to_thread.run_sync(table.statuses, name, version)
        return _json(protocol.encode_status(statuses))

    async def metadata(request: Request) -> Response:
        name, version = _target(request)
        number, manifest = await to_thread.run_sync(table.manifest, name, version)
        return _json(protocol.encode_metadata(name, number, manifest))

    async def predict(request: Request) -> Response:
        _, predictor = await to_thread.run_sync(table.get, *_target(request))
        body = await _read_body(request)
        return _json(await to_thread.run_sync(_answer, predictor, body, decoders, limiter=slots))

    async def unsupported(request: Request) -> Response:
        name, version = _target(request)
        await to_thread.run_sync(table.statuses, name, version)  # an unknown bundle is the error to report first
        method = request.url.path.rpartition(":")[2]
        raise RequestError(
            f"Expected {method} signature method_name to be tensorflow/serving/{method}. "
            "Was: tensorflow/serving/predict; use :predict"
        )

    routes = [Route("/healthz", health)]
    for model in ("/v1/models/{name}", "/v1/models/{name}/versions/{version:int}"):
        routes += [
            Route(model + ":predict", predict, methods=["POST"]),
            Route(model + ":classify", unsupported, methods=["POST"]),
            Route(model + ":regress", unsupported, methods=["POST"]),
            Route(model + "/metadata", metadata),
            Route(model, status),
        ]
    errors = (RequestError, HTTPException, ClientDisconnect, Exception)
    return Starlette(routes=routes, exception_handlers=dict.fromkeys(errors, _on_error))


def _target(request: Request) -> tuple[str, int | None]:
    return request.path_params["name"], request.path_params.get("version")


async def _read_body(request: Request) -> bytes:
    if request.headers.get("content-encoding", "identity") != "identity":
        raise RequestError("compressed request bodies are not supported; send plain JSON", 415)
    limit = MAX_BODY_BYTES
    too_large = RequestError(f"the request body is larger than {limit:,} bytes; send fewer pictures at a time", 413)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


def _answer(predictor: Predictor, body: bytes, decoders: Executor) -> bytes:
    request = protocol.parse_predict(body, max_instances=MAX_INSTANCES)
    try:
        return protocol.encode_answer(answer(predictor, request, decoders), columnar=request.columnar)
    except RequestError:
        raise
    except UserError as error:
        log.error("%s", error)
        raise RequestError(str(error), 503) from None
    except Exception:
        log.exception("a prediction failed")
        raise RequestError(_INTERNAL, 500) from None


def _json(content: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(content, status, headers, media_type="application/json")


async def _on_error(request: Request, error: Exception) -> Response:
    if isinstance(error, RequestError):
        return _json(protocol.encode_error(str(error)), error.status)
    if isinstance(error, HTTPException):
        message = f"Malformed request: {request.method} {request.url.path}"
        return _json(protocol.encode_error(message), error.status_code, error.headers)
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)  # nobody is left to read it
    # Starlette raises the error again once this is sent, and the web server logs its traceback.
    return _json(protocol.encode_error(_INTERNAL), 500)
