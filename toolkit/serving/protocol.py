"""TensorFlow Serving's REST protocol as pure functions: JSON to inputs, outputs to JSON, without any web framework.

The protocol is https://www.tensorflow.org/tfx/serving/api_rest; where that server has words for an error, they are
used here too. Floats are written with the fewest digits that give their float32 value again, and NaN and Infinity as
bare tokens.
"""

import base64
import binascii
import gc
import json
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from toolkit.bundle import Manifest

#: Labels in an answer at most, as in the SavedModel's own signatures.
TOP_K = 5

#: Lists and objects in a JSON body that are taken from anyone, for each takes ten times its bytes in memory. In a
#: longer one there may be one for so many bytes: among pixels each has eight, as ``[0,0,0],``.
MAX_BRACKETS, BYTES_A_BRACKET = 100_000, 6

_DEFAULT_SIGNATURE = "serving_default"
_parsing = threading.Lock()


class RequestError(Exception):
    """A request that is answered with an HTTP error status and one line that says why.

    ``retry_after`` are the seconds after which it is worth another try, where that is known; ``elsewhere`` says that
    another connection may do better.
    """

    def __init__(
        self, message: str, status: int = 400, *, retry_after: int | None = None, elsewhere: bool = False
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.elsewhere = elsewhere


#: What every bundle answers, each signature's one input and its outputs; see ``toolkit.export.saved_model``. Where a
#: bundle's manifest speaks of novelty, it stands beside the probabilities.
SIGNATURES = {
    "serving_default": ("image_bytes", ("probabilities", "top_labels", "top_scores")),
    "pixels": ("pixels", ("probabilities", "top_labels", "top_scores")),
    "features": ("image_bytes", ("features",)),
}


@dataclass(frozen=True)
class PredictRequest:
    """A predict request taken apart, its values, one per picture, still as JSON has them.

    ``columnar`` tells that it came as ``inputs`` and not as ``instances``; the answer takes the same form.
    """

    signature: str
    values: list[Any]
    columnar: bool

    def place(self, index: int) -> str:
        """Name the picture at ``index`` for an error."""
        return f"{'inputs' if self.columnar else 'instances'}[{index}]"


def parse_predict(body: bytes, *, max_instances: int) -> PredictRequest:
    """Take a ``:predict`` body apart.

    Raises:
        RequestError: not JSON, keys missing or in excess, no such signature, or too many instances.
    """
    document = parse_object(body, "'instances' or 'inputs'")
    signature = document.get("signature_name", _DEFAULT_SIGNATURE)
    if not isinstance(signature, str):
        raise RequestError(f"'signature_name' key must be a string value, got {kind_of(signature)}")
    signature = known_signature(signature)
    columnar = "inputs" in document
    if columnar == ("instances" in document):
        found = "both" if columnar else "neither"
        raise RequestError(f"expected exactly one of the keys 'inputs' and 'instances', got {found}")
    name, _ = SIGNATURES[signature]
    values = _column(document["inputs"], name) if columnar else _rows(document["instances"], name)
    require_few(len(values), max_instances)
    return PredictRequest(signature, values, columnar)


def known_signature(name: str) -> str:
    """Give the signature that a request names, or the default where it names none.

    Raises:
        RequestError: there is no such signature.
    """
    if (name or _DEFAULT_SIGNATURE) in SIGNATURES:
        return name or _DEFAULT_SIGNATURE
    raise RequestError(
        f'Serving signature name: "{name}" not found in signature def; there are {", ".join(SIGNATURES)}'
    )


def require_few(number: int, limit: int) -> None:
    """Refuse a request of more pictures than are taken.

    Raises:
        RequestError: says how many are.
    """
    if number > limit:
        raise RequestError(f"{number} instances in one request; this server takes at most {limit}")


def decode_images(request: PredictRequest) -> list[bytes]:
    """Decode the request's pictures from base64 to their files' bytes.

    Raises:
        RequestError: names the first value that is not an object with valid base64.
    """
    return [_decode_base64(value, request.place(i)) for i, value in enumerate(request.values)]


def decode_pixels(request: PredictRequest, size: tuple[int, int]) -> np.ndarray:
    """Turn the request's pictures into uint8 pixels of shape (pictures, height, width, 3).

    Raises:
        RequestError: names the first value that is of another shape, or not whole numbers from 0 to 255.
    """
    pixels = np.empty((len(request.values), *size, 3), np.uint8)
    for index, value in enumerate(request.values):
        # As objects, because NumPy would copy a list of strings at the width of the longest, however many there are.
        array = np.asarray(value, dtype=object)
        if array.shape != pixels.shape[1:]:
            raise RequestError(
                f"{request.place(index)}: pixels must have the shape {list(pixels.shape[1:])}, got {list(array.shape)}"
            )
        if set(map(type, array.flat)) != {int} or array.min() < 0 or array.max() > 255:
            raise RequestError(f"{request.place(index)}: pixels must be whole numbers from 0 to 255")
        pixels[index] = array
    return pixels


def encode_answer(outputs: Mapping[str, Any], *, columnar: bool) -> bytes:
    """Write JSON for named outputs, each an array or a list with one item per picture.

    >>> encode_answer({"features": np.float32([[0.1, 2.0]])}, columnar=False)
    b'{"predictions":[[0.1,2.0]]}'
    >>> encode_answer({"a": [1, 2], "b": ["x", "y"]}, columnar=False)
    b'{"predictions":[{"a":1,"b":"x"},{"a":2,"b":"y"}]}'
    >>> encode_answer({"a": [1, 2], "b": ["x", "y"]}, columnar=True)
    b'{"outputs":{"a":[1,2],"b":["x","y"]}}'
    """
    columns: Any = dict(outputs) if len(outputs) > 1 else next(iter(outputs.values()))
    if columnar:
        return dump({"outputs": columns})
    if len(outputs) > 1:
        columns = [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]
    return dump({"predictions": columns})


def status_of(versions: Mapping[int, str], loading: Collection[int] = ()) -> dict[str, Any]:
    """Tell the status of versions, highest first; the values say why one cannot be loaded, or are empty.

    One that nobody has asked for yet is available: it loads when it is.
    """
    rows = [
        {
            "version": str(version),
            "state": "END" if error else "LOADING" if version in loading else "AVAILABLE",
            "status": {"error_code": "FAILED_PRECONDITION" if error else "OK", "error_message": error},
        }
        for version, error in sorted(versions.items(), reverse=True)
    ]
    return {"model_version_status": rows}


def signatures_of(manifest: Manifest) -> dict[str, Any]:
    """Describe a version's signatures, from its manifest alone, so that asking never loads TensorFlow.

    The manifest does not say how wide the features are, so their width is given as unknown, -1.
    """
    num_classes, num_top = len(manifest.labels), min(TOP_K, len(manifest.labels))
    tensors = {
        "image_bytes": _tensor_info("DT_STRING", -1),
        "pixels": _tensor_info("DT_UINT8", -1, *manifest.preprocessing.size, 3),
        "probabilities": _tensor_info("DT_FLOAT", -1, num_classes),
        "top_labels": _tensor_info("DT_STRING", -1, num_top),
        "top_scores": _tensor_info("DT_FLOAT", -1, num_top),
        "features": _tensor_info("DT_FLOAT", -1, -1),
        "novelty": _tensor_info("DT_FLOAT", -1),
    }
    further = ("novelty",) if manifest.novelty is not None else ()
    return {
        key: {
            "inputs": {taken: tensors[taken]},
            "outputs": {output: tensors[output] for output in (*given, *(further if "probabilities" in given else ()))},
            "method_name": "tensorflow/serving/predict",
            "defaults": {},
        }
        for key, (taken, given) in SIGNATURES.items()
    }


def metadata_of(name: str, version: int, manifest: Manifest) -> dict[str, Any]:
    """Describe a version: its signatures, and the thresholds of what is none of the classes, where it has any.

    These stand beside the signatures: an answer must not have outputs that its signature lacks.
    """
    spec = {"name": name, "signature_name": "", "version": str(version)}
    metadata: dict[str, Any] = {"signature_def": {"signature_def": signatures_of(manifest)}}
    thresholds = {
        "reject_below": manifest.reject_below,
        "novelty_above": manifest.novelty and manifest.novelty.above,
    }
    if rejection := {key: value for key, value in thresholds.items() if value is not None}:
        metadata["rejection"] = rejection
    return {"model_spec": spec, "metadata": metadata}


def encode_error(message: str) -> bytes:
    """Write JSON for an error."""
    return dump({"error": message})


def not_found(name: str, version: int | None) -> RequestError:
    """Make the error for a bundle or version that is not served.

    >>> str(not_found("digits", None)), str(not_found("digits", 3))
    ('Servable not found for request: Latest(digits)', 'Servable not found for request: Specific(digits, 3)')
    """
    wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return RequestError(f"Servable not found for request: {wanted}", 404)


def dump(document: Any) -> bytes:
    """Write JSON, arrays and float32 among it; whatever its strings and numbers are, it can be written.

    >>> dump([np.float32(0.1), np.float32("nan"), "\\ud800"])
    b'[0.1,NaN,"\\\\ud800"]'
    """
    try:
        written = orjson.dumps(document, _contiguous, orjson.OPT_SERIALIZE_NUMPY)
        if b"null" not in written:  # what becomes of NaN
            return written
    except TypeError:  # half of a surrogate pair, as a file's name may have
        pass
    # Through the shortest digits, so that a float32 reads alike on both ways.
    return json.dumps(document, default=_plain, separators=(",", ":")).encode("ascii")


def _contiguous(value: Any) -> Any:
    if isinstance(value, np.ndarray) and not value.flags.c_contiguous:
        return np.ascontiguousarray(value)
    raise TypeError(type(value))


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value]
    return float(str(value)) if isinstance(value, np.floating) else value.item()


def parse_object(body: bytes, expected: str) -> dict[str, Any]:
    """Read a JSON object; ``expected`` names what it should hold.

    Raises:
        RequestError: not JSON, another value, or more lists and objects than pixels have.
    """
    if not body:
        raise RequestError("JSON Parse error: The document is empty")
    brackets = body.count(b"[") + body.count(b"{")
    if brackets > max(MAX_BRACKETS, len(body) // BYTES_A_BRACKET):
        raise RequestError(
            f"the JSON has {brackets:,} lists and objects in {len(body):,} bytes, more than pixels need; "
            "send each picture's file in base64, or its pixels as lists of height, width and 3 channels",
            413,
        )
    try:
        document = _loads(body)
    except ValueError as error:
        reason = "nested too deeply" if "depth limit" in str(error) else str(error)
        raise RequestError(f"JSON Parse error: {reason}") from None
    if not isinstance(document, dict):
        raise RequestError(f"expected a JSON object with {expected}, got {kind_of(document)}")
    return document


def _loads(body: bytes) -> Any:
    """Parse JSON without the garbage collector, which would look at all lists again and again as they become more.

    Meanwhile all other threads stand still, with it several times as long.
    """
    with _parsing:  # so that each finds the collector as it is meant to be; it costs nothing where all stand still
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            return orjson.loads(body)
        finally:
            if was_enabled:
                gc.enable()


def _rows(instances: Any, name: str) -> list[Any]:
    if not isinstance(instances, list):
        raise RequestError(f"'instances' must be a list, got {kind_of(instances)}")
    if not instances:
        raise RequestError("No values in 'instances' array")
    for index, instance in enumerate(instances):
        if isinstance(instance, dict) and not _is_base64(instance) and set(instance) != {name}:
            keys = ", ".join(map(repr, instance)) or "none"
            raise RequestError(f"instances[{index}]: the object's keys must be equal to: {name!r}, got {keys}")
    return [value[name] if isinstance(value, dict) and name in value else value for value in instances]


def _column(inputs: Any, name: str) -> list[Any]:
    if isinstance(inputs, dict) and not _is_base64(inputs):
        if name not in inputs:
            raise RequestError(f"Missing named input: {name!r} in 'inputs' object")
        inputs = inputs[name]
    if not isinstance(inputs, list):
        raise RequestError(f"'inputs' must hold a list with one item per picture, got {kind_of(inputs)}")
    if not inputs:
        raise RequestError("No values in 'inputs' array")
    return inputs


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str)


def _decode_base64(value: Any, place: str) -> bytes:
    if not _is_base64(value):
        raise RequestError(f'{place}: expected {{"b64": "<the file\'s bytes in base64>"}}, got {kind_of(value)}')
    return decode_base64(value["b64"], place)


def decode_base64(text: str, place: str) -> bytes:
    """Decode base64, with line breaks and without padding too, which tools disagree on.

    Raises:
        RequestError: names the ``place``.
    """
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # of either kind, or not base64
        text = "".join(text.split())
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise RequestError(f"{place}: Unable to base64 decode") from None


def _tensor_info(dtype: str, *sizes: int) -> dict[str, Any]:
    # Sizes are strings because proto3's JSON writes 64-bit integers so. The graph's tensor names are left empty.
    dims = [{"size": str(size), "name": ""} for size in sizes]
    return {"dtype": dtype, "tensor_shape": {"dim": dims, "unknown_rank": False}, "name": ""}


def kind_of(value: Any) -> str:
    """Name the kind of a JSON value for an error."""
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")
