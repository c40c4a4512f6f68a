"""The SavedModel of a bundle: its signatures, and that TensorFlow alone answers as this package does."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from toolkit import Predictor
from toolkit.bundle import KERAS_FILE, WARMUP, read_manifest
from toolkit.data.feed.arrays import load_pixels
from toolkit.data.pixels.decode import normalize
from toolkit.export.saved_model import write_warmup
from toolkit.network import load_network
from toolkit.spec import Preprocessing


@pytest.fixture(scope="module")
def loaded(bundle):
    """The bundle as TensorFlow Serving would load it."""
    return tf.saved_model.load(str(bundle))


def test_signatures_have_the_names_types_and_shapes_of_the_contract(loaded):
    spec = tf.TensorSpec
    expected_inputs = {
        "serving_default": {"image_bytes": spec([None], tf.string, "image_bytes")},
        "pixels": {"pixels": spec([None, 32, 32, 3], tf.uint8, "pixels")},
        "features": {"image_bytes": spec([None], tf.string, "image_bytes")},
    }
    answers = {
        "probabilities": ([None, 10], tf.float32),
        "top_labels": ([None, 5], tf.string),
        "top_scores": ([None, 5], tf.float32),
    }
    expected_outputs = {
        "serving_default": answers,
        "pixels": answers,
        "features": {"features": ([None, 84], tf.float32)},
    }
    assert set(loaded.signatures) == set(expected_inputs)
    for name, signature in loaded.signatures.items():
        assert signature.structured_input_signature == ((), expected_inputs[name])
        found = {key: (value.shape.as_list(), value.dtype) for key, value in signature.structured_outputs.items()}
        assert found == expected_outputs[name]


def test_answers_of_the_signatures_agree_with_each_other_and_with_keras(loaded, lenet, lenet_preprocessing, jpegs):
    pixels = load_pixels(jpegs, lenet_preprocessing)
    inputs = normalize(pixels, lenet_preprocessing)
    expected = tf.nn.softmax(lenet(inputs, training=False)).numpy()
    by_bytes = loaded.signatures["serving_default"](image_bytes=tf.constant(jpegs))
    by_pixels = loaded.signatures["pixels"](pixels=tf.constant(pixels))
    for answer in (by_bytes, by_pixels):
        np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-4)
        order = np.argsort(-answer["probabilities"].numpy(), kind="stable")[:, :5]
        np.testing.assert_array_equal(answer["top_labels"].numpy().astype(int), order)
        np.testing.assert_array_equal(
            answer["top_scores"], np.take_along_axis(answer["probabilities"].numpy(), order, axis=1)
        )
    features = loaded.signatures["features"](image_bytes=tf.constant(jpegs))["features"].numpy()
    kernel, bias = lenet.layers[-1].get_weights()
    np.testing.assert_allclose(tf.nn.softmax(features @ kernel + bias), expected, atol=1e-4)


def test_warm_up_requests_run_on_the_signatures_they_name(bundle, loaded):
    seen = []
    for record in tf.data.TFRecordDataset(str(bundle / WARMUP)):
        request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
        name = request.model_spec.signature_name
        inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
        answer = loaded.signatures[name](**inputs)
        assert all(len(value) == 1 for value in answer.values())
        seen.append(name)
    assert sorted(seen) == ["features", "pixels", "serving_default"]


def test_warm_up_requests_of_large_pictures_are_small(tmp_path):
    write_warmup(tmp_path, Preprocessing(size=(224, 224)))
    assert (tmp_path / WARMUP).stat().st_size < 10_000
    *_, record = tf.data.TFRecordDataset(str(tmp_path / WARMUP)).take(2)
    request = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
    np.testing.assert_array_equal(tf.make_ndarray(request.inputs["pixels"]), np.full((1, 224, 224, 3), 127, np.uint8))


STRANGER = """
import importlib.abc, json, sys

class NoToolkit(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "toolkit":
            raise ImportError(name)

sys.meta_path.insert(0, NoToolkit())
import tensorflow as tf

signature = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
answer = signature(image_bytes=tf.constant([open(path, "rb").read() for path in sys.argv[2:]]))
assert not any(name.split(".")[0] == "toolkit" for name in sys.modules)
print(json.dumps([answer["probabilities"].numpy().tolist(), answer["top_labels"].numpy()[:, 0].astype(str).tolist()]))
"""


@pytest.mark.slow  # `tests/cli/test_commands.py` does so with a bundle by the command line
def test_tensorflow_alone_answers_jpeg_bytes_as_the_predictor_does(bundle, jpegs, tmp_path):
    paths = [tmp_path / f"{index}.jpg" for index in range(len(jpegs))]
    for path, data in zip(paths, jpegs, strict=True):
        path.write_bytes(data)
    command = [sys.executable, "-c", STRANGER, str(bundle), *map(str, paths)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    probabilities, best = json.loads(result.stdout)
    predictor = Predictor.load(bundle)
    np.testing.assert_allclose(probabilities, predictor.probabilities(paths), atol=1e-4)
    assert best == [row[0].label for row in predictor.predict(paths)]


def test_network_is_written_once_for_all_signatures(bundle):
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    document = SavedModel.FromString((bundle / "saved_model.pb").read_bytes())
    functions = document.meta_graphs[0].graph_def.library.function
    convolutions = [sum(node.op == "Conv2D" for node in function.node_def) for function in functions]
    assert sorted(convolutions)[-2:] == [0, 2]  # LeNet-5 has two


def test_bundle_in_half_precision_is_smaller_and_its_engines_agree(bundle, export_digits, lenet):
    half = export_digits(half=True)
    manifest, whole = read_manifest(half), read_manifest(bundle)
    assert max(manifest.parity[name] for name in ("savedmodel", "litert")) < 1e-4
    assert manifest.weights_digest != whole.weights_digest
    assert manifest.metrics["top1"] == pytest.approx(whole.metrics["top1"], abs=0.005)
    kernel = load_network(half / KERAS_FILE).get_layer("head_logits").kernel.numpy()
    np.testing.assert_array_equal(kernel, lenet.get_layer("head_logits").kernel.numpy().astype(np.float16))
    for file in (KERAS_FILE, "variables/variables.data-00000-of-00001"):
        assert (half / file).stat().st_size < 0.6 * (bundle / file).stat().st_size
