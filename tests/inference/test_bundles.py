"""Bundles described, and the engine that they recommend."""

import dataclasses

import pytest

from toolkit import Predictor
from toolkit.bundle import MANIFEST, read_manifest, verify_files, write_manifest
from toolkit.engines import ENGINES
from toolkit.errors import UserError
from toolkit.inference.bundles import describe_bundles, recommend_engine
from toolkit.inference.shelf import Shelf

pytestmark = pytest.mark.skipif(not ENGINES["openvino"].is_installed, reason="there is but one engine to choose")


def test_accuracy_by_cross_validation_is_not_called_held_out(bundle_copy):
    manifest = read_manifest(bundle_copy)
    (row,) = describe_bundles(bundle_copy.parent)
    assert (row["top1"], row["n"], row["subset"]) == (manifest.metrics["top1"], manifest.metrics["n"], "held-out")
    metrics = manifest.metrics | {"standard_error": 0.04}
    write_manifest(bundle_copy, dataclasses.replace(manifest, metrics=metrics))
    (row,) = describe_bundles(bundle_copy.parent)
    assert row["subset"] == "out-of-fold"


def test_directory_without_bundles_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="no bundles in it; expected NAME/VERSION/"):
        describe_bundles(tmp_path)
    with pytest.raises(UserError, match="no such folder; expected a folder of bundles"):
        describe_bundles(tmp_path / "nowhere")


def test_recommending_an_engine_changes_one_word_of_the_manifest(bundle_copy):
    before = read_manifest(bundle_copy)
    assert recommend_engine(bundle_copy.parent, "litert-int8") == bundle_copy
    after = read_manifest(bundle_copy)
    assert after == dataclasses.replace(before, recommended_engine="litert-int8")
    verify_files(bundle_copy, after)
    assert Predictor.load(bundle_copy, "recommended").engine_name == "litert-int8"
    assert [path.name for path in (bundle_copy / MANIFEST).parent.glob(".*")] == []  # nothing half-written beside it


def test_what_a_bundle_cannot_answer_with_is_not_recommended(bundle_copy):
    before = (bundle_copy / MANIFEST).read_bytes()
    with pytest.raises(UserError, match=r"unknown engine 'int8'; .*litert-int8"):
        recommend_engine(bundle_copy, "int8")
    with pytest.raises(
        UserError, match=r"has no .*int16x8\.tflite, which litert-int16x8 runs; it has savedmodel, litert"
    ):
        recommend_engine(bundle_copy, "litert-int16x8", force=True)
    assert (bundle_copy / MANIFEST).read_bytes() == before


def test_engine_that_is_not_trusted_is_recommended_only_by_force(bundle_copy):
    manifest = read_manifest(bundle_copy)
    metrics = {key: value for key, value in manifest.metrics.items() if not key.startswith("top1_openvino-")}
    write_manifest(bundle_copy, dataclasses.replace(manifest, metrics=metrics, forced=("litert-int8 loses 40 points",)))
    with pytest.raises(
        UserError, match=r"litert-int8 loses 40 points; --force .* trusted are: savedmodel, litert, openvino$"
    ):
        recommend_engine(bundle_copy, "litert-int8")
    with pytest.raises(UserError, match="the accuracy of openvino-int8 was not measured"):
        recommend_engine(bundle_copy, "openvino-int8")
    recommend_engine(bundle_copy, "litert-int8", force=True)
    assert read_manifest(bundle_copy).recommended_engine == "litert-int8"


def test_served_bundle_answers_with_what_was_recommended_since(bundle_copy):
    shelf = Shelf(bundle_copy.parent)
    name = bundle_copy.parent.name
    recommend_engine(bundle_copy, "litert")
    assert shelf.get(name, engine="recommended")[1].engine_name == "litert"
    recommend_engine(bundle_copy, "openvino-int8")
    assert shelf.get(name, engine="recommended")[1].engine_name == "openvino-int8"
