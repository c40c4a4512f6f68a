"""Open Inference v2: by hand, and by Triton's own client over a real connection."""

import base64
import gzip
import json
import struct

import numpy as np
import pytest
from starlette.testclient import TestClient

from toolkit.inference import Predictor
from toolkit.serving import create_app
from toolkit.serving.protocols.open_inference import HEADER_LENGTH

INFER = "/v2/models/digits/infer"


@pytest.fixture(scope="module")
def app(bundle):
    return create_app(bundle.parent.parent, "litert")


@pytest.fixture(scope="module")
def client(app):
    return TestClient(app)


@pytest.fixture(scope="module")
def expected(bundle, images):
    return Predictor.load(bundle, "litert").probabilities(images)


def tensor(images, **more):
    data = [base64.b64encode(image).decode() for image in images]
    return {"name": "image_bytes", "datatype": "BYTES", "shape": [len(images)], "data": data} | more


def test_likeliest_classes_by_default_and_probabilities_for_whoever_names_them(client, bundle, images, expected):
    document = client.post(INFER, json={"id": "mine", "inputs": [tensor(images)]}).json()
    assert (document["model_name"], document["model_version"], document["id"]) == ("digits", "1", "mine")
    labels, scores = document["outputs"]
    assert (labels["name"], labels["datatype"], labels["shape"]) == ("top_labels", "BYTES", [4, 5])
    assert (scores["name"], scores["datatype"], scores["shape"]) == ("top_scores", "FP32", [4, 5])
    best = Predictor.load(bundle, "litert").predict(images)
    assert labels["data"] == [each.label for row in best for each in row]
    np.testing.assert_allclose(scores["data"], [each.probability for row in best for each in row], atol=1e-6)

    wanted = {"inputs": [tensor(images, shape=[4, 1])], "outputs": [{"name": "probabilities"}]}
    [output] = client.post(INFER, json=wanted).json()["outputs"]
    assert output["shape"] == [4, 10]
    np.testing.assert_allclose(np.reshape(output["data"], (4, 10)), expected, atol=1e-6)


def test_pixels_and_features(client, bundle, images):
    pixels = np.random.default_rng(5).integers(0, 256, (3, 32, 32, 3), np.uint8)
    given = {"name": "pixels", "datatype": "UINT8", "shape": [3, 32, 32, 3]}
    wanted = [{"name": "probabilities"}]
    expected = Predictor.load(bundle, "litert").from_pixels(pixels)
    for data in (pixels.tolist(), pixels.ravel().tolist()):
        body = {"inputs": [given | {"data": data}], "outputs": wanted}
        [output] = client.post(INFER, json=body).json()["outputs"]
        np.testing.assert_allclose(np.reshape(output["data"], (3, 10)), expected, atol=1e-6)
    body = {"inputs": [tensor(images)], "outputs": [{"name": "features"}]}
    [output] = client.post(INFER, json=body).json()["outputs"]
    rows = [{"b64": base64.b64encode(image).decode()} for image in images]
    body = {"signature_name": "features", "instances": rows}
    features = np.array(client.post("/v1/models/digits:predict", json=body).json()["predictions"])
    assert output["shape"] == list(features.shape)
    np.testing.assert_allclose(np.reshape(output["data"], features.shape), features, atol=1e-4)


def test_binary_tensors_by_hand(client, images, expected):
    binary = b"".join(struct.pack("<I", len(image)) + image for image in images)
    given = {"name": "image_bytes", "datatype": "BYTES", "shape": [4], "parameters": {"binary_data_size": len(binary)}}
    header = json.dumps(
        {"inputs": [given], "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]}
    )
    answer = client.post(INFER, content=header.encode() + binary, headers={HEADER_LENGTH: str(len(header))})
    length = int(answer.headers[HEADER_LENGTH])
    [output] = json.loads(answer.content[:length])["outputs"]
    assert output["parameters"] == {"binary_data_size": len(answer.content) - length}
    found = np.frombuffer(answer.content[length:], "<f4").reshape(output["shape"])
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": []}, "'inputs' must hold one tensor, image_bytes or pixels, got a list of 0"),
        ({"inputs": 7}, "got a number"),
        ({"id": 7}, "'id' must be a string"),
        ({"name": "image"}, "a tensor named image_bytes or pixels, got 'image'"),
        ({"datatype": "FP32"}, "image_bytes: its datatype must be BYTES, got 'FP32'"),
        ({"shape": [2]}, "the shape means 2 pictures, 'data' has 1"),
        ({"shape": [1, 2]}, "its shape must be [n] or [n, 1], got [1, 2]"),
        ({"shape": [-1]}, "'shape' must be a list of whole numbers"),
        ({"shape": [True]}, "'shape' must be a list of whole numbers"),
        ({"shape": [0], "data": []}, "no pictures in it"),
        ({"shape": [10**9]}, "1000000000 instances in one request; this server takes at most 256"),
        ({"data": [5]}, "image_bytes[0]: expected a picture's bytes in base64, got a number"),
        ({"data": ["%"]}, "image_bytes[0]: Unable to base64 decode"),
        ({"data": [base64.b64encode(b"x").decode()]}, "image_bytes[0]: not a picture in a supported format"),
        ({"data": None}, "'data' must be a list, got null"),
        ({"parameters": {"binary_data_size": 5}}, "binary_data_size is a number, but 0 bytes follow"),
        ({"parameters": {"shared_memory_region": "x"}}, "shared memory is not supported"),
        ({"parameters": []}, "'parameters' must be an object"),
        ({"outputs": [{"name": "logits"}]}, "top_labels, top_scores, probabilities, features, got 'logits'"),
        ({"outputs": [{"name": "features"}, {"name": "probabilities"}]}, "in a request of their own"),
        ({"outputs": {}}, "'outputs' must be a list"),
        (
            {"outputs": [{"name": "probabilities", "parameters": {"classification": 3}}]},
            "classification is not supported",
        ),
        (
            {"name": "pixels", "datatype": "UINT8", "shape": [1, 28, 28, 3]},
            "must be [n, 32, 32, 3], got [1, 28, 28, 3]",
        ),
        (
            {"name": "pixels", "datatype": "UINT8", "shape": [1, 32, 32, 3], "data": [0] * 9},
            "must be 3,072 whole numbers",
        ),
        ({"name": "pixels", "datatype": "UINT8", "shape": [1, 32, 32, 3], "data": [256] * 3072}, "from 0 to 255"),
        ({"name": "pixels", "datatype": "UINT8", "shape": [1, 32, 32, 3], "data": ["a"] * 3072}, "from 0 to 255"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(client, images, change, message):
    whole = {key: value for key, value in change.items() if key in ("inputs", "outputs", "id")}
    first = {key: value for key, value in change.items() if key not in whole}
    answer = client.post(INFER, json={"inputs": [tensor(images[:1]) | first]} | whole)
    assert answer.status_code == 400, answer.text
    assert list(answer.json()) == ["error"]
    assert message in answer.json()["error"]


@pytest.mark.parametrize("binary", [b"", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\0" * 3, b"\2\0\0\0a"])
def test_a_binary_tensor_that_is_not_what_it_says(client, binary):
    given = {"name": "image_bytes", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(binary)}}
    header = json.dumps({"inputs": [given]}).encode()
    answer = client.post(INFER, content=header + binary, headers={HEADER_LENGTH: str(len(header))})
    assert answer.status_code == 400
    assert "are not 2 elements, each behind its length" in answer.json()["error"]


@pytest.mark.parametrize("length", ["-1", "x", "9" * 5000, "99999999", ""])
def test_a_length_of_the_json_that_cannot_be(client, length):
    answer = client.post(INFER, content=b"{}", headers={HEADER_LENGTH: length})
    assert answer.status_code == 400
    assert f"{HEADER_LENGTH} must be a number of the body's 2 bytes" in answer.json()["error"]


def test_triton_client_asks_everything(app, running, images, expected):
    tritonclient = pytest.importorskip("tritonclient.http")
    with running(app) as (_, port), tritonclient.InferenceServerClient(f"127.0.0.1:{port}") as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("digits")
        assert client.is_model_ready("digits", "1")
        assert client.get_server_metadata()["name"] == "toolkit"
        metadata = client.get_model_metadata("digits")
        assert [row["name"] for row in metadata["inputs"]] == ["image_bytes", "pixels"]
        assert client.get_model_repository_index()[0]["state"] == "READY"

        given = tritonclient.InferInput("image_bytes", [4], "BYTES")
        given.set_data_from_numpy(np.array(images, dtype=object))
        wanted = [tritonclient.InferRequestedOutput(name) for name in ("probabilities", "top_labels")]
        answer = client.infer("digits", [given], outputs=wanted, request_compression_algorithm="gzip", request_id="7")
        np.testing.assert_allclose(answer.as_numpy("probabilities"), expected, atol=1e-6)
        assert answer.as_numpy("top_labels")[0, 0].decode() == str(expected[0].argmax())
        assert answer.get_response()["id"] == "7"
        plain = client.infer("digits", [given], outputs=[tritonclient.InferRequestedOutput("probabilities", False)])
        np.testing.assert_allclose(plain.as_numpy("probabilities"), expected, atol=1e-6)
        with pytest.raises(Exception, match="Servable not found for request: Latest"):
            client.infer("nope", [given])


def test_compressed_requests(client, images):
    body = gzip.compress(json.dumps({"inputs": [tensor(images)]}).encode())
    assert client.post(INFER, content=body, headers={"content-encoding": "gzip"}).status_code == 200
