"""TensorFlow Serving's gRPC services over the same service as HTTP: Predict, GetModelMetadata and GetModelStatus."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import numpy as np
from anyio import to_thread
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from starlette.datastructures import Headers

from toolkit.errors import one_line
from toolkit.inference import Predictor
from toolkit.machine import cannot_listen
from toolkit.serving import protocol
from toolkit.serving.messages import DATA_TYPES, message_type
from toolkit.serving.models import Question
from toolkit.serving.operation.security import ApiKeys
from toolkit.serving.options import ServerOptions
from toolkit.serving.protocol import SIGNATURES, RequestError
from toolkit.serving.service import Service, internal_error
from toolkit.serving.traffic import KEY_HEADER

log = logging.getLogger(__name__)

_PREDICTION, _MODELS = "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"
_TYPES = {"image_bytes": "DT_STRING", "pixels": "DT_UINT8"}
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}
_MAX_DETAILS = 1000  # characters of an error: it travels in a header
#: Calls that a process takes at once at least, of whatever method and bundle.
MAX_CALLS = 256
#: Beyond ``body_seconds``, a message gets a second for so many bytes of the largest: nobody tells how many have come.
MIN_BYTES_A_SECOND = 1 << 20

_KEY_NEEDED = "an API key is needed: send it as the metadata authorization: Bearer KEY or x-api-key: KEY"

#: Answers a request message, given its bytes and the metadata, too.
_Call = Callable[[Any, bytes, dict[str, str]], Awaitable[Any]]


@contextlib.asynccontextmanager
async def grpc_server(service: Service, keys: ApiKeys | None, host: str) -> AsyncIterator[int]:
    """Answer gRPC on this event loop until the context ends, and give the port, which for 0 is a free one.

    Its requests pass the same queues, limits and figures as those by HTTP, and show a key where those must.

    Args:
        service: what answers; its options name the port, the limits and the certificate.
        keys: of which a request must show one; None where nobody is asked.
        host: address to listen on.

    Raises:
        UserError: the address cannot be listened on.
    """
    options = service.options
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", options.max_body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", int(options.workers > 1)),  # else a second server would share the port
        ],
        maximum_concurrent_rpcs=max(MAX_CALLS, 4 * options.places),  # each bundle has a queue of its own
    )
    calls = _Calls(service)
    methods: dict[str, dict[str, _Call]] = {
        _PREDICTION: {"Predict": calls.predict, "GetModelMetadata": calls.metadata},
        _MODELS: {"GetModelStatus": calls.status},
    }
    for name, functions in methods.items():
        handlers = {method: _handler(method, function, service, keys) for method, function in functions.items()}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    address = f"[{host}]:{options.grpc_port}" if ":" in host else f"{host}:{options.grpc_port}"
    try:
        credentials = _credentials(options)
        bound = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError as error:
        raise cannot_listen(OSError(str(error)), host, options.grpc_port or 0, "--grpc-port") from None
    await server.start()
    log.info("gRPC on %s port %d", host, bound)
    try:
        yield bound
    finally:
        await server.stop(options.grace)


def _credentials(options: ServerOptions) -> grpc.ServerCredentials | None:
    if options.tls_cert is None:
        return None
    chain = options.tls_cert.read_bytes()
    return grpc.ssl_server_credentials([((options.tls_key or options.tls_cert).read_bytes(), chain)])


def _handler(method: str, function: _Call, service: Service, keys: ApiKeys | None) -> grpc.RpcMethodHandler:
    """Wrap a function from request to response message: a key is asked for, errors become statuses.

    The handler is one of a stream of messages, which on the wire is the same: it is called before the message has come,
    and can refuse those who show no key or never send one. They count among the calls that are taken at once.
    """
    request_type = message_type(f"{method}Request")

    async def answer(messages: AsyncIterator[bytes], metadata: dict[str, str]) -> Any:
        if keys is not None and not keys.admit(Headers(metadata)):
            raise RequestError(_KEY_NEEDED, 401)
        content = await _message(messages, service.options)
        try:
            request = request_type.FromString(content)
        except DecodeError:
            raise RequestError(f"the request is not a {method}Request") from None
        return await function(request, content, metadata)

    async def handle(messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> bytes:
        start, requests = time.perf_counter(), service.metrics.requests
        metadata = {key: str(value) for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        try:
            response = await answer(messages, metadata)
            answered: bytes = response.SerializeToString()
        except Exception as error:
            problem = error if isinstance(error, RequestError) else internal_error(error)
        else:
            model = response.model_spec.name if method != "GetModelStatus" else ""
            requests.labels("grpc", model, grpc.StatusCode.OK.name).inc()
            return answered
        finally:
            service.metrics.seconds.labels("grpc").observe(time.perf_counter() - start)
        code = _CODES.get(problem.status, grpc.StatusCode.INVALID_ARGUMENT)
        requests.labels("grpc", "", code.name).inc()
        after = () if problem.retry_after is None else (("retry-after", str(problem.retry_after)),)
        return await context.abort(code, one_line(str(problem)[:_MAX_DETAILS]), after)  # which raises

    return grpc.stream_unary_rpc_method_handler(handle)  # bytes in and out: what cannot be parsed is an answer too


async def _message(messages: AsyncIterator[bytes], options: ServerOptions) -> bytes:
    seconds = options.body_seconds + options.max_body_bytes / MIN_BYTES_A_SECOND
    try:
        async with asyncio.timeout(seconds):
            return await anext(aiter(messages))
    except StopAsyncIteration:
        raise RequestError("the call ended without a message") from None
    except TimeoutError:
        raise RequestError(f"the message came too slowly; it was not there after {seconds:.3g} s", 408) from None


class _Calls:
    """Requests taken apart and answers put together."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._table = service.table

    async def predict(self, request: Any, content: bytes, given: dict[str, str]) -> Any:
        signature = protocol.known_signature(request.model_spec.signature_name)
        (key, _) = SIGNATURES[signature]
        if set(request.inputs) != {key}:
            found = ", ".join(map(repr, sorted(request.inputs))) or "none"
            raise RequestError(f"inputs must be equal to: {key!r}, got {found}")
        max_pictures = self._service.options.max_pictures

        def parse(_: bytes, predictor: Predictor) -> Question:
            size = predictor.manifest.preprocessing.size
            return _read_question(signature, request.inputs[key], size, max_pictures)

        name, version = await self._target(request.model_spec)
        reply = await self._service.answer_content(name, version, content, parse, key=given.get(KEY_HEADER, ""))
        outputs = reply.outputs()
        wanted = list(request.output_filter) or list(outputs)
        if unknown := [output for output in wanted if output not in outputs]:
            raise RequestError(f"output_filter: no output {unknown[0]!r}; there are {', '.join(outputs)}")
        response: Any = message_type("PredictResponse")()
        _set_spec(response.model_spec, name, reply.version, signature)
        for output in wanted:
            _write_tensor(response.outputs[output], outputs[output])
        return response

    async def metadata(self, request: Any, *_: Any) -> Any:
        fields = list(request.metadata_field)
        if not fields:
            raise RequestError("GetModelMetadataRequest must specify at least one metadata_field: signature_def")
        if unknown := [field for field in fields if field != "signature_def"]:
            raise RequestError(f"Metadata field {unknown[0]} is not supported; there is signature_def")
        name, version = await self._target(request.model_spec)
        number, manifest = await to_thread.run_sync(self._table.manifest, name, version)
        document = {"signature_def": protocol.signatures_of(manifest)}
        signatures = json_format.ParseDict(document, message_type("SignatureDefMap")())
        response: Any = message_type("GetModelMetadataResponse")()
        _set_spec(response.model_spec, name, number, "")
        response.metadata["signature_def"].type_url = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
        response.metadata["signature_def"].value = signatures.SerializeToString()
        return response

    async def status(self, request: Any, *_: Any) -> Any:
        name, version = await self._target(request.model_spec)
        statuses = await to_thread.run_sync(self._table.statuses, name, version)
        document = protocol.status_of(statuses, self._table.loading(name))
        return json_format.ParseDict(document, message_type("GetModelStatusResponse")())

    async def _target(self, spec: Any) -> tuple[str, int | None]:
        if spec.version_label:
            return spec.name, await to_thread.run_sync(self._table.labelled, spec.name, spec.version_label)
        return spec.name, spec.version.value if spec.HasField("version") else None


def _set_spec(spec: Any, name: str, version: int, signature: str) -> None:
    spec.name, spec.version.value, spec.signature_name = name, version, signature


def _read_question(signature: str, tensor: Any, size: tuple[int, int], max_pictures: int) -> Question:
    """Take a tensor apart into its pictures.

    Raises:
        RequestError: another type or shape, or values that do not fill it.
    """
    (name, _) = SIGNATURES[signature]
    if tensor.dtype != DATA_TYPES[_TYPES[name]]:
        raise RequestError(f"inputs[{name!r}]: expected a tensor of {_TYPES[name]}, got type number {tensor.dtype}")
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    ending = [] if name == "image_bytes" else [*size, 3]
    if tensor.tensor_shape.unknown_rank or len(shape) != 1 + len(ending) or shape[1:] != ending or shape[0] < 1:
        raise RequestError(f"inputs[{name!r}]: expected the shape {['pictures', *ending]}, got {shape}")
    protocol.require_few(shape[0], max_pictures)
    pictures: list[bytes] | np.ndarray
    if name == "image_bytes":
        given = list(tensor.string_val)
        _require_filling(name, len(given), shape[0])
        pictures = given + given[-1:] * (shape[0] - len(given))
    else:
        pictures = _pixels(name, tensor, shape)
    return Question(signature, pictures, "inputs[{}]".format)


def _pixels(name: str, tensor: Any, shape: list[int]) -> np.ndarray:
    if tensor.tensor_content:
        pixels = np.frombuffer(tensor.tensor_content, np.uint8)
    else:
        given = np.fromiter(tensor.int_val, np.int32, len(tensor.int_val))
        if given.size and not (given.min() >= 0 and given.max() <= 255):
            raise RequestError(f"inputs[{name!r}]: pixels must be whole numbers from 0 to 255")
        _require_filling(name, given.size, math.prod(shape))
        pixels = np.full(math.prod(shape), given[-1], np.uint8)
        pixels[: given.size] = given
    if pixels.size != math.prod(shape):
        raise RequestError(f"inputs[{name!r}]: {pixels.size} values do not fill the shape {shape}")
    return pixels.reshape(shape)


def _require_filling(name: str, given: int, count: int) -> None:
    """Refuse too many values, or none; where there are too few, the last one is repeated, as TensorFlow does."""
    if not 0 < given <= count:
        raise RequestError(f"inputs[{name!r}]: {given} values do not fill a shape of {count}")


def _write_tensor(tensor: Any, values: Any) -> None:
    array = np.asarray(values)
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    # In the typed fields, as TensorFlow Serving does by default: many clients read float_val.
    if array.dtype.kind in "US":
        tensor.dtype = DATA_TYPES["DT_STRING"]
        tensor.string_val.extend(text.encode("utf-8", "surrogateescape") for text in array.ravel().tolist())
    else:
        tensor.dtype = DATA_TYPES["DT_FLOAT"]
        tensor.float_val.extend(array.ravel().tolist())
