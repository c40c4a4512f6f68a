"""A bundle that answers novelty: alike in every engine, and "none of these" wherever answers are shown."""

import base64
import importlib.util
import json
import shutil
import zipfile
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from toolkit import Predictor
from toolkit.bundle import INT8_LITERT, KERAS_FILE, read_manifest, verify_files, write_manifest
from toolkit.cli import commands
from toolkit.data.feed.arrays import load_pixels
from toolkit.data.pixels.decode import normalize
from toolkit.demo import markup
from toolkit.demo.classifier import Classifier
from toolkit.engines import ENGINES, FLOAT_ENGINES, available_engines, open_engine
from toolkit.export.parity import novelty_objections
from toolkit.inference import evaluate_bundle
from toolkit.lazy import keras
from toolkit.serving import create_app, protocol
from toolkit.transfer.heads.novelty import fit_novelty

needs_worker = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_model_optimization") is None, reason="needs toolkit[compress]"
)


def features_of(model, pixels, preprocessing):
    return keras.Model(model.input, model.layers[-1].input)(normalize(pixels, preprocessing)).numpy()


@pytest.fixture(scope="module")
def novelty(lenet, digits_split, lenet_preprocessing):
    train, val = (
        features_of(lenet, load_pixels(subset.paths, lenet_preprocessing), lenet_preprocessing)
        for subset in (digits_split.train, digits_split.val)
    )
    return fit_novelty(train, np.asarray(digits_split.train.labels), 10, held_out=val)


@pytest.fixture(scope="module")
def knowing(export_digits, novelty):
    """The digits' bundle with novelty."""
    return export_digits(novelty=novelty)


@pytest.fixture(scope="module")
def strange(tmp_path_factory):
    """Pictures of no digit: black, stripes, a chessboard, stripes across."""
    root = tmp_path_factory.mktemp("strange")
    row, column = np.indices((64, 64)) // 8
    pictures = [np.zeros((64, 64)), row % 2 * 255, (row + column) % 2 * 255, column % 2 * 255]
    paths = [root / f"{number}.png" for number in range(len(pictures))]
    for path, pixels in zip(paths, pictures, strict=True):
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return [str(path) for path in paths]


def test_every_engine_and_the_served_graph_give_the_same_score(
    knowing, lenet, novelty, lenet_preprocessing, digits_split
):
    paths = digits_split.test.paths[::9]
    pixels = load_pixels(paths, lenet_preprocessing)
    expected = novelty.scores(features_of(lenet, pixels, lenet_preprocessing))
    names = available_engines(knowing)
    assert {"savedmodel", "litert", "litert-int8"} <= set(names)
    for name in names:
        answers = open_engine(name, knowing, lenet_preprocessing).answers(pixels)
        assert answers.novelty.shape == (len(paths),)
        tolerance = 1e-3 if name in FLOAT_ENGINES else 0.3
        np.testing.assert_allclose(answers.novelty, expected, atol=tolerance, err_msg=name)
        plain = lenet(normalize(pixels, lenet_preprocessing)).numpy()
        assert (answers.probabilities.argmax(axis=1) == plain.argmax(axis=1)).mean() > 0.95
    served = open_engine("savedmodel", knowing, lenet_preprocessing).from_bytes(
        [Path(path).read_bytes() for path in paths[:4]]
    )
    np.testing.assert_allclose(served.novelty, expected[:4], atol=1e-3)
    assert set(read_manifest(knowing).novelty.parity) == set(names)


def test_gate_objects_to_another_score(knowing):
    parity = read_manifest(knowing).novelty.parity
    assert not novelty_objections(parity)
    assert list(novelty_objections(parity | {"litert": 0.01, "litert-int8": float("nan")})) == ["litert", "litert-int8"]


def test_own_pictures_pass_and_others_are_none_of_these(knowing, digits_split, strange):
    predictor = Predictor.load(knowing, "litert")
    own = [predictor.reason(answer) for answer in predictor.iter_answers(digits_split.test.paths)]
    assert np.mean([bool(reason) for reason in own]) <= 0.06
    assert [predictor.reason(answer) for answer in predictor.iter_answers(strange)] == ["unfamiliar"] * 4
    assert max(row.max() for row in predictor.probabilities(strange)) > 0.5  # which probability would not tell
    assert predictor.novelty_above == 1


def test_older_bundles_and_several_answer_as_before(bundle, knowing, strange):
    old = Predictor.load(bundle, "litert")
    (answer, *_) = old.iter_answers(strange)
    assert (old.novelty_above, answer.novelty, old.reason(answer)) == (None, None, "")
    several = Predictor.load_several([bundle, knowing], "litert")
    assert not any(several.is_rejected(answer) for answer in several.iter_answers(strange))
    assert not any(Predictor.load(knowing, "litert", crops=10).is_rejected(a) for a in several.iter_answers(strange))


def test_the_network_in_the_bundle_opens_by_keras_alone(knowing, bundle):
    with zipfile.ZipFile(knowing / KERAS_FILE) as file:
        assert b"toolkit" not in file.read("config.json")  # no layer of this package
    network = keras.saving.load_model(knowing / KERAS_FILE)
    assert (len(network.outputs), network.output_shape) == (1, (None, 10))
    assert read_manifest(knowing).weights_digest == read_manifest(bundle).weights_digest
    verify_files(knowing, read_manifest(knowing))


def test_command_line_says_it_and_why(knowing, strange, digits_split, capsys):
    images = [strange[0], digits_split.test.paths[0]]
    plain = {"engine": "litert", "others": [], "cluster": None, "server": None, "crops": 1, "scales": [], "top_k": 2}
    commands.predict(Namespace(bundle=knowing, images=images, json=False, csv=False, **plain))
    first, second = capsys.readouterr().out.splitlines()
    assert f"{images[0]}: none of these (unlike the pictures of every class; " in first
    assert "none of these" not in second
    commands.predict(Namespace(bundle=knowing, images=images, json=True, csv=False, **plain))
    rows = json.loads(capsys.readouterr().out)
    assert [(row["rejected"], row["reason"], row["novelty"] > 1) for row in rows] == [
        (True, "unfamiliar", True),
        (False, "", False),
    ]
    commands.predict(Namespace(bundle=knowing, images=images, json=False, csv=True, **plain))
    header, row, _ = capsys.readouterr().out.splitlines()
    assert header.endswith("label_2,probability_2,reason,novelty")
    assert ",true," in row
    assert "unfamiliar" in row


def test_server_answers_it_and_metadata_tells_the_threshold(knowing, bundle, strange):
    client = TestClient(create_app(knowing.parent.parent, "litert"))
    instances = [_b64(path) for path in strange]
    document = client.post("/v1/models/digits:predict", json={"instances": instances}).json()
    assert all(row["novelty"] > 1 for row in document["predictions"])
    metadata = protocol.metadata_of("digits", 1, read_manifest(knowing))["metadata"]
    assert metadata["rejection"] == {"novelty_above": 1.0}
    signatures = metadata["signature_def"]["signature_def"]
    assert set(document["predictions"][0]) == set(signatures["serving_default"]["outputs"])
    assert "novelty" not in signatures["features"]["outputs"]
    old = protocol.metadata_of("digits", 1, read_manifest(bundle))["metadata"]
    assert "novelty" not in old["signature_def"]["signature_def"]["serving_default"]["outputs"]


def _b64(path):
    return {"b64": base64.b64encode(Path(path).read_bytes()).decode()}


def test_demo_and_evaluation_say_it(knowing, strange, digits_folder):
    answer = Classifier(knowing.parent.parent).classify(Path(strange[2]).read_bytes(), "digits", "litert")
    assert (answer.rejected, answer.reason) == (True, "unfamiliar")
    card = markup.answer_card(answer)
    assert '<span class="tk-label">none of these</span>' in card
    assert '<span class="tk-sure">unlike the pictures it learned from</span>' in card
    report = evaluate_bundle(Predictor.load(knowing, "litert"), digits_folder, subset="all")
    assert (report["novelty_above"], "reject_below" in report) == (1, False)
    assert 0 < report["rejected"] <= 0.06


def test_manifest_without_the_facts_means_no_threshold(knowing, tmp_path, strange):
    copy = shutil.copytree(knowing, tmp_path / "1")
    write_manifest(copy, replace(read_manifest(copy), novelty=None))
    predictor = Predictor.load(copy, "litert")
    assert not any(predictor.is_rejected(answer) for answer in predictor.iter_answers(strange))


@pytest.mark.parametrize(
    ("method", "engine"),
    [("dynamic", "litert-dynamic"), pytest.param("qat", "litert-int8", marks=[pytest.mark.slow, needs_worker])],
)
def test_compressed_network_answers_it(knowing, digits, strange, tmp_path, method, engine):
    from toolkit.workflows import compress_bundle
    from toolkit.workflows.compress import CompressionOptions

    shutil.copytree(knowing, tmp_path / "digits" / "1")
    made = Path(
        compress_bundle(tmp_path / "digits", method, data=digits, options=CompressionOptions(epochs=1))["bundle"]
    )
    predictor = Predictor.load(made, engine)
    assert [predictor.reason(answer) for answer in predictor.answers(strange)] == ["unfamiliar"] * 4
    parity = read_manifest(made).novelty.parity
    assert set(parity) >= {"savedmodel", "litert", engine}
    assert 0 < parity[engine] < 0.1


def test_a_file_that_lacks_it_promises_none(knowing, bundle, strange, tmp_path):
    """As int8 files of quantization-aware training did."""
    older = shutil.copytree(knowing, tmp_path / "digits" / "1")
    shutil.copyfile(bundle / INT8_LITERT, older / INT8_LITERT)
    manifest = read_manifest(older)
    parity = {name: value for name, value in manifest.novelty.parity.items() if ENGINES[name].file != INT8_LITERT}
    manifest = replace(manifest, novelty=replace(manifest.novelty, parity=parity))
    write_manifest(older, replace(manifest, recommended_engine="litert-int8"))
    predictor = Predictor.load(older, "litert-int8")
    assert (predictor.novelty_above, predictor.manifest.novelty) == (None, None)
    assert [predictor.reason(answer) for answer in predictor.answers(strange)] == [""] * 4
    tensor = {"name": "image_bytes", "datatype": "BYTES", "shape": [1], "data": [_b64(strange[0])["b64"]]}
    for engine, told in {"litert-int8": False, "recommended": False, "litert": True, "auto": True}.items():
        client = TestClient(create_app(older.parent.parent, engine))
        signatures = client.get("/v1/models/digits/metadata").json()["metadata"]["signature_def"]["signature_def"]
        assert ("novelty" in signatures["serving_default"]["outputs"]) == told
        names = {row["name"] for row in client.get("/v2/models/digits").json()["outputs"]}
        assert ("novelty" in names) == told
        answer = client.post("/v2/models/digits/infer", json={"inputs": [tensor]}).json()
        assert ("novelty" in {row["name"] for row in answer["outputs"]}) == told
        (row,) = client.post("/v1/models/digits:predict", json={"instances": [_b64(strange[0])]}).json()["predictions"]
        assert ("novelty" in row) == told


def test_onnx_file_answers_it(knowing, lenet_preprocessing, digits_split, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    from toolkit.workflows.onnx import export_onnx

    export_onnx(knowing, tmp_path / "digits.onnx")
    pixels = load_pixels(digits_split.test.paths[:6], lenet_preprocessing)
    session = onnxruntime.InferenceSession(tmp_path / "digits.onnx", providers=["CPUExecutionProvider"])
    (found,) = session.run(["novelty"], {"pixels": pixels})
    expected = open_engine("litert", knowing, lenet_preprocessing).answers(pixels).novelty
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert json.loads(session.get_modelmeta().custom_metadata_map["novelty_above"]) == 1.0
