"""TensorFlow Serving's gRPC services over the same bundles: Predict, GetModelMetadata and GetModelStatus."""

import base64
import contextlib
import json
import logging
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from toolkit.bundle import labelled_version
from toolkit.errors import UserError, one_line
from toolkit.machine import bind_address, cannot_listen, num_threads
from toolkit.serving import protocol
from toolkit.serving.messages import message_type
from toolkit.serving.models import ModelTable, answer
from toolkit.serving.protocol import SIGNATURES, PredictRequest, RequestError

log = logging.getLogger(__name__)

#: A larger message is refused.
MAX_MESSAGE_BYTES = 64 * 1024 * 1024
#: More pictures in one request are refused.
MAX_PICTURES = 256
#: Requests under way or waiting; more are refused as RESOURCE_EXHAUSTED.
MAX_REQUESTS = 64
#: At shutdown, requests in progress get so long to finish.
GRACE_SECONDS = 10

_PREDICTION, _MODELS = "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"
_TYPES = {"image_bytes": "DT_STRING", "pixels": "DT_UINT8"}
_NUMBERS = {"DT_FLOAT": 1, "DT_UINT8": 4, "DT_STRING": 7}
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
_MAX_DETAILS = 1000  # characters of an error: it travels in a header


@contextlib.contextmanager
def grpc_server(table: ModelTable, directory: str | Path, *, host: str, port: int) -> Iterator[int]:
    """Answer gRPC over ``table`` until the block ends, and give the port: that one, or for 0 a free one.

    Args:
        table: the bundles.
        directory: where they lie, with their versions' labels.
        host: address to listen on.
        port: 0 takes any free one.

    Raises:
        UserError: the address cannot be listened on.
    """
    # gRPC says of a failure only that there was one.
    bind_address(host, port, "--grpc-port").close()
    options = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),  # else a second server would share the port
    ]
    pool = ThreadPoolExecutor(max(2, num_threads()), thread_name_prefix="grpc")
    server = grpc.server(pool, options=options, maximum_concurrent_rpcs=MAX_REQUESTS)
    with ThreadPoolExecutor(num_threads(), thread_name_prefix="decode") as decoders:
        service = _Service(table, directory, decoders)
        methods = {
            _PREDICTION: {"Predict": service.predict, "GetModelMetadata": service.metadata},
            _MODELS: {"GetModelStatus": service.status},
        }
        for name, functions in methods.items():
            handlers = {method: _handler(method, function) for method, function in functions.items()}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        try:
            bound = server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except RuntimeError as error:
            raise cannot_listen(OSError(str(error)), host, port, "--grpc-port") from None
        server.start()
        try:
            yield bound
        finally:
            server.stop(GRACE_SECONDS).wait()
            pool.shutdown()


def _handler(method: str, function: Callable[[Any], Any]) -> grpc.RpcMethodHandler:
    """Wrap a function from request to response message, whose errors become statuses."""
    request_type = message_type(f"{method}Request")

    def handle(content: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            return function(request_type.FromString(content)).SerializeToString()
        except DecodeError:
            code, details = grpc.StatusCode.INVALID_ARGUMENT, f"the request is not a {method}Request"
        except RequestError as error:
            code, details = _CODES.get(error.status, grpc.StatusCode.INVALID_ARGUMENT), str(error)
        except UserError as error:
            log.error("%s", error)
            code, details = grpc.StatusCode.UNAVAILABLE, str(error)
        except Exception:
            log.exception("a gRPC request failed")
            code, details = grpc.StatusCode.INTERNAL, "internal error; the server's log has the details"
        return context.abort(code, one_line(details[:_MAX_DETAILS]))  # which raises

    return grpc.unary_unary_rpc_method_handler(handle)  # bytes in and out: what cannot be parsed is an answer too


class _Service:
    """Requests taken apart and answers put together."""

    def __init__(self, table: ModelTable, directory: str | Path, decoders: ThreadPoolExecutor) -> None:
        self._table = table
        self._directory = Path(directory)
        self._decoders = decoders

    def predict(self, request: Any) -> Any:
        version, predictor = self._table.get(*self._target(request.model_spec))
        signature = request.model_spec.signature_name or "serving_default"
        if signature not in SIGNATURES:
            raise RequestError(
                f'Serving signature name: "{signature}" not found in signature def; there are {", ".join(SIGNATURES)}'
            )
        (name, _) = SIGNATURES[signature]
        if set(request.inputs) != {name}:
            given = ", ".join(map(repr, sorted(request.inputs))) or "none"
            raise RequestError(f"inputs must be equal to: {name!r}, got {given}")
        values = _read_pictures(name, request.inputs[name], predictor.manifest.preprocessing.size)
        outputs = answer(predictor, PredictRequest(signature, values, columnar=True), self._decoders)
        wanted = list(request.output_filter) or list(outputs)
        if unknown := [output for output in wanted if output not in outputs]:
            raise RequestError(f"output_filter: no output {unknown[0]!r}; there are {', '.join(outputs)}")
        response = message_type("PredictResponse")()
        _set_spec(response.model_spec, request.model_spec.name, version, signature)
        for output in wanted:
            _write_tensor(response.outputs[output], outputs[output])
        return response

    def metadata(self, request: Any) -> Any:
        fields = list(request.metadata_field)
        if not fields:
            raise RequestError("GetModelMetadataRequest must specify at least one metadata_field: signature_def")
        if unknown := [field for field in fields if field != "signature_def"]:
            raise RequestError(f"Metadata field {unknown[0]} is not supported; there is signature_def")
        name, version = self._target(request.model_spec)
        number, manifest = self._table.manifest(name, version)
        document = json.loads(protocol.encode_metadata(name, number, manifest))["metadata"]["signature_def"]
        signatures = json_format.ParseDict(document, message_type("SignatureDefMap")())
        response = message_type("GetModelMetadataResponse")()
        _set_spec(response.model_spec, name, number, "")
        response.metadata["signature_def"].type_url = "type.googleapis.com/tensorflow.serving.SignatureDefMap"
        response.metadata["signature_def"].value = signatures.SerializeToString()
        return response

    def status(self, request: Any) -> Any:
        statuses = self._table.statuses(*self._target(request.model_spec))
        document = json.loads(protocol.encode_status(statuses))
        return json_format.ParseDict(document, message_type("GetModelStatusResponse")())

    def _target(self, spec: Any) -> tuple[str, int | None]:
        if spec.version_label:
            try:
                return spec.name, labelled_version(self._directory, spec.name, spec.version_label)
            except UserError as error:
                raise RequestError(str(error), 404) from None
        return spec.name, spec.version.value if spec.HasField("version") else None


def _set_spec(spec: Any, name: str, version: int, signature: str) -> None:
    spec.name, spec.version.value, spec.signature_name = name, version, signature


def _read_pictures(name: str, tensor: Any, size: tuple[int, int]) -> list[Any]:
    """Take a tensor apart into its pictures, in the form that JSON has them in.

    Raises:
        RequestError: another type or shape, or values that do not fill it.
    """
    if tensor.dtype != _NUMBERS[_TYPES[name]]:
        raise RequestError(f"inputs[{name!r}]: expected a tensor of {_TYPES[name]}, got type number {tensor.dtype}")
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    ending = [] if name == "image_bytes" else [*size, 3]
    if tensor.tensor_shape.unknown_rank or len(shape) != 1 + len(ending) or shape[1:] != ending or shape[0] < 1:
        raise RequestError(f"inputs[{name!r}]: expected the shape {['pictures', *ending]}, got {shape}")
    if shape[0] > MAX_PICTURES:
        raise RequestError(f"{shape[0]} pictures in one request; this server takes at most {MAX_PICTURES}")
    if name == "image_bytes":
        contents = _filled(name, list(tensor.string_val), shape[0])
        return [{"b64": base64.b64encode(content).decode("ascii")} for content in contents]
    if tensor.tensor_content:
        pixels = np.frombuffer(tensor.tensor_content, np.uint8)
    else:
        given = np.asarray(tensor.int_val)
        if given.size and not (given.min() >= 0 and given.max() <= 255):
            raise RequestError(f"inputs[{name!r}]: pixels must be whole numbers from 0 to 255")
        pixels = np.asarray(_filled(name, list(given), math.prod(shape)), np.uint8)
    if pixels.size != math.prod(shape):
        raise RequestError(f"inputs[{name!r}]: {pixels.size} values do not fill the shape {shape}")
    return list(pixels.reshape(shape))


def _filled(name: str, values: list[Any], count: int) -> list[Any]:
    """Repeat the last value up to ``count``, as TensorFlow does."""
    if not 0 < len(values) <= count:
        raise RequestError(f"inputs[{name!r}]: {len(values)} values do not fill a shape of {count}")
    return values + values[-1:] * (count - len(values))


def _write_tensor(tensor: Any, values: Any) -> None:
    array = np.asarray(values)
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    # In the typed fields, as TensorFlow Serving does by default: many clients read float_val.
    if array.dtype.kind in "US":
        tensor.dtype = _NUMBERS["DT_STRING"]
        tensor.string_val.extend(text.encode("utf-8", "surrogateescape") for text in array.ravel().tolist())
    else:
        tensor.dtype = _NUMBERS["DT_FLOAT"]
        tensor.float_val.extend(array.ravel().tolist())
