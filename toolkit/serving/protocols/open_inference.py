"""The Open Inference Protocol, version 2, as KServe and Triton speak it over REST, binary tensors included.

See https://github.com/kserve/open-inference-protocol. Pictures come as ``image_bytes`` (BYTES [n]; within JSON in
base64) or as ``pixels`` (UINT8 [n, height, width, 3]). Where no outputs are named, the likeliest classes are answered;
``probabilities`` and ``features`` are for whoever names them.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import toolkit
from toolkit.bundle import Manifest
from toolkit.inference import Predictor
from toolkit.serving import protocol
from toolkit.serving.models import Question
from toolkit.serving.protocol import RequestError, kind_of
from toolkit.serving.protocols.routing import json_document, json_response, target
from toolkit.serving.service import Reply, Service

#: The header that says how much of a body is JSON; binary tensors follow it.
HEADER_LENGTH = "Inference-Header-Content-Length"

_CLASSIFIED = ("top_labels", "top_scores", "probabilities", "novelty")
_DEFAULT = ("top_labels", "top_scores", "novelty")


@dataclass(frozen=True)
class InferRequest:
    """An infer request taken apart.

    Attributes:
        question: its pictures.
        id: the client's own, which comes back.
        outputs: the names wanted, in order, and whether each is wanted in binary.
    """

    question: Question
    id: str
    outputs: dict[str, bool]


def routes(service: Service) -> list[Route]:
    """Make the routes."""
    table = service.table

    async def server(request: Request) -> Response:
        extensions = ["binary_tensor_data", "model_repository"]
        return json_document({"name": "toolkit", "version": toolkit.__version__, "extensions": extensions})

    async def live(request: Request) -> Response:
        return json_document({"live": True})

    async def ready(request: Request) -> Response:
        is_ready, _ = await to_thread.run_sync(table.readiness)
        return json_document({"ready": is_ready}, 200 if is_ready else 503)

    async def index(request: Request) -> Response:
        return json_document(await to_thread.run_sync(_index, service))

    async def model(request: Request) -> Response:
        name, version = target(request)
        number, manifest = await to_thread.run_sync(table.manifest, name, version)
        versions = await to_thread.run_sync(table.versions, name) if version is None else [number]
        return json_document(_metadata(name, versions, manifest))

    async def model_ready(request: Request) -> Response:
        name, version = target(request)
        is_ready = await to_thread.run_sync(table.is_ready, name, version)
        return json_document({"name": name, "ready": is_ready}, 200 if is_ready else 503)

    async def infer(request: Request) -> Response:
        name, version = target(request)
        length = request.headers.get(HEADER_LENGTH)
        asked: InferRequest | None = None

        def parse(body: bytes, predictor: Predictor) -> Question:
            nonlocal asked
            asked = parse_infer(body, length, predictor.manifest, service.options.max_pictures)
            return asked.question

        reply = await service.answer(request, name, version, parse)
        assert asked is not None  # the reply is to it
        content, json_bytes = encode_reply(name, asked, reply)
        if len(content) == json_bytes:
            return json_response(content)
        return Response(content, headers={HEADER_LENGTH: str(json_bytes)}, media_type="application/octet-stream")

    made = [
        Route("/v2", server),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
        Route("/v2/repository/index", index, methods=["POST"]),
    ]
    for path in ("/v2/models/{name}", "/v2/models/{name}/versions/{version}"):
        made += [
            Route(path, model),
            Route(path + "/ready", model_ready),
            Route(path + "/infer", infer, methods=["POST"]),
        ]
    return made


def parse_infer(body: bytes, length: str | None, manifest: Manifest, max_pictures: int) -> InferRequest:
    """Take an infer request's body apart.

    Args:
        body: JSON, and the binary tensors behind it.
        length: the value of the header ``HEADER_LENGTH``, where the request has it.
        manifest: of the bundle that is to answer.
        max_pictures: that are taken.

    Raises:
        RequestError: says what in it is not as it must be.
    """
    header, binary = _split(body, length)
    document = protocol.parse_object(header, "'inputs'")
    given_id = document.get("id", "")
    if not isinstance(given_id, str):
        raise RequestError(f"'id' must be a string, got {kind_of(given_id)}")
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        found = f"a list of {len(inputs)}" if isinstance(inputs, list) else kind_of(inputs)
        raise RequestError(f"'inputs' must hold one tensor, image_bytes or pixels, got {found}")
    outputs = _outputs(document, manifest)
    pictures = _pictures(inputs[0], binary, manifest.preprocessing.size, max_pictures)
    signature = (
        "pixels" if isinstance(pictures, np.ndarray) else "features" if "features" in outputs else "serving_default"
    )
    if signature == "pixels" and "features" in outputs:
        raise RequestError("'features' are computed from image_bytes alone; send pictures so, not as pixels")
    return InferRequest(Question(signature, pictures, lambda index: f"image_bytes[{index}]"), given_id, outputs)


def encode_reply(name: str, asked: InferRequest, reply: Reply) -> tuple[bytes, int]:
    """Write the answer: its bytes, and how many of them, from the start, are JSON."""
    outputs, described, binaries = reply.outputs(), [], []
    for output, is_binary in asked.outputs.items():
        values = outputs[output]
        array = values if isinstance(values, np.ndarray) else np.array(values, dtype=object)
        row: dict[str, Any] = {"name": output, "datatype": _datatype(output), "shape": list(array.shape)}
        if is_binary:
            binaries.append(_to_binary(array))
            row["parameters"] = {"binary_data_size": len(binaries[-1])}
        else:
            row["data"] = [text for texts in values for text in texts] if array.dtype == object else array.ravel()
        described.append(row)
    document: dict[str, Any] = {"model_name": name, "model_version": str(reply.version), "outputs": described}
    if asked.id:
        document["id"] = asked.id
    header = protocol.dump(document)
    return b"".join([header, *binaries]), len(header)


def _split(body: bytes, length: str | None) -> tuple[bytes, memoryview]:
    if length is None:
        return body, memoryview(b"")
    if not (length.isascii() and length.isdecimal() and len(length) <= 18 and int(length) <= len(body)):
        raise RequestError(f"{HEADER_LENGTH} must be a number of the body's {len(body):,} bytes, got {length[:40]!r}")
    return body[: int(length)], memoryview(body)[int(length) :]


def _outputs(document: Mapping[str, Any], manifest: Manifest) -> dict[str, bool]:
    """The outputs wanted, and whether each in binary."""
    all_binary = _parameters(document, "the request").get("binary_data_output", False) is True
    known = [name for name in (*_CLASSIFIED, "features") if name != "novelty" or manifest.novelty is not None]
    rows = document.get("outputs")
    if rows is None or rows == []:
        return {name: all_binary for name in _DEFAULT if name in known}
    if not isinstance(rows, list):
        raise RequestError(f"'outputs' must be a list, got {kind_of(rows)}")
    wanted = {}
    for row in rows:
        name = row.get("name") if isinstance(row, dict) else None
        if not isinstance(name, str) or name not in known:
            raise RequestError(f"outputs: expected tensors named {', '.join(known)}, got {_shown(name)}")
        parameters = _parameters(row, f"output {name}")
        if refused := {"classification", "shared_memory_region"} & set(parameters):
            raise RequestError(f"output {name}: {min(refused)} is not supported; top_labels and top_scores are there")
        wanted[name] = parameters.get("binary_data", all_binary) is True
    if "features" in wanted and len(wanted) > 1:
        raise RequestError(
            "'features' come from another pass through the network; ask for them in a request of their own"
        )
    return wanted


def _pictures(
    tensor: Mapping[str, Any], binary: memoryview, size: tuple[int, int], max_pictures: int
) -> list[bytes] | np.ndarray:
    name, datatype, shape = tensor.get("name"), tensor.get("datatype"), tensor.get("shape")
    expected = {"image_bytes": "BYTES", "pixels": "UINT8"}
    if not isinstance(name, str) or name not in expected:
        raise RequestError(f"inputs[0]: expected a tensor named image_bytes or pixels, got {_shown(name)}")
    if datatype != expected[name]:
        raise RequestError(f"{name}: its datatype must be {expected[name]}, got {_shown(datatype)}")
    if not isinstance(shape, list) or not shape or not all(type(side) is int and 0 <= side < 1 << 31 for side in shape):
        raise RequestError(f"{name}: 'shape' must be a list of whole numbers")
    wanted = "[n] or [n, 1]" if name == "image_bytes" else f"[n, {size[0]}, {size[1]}, 3]"
    if shape[1:] not in ([[], [1]] if name == "image_bytes" else [[*size, 3]]):
        raise RequestError(f"{name}: its shape must be {wanted}, got {shape[:8]}")
    if not shape[0]:
        raise RequestError(f"{name}: no pictures in it")
    protocol.require_few(shape[0], max_pictures)
    parameters = _parameters(tensor, name)
    if "shared_memory_region" in parameters:
        raise RequestError(f"{name}: shared memory is not supported; send the tensor's data")
    if (length := parameters.get("binary_data_size")) is not None:
        if type(length) is not int or length != len(binary):
            raise RequestError(
                f"{name}: binary_data_size is {_shown(length)}, but {len(binary):,} bytes follow the JSON"
            )
        return _texts_of_binary(binary, shape[0]) if name == "image_bytes" else _pixels_of_binary(binary, shape)
    data = tensor.get("data")
    if not isinstance(data, list):
        raise RequestError(f"{name}: 'data' must be a list, got {kind_of(data)}")
    return _pictures_of_json(data, shape[0]) if name == "image_bytes" else _pixels_of_json(data, shape)


def _pictures_of_json(data: list[Any], number: int) -> list[bytes]:
    values = [value for row in data for value in (row if isinstance(row, list) else [row])]
    if len(values) != number:
        raise RequestError(f"image_bytes: the shape means {number} pictures, 'data' has {len(values)}")
    for index, value in enumerate(values):
        if not isinstance(value, str):
            raise RequestError(f"image_bytes[{index}]: expected a picture's bytes in base64, got {kind_of(value)}")
    return [protocol.decode_base64(value, f"image_bytes[{index}]") for index, value in enumerate(values)]


def _pixels_of_json(data: list[Any], shape: list[int]) -> np.ndarray:
    # As objects, because NumPy would copy a list of strings at the width of the longest, however many there are.
    try:
        array = np.asarray(data, dtype=object)
    except ValueError:
        array = np.empty(0, object)
    if array.size != math.prod(shape) or set(map(type, array.flat)) != {int}:
        raise RequestError(f"pixels: 'data' must be {math.prod(shape):,} whole numbers from 0 to 255")
    if array.min() < 0 or array.max() > 255:
        raise RequestError("pixels must be whole numbers from 0 to 255")
    return array.astype(np.uint8).reshape(shape)


def _pixels_of_binary(binary: memoryview, shape: list[int]) -> np.ndarray:
    if len(binary) != math.prod(shape):
        raise RequestError(f"pixels: the shape {shape} means {math.prod(shape):,} bytes, got {len(binary):,}")
    return np.frombuffer(binary, np.uint8).reshape(shape)


def _texts_of_binary(binary: memoryview, number: int) -> list[bytes]:
    """Take a BYTES tensor apart: each element's length in four bytes, little-endian, stands before it."""
    found: list[bytes] = []
    start = 0
    while start + 4 <= len(binary) and len(found) < number:
        (length,) = struct.unpack_from("<I", binary, start)
        start += 4
        if length > len(binary) - start:
            break
        found.append(bytes(binary[start : start + length]))
        start += length
    if len(found) != number or start != len(binary):
        raise RequestError(f"image_bytes: its {len(binary):,} bytes are not {number} elements, each behind its length")
    return found


def _to_binary(array: np.ndarray) -> bytes:
    if array.dtype != object:
        return np.ascontiguousarray(array).tobytes()
    texts = [text.encode("utf-8", "surrogateescape") for text in array.flat]
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def _parameters(holder: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    parameters = holder.get("parameters", {})
    if not isinstance(parameters, dict):
        raise RequestError(f"{where}: 'parameters' must be an object, got {kind_of(parameters)}")
    return parameters


def _datatype(output: str) -> str:
    return "BYTES" if output == "top_labels" else "FP32"


def _metadata(name: str, versions: Sequence[int], manifest: Manifest) -> dict[str, Any]:
    classes, top = len(manifest.labels), min(protocol.TOP_K, len(manifest.labels))
    shapes = {"top_labels": [-1, top], "top_scores": [-1, top], "probabilities": [-1, classes], "features": [-1, -1]}
    if manifest.novelty is not None:
        shapes["novelty"] = [-1]
    return {
        "name": name,
        "versions": [str(version) for version in versions],
        "platform": "toolkit",
        "inputs": [
            {"name": "image_bytes", "datatype": "BYTES", "shape": [-1]},
            {"name": "pixels", "datatype": "UINT8", "shape": [-1, *manifest.preprocessing.size, 3]},
        ],
        "outputs": [
            {"name": output, "datatype": _datatype(output), "shape": shape} for output, shape in shapes.items()
        ],
    }


def _index(service: Service) -> list[dict[str, str]]:
    rows, loaded = [], service.table.loaded()
    for name in service.table.names():
        loading = service.table.loading(name)
        for version, reason in service.table.statuses(name).items():
            is_ready = version in loaded.get(name, [])
            absent = "loading" if version in loading else "not loaded: nobody has asked for it"
            state, why = ("READY", "") if is_ready else ("UNAVAILABLE", reason or absent)
            rows.append({"name": name, "version": str(version), "state": state, "reason": why})
    return rows


def _shown(value: Any) -> str:
    return repr(value[:40]) if isinstance(value, str) else kind_of(value)
