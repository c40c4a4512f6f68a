"""The files for other servers say what those servers read, in their own form."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from tensorflow_serving.config import model_server_config_pb2

from toolkit.bundle import FLOAT_LITERT, move_label, read_manifest, set_recommended
from toolkit.engines import open_engine
from toolkit.errors import UserError
from toolkit.inference import Predictor
from toolkit.lazy import import_openvino
from toolkit.workflows.deploy import export_tf_serving, files, model_server
from toolkit.workflows.deploy.batching import BATCH_SIZES, Batching
from toolkit.workflows.deploy.files import _compose, _kserve

NAMES = ("digits", '$HOME it\'s "q"', "犬", "7", "a: b")

#: Fields of these documents that are used here, by the servers' documentation; any other is a mistake.
BATCHING = ("max_batch_size", "batch_timeout_micros", "max_enqueued_batches", "num_batch_threads")
BATCHING = (*BATCHING, "max_execution_batch_size")


def closed(required, **properties):
    return {"type": "object", "required": required, "properties": properties, "additionalProperties": False}


TEXT, COUNT = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 1}
BIND = closed(
    ["type", "source", "target", "read_only"],
    type={"const": "bind"},
    source=TEXT,
    target={"type": "string", "pattern": "^/"},
    read_only={"const": True},
)
SERVICE = closed(
    ["image", "command", "ports", "volumes"],
    image=TEXT,
    profiles={"type": "array", "items": TEXT},
    command={"type": "array", "items": {"type": "string", "pattern": "^--[a-z_]+=.+"}},
    ports={"type": "array", "items": {"type": "string", "pattern": r"^127\.0\.0\.1:\d+:\d+$"}},
    volumes={"type": "array", "items": BIND},
    restart={"enum": ["no", "always", "on-failure", "unless-stopped"]},
)
COMPOSE = closed(["services"], services={"type": "object", "additionalProperties": SERVICE})
PREDICTOR = closed(
    ["model"],
    minReplicas=COUNT,
    maxReplicas=COUNT,
    scaleMetric={"enum": ["concurrency", "rps", "cpu", "memory"]},
    scaleTarget=COUNT,
    batcher=closed(["maxBatchSize", "maxLatency"], maxBatchSize=COUNT, maxLatency=COUNT),
    model=closed(
        ["modelFormat", "storageUri"],
        modelFormat=closed(["name"], name={"const": "tensorflow"}),
        storageUri={"type": "string", "pattern": "^(pvc|s3|gs|https?)://"},
        resources=closed(
            ["requests"],
            requests=closed(["cpu", "memory"], cpu=TEXT, memory={"type": "string", "pattern": r"^\d+Gi$"}),
        ),
    ),
)
KSERVE = closed(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion={"const": "serving.kserve.io/v1beta1"},
    kind={"const": "InferenceService"},
    metadata=closed(["name"], name={"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}),
    spec=closed(["predictor"], predictor=PREDICTOR),
)
OPENVINO = closed(
    ["model_config_list"],
    model_config_list={
        "type": "array",
        "items": closed(
            ["config"],
            config=closed(
                ["name", "base_path"],
                name=TEXT,
                base_path=TEXT,
                target_device=TEXT,
                plugin_config={"type": "object", "additionalProperties": TEXT},
            ),
        ),
    },
)


def parse_batching(text):
    """Parse a file of TensorFlow Serving's BatchingParameters, whose message no package brings."""
    file = descriptor_pb2.FileDescriptorProto(name="batching.proto", package="batching", syntax="proto3")
    value = file.message_type.add(name="Int64Value")
    value.field.add(name="value", number=1, type=3, label=1)
    message = file.message_type.add(name="BatchingParameters")
    for number, name in enumerate(BATCHING, start=1):
        message.field.add(name=name, number=number, type=11, type_name=".batching.Int64Value", label=1)
    message.field.add(name="enable_large_batch_splitting", number=9, type=11, type_name=".batching.BoolValue", label=1)
    file.message_type.add(name="BoolValue").field.add(name="value", number=1, type=8, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("batching.BatchingParameters"))
    return text_format.Parse(text, kind())


@pytest.fixture(scope="module")
def exported(bundle, tmp_path_factory):
    directory = tmp_path_factory.mktemp("deploy") / "digits"
    return directory, export_tf_serving(bundle, directory)


def test_every_file_is_in_its_servers_form(exported, bundle):
    directory, _ = exported
    assert sorted(path.name for path in directory.iterdir()) == [
        *("batching.config", "compose.yaml", "kserve.yaml", "models.config", "openvino")
    ]
    compose = yaml.safe_load((directory / "compose.yaml").read_text())
    jsonschema.validate(compose, COMPOSE)
    service = compose["services"]["tf_serving"]
    assert service["volumes"][0]["source"] == str(bundle.parent.parent)
    for option in service["command"]:
        if "=/config/" in option:
            assert (directory / option.partition("=/config/")[2]).is_file()
    jsonschema.validate(yaml.safe_load((directory / "kserve.yaml").read_text()), KSERVE)
    text = (directory / "models.config").read_text()
    (model,) = text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("digits", "/models/digits", "tensorflow")
    assert model.model_version_policy.latest.num_versions == 1


def test_batching_is_what_was_measured(exported):
    directory, report = exported
    text = (directory / "batching.config").read_text()
    found = parse_batching(text)
    assert list(report["milliseconds"]) == list(BATCH_SIZES)
    assert all(taken > 0 for taken in report["milliseconds"].values())
    assert found.max_execution_batch_size.value == report["batching"]["size"]
    assert found.max_batch_size.value >= found.max_execution_batch_size.value
    assert found.batch_timeout_micros.value == round(1000 * report["batching"]["wait_ms"])
    for size, taken in report["milliseconds"].items():
        assert f"{size:>3} {taken:>9.2f}" in text
    batched = "--enable_batching=true" in (directory / "compose.yaml").read_text()
    assert batched == (report["batching"]["size"] > 1)


def openvino_answers(directory, pixels):
    config = json.loads((directory / "openvino" / "config.json").read_text())
    jsonschema.validate(config, OPENVINO)
    (row,) = config["model_config_list"]
    place = directory / "openvino" / row["config"]["base_path"].removeprefix("/models/") / "1" / "model.xml"
    return import_openvino().Core().compile_model(place, "CPU", row["config"]["plugin_config"])(pixels)["probabilities"]


def test_openvinos_file_takes_pixels_and_answers_probabilities(exported, bundle):
    directory, report = exported
    assert report["openvino"]["difference"] <= 1e-4
    pixels = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), np.uint8)
    expected = Predictor.load(bundle, report["openvino"]["engine"]).from_pixels(pixels)
    np.testing.assert_allclose(openvino_answers(directory, pixels), expected, atol=1e-4)


def test_labels_versions_and_the_recommended_engine_are_served(bundle, tmp_path):
    digits = tmp_path / "saved_models" / "digits"
    for version in "123":
        shutil.copytree(bundle, digits / version)
    move_label(digits, "stable", 1)
    move_label(digits, "canary", 3)
    set_recommended(digits / "1", "openvino-int8")
    report = export_tf_serving(digits / "1", tmp_path / "deploy")
    text = (tmp_path / "deploy" / "models.config").read_text()
    (model,) = text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config
    assert dict(model.version_labels) == {"stable": 1, "canary": 3}
    assert list(model.model_version_policy.specific.versions) == [1, 3]
    assert report["openvino"]["engine"] == "openvino-int8"
    pixels = np.random.default_rng(1).integers(0, 256, (5, 32, 32, 3), np.uint8)
    manifest = Predictor.load(bundle).manifest
    expected = open_engine("openvino-int8", bundle, manifest.preprocessing).probabilities(pixels)
    np.testing.assert_allclose(openvino_answers(tmp_path / "deploy", pixels), expected, atol=1e-4)


def as_written(difference):
    """Stand in for ``model_server._write``: a file whose answers differ so much from those of each engine."""
    return lambda name, version_dir, manifest, file: file.write_text(name) and difference[name]


def test_an_int8_file_that_answers_otherwise_there_gives_way_to_the_float_one(bundle, tmp_path, monkeypatch):
    """And where that does, too, the files for the other servers are written all the same."""
    shutil.copytree(bundle, tmp_path / "digits" / "1")
    set_recommended(tmp_path / "digits" / "1", "openvino-int8")
    monkeypatch.setattr(files, "time_batches", lambda *a: {1: 1.0})
    monkeypatch.setattr(model_server, "_write", as_written({"openvino-int8": 0.02, "openvino": 1e-6}))
    report = export_tf_serving(tmp_path / "digits" / "1", tmp_path / "float")
    assert report["openvino"] == {"engine": "openvino", "difference": 1e-6}
    assert (tmp_path / "float/openvino/digits/1/model.xml").read_text() == "openvino"
    monkeypatch.setattr(model_server, "_write", as_written({"openvino-int8": 0.02, "openvino": float("nan")}))
    report = export_tf_serving(tmp_path / "digits" / "1", tmp_path / "without")
    assert report["openvino"] is None
    assert sorted(report["files"]) == ["batching.config", "compose.yaml", "kserve.yaml", "models.config"]
    assert "openvino" not in (tmp_path / "without/compose.yaml").read_text()


def test_a_damaged_file_is_not_written_on(bundle_copy, tmp_path):
    file = bundle_copy / FLOAT_LITERT
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    manifest = replace(read_manifest(bundle_copy), recommended_engine="litert")  # which engine was fastest is chance
    with pytest.raises(UserError, match=r"model\.fp32\.tflite: checksum differs from the manifest"):
        model_server.write_model(bundle_copy, manifest, tmp_path / "model.xml")
    assert not (tmp_path / "model.xml").exists()


@pytest.mark.parametrize("name", NAMES)
def test_odd_names_stay_what_they_are(name, tmp_path):
    for batching in (Batching(1, 0.0, 9, 2), Batching(16, 2.5, 9, 2)):
        manifest = yaml.safe_load(_kserve(name, batching, 10**9))
        jsonschema.validate(manifest, KSERVE)
        assert manifest["spec"]["predictor"]["model"]["storageUri"] == f"pvc://saved-models/{name}"
        compose = yaml.safe_load(_compose(tmp_path / name, batching, with_openvino=False))
        jsonschema.validate(compose, COMPOSE)
        source = compose["services"]["tf_serving"]["volumes"][0]["source"]
        assert source.replace("$$", "$") == str(tmp_path / name)


def test_what_cannot_be_written_is_said_before_anything_is_measured(bundle, bundle_copy, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "open_engine", None)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for place in ("full", "full/file"):
        with pytest.raises(UserError, match=r"is there already; name a new folder"):
            export_tf_serving(bundle, tmp_path / place)
    with pytest.raises(UserError, match=r"not a writable folder .*; name another place by --tf-serving"):
        export_tf_serving(bundle, tmp_path / "full" / "file" / "new")
    shutil.copytree(bundle, tmp_path / "plain")
    with pytest.raises(UserError, match="not a numbered version of a bundle; servers look for NAME/VERSION"):
        export_tf_serving(tmp_path / "plain", tmp_path / "new")
    (bundle_copy / "saved_model.pb").write_bytes(b"damaged")
    with pytest.raises(UserError, match="checksum differs"):
        export_tf_serving(bundle_copy, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_manifest_that_is_there_to_begin_with_is_one():
    app = Path(__file__).parents[3] / "apps" / "kserve" / "inferenceservice.yaml"
    jsonschema.validate(yaml.safe_load(app.read_text()), KSERVE)
