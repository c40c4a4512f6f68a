"""An export writes all forms of a network or refuses to, and TensorFlow alone answers as this package does."""

import json
import logging
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import toolkit.export.bundle
from toolkit import Predictor
from toolkit.bundle import (
    EXAMPLE_LABELS,
    EXAMPLES,
    KERAS_FILE,
    MANIFEST,
    list_versions,
    litert_file,
    read_manifest,
    verify_files,
)
from toolkit.data.feed.arrays import load_pixels
from toolkit.data.feed.split import Subset
from toolkit.data.pixels.decode import normalize
from toolkit.engines import ENGINES
from toolkit.engines.convert import to_litert
from toolkit.engines.timing import Latency, recommend
from toolkit.errors import UserError
from toolkit.export import ParityError, export_bundle, parity
from toolkit.export.bundle import _timings
from toolkit.export.parity import Comparison
from toolkit.machine import processor
from toolkit.network import weights_digest
from toolkit.spec import Preprocessing


def files_below(directory):
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


def test_bundle_has_the_layout_that_servers_and_people_expect(bundle):
    assert bundle.name == "1"
    assert bundle.parent.name == "digits"
    assert files_below(bundle) - {"fingerprint.pb"} == {
        "saved_model.pb",
        "variables/variables.index",
        "variables/variables.data-00000-of-00001",
        "assets/labels.txt",
        "assets.extra/manifest.json",
        "assets.extra/tf_serving_warmup_requests",
        "assets.extra/model.keras",
        "assets.extra/model.fp32.tflite",
        "assets.extra/model.int8.tflite",
        "assets.extra/examples.json",
        *(f"assets.extra/examples/{index:02d}.png" for index in range(3)),
    }
    assert (bundle / "assets/labels.txt").read_text() == "".join(f"{label}\n" for label in "0123456789")


def test_manifest_says_what_was_exported_and_how_good_it_is(bundle, lenet, lenet_preprocessing, digits_split):
    manifest = read_manifest(bundle)
    assert (manifest.name, manifest.model, manifest.num_params) == ("digits", "lenet5", 61_706)
    assert manifest.labels == tuple("0123456789")
    assert manifest.preprocessing == lenet_preprocessing
    assert manifest.weights_digest == weights_digest(lenet)
    assert manifest.forced == ()
    assert set(manifest.files) == files_below(bundle) - {MANIFEST}
    verify_files(bundle, manifest)
    inputs = normalize(load_pixels(digits_split.test.paths, lenet_preprocessing), lenet_preprocessing)
    correct = lenet.predict(inputs, verbose=0).argmax(1) == digits_split.test.labels
    assert manifest.metrics["top1"] == pytest.approx(correct.mean())
    assert manifest.metrics["n"] == 359
    assert 0.85 < manifest.metrics["top1"] <= manifest.metrics["top5"] <= 1
    assert abs(manifest.metrics["top1_litert-int8"] - manifest.metrics["top1"]) <= 0.011
    assert all(manifest.parity[name] < 1e-4 for name in ("savedmodel", "litert"))
    assert {"python", "keras", "tensorflow", "numpy"} <= set(manifest.versions)
    assert manifest.recommended_engine in manifest.parity
    assert manifest.ground == pytest.approx(0, abs=0.1)  # white on black


def test_examples_are_held_out_pictures_of_different_classes(bundle, digits_split):
    test = digits_split.test
    for label, path in enumerate(sorted((bundle / EXAMPLES).iterdir())):
        (first,) = [p for p, own in list(zip(test.paths, test.labels, strict=True)) if own == label][:1]
        assert path.read_bytes() == Path(first).read_bytes()
    rows = json.loads((bundle / EXAMPLE_LABELS).read_text())
    assert rows == [{"file": f"{label:02d}.png", "label": str(label)} for label in range(3)]


def test_keras_file_goes_on_where_training_ended(bundle, lenet):
    model = keras.saving.load_model(bundle / KERAS_FILE, safe_mode=True)
    for ours, theirs in zip(model.get_weights(), lenet.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


WITHOUT_US = """
import sys
sys.modules["toolkit"] = None  # as where it is not installed
import keras, numpy
model = keras.saving.load_model(sys.argv[1])
assert not model.compiled
numpy.save(sys.argv[2], model(numpy.load(sys.argv[2]), training=False))
"""


@pytest.mark.slow
def test_plain_keras_opens_the_keras_file_without_this_package(bundle, lenet, tmp_path):
    """It was trained with Adam, whose two slots a weight would be in the file too."""
    assert lenet.optimizer is not None
    assert (bundle / KERAS_FILE).stat().st_size < 1.5 * 4 * lenet.count_params()
    inputs = np.random.default_rng(0).normal(size=(2, 32, 32, 1)).astype(np.float32)
    np.save(tmp_path / "values.npy", inputs)
    command = [sys.executable, "-c", WITHOUT_US, str(bundle / KERAS_FILE), str(tmp_path / "values.npy")]
    subprocess.run(command, check=True, cwd=tmp_path, timeout=120)
    np.testing.assert_allclose(np.load(tmp_path / "values.npy"), lenet(inputs, training=False), atol=1e-5)


@pytest.fixture
def small_export(lenet, lenet_preprocessing, tmp_path):
    """Export without int8 and held-out pictures: the shortest there is."""

    def export(**options):
        options = {"labels": tuple("0123456789"), "preprocessing": lenet_preprocessing} | options
        return export_bundle(options.pop("model", lenet), tmp_path / "saved" / "digits", **options)

    return export


@pytest.mark.slow
@pytest.mark.skipif(not ENGINES["openvino-bf16"].runs_here, reason="this processor does not compute in bfloat16")
def test_bfloat16_beyond_its_budget_costs_the_recommendation_and_not_the_bundle(
    small_export, digits_split, monkeypatch, caplog
):
    monkeypatch.setattr(parity, "BFLOAT16_TOLERANCE", 1e-9)
    few = Subset(digits_split.test.paths[:32], digits_split.test.labels[:32])
    with caplog.at_level(logging.INFO, logger="toolkit"):
        manifest = read_manifest(small_export(evaluation=few))
    assert "openvino-bf16 differs from Keras by" in caplog.text
    assert "not recommended" in caplog.text
    assert {"openvino", "openvino-bf16"} & set(manifest.parity) == {"openvino"}
    assert "top1_openvino-bf16" not in manifest.metrics
    assert manifest.forced == ()
    forced = read_manifest(small_export(evaluation=few, force=True))
    assert forced.forced[0].startswith("openvino-bf16 differs from Keras")


def other_weights(model: keras.Model, *, scale: float) -> keras.Model:
    changed = keras.models.clone_model(model)
    rng = np.random.default_rng(0)
    changed.set_weights([w + scale * rng.normal(size=w.shape).astype(w.dtype) for w in model.get_weights()])
    return changed


def test_versions_grow_and_a_failed_export_leaves_them_alone(small_export, bundle, monkeypatch, tmp_path):
    """Engines that disagree write nothing, unless forced: the manifest then says why they should not have."""
    directory = tmp_path / "saved" / "digits"
    shutil.copytree(bundle, directory / "1")
    monkeypatch.setattr(toolkit.export.bundle, "to_litert", lambda model: to_litert(other_weights(model, scale=0.01)))
    with pytest.raises(ParityError, match=r"not written.*litert differs from Keras by .*more than 0\.0001.*--force"):
        small_export()
    assert [path.name for path in directory.iterdir()] == ["1"]
    assert small_export(force=True) == directory / "2"
    assert list_versions(directory) == [1, 2]
    manifest = read_manifest(directory / "2")
    assert any(objection.startswith("litert differs from Keras") for objection in manifest.forced)
    assert manifest.parity["litert"] > 1e-4
    assert manifest.recommended_engine == "savedmodel"


def test_quantized_file_that_loses_too_much_is_left_out_and_said(
    small_export, lenet, digits_split, monkeypatch, caplog
):
    quantize = toolkit.export.bundle.quantize

    def quantize_badly(model, method, **options):
        return quantize(other_weights(lenet, scale=0.5), method, **options)

    monkeypatch.setattr(toolkit.export.bundle, "quantize", quantize_badly)
    given = {"methods": ("dynamic",), "calibration": digits_split.train, "evaluation": digits_split.test}
    with caplog.at_level(logging.INFO, logger="toolkit"):
        path = small_export(**given)
    assert "litert-dynamic loses " in caplog.text
    assert "written without that file (--force keeps it)" in caplog.text
    manifest = read_manifest(path)
    assert not (path / litert_file("dynamic")).exists()
    assert (manifest.forced, manifest.recipes) == ((), {})
    assert "litert-dynamic" not in manifest.parity
    assert "top1_litert-dynamic" not in manifest.metrics
    assert litert_file("dynamic") not in manifest.files
    kept = small_export(**given, force=True)
    assert (kept / litert_file("dynamic")).exists()
    assert read_manifest(kept).forced[0].startswith("litert-dynamic loses ")


def test_a_mistyped_option_is_named(small_export, tmp_path):
    with pytest.raises(TypeError, match="unexpected keyword argument 'forse'"):
        small_export(forse=True)
    assert list(tmp_path.iterdir()) == []


def test_network_that_answers_nan_is_refused(small_export, lenet, tmp_path):
    broken = keras.models.clone_model(lenet)
    broken.set_weights(lenet.get_weights())
    broken.layers[-1].bias.assign(np.full(10, np.nan))
    with pytest.raises(ParityError, match="nan"):
        small_export(model=broken)
    assert not (tmp_path / "saved" / "digits").exists()


def test_int8_that_nobody_measured_is_not_timed_and_so_not_recommended(lenet_preprocessing, monkeypatch):
    times = {"savedmodel": 9.0, "litert": 8.0, "litert-int8": 0.01, "openvino-int8": 0.02}
    monkeypatch.setattr(
        toolkit.export.bundle, "latencies", lambda engines, *_, **__: {e: Latency(times[e], 10.0) for e in engines}
    )
    engines = {name: name for name in times}
    unmeasured = Comparison(parity=dict.fromkeys(engines, 0.0), scores={}, objections={})
    assert _timings(engines, unmeasured, lenet_preprocessing).p50_ms == {"savedmodel": 9.0, "litert": 8.0}
    measured = replace(unmeasured, scores={"top1_litert-int8": 1.0})
    timings = _timings(engines, measured, lenet_preprocessing)
    assert recommend(timings.p50_ms) == "litert-int8"
    assert timings.processor == processor()


def test_labels_and_preprocessing_that_do_not_fit_are_refused(small_export, lenet_preprocessing, tmp_path):
    with pytest.raises(UserError, match="the network has 10 outputs, but 2 labels"):
        small_export(labels=("a", "b"))
    with pytest.raises(UserError, match=r"takes \(32, 32, 1\) and the preprocessing gives \(28, 28, 1\)"):
        small_export(preprocessing=lenet_preprocessing.resized((28, 28)))
    assert list(tmp_path.iterdir()) == []


def test_file_where_the_bundle_should_go_is_refused_and_kept(small_export, tmp_path):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "digits").write_text("precious")
    with pytest.raises(UserError, match="cannot be written"):
        small_export()
    assert (tmp_path / "saved" / "digits").read_text() == "precious"


def float_types(version_dir) -> set[int]:
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((version_dir / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    types = {attribute.type for node in nodes for attribute in node.attr.values()}
    types |= {t for node in nodes for attribute in node.attr.values() for t in attribute.list.type}
    return types & {tf.half.as_datatype_enum, tf.bfloat16.as_datatype_enum, tf.float32.as_datatype_enum}


def small_network() -> keras.Model:
    """One layer of each kind that computes in half precision under a mixed policy."""
    inputs = keras.Input((16, 16, 3), name="input")
    x = keras.layers.Conv2D(4, 3, name="stem_conv")(inputs)
    stem = keras.layers.BatchNormalization(name="stem_bn")(x)
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="stage1_conv")(stem)
    x = keras.layers.Add(name="stage1_add")([stem, x])
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    return keras.Model(inputs, keras.layers.Dense(3, dtype="float32", name="head_logits")(x), name="small")


@pytest.mark.parametrize("policy", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)])
def test_network_trained_in_mixed_precision_is_exported_in_float32(tmp_path, policy):
    reference = small_network()
    preprocessing = Preprocessing((16, 16))
    keras.config.set_dtype_policy(policy)
    try:
        mixed = small_network()
        mixed.set_weights(reference.get_weights())
        path = export_bundle(mixed, tmp_path / "mixed", labels=("a", "b", "c"), preprocessing=preprocessing)
    finally:
        keras.config.set_dtype_policy("float32")
    assert float_types(path) == {tf.float32.as_datatype_enum}
    saved = keras.saving.load_model(path / KERAS_FILE, safe_mode=True)
    assert {layer.compute_dtype for layer in saved.layers[1:]} == {"float32"}
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    expected = tf.nn.softmax(reference(normalize(pixels, preprocessing), training=False))
    np.testing.assert_allclose(Predictor.load(path, "savedmodel").from_pixels(pixels), expected, atol=1e-4)
    signature = tf.saved_model.load(str(path)).signatures["pixels"]
    assert signature.structured_outputs["top_labels"].shape.as_list() == [None, 3]
