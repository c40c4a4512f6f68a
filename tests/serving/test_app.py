"""The application, through Starlette's test client."""

import json
import os
import shutil
import sys

import numpy as np
import pytest
import tensorflow as tf
from starlette.testclient import TestClient

from toolkit.bundle import KERAS_FILE, MANIFEST
from toolkit.errors import UserError
from toolkit.inference import Predictor
from toolkit.serving import ServerOptions, create_app, service
from toolkit.serving.models import ModelTable

PREDICT = "/v1/models/digits:predict"


@pytest.fixture(scope="module")
def client(bundle):
    return TestClient(create_app(bundle.parent.parent))


@pytest.fixture(scope="module")
def predictor(bundle):
    return Predictor.load(bundle)


@pytest.fixture(scope="module")
def signatures(bundle):
    loaded = tf.saved_model.load(str(bundle))
    yield loaded.signatures
    del loaded


@pytest.fixture
def rows(images, b64):
    return [{"image_bytes": b64(image)} for image in images]


def ok(response):
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


def error(response, status):
    assert response.status_code == status, response.text
    document = response.json()
    assert list(document) == ["error"]
    assert "Traceback" not in document["error"]
    assert "\n" not in document["error"]
    return document["error"]


def test_rows_answer_as_the_predictor_and_as_the_saved_model(client, predictor, signatures, images, rows):
    answers = ok(client.post(PREDICT, json={"instances": rows}))["predictions"]
    assert [set(answer) for answer in answers] == [{"probabilities", "top_labels", "top_scores"}] * len(images)
    probabilities = np.array([answer["probabilities"] for answer in answers])
    np.testing.assert_allclose(probabilities, predictor.probabilities(images), atol=1e-6, rtol=0)
    expected = signatures["serving_default"](image_bytes=tf.constant(images))
    np.testing.assert_allclose(probabilities, expected["probabilities"], atol=1e-4, rtol=0)
    np.testing.assert_allclose([a["top_scores"] for a in answers], expected["top_scores"], atol=1e-4, rtol=0)
    assert [a["top_labels"] for a in answers] == [[s.decode() for s in row] for row in expected["top_labels"].numpy()]


def test_columns_answer_as_rows(client, images, b64, rows):
    by_row = ok(client.post(PREDICT, json={"instances": rows}))["predictions"]
    column = [b64(image) for image in images]
    named = ok(client.post(PREDICT, json={"inputs": {"image_bytes": column}}))["outputs"]
    bare = ok(client.post(PREDICT, json={"signature_name": "serving_default", "inputs": column}))["outputs"]
    assert named == bare == {name: [row[name] for row in by_row] for name in by_row[0]}


def test_pixels(client, predictor, signatures):
    pixels = np.random.default_rng(5).integers(0, 256, (40, 32, 32, 3), np.uint8)  # more than one batch
    body = {"signature_name": "pixels", "instances": pixels.tolist()}
    answers = ok(client.post(PREDICT, json=body))["predictions"]
    probabilities = np.array([answer["probabilities"] for answer in answers])
    np.testing.assert_allclose(probabilities, predictor.from_pixels(pixels), atol=1e-6, rtol=0)
    expected = signatures["pixels"](pixels=tf.constant(pixels))["probabilities"]
    np.testing.assert_allclose(probabilities, expected, atol=1e-4, rtol=0)


def test_features_have_one_output_and_so_no_name(client, signatures, images, rows):
    expected = signatures["features"](image_bytes=tf.constant(images))["features"].numpy()
    by_row = ok(client.post(PREDICT, json={"signature_name": "features", "instances": rows}))["predictions"]
    np.testing.assert_allclose(by_row, expected, atol=1e-4, rtol=0)
    inputs = {"image_bytes": [row["image_bytes"] for row in rows]}
    columns = ok(client.post(PREDICT, json={"signature_name": "features", "inputs": inputs}))["outputs"]
    assert columns == by_row


def test_metadata_is_the_saved_models(client, signatures):
    document = ok(client.get("/v1/models/digits/metadata"))
    assert document["model_spec"] == {"name": "digits", "signature_name": "", "version": "1"}
    found = document["metadata"]["signature_def"]["signature_def"]
    assert set(found) == set(signatures)
    for name, signature in signatures.items():
        expected_inputs = signature.structured_input_signature[1].items()
        assert {(key, *described(info)) for key, info in found[name]["inputs"].items()} == {
            (key, *spec(tensor)) for key, tensor in expected_inputs
        }
        expected_outputs = signature.structured_outputs.items()
        for key, tensor in expected_outputs:
            dtype, sizes = described(found[name]["outputs"][key])
            # The width of the features is not in the manifest, and given as unknown.
            assert (dtype, sizes) == (spec(tensor) if key != "features" else ("DT_FLOAT", ("-1", "-1")))
        assert len(found[name]["outputs"]) == len(expected_outputs)


def described(info):
    return info["dtype"], tuple(dim["size"] for dim in info["tensor_shape"]["dim"])


def spec(tensor):
    name = tf.dtypes.as_dtype(tensor.dtype).as_datatype_enum
    sizes = tuple(str(-1 if size is None else size) for size in tensor.shape)
    return {1: "DT_FLOAT", 4: "DT_UINT8", 7: "DT_STRING"}[name], sizes


def test_status_and_health(client):
    status = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert ok(client.get("/v1/models/digits")) == {"model_version_status": [status]}
    assert ok(client.get("/v1/models/digits/versions/1")) == {"model_version_status": [status]}
    assert ok(client.get("/healthz")) == {"status": "ok"}


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("POST", "/v1/models/nope:predict", 404, "Servable not found for request: Latest(nope)"),
        ("POST", "/v1/models/digits/versions/7:predict", 404, "Servable not found for request: Specific(digits, 7)"),
        ("GET", "/v1/models/nope", 404, "Could not find any versions of model nope"),
        ("GET", "/v1/models/digits/versions/7", 404, "Could not find version 7 of model digits"),
        ("GET", "/v1/models/nope/metadata", 404, "Servable not found for request: Latest(nope)"),
        ("GET", "/v1/models/..%2Fdigits", 404, ""),
        ("POST", "/v1/models/digits:classify", 400, "use :predict"),
        ("POST", "/v1/models/digits/versions/1:regress", 400, "use :predict"),
        ("POST", "/v1/models/digits:explain", 405, "Malformed request: POST /v1/models/digits:explain"),
        ("GET", "/v1/models/digits:predict", 405, ""),
        ("GET", "/v3/models/digits", 404, "Malformed request: GET /v3/models/digits"),
        ("GET", "/v1/models/digits/versions/" + "9" * 5000, 404, "Specific(digits, " + "9" * 40 + "…)"),
        ("POST", "/v1/models/digits/versions/" + "9" * 5000 + ":predict", 404, "Specific(digits, "),
        ("GET", "/v1/models/digits/versions/x", 404, "Specific(digits, x)"),
        ("GET", "/v1/models/..", 404, ""),
        ("POST", "/v2/models/nope/infer", 404, "Latest(nope)"),
    ],
)
def test_what_is_not_there(client, method, path, status, message):
    assert message in error(client.request(method, path, content="{}" if method == "POST" else None), status)


@pytest.mark.parametrize("signature", ["serving_default", "features"])
def test_the_picture_at_fault_is_named(client, images, b64, signature):
    for bad in (b"", b"not a picture", images[1][:-600]):
        body = {"signature_name": signature, "instances": [b64(images[0]), b64(bad)]}
        message = error(client.post(PREDICT, json=body), 400)
        assert message.startswith("instances[1]: ")
        assert "picture" in message


def test_wrong_pixel_shape(client):
    body = {"signature_name": "pixels", "inputs": {"pixels": np.zeros((1, 28, 28, 3), int).tolist()}}
    message = error(client.post(PREDICT, json=body), 400)
    assert message == "inputs[0]: pixels must have the shape [32, 32, 3], got [28, 28, 3]"


def test_limits(bundle, rows):
    options = ServerOptions(max_body_bytes=20_000, max_pictures=2, max_buffered_bytes=20_000)
    client = TestClient(create_app(bundle.parent.parent, options=options))
    assert ok(client.post(PREDICT, json={"instances": rows[-2:]}))
    assert "at most 2" in error(client.post(PREDICT, json={"instances": rows[-1:] * 3}), 400)
    assert "20,000 bytes" in error(client.post(PREDICT, content=b" " * 20_001), 413)
    chunks = (b" " * 5_000 for _ in range(5))  # without a Content-Length
    assert "20,000 bytes" in error(client.post(PREDICT, content=chunks), 413)
    assert "br" in error(client.post(PREDICT, content=b"x", headers={"content-encoding": "br"}), 415)


def test_internal_failures_are_logged_and_not_told(bundle, rows, monkeypatch, caplog):
    def fail(predictor, question, index):
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(service, "decode_picture", fail)
    client = TestClient(create_app(bundle.parent.parent))
    message = error(client.post(PREDICT, json={"instances": rows}), 500)
    assert "secret" not in message
    assert "a secret" in caplog.text
    assert "Traceback" in caplog.text


def publish(models_dir, version, source=1):
    staging = models_dir / "digits" / ".staging"
    shutil.copytree(models_dir / "digits" / str(source), staging)
    os.rename(staging, models_dir / "digits" / str(version))


def states(client):
    rows = ok(client.get("/v1/models/digits"))["model_version_status"]
    return [(row["version"], row["state"]) for row in rows]


def test_versions_come_and_go_without_a_restart(models_dir, rows):
    client = TestClient(create_app(models_dir))
    publish(models_dir, 2)
    publish(models_dir, 10)
    assert states(client) == [("10", "AVAILABLE"), ("2", "AVAILABLE"), ("1", "AVAILABLE")]
    assert ok(client.get("/v1/models/digits/metadata"))["model_spec"]["version"] == "10"
    assert ok(client.post("/v1/models/digits/versions/2:predict", json={"instances": rows}))
    shutil.rmtree(models_dir / "digits" / "2")
    error(client.post("/v1/models/digits/versions/2:predict", json={"instances": rows}), 404)
    assert states(client) == [("10", "AVAILABLE"), ("1", "AVAILABLE")]
    shutil.rmtree(models_dir)
    assert "Latest(digits)" in error(client.post(PREDICT, json={"instances": rows}), 404)


def test_a_damaged_new_version_leaves_the_old_one_answering(models_dir, rows):
    publish(models_dir, 2)
    for file in (models_dir / "digits" / "2" / "assets.extra").glob("*.tflite"):
        file.write_bytes(b"damaged")
    client = TestClient(create_app(models_dir, engine="litert"))
    assert ok(client.post(PREDICT, json={"instances": rows}))
    assert states(client) == [("2", "END"), ("1", "AVAILABLE")]
    assert "checksum" in error(client.post("/v1/models/digits/versions/2:predict", json={"instances": rows}), 503)
    assert ok(client.get("/v1/models/digits/metadata"))["model_spec"]["version"] == "1"

    shutil.rmtree(models_dir / "digits" / "2")
    publish(models_dir, 2)
    os.utime(models_dir / "digits" / "2" / MANIFEST)
    assert ok(client.post("/v1/models/digits/versions/2:predict", json={"instances": rows}))
    assert states(client) == [("2", "AVAILABLE"), ("1", "AVAILABLE")]


def test_only_two_versions_stay_in_memory(models_dir):
    for version in (2, 3):
        publish(models_dir, version)
    table = ModelTable(models_dir)
    first = table.get("digits", 1)[1]
    assert table.get("digits", 1)[1] is first
    assert [table.get("digits", version)[0] for version in (2, 3)] == [2, 3]
    assert table.get("digits", 1)[1] is not first


@pytest.mark.parametrize("engine", ["savedmodel", "litert"])
def test_engines(bundle, predictor, images, rows, engine):
    client = TestClient(create_app(bundle.parent.parent, engine=engine))
    answers = ok(client.post(PREDICT, json={"instances": rows}))["predictions"]
    probabilities = np.array([answer["probabilities"] for answer in answers])
    np.testing.assert_allclose(probabilities, predictor.probabilities(images), atol=1e-4, rtol=0)


def test_one_bundle_may_be_served_by_its_own_directory(bundle, rows):
    client = TestClient(create_app(bundle.parent))
    assert ok(client.post(PREDICT, json={"instances": rows}))


def test_what_cannot_be_served(tmp_path, bundle, monkeypatch):
    with pytest.raises(UserError, match="no bundles in it"):
        create_app(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        create_app(tmp_path / "absent")
    with pytest.raises(UserError, match="did you mean 'litert'"):
        create_app(bundle.parent.parent, engine="litrt")
    monkeypatch.setitem(sys.modules, "starlette", None)
    with pytest.raises(UserError, match=r"pip install 'toolkit\[serve\]'"):
        create_app(bundle.parent.parent)


def test_a_damaged_manifest_is_an_answer_and_not_a_crash(models_dir, rows):
    (models_dir / "digits" / "1" / MANIFEST).write_text(json.dumps({"name": 1}))
    (models_dir / "digits" / "1" / KERAS_FILE).unlink()
    client = TestClient(create_app(models_dir))
    assert "damaged manifest" in error(client.get("/v1/models/digits/metadata"), 503)
    assert "damaged manifest" in error(client.post(PREDICT, json={"instances": rows}), 503)
