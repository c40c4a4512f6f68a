"""``auto`` goes by what was measured: remembered on this machine, else in the bundle, else in a moment."""

import dataclasses
import json
import logging
import sys
import time

import pytest

from toolkit import Predictor
from toolkit.bundle import FLOAT_LITERT, MANIFEST, Manifest, Timings, read_manifest
from toolkit.engines import ENGINES, runtimes
from toolkit.engines.timing import Latency
from toolkit.errors import UserError
from toolkit.inference import benchmark_bundle, choice
from toolkit.inference.choice import remember_times, resolve_engine
from toolkit.machine import processor

pytestmark = pytest.mark.skipif(not ENGINES["openvino"].is_installed, reason="there is but one engine to choose")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache that remembers nothing yet, and a timing of engines that is not allowed."""
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(choice, "latencies", lambda *_, **__: pytest.fail("timed, though times are known"))
    choice._timed.cache_clear()
    return tmp_path / "cache" / "times"


@pytest.fixture
def timed(monkeypatch):
    """Allow timing, and say what it finds; gives the engines it was asked for, each time."""
    asked = []

    def latencies(engines, pixels, **_):
        asked.append(sorted(engines))
        return {"openvino": Latency(3.0, 4.0), "litert": Latency(2.0, 9.0)}

    monkeypatch.setattr(choice, "latencies", latencies)
    return asked


def having(bundle, processor=None, **p50_ms):
    timings = Timings(processor, p50_ms) if processor else None
    return dataclasses.replace(read_manifest(bundle), timings=timings)


def test_export_writes_the_table_that_auto_goes_by(bundle):
    manifest = read_manifest(bundle)
    assert manifest.timings.processor == processor()
    assert {"savedmodel", "litert", "openvino"} <= set(manifest.timings.p50_ms) <= set(ENGINES)
    light = {name: manifest.timings.p50_ms[name] for name in ("litert", "openvino")}
    assert resolve_engine("auto", bundle, manifest) == min(light, key=light.get)


def test_auto_is_the_fastest_float_engine_of_the_bundles_table(bundle):
    digits = having(bundle, processor(), savedmodel=0.5, openvino=0.1, litert=0.04, **{"litert-int8": 0.01})
    assert resolve_engine("auto", bundle, digits) == "litert"
    photos = having(bundle, processor(), savedmodel=40.0, openvino=9.0, litert=20.0)
    assert resolve_engine("auto", bundle, photos) == "openvino"
    assert Predictor.load(bundle).engine_name == resolve_engine("auto", bundle, read_manifest(bundle))


def test_tensorflow_has_to_be_clearly_faster_to_be_waited_for(bundle):
    assert (
        resolve_engine("auto", bundle, having(bundle, processor(), savedmodel=9, openvino=10, litert=11)) == "openvino"
    )
    assert (
        resolve_engine("auto", bundle, having(bundle, processor(), savedmodel=1, openvino=10, litert=11))
        == "savedmodel"
    )


def test_engine_that_the_gate_objected_to_is_never_auto(bundle):
    manifest = having(bundle, processor(), savedmodel=9.0, openvino=5.0, litert=1.0)
    forced = dataclasses.replace(manifest, forced=("litert differs from Keras by 0.5, more than 0.0001",))
    assert resolve_engine("auto", bundle, forced) == "openvino"


def test_where_no_float_engine_is_installed_the_compared_one_answers(bundle, monkeypatch, caplog):
    """As in a container without TensorFlow, of a bundle without a float LiteRT file."""
    monkeypatch.setattr(choice, "available_engines", lambda _: ["litert-int8", "openvino-int8"])
    compared = dataclasses.replace(having(bundle), recommended_engine="litert-int8")
    with caplog.at_level("INFO", "toolkit"):
        assert resolve_engine("auto", bundle, compared) == "litert-int8"
    assert "no engine that computes it in float32 is installed; litert-int8 answers" in caplog.text
    forced = dataclasses.replace(compared, forced=("litert-int8 answers 12 of 100 otherwise",))
    assert resolve_engine("auto", bundle, forced) == "savedmodel"  # which says what to install


def test_table_of_another_processor_counts_for_nothing_and_a_timing_is_remembered(bundle, timed, cache):
    elsewhere = having(bundle, "Another, 4 threads", savedmodel=9.0, openvino=1.0, litert=8.0)
    assert [resolve_engine("auto", bundle, elsewhere) for _ in range(3)] == ["litert"] * 3
    assert timed == [["litert", "openvino"]]  # TensorFlow would take seconds to import
    (file,) = cache.iterdir()
    assert json.loads(file.read_text())["p50_ms"] == {"openvino": 3.0, "litert": 2.0}
    choice._timed.cache_clear()  # as in another process
    assert resolve_engine("auto", bundle, elsewhere) == "litert"
    assert len(timed) == 1


def test_older_bundle_without_a_table_is_timed(bundle_copy, timed):
    document = json.loads((bundle_copy / MANIFEST).read_text())
    del document["timings"]
    (bundle_copy / MANIFEST).write_text(json.dumps(document))
    assert Predictor.load(bundle_copy).engine_name == "litert"
    assert len(timed) == 1


def test_real_timing_takes_less_than_a_second(bundle, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(choice, "remember_times", lambda *_: None)
    choice._timed.cache_clear()
    start = time.process_time()
    assert resolve_engine("auto", bundle, having(bundle)) in ("litert", "openvino")
    assert time.process_time() - start < 2  # on two threads, opening the engines included


def test_what_was_remembered_here_comes_before_the_bundles_table(bundle):
    manifest = having(bundle, processor(), savedmodel=9.0, openvino=5.0, litert=1.0)
    remember_times(manifest, {"openvino": 1.0, "litert": 2.0, "litert-int8": 0.1})
    assert resolve_engine("auto", bundle, manifest) == "openvino"


def test_benchmark_is_remembered(bundle):
    report = benchmark_bundle(bundle, batch_sizes=(1,))
    p50 = {row["engine"]: row["p50_ms"] for row in report["rows"]}
    fastest = min(("litert", "openvino"), key=p50.get)
    slower_says_the_table = having(
        bundle,
        processor(),
        savedmodel=9.0,
        **{fastest: 8.0},
        **{"litert" if fastest == "openvino" else "openvino": 1.0},
    )
    assert resolve_engine("auto", bundle, slower_says_the_table) == fastest


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"p50_ms": {"openvino": "fast", "litert": 1}}', b'{"p50_ms": 3}', b"\xff"]
)
def test_damaged_memory_is_forgotten(bundle, content, cache):
    manifest = having(bundle, processor(), savedmodel=9.0, openvino=5.0, litert=1.0)
    remember_times(manifest, {"openvino": 1.0, "litert": 2.0})
    (file,) = cache.iterdir()
    file.write_bytes(content)
    assert resolve_engine("auto", bundle, manifest) == "litert"


def test_cache_that_cannot_be_written_costs_a_timing_once_a_process(bundle, timed, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    manifest = having(bundle)
    assert [resolve_engine("auto", bundle, manifest) for _ in range(3)] == ["litert"] * 3
    assert len(timed) == 1


def test_other_weights_versions_or_processors_are_other_memories(bundle, monkeypatch):
    manifest = having(bundle, processor(), savedmodel=9.0, openvino=5.0, litert=1.0)
    remember_times(manifest, {"openvino": 1.0, "litert": 2.0})
    assert resolve_engine("auto", bundle, dataclasses.replace(manifest, weights_digest="0" * 64)) == "litert"
    monkeypatch.setattr(choice, "_version", lambda module: "99")
    assert resolve_engine("auto", bundle, manifest) == "litert"


def test_damaged_file_is_named_when_it_is_loaded(bundle_copy, timed):
    manifest = having(bundle_copy)
    (bundle_copy / MANIFEST).write_bytes((bundle_copy / MANIFEST).read_bytes())
    (bundle_copy / FLOAT_LITERT).write_bytes(b"garbage")
    write = json.loads((bundle_copy / MANIFEST).read_text()) | {"timings": None}
    (bundle_copy / MANIFEST).write_text(json.dumps(write))
    assert resolve_engine("auto", bundle_copy, manifest) == "openvino"
    with pytest.raises(UserError, match=r"model\.fp32\.tflite: checksum"):
        Predictor.load(bundle_copy)
    assert timed == []


def test_auto_makes_do_with_what_is_installed(bundle, monkeypatch):
    manifest = having(bundle)
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert resolve_engine("auto", bundle, manifest) == "litert"
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    assert resolve_engine("auto", bundle, manifest) == "savedmodel"


@pytest.fixture
def with_bfloat16(bundle, monkeypatch):
    """Makes the manifest of a bundle whose export had nothing against bfloat16, on a processor that has it."""
    monkeypatch.setattr(runtimes, "computes_bfloat16", lambda: True)

    def described(**p50_ms) -> Manifest:
        manifest = having(bundle, processor(), **{name.replace("_", "-"): median for name, median in p50_ms.items()})
        return dataclasses.replace(manifest, metrics=dict(manifest.metrics) | {"top1_openvino-bf16": 0.9})

    return described


def test_bfloat16_is_chosen_only_where_it_is_allowed_and_clearly_faster(bundle, with_bfloat16):
    fast = with_bfloat16(savedmodel=40.0, openvino=9.0, litert=20.0, openvino_bf16=3.0)
    assert resolve_engine("auto", bundle, fast) == "openvino"
    assert resolve_engine("auto-bf16", bundle, fast) == "openvino-bf16"
    slow = with_bfloat16(savedmodel=40.0, openvino=9.0, litert=20.0, openvino_bf16=8.0)
    assert resolve_engine("auto-bf16", bundle, slow) == "openvino"


def test_bfloat16_that_was_not_measured_or_not_passed_is_not_chosen(bundle, with_bfloat16, monkeypatch, caplog):
    caplog.set_level(logging.INFO, logger="toolkit")
    fast = with_bfloat16(savedmodel=40.0, openvino=9.0, litert=20.0, openvino_bf16=3.0)
    unknown = {name: value for name, value in fast.metrics.items() if "bf16" not in name}
    assert resolve_engine("auto-bf16", bundle, dataclasses.replace(fast, metrics=unknown)) == "openvino"
    forced = dataclasses.replace(fast, forced=("openvino-bf16 differs from Keras by 0.5, more than 0.01",))
    assert resolve_engine("auto-bf16", bundle, forced) == "openvino"
    assert caplog.text.count("float32 answers, not bfloat16: the export did not measure its answers") == 2
    monkeypatch.setattr(runtimes, "computes_bfloat16", lambda: False)
    assert resolve_engine("auto-bf16", bundle, fast) == "openvino"
    assert "float32 answers, not bfloat16: this processor does not compute in it" in caplog.text


def test_time_of_bfloat16_is_remembered_too(bundle, with_bfloat16):
    manifest = with_bfloat16(savedmodel=9.0, openvino=5.0, litert=1.0)
    remember_times(manifest, {"openvino": 3.0, "litert": 2.0, "openvino-bf16": 0.5})
    assert resolve_engine("auto-bf16", bundle, manifest) == "openvino-bf16"
    assert resolve_engine("auto", bundle, manifest) == "litert"
