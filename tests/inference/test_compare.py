import dataclasses
import itertools
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from toolkit import Predictor, model_info
from toolkit.bundle import EXAMPLES, FLOAT_LITERT, INT8_LITERT, KERAS_FILE, MANIFEST, read_manifest, write_manifest
from toolkit.data.feed.arrays import load_pixels
from toolkit.data.pixels.decode import normalize
from toolkit.engines import ENGINES, FLOAT_ENGINES, available_engines
from toolkit.engines.timing import recommend
from toolkit.errors import UserError
from toolkit.export import export_bundle
from toolkit.inference import benchmark_bundle, compare, verify_bundle, verify_version
from toolkit.inference.choice import is_trusted
from toolkit.inference.compare import _verdict
from toolkit.metrics import softmax


@pytest.fixture(scope="module")
def benchmark(bundle):
    return benchmark_bundle(bundle.parent)


def test_benchmark_has_a_row_per_engine_and_batch_size(benchmark, bundle):
    assert benchmark["bundle"] == str(bundle)
    found = [(row["engine"], row["batch"]) for row in benchmark["rows"]]
    assert found == [(engine, batch) for engine in available_engines(bundle) for batch in (1, 16)]


def test_benchmark_rows_hold_consistent_figures(benchmark, bundle):
    metrics = read_manifest(bundle).metrics
    for row in benchmark["rows"]:
        assert set(row) == {"engine", "batch", "p50_ms", "p95_ms", "images_per_s", "bytes", "top1_delta"}
        assert 0 < row["p50_ms"] <= row["p95_ms"]
        assert row["images_per_s"] == pytest.approx(1e3 * row["batch"] / row["p50_ms"], rel=0.05)
        if row["engine"] in FLOAT_ENGINES:
            assert row["top1_delta"] == 0
        else:
            expected = metrics[f"top1_{row['engine']}"] - metrics["top1"]
            assert row["top1_delta"] == pytest.approx(expected, abs=1e-5)
    sizes = {row["engine"]: row["bytes"] for row in benchmark["rows"]}
    assert sizes["litert"] == (bundle / FLOAT_LITERT).stat().st_size
    assert sizes["savedmodel"] > 4 * 61_706
    assert sizes["litert-int8"] < 0.5 * sizes["litert"]


def test_benchmark_recommends_a_fast_row_and_says_against_what(benchmark):
    first = {row["engine"]: row for row in benchmark["rows"] if row["batch"] == 1}
    best = first[benchmark["recommended"]]
    assert best["p50_ms"] <= 1.25 * min(row["p50_ms"] for row in first.values())
    ratio = first["savedmodel"]["p50_ms"] / best["p50_ms"]
    assert benchmark["verdict"].startswith(f"{best['engine']}: {ratio:.1f}× as fast as savedmodel at batch 1")


def test_benchmark_repeats_what_the_export_measured(benchmark, bundle):
    metrics = read_manifest(bundle).metrics
    measured = {"top1": metrics["top1"], "top5": metrics["top5"], "n": 359}
    assert benchmark["held_out"] == measured | {"subset": "held-out", "num_classes": 10}


def row(engine, p50_ms, top1_delta=0.0):
    return {"engine": engine, "batch": 1, "p50_ms": p50_ms, "top1_delta": top1_delta}


def test_only_engines_that_passed_the_gate_are_trusted(bundle):
    manifest = dataclasses.replace(
        read_manifest(bundle),
        metrics={"top1": 0.9, "top1_litert-int8": 0.5, "top1_openvino-int8": 0.9},
        forced=("litert-int8 loses 40.0 points of top-1 over 359 pictures", "openvino differs from Keras by 0.5"),
    )
    trusted = [name for name in ENGINES if is_trusted(name, manifest)]
    assert trusted == ["savedmodel", "litert", "openvino-int8"]


def test_quantized_engine_must_be_clearly_faster():
    assert recommend({"savedmodel": 9.0, "litert": 5.0, "litert-int8": 4.1}) == "litert"
    assert recommend({"savedmodel": 9.0, "litert": 5.0, "litert-int8": 3.9}) == "litert-int8"
    assert recommend({"litert-int8": 3.9}) == "litert-int8"


def test_verdict_states_the_price():
    rows = [row("savedmodel", 9.0), row("litert-int8", 3.0, -0.005)]
    assert _verdict(rows, "litert-int8", 0.95).endswith(
        "3.0× as fast as savedmodel at batch 1 here, for -0.5 points of top-1"
    )
    rows = [row("savedmodel", 9.0), row("litert-int8", 3.0, None)]
    assert "not measured" in _verdict(rows, "litert-int8", 0.95)


def test_verdict_says_when_the_machine_was_busy():
    verdict = _verdict([row("savedmodel", 9.0), row("litert", 3.0)], "litert", 0.42)
    assert verdict.endswith("; a busy machine: only 42 % of its processors' time was free, so measure again later")


def test_benchmark_times_engines_in_turns(bundle, monkeypatch):
    """Whatever the machine does between the first call and the last meets every engine."""
    calls = []

    class Recorded:
        def __init__(self, name):
            self.name = name

        def probabilities(self, pixels):
            calls.append(self.name)
            time.sleep(0.001)

    monkeypatch.setattr(compare, "open_engine", lambda name, *_: Recorded(name))
    monkeypatch.setattr(compare, "remember_times", lambda *_: None)
    benchmark_bundle(bundle, batch_sizes=[1])
    turns = [name for name, _ in itertools.groupby(calls)]
    assert turns == available_engines(bundle) * 6  # a warm-up and five rounds


def test_verify_states_each_engines_answer_and_its_difference_from_keras(
    bundle, digits_split, lenet, lenet_preprocessing
):
    paths = digits_split.test.paths[:60:20]
    report = verify_bundle(bundle, paths)
    reference = softmax(
        lenet(normalize(load_pixels(paths, lenet_preprocessing), lenet_preprocessing), training=False).numpy()
    )
    engines = ["keras", *available_engines(bundle), "savedmodel image_bytes"]
    assert [(r["path"], r["engine"]) for r in report["rows"]] == [(path, name) for path in paths for name in engines]
    for index, path in enumerate(paths):
        rows = {r["engine"]: r for r in report["rows"] if r["path"] == path}
        assert rows["keras"]["difference"] == 0
        assert rows["keras"]["probability"] == pytest.approx(reference[index].max(), abs=1e-5)
        for name in ("savedmodel", "litert", "savedmodel image_bytes"):
            assert rows[name]["difference"] < 1e-4
            assert rows[name]["label"] == str(reference[index].argmax())
        int8 = Predictor.load(bundle, "litert-int8").probabilities([path])[0]
        assert rows["litert-int8"]["difference"] == pytest.approx(np.abs(int8 - reference[index]).max(), abs=1e-4)


@pytest.mark.parametrize("what", [benchmark_bundle, lambda bundle: verify_bundle(bundle, [])])
def test_damaged_bundle_is_one_clear_line(bundle_copy, what):
    (bundle_copy / KERAS_FILE).write_bytes(b"garbage")
    with pytest.raises(UserError, match=r"model\.keras: checksum"):
        what(bundle_copy)


@pytest.mark.slow
def test_network_with_custom_layers_is_verified_in_a_fresh_process(residual, digits_split, tmp_path):
    """Must hold: whoever loads model.keras registers the layers it names."""
    preprocessing = model_info("resnet20").preprocessing
    path = export_bundle(residual, tmp_path / "residual", labels=("a", "b", "c"), preprocessing=preprocessing)
    script = (
        "import sys; from toolkit.inference import verify_bundle;"
        "print(len(verify_bundle(sys.argv[1], sys.argv[2:])['rows']))"
    )
    command = [sys.executable, "-c", script, str(path), *digits_split.test.paths[:2]]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) == 2 * (2 + len(available_engines(path)))


def test_verify_names_a_picture_that_only_the_host_reads(bundle, tmp_path):
    """A PNG without its last bytes: Pillow has all pixels by then, TensorFlow wants the end."""
    content = sorted((bundle / "assets.extra" / "examples").iterdir())[0].read_bytes()
    (tmp_path / "short.png").write_bytes(content[:-4])
    with pytest.raises(UserError, match=r"short\.png: damaged"):
        verify_bundle(bundle, [tmp_path / "short.png"])


def test_what_takes_long_says_what_it_does(bundle, digits_split, told):
    verify_bundle(bundle, digits_split.test.paths[:2])
    steps = [label for label, _, _ in told]
    assert [steps[0], steps[-1]] == ["asking engines", "asking the served graph"]


def test_version_is_verified_by_its_own_examples(bundle):
    report = verify_version(bundle.parent)
    assert (report["bundle"], report["objections"]) == (str(bundle), [])
    assert report["files"] == len(read_manifest(bundle).files)
    assert report["pictures"] == len(list((bundle / EXAMPLES).iterdir()))
    rows = {row["engine"]: row for row in report["rows"]}
    assert set(rows) == set(available_engines(bundle))
    assert rows["litert"]["difference"] <= rows["litert"]["allowed"] == 1e-4
    assert 1e-4 < rows["litert-int8"]["difference"] <= rows["litert-int8"]["allowed"] < 0.5


def test_of_a_folder_every_version_is_verified_and_what_is_wrong_with_one_hides_no_other(bundle, tmp_path):
    (tmp_path / "good").symlink_to(bundle.parent)
    (tmp_path / "bad" / "7" / "assets.extra").mkdir(parents=True)
    (tmp_path / "bad" / "7" / MANIFEST).write_text("{")
    report = verify_version(tmp_path)
    assert report["bundle"] == str(tmp_path)
    assert report["files"] == len(read_manifest(bundle).files)
    assert {row["bundle"] for row in report["rows"]} == {str(tmp_path / "good" / "1")}
    [objection] = report["objections"]
    assert objection.startswith(str(tmp_path / "bad" / "7"))


def test_every_damaged_file_of_a_version_is_told_and_none_is_opened(bundle_copy):
    (bundle_copy / INT8_LITERT).write_bytes(b"damaged")
    (bundle_copy / KERAS_FILE).unlink()
    report = verify_version(bundle_copy)
    assert [line.partition(": ")[2][:17] for line in report["objections"]] == ["checksum differs ", "missing; the bund"]
    assert report["rows"] == []


def test_file_of_another_network_is_told_though_its_checksum_fits(bundle_copy):
    shutil.copy(bundle_copy / INT8_LITERT, bundle_copy / FLOAT_LITERT)
    write_manifest(bundle_copy, read_manifest(bundle_copy))
    objections = verify_version(bundle_copy)["objections"]
    assert objections[0].startswith(f"{bundle_copy}: litert differs from Keras by ")
    assert objections[0].endswith(", more than 0.0001")


def test_engine_that_answers_no_numbers_is_told_whatever_is_allowed(bundle_copy, monkeypatch):
    shutil.rmtree(bundle_copy / EXAMPLES)  # then nothing bounds a quantized engine
    write_manifest(bundle_copy, read_manifest(bundle_copy))
    answers = {name: np.full((1, 10), value) for name, value in (("keras", 0.1), ("litert-int8", np.nan))}
    monkeypatch.setattr(compare, "_engine_answers", lambda *_: answers)
    report = verify_version(bundle_copy)
    assert [row["allowed"] for row in report["rows"]] == [None]
    assert report["objections"] == [f"{bundle_copy}: litert-int8 differs from Keras by nan"]
