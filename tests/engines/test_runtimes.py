"""Every runtime answers as the Keras network does, whatever the batch, from several threads; failures are clear."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import keras
import numpy as np
import pytest

from toolkit import model_info
from toolkit.bundle import FLOAT_LITERT, INT8_LITERT, litert_file
from toolkit.data.feed.arrays import load_pixels
from toolkit.data.pixels.decode import normalize
from toolkit.engines import ENGINES, FLOAT_ENGINES, available_engines, open_engine, runtimes
from toolkit.engines.convert import to_litert
from toolkit.engines.runtimes import KerasEngine
from toolkit.errors import UserError
from toolkit.machine import computes_bfloat16, instruction_sets, num_threads, sums_bytes_exactly
from toolkit.metrics import softmax
from toolkit.spec import Preprocessing

INSTALLED = [name for name, row in ENGINES.items() if row.runs_here]
FLOAT = [name for name in FLOAT_ENGINES if name in INSTALLED]
INT8 = [name for name in INSTALLED if name.endswith("-int8")]

needs_openvino = pytest.mark.skipif(not ENGINES["openvino"].is_installed, reason="needs OpenVINO")


@pytest.fixture(scope="module")
def pixels(digits_split, lenet_preprocessing):
    return load_pixels(digits_split.test.paths[::12], lenet_preprocessing)


@pytest.fixture(scope="module")
def expected(lenet, lenet_preprocessing, pixels):
    return softmax(lenet.predict(pixels[..., :1].astype("float32") / 255 * 2 - 1, verbose=0))


@pytest.fixture(scope="module")
def engines(bundle, lenet_preprocessing):
    """Each installed engine, opened once."""
    return {name: open_engine(name, bundle, lenet_preprocessing) for name in available_engines(bundle)}


def test_bundle_offers_the_engines_it_has_files_for(bundle):
    assert set(available_engines(bundle)) == set(INSTALLED) - {"litert-dynamic", "litert-float16", "litert-int16x8"}


@pytest.mark.parametrize("name", FLOAT)
def test_float_engine_equals_keras_as_the_batch_changes(engines, name, pixels, expected):
    start = 0
    for batch in (1, 3, 1, 20):
        rows = slice(start, start + batch)
        answer = engines[name].probabilities(pixels[rows])
        assert answer.shape == (batch, 10)
        assert answer.dtype == np.float32
        np.testing.assert_allclose(answer, expected[rows], atol=1e-4)
        start += batch


def test_keras_engine_is_keras_as_the_batch_changes(lenet, lenet_preprocessing, pixels, expected):
    engine = KerasEngine(lenet, lenet_preprocessing)
    for rows in (slice(0, 1), slice(1, 4), slice(4, 5)):
        np.testing.assert_allclose(engine.probabilities(pixels[rows]), expected[rows], atol=1e-5)


def test_a_call_without_memory_fails_alone(bundle, lenet_preprocessing, pixels, expected, monkeypatch):
    engine = open_engine("litert", bundle, lenet_preprocessing)
    engine.probabilities(pixels[:1])

    class Full:
        """An interpreter that finds no memory for a larger batch."""

        def __getattr__(self, name):
            return getattr(interpreter, name)

        def allocate_tensors(self):
            raise RuntimeError("no memory")

    interpreter = engine._interpreter
    monkeypatch.setattr(engine, "_interpreter", Full())
    with pytest.raises(RuntimeError, match="no memory"):
        engine.probabilities(pixels[:3])
    monkeypatch.setattr(engine, "_interpreter", interpreter)
    np.testing.assert_allclose(engine.probabilities(pixels[:1]), expected[:1], atol=1e-4)


@pytest.mark.parametrize("name", INT8)
def test_int8_engine_is_close_and_does_not_depend_on_the_batch(engines, name, pixels, expected):
    together = engines[name].probabilities(pixels)
    assert np.mean(together.argmax(1) == expected.argmax(1)) > 0.9
    assert 1e-4 < np.abs(together - expected).max() < 0.5  # not the float file under another name
    for rows in (slice(0, 1), slice(1, 4), slice(4, 5)):
        np.testing.assert_allclose(engines[name].probabilities(pixels[rows]), together[rows], atol=1e-5)


@pytest.mark.parametrize("name", INSTALLED)
def test_threads_get_the_answers_to_their_own_pictures(engines, name, pixels):
    if name not in engines:
        pytest.skip("the bundle has no file for it")
    engine = engines[name]
    alone = engine.probabilities(pixels)
    # Batches of several sizes at once, so that one thread's resize would show in another's answer.
    pieces = [slice(i, i + 1 + i % 3) for i in range(len(pixels) - 3)] * 4
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda rows: engine.probabilities(pixels[rows]), pieces))
    for rows, answer in zip(pieces, answers, strict=True):
        np.testing.assert_allclose(answer, alone[rows], atol=1e-5)


@pytest.mark.parametrize("name", [name for name in INSTALLED if name in ("litert", "openvino", "openvino-int8")])
def test_shared_engine_answers_the_same_and_where_it_can_several_calls_at_once(
    bundle, lenet_preprocessing, engines, name, pixels
):
    shared = open_engine(name, bundle, lenet_preprocessing, shared=True)
    np.testing.assert_allclose(shared.probabilities(pixels), engines[name].probabilities(pixels), atol=1e-5)
    if shared.can_be_shared and num_threads() > 1:
        assert shared._idle.qsize() > engines[name]._idle.qsize()


@pytest.mark.parametrize("name", [name for name in FLOAT if name != "savedmodel"])
def test_residual_network_with_padded_shortcuts_runs_alike(residual, tmp_path, name):
    preprocessing = model_info("resnet20").preprocessing
    (tmp_path / FLOAT_LITERT).parent.mkdir()
    (tmp_path / FLOAT_LITERT).write_bytes(to_litert(residual))
    pixels = np.random.default_rng(3).integers(0, 256, (4, 32, 32, 3), np.uint8)
    reference = KerasEngine(residual, preprocessing).probabilities(pixels)
    assert np.ptp(reference, axis=0).max() > 1e-3  # it does tell pictures apart
    engine = open_engine(name, tmp_path, preprocessing)
    for rows in (slice(0, 1), slice(1, 4), slice(3, 4)):
        np.testing.assert_allclose(engine.probabilities(pixels[rows]), reference[rows], atol=1e-4)


@pytest.mark.parametrize("name", [name for name in FLOAT if name != "savedmodel"])
def test_prediction_brings_no_framework_but_the_engines_own(bundle, digits_split, name):
    code = (
        "import sys\n"
        "from toolkit.inference import Predictor\n"
        f"Predictor.load({str(bundle)!r}, {name!r}).predict({str(digits_split.test.paths[0])!r})\n"
        "print(*{module.partition('.')[0] for module in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=True)
    others = {row.module for row in ENGINES.values()} - {ENGINES[name].module}
    assert set(done.stdout.split()).isdisjoint({"keras", "jax", "matplotlib", "sklearn", "onnx", *others})


def test_ranks_of_float_engines_are_their_order():
    assert FLOAT_ENGINES == ("openvino", "litert", "savedmodel")


def test_unknown_engine_is_named_with_the_nearest(bundle, lenet_preprocessing):
    with pytest.raises(UserError, match=r"unknown engine 'openvin'; did you mean 'openvino'"):
        open_engine("openvin", bundle, lenet_preprocessing)


@pytest.mark.parametrize(
    ("name", "module", "hint"),
    [
        ("openvino", "openvino", "pip install 'toolkit[openvino]'"),
        ("litert", "ai_edge_litert", "pip install 'ai_edge_litert'"),
    ],
)
def test_missing_runtime_says_what_to_install(bundle, lenet_preprocessing, monkeypatch, name, module, hint):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError) as error:
        open_engine(name, bundle, lenet_preprocessing)
    assert hint in str(error.value)
    assert name not in available_engines(bundle)


def test_engine_without_its_file_names_the_file(bundle, lenet_preprocessing):
    with pytest.raises(UserError, match=r"has no assets\.extra/model\.dynamic\.tflite, which engine 'litert-dynamic'"):
        open_engine("litert-dynamic", bundle, lenet_preprocessing)


@pytest.fixture
def processor_with(monkeypatch, tmp_path):
    """Make the engines see a processor with these flags and no others."""

    def describe(*flags: str) -> None:
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu avx512f {' '.join(flags)}\n")
        monkeypatch.setattr(runtimes, "computes_bfloat16", partial(computes_bfloat16, tmp_path / "cpuinfo"))

    return describe


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16"])
@needs_openvino
def test_bfloat16_is_offered_where_the_processor_computes_in_it(bundle, processor_with, flag):
    processor_with(flag)
    assert "openvino-bf16" in available_engines(bundle)


@needs_openvino
def test_processor_without_bfloat16_is_told_in_one_line(bundle, lenet_preprocessing, processor_with):
    processor_with()
    assert "openvino-bf16" not in available_engines(bundle)
    with pytest.raises(UserError, match=r"'openvino-bf16' needs a processor .*avx512_bf16.*take 'openvino'") as error:
        open_engine("openvino-bf16", bundle, lenet_preprocessing)
    assert "\n" not in str(error.value)


@needs_openvino
def test_bfloat16_answers_as_float_but_for_its_rounding(engines, pixels, expected):
    if "openvino-bf16" not in engines:
        pytest.skip("this processor does not compute in bfloat16")
    found = engines["openvino-bf16"].probabilities(pixels)
    assert found.dtype == np.float32
    difference = np.abs(found - expected).max()
    assert 1e-5 < difference < 0.02  # and it is not float32 by another name
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() > 0.99


def test_bfloat16_is_no_float_engine():
    """`auto` goes by the float engines alone."""
    assert "openvino-bf16" not in FLOAT_ENGINES


@pytest.mark.parametrize("damage", ["empty", "garbage", "half", "tail"])
@pytest.mark.parametrize("name", [name for name in INSTALLED if name in ("litert", "openvino", "openvino-int8")])
def test_damaged_file_is_one_clear_line(bundle, lenet_preprocessing, tmp_path, name, damage):
    file = INT8_LITERT if name.endswith("int8") else FLOAT_LITERT
    whole = (bundle / file).read_bytes()
    garbage = np.random.default_rng(0).bytes(5000)
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_bytes(
        {"empty": b"", "garbage": garbage, "half": whole[: len(whole) // 2], "tail": whole[:-100]}[damage]
    )
    with pytest.raises(UserError) as error:
        open_engine(name, tmp_path, lenet_preprocessing)
    assert "\n" not in str(error.value)
    assert str(tmp_path / file) in str(error.value)
    assert "cannot load it" in str(error.value)


def test_damaged_saved_model_is_one_clear_line(bundle, lenet_preprocessing, tmp_path):
    shutil.copytree(bundle, tmp_path / "1")
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"garbage")
    with pytest.raises(UserError, match="cannot load it") as error:
        open_engine("savedmodel", tmp_path / "1", lenet_preprocessing)
    assert "\n" not in str(error.value)


def test_bytes_are_summed_without_saturating(tmp_path):
    """The largest activations times the largest weights: in 16 bits the logit would be half of what it is."""
    layers = keras.layers
    x = inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(32, 3, activation="relu", kernel_initializer="ones", name="first")(x)
    x = layers.Conv2D(32, 3, activation="relu", kernel_initializer="ones", name="second")(x)
    outputs = layers.Dense(2, name="head_logits")(layers.GlobalAveragePooling2D(name="head_pool")(x))
    model = keras.Model(inputs, outputs)
    largest = 27 * 32 * 9
    model.get_layer("head_logits").set_weights([np.tile(np.float32([2.5 / largest / 32, 0]), (32, 1)), np.zeros(2)])
    preprocessing = Preprocessing((16, 16), scale=1 / 255)
    pixels = np.repeat(np.uint8([0, 64, 128, 255]), 16 * 16 * 3).reshape(4, 16, 16, 3)
    (tmp_path / INT8_LITERT).parent.mkdir()
    content = to_litert(model, quantization="int8", calibration=[normalize(pixels, preprocessing)])
    (tmp_path / INT8_LITERT).write_bytes(content)
    expected = softmax(np.outer([0, 64, 128, 255], [2.5 / 255, 0]))
    for name in INT8:
        answer = open_engine(name, tmp_path, preprocessing).probabilities(pixels)
        np.testing.assert_allclose(answer, expected, atol=0.02)


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("flags\t\t: fpu avx2 avx512_vnni\n", True),
        ("flags\t\t: fpu avx2 avx_vnni\n", True),
        ("flags\t\t: fpu avx2 avx512f\n", False),
        ("Features\t: asimd asimddp\n", True),
    ],
    ids=["vnni", "avx-vnni", "neither", "arm"],
)
def test_processors_that_saturate_are_known(tmp_path, text, exact):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{text}")
    assert sums_bytes_exactly(tmp_path / "cpuinfo") == exact
    assert sums_bytes_exactly(tmp_path / "none")


def test_instruction_sets_are_named_and_bfloat16_found(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx2 sse amx_bf16 avx512_bf16\n")
    assert instruction_sets(tmp_path / "cpuinfo") == ["avx2", "avx512_bf16", "amx_bf16"]
    assert computes_bfloat16(tmp_path / "cpuinfo")
    assert instruction_sets(tmp_path / "none") == []
    assert not computes_bfloat16(tmp_path / "none")


def test_softmax_holds_for_any_logits():
    logits = np.array([[1e4, 0.0, -1e4], [-3e38, -3e38, -3e38]], np.float32)
    np.testing.assert_allclose(softmax(logits), [[1, 0, 0], [1 / 3] * 3], rtol=1e-6)


def test_litert_files_of_other_kinds_have_their_own_names():
    assert [litert_file(kind) for kind in ("fp32", "int8")] == [FLOAT_LITERT, INT8_LITERT]
    assert len({row.file for row in ENGINES.values()}) == 6  # OpenVINO reads LiteRT's
