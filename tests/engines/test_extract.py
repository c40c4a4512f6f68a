"""The fastest engine is used only where it answers what Keras answers, and a picture's features are its own."""

import importlib.util
import logging
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from toolkit import model_info
from toolkit.data.pixels.decode import normalize
from toolkit.engines import extract
from toolkit.engines.extract import open_extractor, relative_difference
from toolkit.errors import UserError

PREPROCESSING = model_info("resnet20").preprocessing
PIXELS = np.random.default_rng(0).integers(0, 256, (11, 32, 32, 3), np.uint8)

needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs OpenVINO")


@pytest.fixture(scope="module")
def frozen(residual):
    return keras.Model(residual.input, residual.layers[-2].output)


@pytest.fixture(scope="module")
def expected(frozen):
    return keras.ops.convert_to_numpy(frozen(normalize(PIXELS, PREPROCESSING), training=False))


def features_of(extractor, pixels):
    (features,) = extractor.answers(pixels)
    return features


@needs_openvino
def test_auto_is_openvino_within_its_stated_tolerance(frozen, expected, monkeypatch):
    monkeypatch.setattr(extract, "on_gpu", lambda: False)
    extractor = open_extractor(frozen, PREPROCESSING, PIXELS[:4])
    assert extractor.name == "OpenVINO"
    assert 0 < extractor.difference <= extract.TOLERANCE[extractor.precision]
    answer = np.concatenate([features_of(extractor, PIXELS[:8]), features_of(extractor, PIXELS[8:])])
    assert answer.dtype == np.float32
    assert relative_difference(answer, expected) <= extract.TOLERANCE[extractor.precision]


@pytest.mark.parametrize("engine", ["keras", pytest.param("openvino", marks=needs_openvino)])
def test_features_do_not_depend_on_who_else_is_in_the_batch(frozen, engine):
    extractor = open_extractor(frozen, PREPROCESSING, PIXELS[:4], engine=engine)
    together = features_of(extractor, PIXELS[:8])
    for count in range(1, 8):
        np.testing.assert_array_equal(features_of(extractor, PIXELS[:count]), together[:count])
    # At another place in the batch, another thread may add up in another order.
    np.testing.assert_allclose(features_of(extractor, PIXELS[7::-1]), together[::-1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("engine", ["keras", pytest.param("openvino", marks=needs_openvino)])
def test_threads_may_call_it_at_once(frozen, engine):
    extractor = open_extractor(frozen, PREPROCESSING, PIXELS[:4], engine=engine)
    expected = features_of(extractor, PIXELS[:8])
    with ThreadPoolExecutor(4) as pool:
        for answer in pool.map(lambda _: features_of(extractor, PIXELS[:8]), range(12)):
            np.testing.assert_array_equal(answer, expected)


@needs_openvino
def test_engine_that_strays_is_passed_over_and_told(frozen, expected, monkeypatch, caplog):
    monkeypatch.setattr(extract, "TOLERANCE", {"float32": 1e-12, "bfloat16": 1e-12})
    with caplog.at_level(logging.WARNING):
        extractor = open_extractor(frozen, PREPROCESSING, PIXELS[:4])
    assert extractor.name == "Keras"
    np.testing.assert_allclose(features_of(extractor, PIXELS[:8]), expected[:8], rtol=1e-4, atol=1e-5)
    assert "OpenVINO is not used for" in caplog.text
    assert "features differ by" in caplog.text
    with pytest.raises(UserError, match="OpenVINO is not used for"):
        open_extractor(frozen, PREPROCESSING, PIXELS[:4], engine="openvino")


@needs_openvino
def test_network_it_cannot_translate_runs_in_keras(caplog):
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(keras.layers.UnitNormalization(name="u")(inputs)))
    with caplog.at_level(logging.WARNING):
        extractor = open_extractor(model, PREPROCESSING, PIXELS[:2])
    assert extractor.name == "Keras"
    assert "layer 'u' is a UnitNormalization" in caplog.text


def test_without_openvino_it_is_keras_and_asking_for_it_says_what_to_install(frozen, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(extract, "on_gpu", lambda: False)
    assert open_extractor(frozen, PREPROCESSING, PIXELS[:2]).name == "Keras"
    with pytest.raises(UserError, match=r"pip install 'toolkit\[openvino\]'"):
        open_extractor(frozen, PREPROCESSING, PIXELS[:2], engine="openvino")


def test_openvino_without_onnx_is_said_once_and_passed_over(frozen, monkeypatch, caplog):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else object())
    monkeypatch.setattr(extract, "on_gpu", lambda: False)
    with caplog.at_level(logging.WARNING):
        assert open_extractor(frozen, PREPROCESSING, PIXELS[:2]).name == "Keras"
    (record,) = caplog.records
    assert record.getMessage().startswith("engine 'openvino' needs onnx, not installed here: pip install 'toolkit[ope")


def test_unknown_engine(frozen):
    with pytest.raises(UserError, match="unknown engine 'openvin'; did you mean 'openvino'"):
        open_extractor(frozen, PREPROCESSING, PIXELS[:2], engine="openvin")
