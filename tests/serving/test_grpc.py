"""gRPC, asked by TensorFlow Serving's own stubs."""

import contextlib
import hashlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from functools import partial

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from toolkit.bundle import move_label
from toolkit.client import Client, ServerError
from toolkit.errors import UserError
from toolkit.inference import Predictor
from toolkit.serving import ServerOptions, serve
from toolkit.serving.app import build_app
from toolkit.serving.grpc import _read_question
from toolkit.serving.messages import _MESSAGES, message_type
from toolkit.serving.models import ModelTable

CODE = grpc.StatusCode


def listening(running, directory, **limits):
    """Run the application with gRPC on a free port: gives that port, too."""

    @contextlib.contextmanager
    def run():
        options = ServerOptions(grpc_port=0, **limits)
        app = build_app(ModelTable(directory), options)
        with running(app, options) as (_, port):
            yield app.state.grpc_port, port

    return run()


@contextlib.contextmanager
def stubs(running, directory):
    with (
        listening(running, directory) as (port, _),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield (
            prediction_service_pb2_grpc.PredictionServiceStub(channel),
            model_service_pb2_grpc.ModelServiceStub(channel),
        )


@pytest.fixture(scope="module")
def served(running, bundle):
    with stubs(running, bundle.parent.parent) as served:
        yield served


@pytest.fixture(scope="module")
def predictor(bundle):
    return Predictor.load(bundle)


def request(tensor, key="image_bytes", *, name="digits", **spec):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    for field, value in spec.items():
        if field == "version":
            request.model_spec.version.value = value
        else:
            setattr(request.model_spec, field, value)
    if tensor is not None:
        request.inputs[key].CopyFrom(
            tensor if isinstance(tensor, tensor_pb2.TensorProto) else (tf.make_tensor_proto(tensor))
        )
    return request


def refused(call, request, code):
    with pytest.raises(grpc.RpcError) as error:
        call(request)
    assert error.value.code() == code, error.value.details()
    assert "\n" not in error.value.details()
    return error.value.details()


def test_encoded_pictures_answer_as_the_predictor(served, predictor, images):
    response = served[0].Predict(request(images), timeout=60)
    assert (response.model_spec.name, response.model_spec.version.value) == ("digits", 1)
    assert response.model_spec.signature_name == "serving_default"
    assert set(response.outputs) == {"probabilities", "top_labels", "top_scores"}
    probabilities = tf.make_ndarray(response.outputs["probabilities"])
    assert probabilities.dtype == np.float32
    np.testing.assert_array_equal(probabilities, predictor.probabilities(images))
    labels = tf.make_ndarray(response.outputs["top_labels"])
    expected = predictor.predict(images)
    assert [[label.decode() for label in row] for row in labels] == [[p.label for p in row] for row in expected]
    scores = tf.make_ndarray(response.outputs["top_scores"])
    np.testing.assert_allclose(scores, [[p.probability for p in row] for row in expected], rtol=1e-6)
    assert len(response.outputs["probabilities"].float_val) == probabilities.size  # where many clients look


def test_pixels_and_features(served, predictor, images):
    pixels = np.random.default_rng(5).integers(0, 256, (3, 32, 32, 3), np.uint8)
    response = served[0].Predict(request(pixels, "pixels", signature_name="pixels"), timeout=60)
    np.testing.assert_array_equal(tf.make_ndarray(response.outputs["probabilities"]), predictor.from_pixels(pixels))
    black = tf.make_tensor_proto(0, tf.uint8, (1, 32, 32, 3))  # one value for all
    response = served[0].Predict(request(black, "pixels", signature_name="pixels"), timeout=60)
    expected = predictor.from_pixels(np.zeros((1, 32, 32, 3), np.uint8))
    np.testing.assert_array_equal(tf.make_ndarray(response.outputs["probabilities"]), expected)
    response = served[0].Predict(request(images, signature_name="features"), timeout=60)
    np.testing.assert_array_equal(tf.make_ndarray(response.outputs["features"]), predictor.features(images))


def test_outputs_are_chosen(served, images):
    asked = request(images)
    asked.output_filter.append("top_labels")
    assert list(served[0].Predict(asked, timeout=60).outputs) == ["top_labels"]
    asked.output_filter.append("logits")
    assert "no output 'logits'; there are probabilities" in refused(served[0].Predict, asked, CODE.INVALID_ARGUMENT)


def test_metadata_and_status(served, bundle, monkeypatch):
    asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    asked.model_spec.name = "digits"
    response = served[0].GetModelMetadata(asked, timeout=60)
    assert response.model_spec.version.value == 1
    found = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(found)
    signatures = tf.saved_model.load(str(bundle)).signatures
    assert set(found.signature_def) == set(signatures)
    for name, signature in signatures.items():
        described = found.signature_def[name]
        assert described.method_name == "tensorflow/serving/predict"
        assert set(described.outputs) == set(signature.structured_outputs)
        ((key, tensor),) = signature.structured_input_signature[1].items()
        assert tf.dtypes.as_dtype(described.inputs[key].dtype) == tensor.dtype
        assert tf.TensorShape(described.inputs[key].tensor_shape).as_list() == tensor.shape.as_list()
    asked.metadata_field[:] = ["weights"]
    assert "weights is not supported" in refused(served[0].GetModelMetadata, asked, CODE.INVALID_ARGUMENT)
    asked.metadata_field[:] = []
    assert "at least one metadata_field" in refused(served[0].GetModelMetadata, asked, CODE.INVALID_ARGUMENT)

    asked = get_model_status_pb2.GetModelStatusRequest()
    asked.model_spec.name = "digits"
    (row,) = served[1].GetModelStatus(asked, timeout=60).model_version_status
    assert (row.version, row.state, row.status.error_code) == (1, get_model_status_pb2.ModelVersionStatus.AVAILABLE, 0)
    monkeypatch.setattr(ModelTable, "loading", lambda *_: [1])
    (row,) = served[1].GetModelStatus(asked, timeout=60).model_version_status
    assert row.state == get_model_status_pb2.ModelVersionStatus.LOADING
    asked.model_spec.version.value = 7
    assert "version 7 of model digits" in refused(served[1].GetModelStatus, asked, CODE.NOT_FOUND)


def tensor(dtype, shape, **values):
    proto = tensor_pb2.TensorProto(dtype=tf.dtypes.as_dtype(dtype).as_datatype_enum, **values)
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


def test_one_value_for_all_takes_no_more_memory_than_its_pixels():
    """As a list, the 26 bytes that stand for 256 pictures took 588 MiB and four seconds."""
    black = tensor("uint8", [256, 224, 224, 3], int_val=[7])
    tracemalloc.start()
    try:
        question = _read_question("pixels", black, (224, 224), 256)
        assert tracemalloc.get_traced_memory()[1] < 1.1 * question.pictures.nbytes
    finally:
        tracemalloc.stop()
    assert (question.pictures == 7).all()


@pytest.mark.parametrize(
    ("asked", "code", "message"),
    [
        (request([b""], name="nope"), CODE.NOT_FOUND, "Servable not found for request: Latest(nope)"),
        (request([b""], version=7), CODE.NOT_FOUND, "Specific(digits, 7)"),
        (request([b""], version=-1), CODE.NOT_FOUND, "Specific(digits, -1)"),
        (request([b""], version_label="stable"), CODE.NOT_FOUND, "no version of digits is labelled stable"),
        (request([b""], name="../digits"), CODE.NOT_FOUND, "Latest(../digits)"),
        (request([b""], signature_name="serve"), CODE.INVALID_ARGUMENT, 'Serving signature name: "serve" not found'),
        (request([b""], "bytes"), CODE.INVALID_ARGUMENT, "inputs must be equal to: 'image_bytes', got 'bytes'"),
        (request(None), CODE.INVALID_ARGUMENT, "got none"),
        (request([b"no picture"]), CODE.INVALID_ARGUMENT, "inputs[0]: "),
        (request([1.5]), CODE.INVALID_ARGUMENT, "expected a tensor of DT_STRING, got type number 1"),
        (request(b"scalar"), CODE.INVALID_ARGUMENT, "expected the shape ['pictures'], got []"),
        (request([[b"a"]]), CODE.INVALID_ARGUMENT, "got [1, 1]"),
        (request(tensor("string", [0])), CODE.INVALID_ARGUMENT, "got [0]"),
        (request(tensor("string", [-3])), CODE.INVALID_ARGUMENT, "got [-3]"),
        (request(tensor("string", [3])), CODE.INVALID_ARGUMENT, "0 values do not fill a shape of 3"),
        (request(tensor("string", [1], string_val=[b"a"] * 5)), CODE.INVALID_ARGUMENT, "5 values do not fill"),
        (request(tensor("string", [10**12], string_val=[b"a"])), CODE.INVALID_ARGUMENT, "takes at most 256"),
        (
            request(np.zeros((1, 28, 28, 3), np.uint8), "pixels", signature_name="pixels"),
            CODE.INVALID_ARGUMENT,
            "expected the shape ['pictures', 32, 32, 3], got [1, 28, 28, 3]",
        ),
        (
            request(tensor("uint8", [1, 32, 32, 3], tensor_content=b"abc"), "pixels", signature_name="pixels"),
            CODE.INVALID_ARGUMENT,
            "3 values do not fill the shape",
        ),
        (
            request(tensor("uint8", [1, 32, 32, 3], int_val=[256]), "pixels", signature_name="pixels"),
            CODE.INVALID_ARGUMENT,
            "pixels must be whole numbers from 0 to 255",
        ),
    ],
)
def test_what_cannot_be_answered(served, asked, code, message):
    assert message in refused(served[0].Predict, asked, code)


def test_bytes_that_are_no_message_and_methods_that_are_not_there(running, bundle):
    with (
        listening(running, bundle.parent.parent) as (port, _),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        raw = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        assert "not a PredictRequest" in refused(raw, b"\xff\xff\xff", CODE.INVALID_ARGUMENT)
        assert refused(raw, b"x" * (65 << 20), CODE.RESOURCE_EXHAUSTED)
        refused(channel.unary_unary("/tensorflow.serving.PredictionService/Classify"), b"", CODE.UNIMPLEMENTED)
        options = ServerOptions(grpc_port=port)
        with pytest.raises(UserError, match=f"port {port} on 127.0.0.1 is in use; .* choose another with --grpc-port"):
            serve(bundle.parent.parent, port=0, options=options)
    with socket.create_server(("127.0.0.1", port)):  # free again
        pass


def test_calls_that_send_no_message_are_given_up(running, bundle, tmp_path):
    path = "/tensorflow.serving.PredictionService/Predict"
    keys, ended = tmp_path / "keys", threading.Event()
    keys.write_text(hashlib.sha256(b"secret").hexdigest())

    def silent():
        ended.wait(20)
        yield from ()

    limits = {"body_seconds": 0.05, "max_body_bytes": 1000}
    with (
        listening(running, bundle.parent.parent, **limits) as (port, _),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        call = partial(channel.stream_unary(path), timeout=10)
        assert "too slowly" in refused(call, silent(), CODE.DEADLINE_EXCEEDED)
        assert "without a message" in refused(call, iter(()), CODE.INVALID_ARGUMENT)
    with (
        listening(running, bundle.parent.parent, api_keys=keys) as (port, _),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        call = partial(channel.stream_unary(path), timeout=10)
        assert "an API key is needed" in refused(call, silent(), CODE.UNAUTHENTICATED)
    ended.set()


def test_labels_follow_what_is_promoted_in_both_protocols(running, models_dir, images, b64):
    shutil.copytree(models_dir / "digits" / "1", models_dir / "digits" / "2")
    with (
        listening(running, models_dir) as (port, http),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        path = f"http://127.0.0.1:{http}/v1/models/digits/labels/stable"
        assert httpx.get(path).status_code == 404
        for version in (1, 2):
            move_label(models_dir / "digits", "stable", version)
            response = stub.Predict(request(images, version_label="stable"), timeout=60)
            assert response.model_spec.version.value == version
            (row,) = httpx.get(path).json()["model_version_status"]
            assert row["version"] == str(version)
            assert httpx.get(f"{path}/metadata").json()["model_spec"]["version"] == str(version)
        body = {"instances": [b64(image) for image in images]}
        assert len(httpx.post(f"{path}:predict", json=body, timeout=60).json()["predictions"]) == len(images)
        with Client(f"http://127.0.0.1:{http}", "digits", "stable") as client:
            assert len(client.predict(images)) == len(images)
        told = pytest.raises(ServerError, match="404, no version of digits is labelled beta; labels are: stable")
        with Client(f"http://127.0.0.1:{http}", "digits", "beta") as client, told:
            client.predict(images)


def test_keys_limits_and_figures_are_those_of_http(running, bundle, images, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(hashlib.sha256(b"secret").hexdigest())
    with (
        listening(running, bundle.parent.parent, api_keys=keys, max_pictures=2) as (port, http),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        assert "an API key is needed" in refused(stub.Predict, request(images[:1]), CODE.UNAUTHENTICATED)
        for shown in (("authorization", "Bearer secret"), ("x-api-key", "secret")):
            assert stub.Predict(request(images[:2]), timeout=60, metadata=[shown]).outputs
        with pytest.raises(grpc.RpcError, match="takes at most 2"):
            stub.Predict(request(images), timeout=60, metadata=[("x-api-key", "secret")])
        figures = httpx.get(f"http://127.0.0.1:{http}/metrics", headers={"X-API-Key": "secret"}).text
        assert 'toolkit_requests_total{code="OK",model="digits",protocol="grpc"} 2.0' in figures
        assert 'toolkit_requests_total{code="UNAUTHENTICATED",model="",protocol="grpc"} 1.0' in figures


def test_failures_within_are_logged_and_not_told(running, bundle, images, monkeypatch, caplog):
    def fail(*arguments):
        raise ZeroDivisionError("a secret")

    with stubs(running, bundle.parent.parent) as (prediction, _):
        monkeypatch.setattr("toolkit.serving.grpc._read_question", fail)
        assert "secret" not in refused(prediction.Predict, request(images), CODE.INTERNAL)
    assert "a secret" in caplog.text


@pytest.mark.parametrize("name", [name for name in _MESSAGES if name.startswith(("Get", "Predict"))])
def test_messages_have_the_fields_of_the_originals(name):
    modules = (predict_pb2, get_model_metadata_pb2, get_model_status_pb2)
    original = next(getattr(module, name) for module in modules if hasattr(module, name)).DESCRIPTOR

    def compare(ours, theirs):
        for field in ours.fields:
            other = theirs.fields_by_number[field.number]
            assert (field.name, field.type, field.is_repeated) == (other.name, other.type, other.is_repeated)
            if field.message_type is not None:
                compare(field.message_type, other.message_type)
            if field.enum_type is not None:
                assert {v.name: v.number for v in field.enum_type.values}.items() <= {
                    v.name: v.number for v in other.enum_type.values
                }.items()

    compare(message_type(name).DESCRIPTOR, original)


def test_grpc_brings_no_framework():
    code = "import sys, toolkit.serving.grpc; print(*{'tensorflow', 'keras', 'tensorflow_serving'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_the_command_speaks_both_protocols_until_it_is_asked_to_end(models_dir, images, tmp_path):
    command = [sys.executable, "-m", "toolkit", "serve", models_dir, "--port", "0", "--grpc-port", "0"]
    log = tmp_path / "log.txt"
    with log.open("w") as stderr:
        process = subprocess.Popen([*command, "--engine", "litert"], stderr=stderr)
    try:
        for _ in range(600):
            if found := re.search(r"gRPC on 127\.0\.0\.1 port (\d+)", log.read_text()):
                break
            with pytest.raises(subprocess.TimeoutExpired):  # it must still run
                process.wait(0.1)
        with grpc.insecure_channel(f"127.0.0.1:{found[1]}") as channel:
            stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
            response = stub.Predict(request(images), timeout=60, wait_for_ready=True)
        assert len(response.outputs["top_labels"].string_val) == 5 * len(images)
        for _ in range(600):  # until HTTP listens too
            if "digits version 1 on litert" in log.read_text():
                break
            process.poll()
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text()
