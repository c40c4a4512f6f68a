"""JSON to inputs and outputs to JSON, without a web framework."""

import base64
import gc
import json

import numpy as np
import orjson
import pytest

from toolkit.serving import protocol
from toolkit.serving.protocol import PredictRequest, RequestError


def parse(document, max_instances=8) -> PredictRequest:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return protocol.parse_predict(body, max_instances=max_instances)


B64 = {"b64": "aGk="}


@pytest.mark.parametrize(
    ("document", "columnar"),
    [
        ({"instances": [B64, B64]}, False),
        ({"instances": [{"image_bytes": B64}, B64]}, False),
        ({"signature_name": "", "instances": [B64, B64]}, False),
        ({"signature_name": "features", "inputs": [B64, B64]}, True),
        ({"inputs": {"image_bytes": [B64, B64]}}, True),
    ],
)
def test_every_form_gives_the_same_pictures(document, columnar):
    request = parse(document)
    assert request.columnar is columnar
    assert protocol.decode_images(request) == [b"hi", b"hi"]


def test_more_lists_than_pixels_have_are_refused_unread(monkeypatch):
    pixels = np.zeros((2, 300, 200, 3), np.uint8).tolist()
    closest = json.dumps({"signature_name": "pixels", "instances": pixels}, separators=(",", ":")).encode()
    assert closest.count(b"[") > protocol.MAX_BRACKETS
    assert len(parse(closest).values) == 2
    monkeypatch.setattr(protocol.orjson, "loads", None)
    for bomb in (b"[],", b"{},", b"[[]],"):
        with pytest.raises(RequestError, match="bytes, more than pixels need") as error:
            parse(b'{"instances":[' + bomb * 200_000 + b"[]]}")
        assert error.value.status == 413


@pytest.mark.parametrize("is_enabled", [True, False])
def test_the_garbage_collector_is_left_out_of_parsing(monkeypatch, is_enabled):
    states, loads = [], orjson.loads
    monkeypatch.setattr(protocol.orjson, "loads", lambda body: states.append(gc.isenabled()) or loads(body))
    try:
        (gc.enable if is_enabled else gc.disable)()
        parse({"instances": [B64]})
        states.append(gc.isenabled())
        with pytest.raises(RequestError):
            parse(b"{")
        states.append(gc.isenabled())
    finally:
        gc.enable()
    assert states == [False, is_enabled, False, is_enabled]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b"{", "JSON Parse error: "),
        (b"\xff\xfe{", "JSON Parse error: "),
        (b"[" * 100_000, "JSON Parse error: nested too deeply"),
        (b'{"instances": [' + b"1" * 10_000 + b"]}", "JSON Parse error: "),
        ([1], "expected a JSON object with 'instances' or 'inputs', got a list"),
        ({}, "exactly one of the keys 'inputs' and 'instances', got neither"),
        ({"instances": [B64], "inputs": [B64]}, "exactly one of the keys 'inputs' and 'instances', got both"),
        ({"instances": B64}, "'instances' must be a list, got an object"),
        ({"instances": []}, "No values in 'instances' array"),
        ({"inputs": []}, "No values in 'inputs' array"),
        ({"inputs": B64}, "'inputs' must hold a list with one item per picture, got an object"),
        ({"inputs": {"image": [B64]}}, "Missing named input: 'image_bytes' in 'inputs' object"),
        ({"instances": [B64, {"image": B64}]}, "instances[1]: the object's keys must be equal to: 'image_bytes'"),
        ({"signature_name": 1, "instances": [B64]}, "'signature_name' key must be a string value, got a number"),
        ({"signature_name": "x", "instances": [B64]}, 'Serving signature name: "x" not found in signature def'),
        ({"instances": [B64] * 9}, "9 instances in one request; this server takes at most 8"),
        ({"inputs": {"image_bytes": [B64] * 9}}, "9 instances in one request; this server takes at most 8"),
    ],
)
def test_malformed_requests_are_refused_in_one_line(document, message):
    with pytest.raises(RequestError) as caught:
        parse(document)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"b64": "%%%"}, "instances[1]: Unable to base64 decode"),
        ({"b64": "a\u00e9=="}, "instances[1]: Unable to base64 decode"),
        ({"b64": 7}, "instances[1]: the object's keys"),
        ("aGk=", 'instances[1]: expected {"b64": "<the file\'s bytes in base64>"}, got a string'),
        (None, "got null"),
        (True, "got a boolean"),
    ],
)
def test_bad_base64_is_named(value, message):
    with pytest.raises(RequestError, match=r"instances\[1\]") as caught:
        protocol.decode_images(parse({"instances": [B64, value]}))
    assert message in str(caught.value)


def test_base64_may_be_wrapped_and_unpadded():
    data = bytes(range(100))
    wrapped = base64.encodebytes(data).decode()
    request = parse({"instances": [{"b64": wrapped}, {"b64": wrapped.strip().rstrip("=")}]})
    assert protocol.decode_images(request) == [data, data]


def test_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    rows = parse({"signature_name": "pixels", "instances": [{"pixels": p} for p in pixels.tolist()]})
    columns = parse({"signature_name": "pixels", "inputs": {"pixels": pixels.tolist()}})
    bare = parse({"signature_name": "pixels", "inputs": pixels.tolist()})
    for request in (rows, columns, bare):
        decoded = protocol.decode_pixels(request, (4, 5))
        assert decoded.dtype == np.uint8
        np.testing.assert_array_equal(decoded, pixels)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([[[1, 2, 3]]], "inputs[1]: pixels must have the shape [1, 2, 3], got [1, 1, 3]"),
        ([[[1, 2, 3], [1, 2]]], "inputs[1]: pixels must have the shape [1, 2, 3], got [1, 2]"),
        ([[[1, 2, 3], [1, 2, 256]]], "inputs[1]: pixels must be whole numbers from 0 to 255"),
        ([[[1, 2, 3], [1, 2, -1]]], "inputs[1]: pixels must be whole numbers from 0 to 255"),
        ([[[1, 2, 3], [1, 2, 0.5]]], "inputs[1]: pixels must be whole numbers from 0 to 255"),
        ([[[1, 2, 3], [1, 2, True]]], "inputs[1]: pixels must be whole numbers from 0 to 255"),
        ([[[1, 2, 3], [1, 2, "7"]]], "inputs[1]: pixels must be whole numbers from 0 to 255"),
        ([[[1, 2, 3], [1, 2, 10**30]]], "inputs[1]: pixels must be whole numbers from 0 to 255"),
        (5, "got []"),
        ({"b64": "aGk="}, "got []"),
    ],
)
def test_bad_pixels_are_named(value, message):
    request = parse({"signature_name": "pixels", "inputs": [[[[0, 0, 0], [0, 0, 0]]], value]})
    with pytest.raises(RequestError, match=r"inputs\[1\]") as caught:
        protocol.decode_pixels(request, (1, 2))
    assert message in str(caught.value)


def test_answers_keep_float32_and_write_nan_as_tensorflow_serving_does():
    values = np.float32([[0.1, np.nan, np.inf, 1e-30]])
    answer = json.loads(protocol.encode_answer({"x": values}, columnar=False))
    np.testing.assert_array_equal(np.float32(answer["predictions"]), values)


def test_status():
    document = protocol.status_of({1: "", 2: "", 10: "damaged"}, loading=[2, 10])
    ok = {"error_code": "OK", "error_message": ""}
    failed = {"error_code": "FAILED_PRECONDITION", "error_message": "damaged"}
    assert document == {
        "model_version_status": [
            {"version": "10", "state": "END", "status": failed},  # also while it is tried again
            {"version": "2", "state": "LOADING", "status": ok},
            {"version": "1", "state": "AVAILABLE", "status": ok},
        ]
    }


def test_any_string_can_be_written():
    assert json.loads(protocol.encode_error("\ud800 é")) == {"error": "\ud800 é"}
