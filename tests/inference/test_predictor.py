import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit import Predictor
from toolkit.bundle import FLOAT_LITERT, INT8_LITERT, LABELS, MANIFEST, read_manifest
from toolkit.data import ImageError
from toolkit.data.pixels.decode import decode_pixels
from toolkit.engines import FLOAT_ENGINES
from toolkit.errors import UserError
from toolkit.inference.choice import resolve_engine


@pytest.fixture(scope="module")
def predictor(bundle):
    return Predictor.load(bundle, "litert")


@pytest.fixture(scope="module")
def paths(digits_split):
    return list(digits_split.test.paths[::9])


def test_path_string_bytes_pillow_and_array_get_the_same_answer(predictor, paths):

    path = Path(paths[5])
    expected = predictor.predict(path)
    assert len(expected) == 1
    for source in (str(path), path.read_bytes(), Image.open(path), np.asarray(Image.open(path).convert("RGB"))):
        assert predictor.predict(source) == expected
        assert predictor.predict([source, source]) == expected * 2
    assert predictor.predict((path, paths[0]))[0] == expected[0]


def test_real_digits_are_mostly_recognised(predictor, paths, digits_split):
    truth = [str(label) for label in digits_split.test.labels[::9]]
    best = [row[0].label for row in predictor.predict(paths)]
    assert np.mean([a == b for a, b in zip(best, truth, strict=True)]) > 0.85


def test_answers_come_best_first_as_many_as_asked_for(predictor, paths):
    probabilities = predictor.probabilities(paths[:4])
    for top_k, expected in ((1, 1), (3, 3), (5, 5), (99, 10)):
        rows = predictor.predict(paths[:4], top_k=top_k)
        assert [len(row) for row in rows] == [expected] * 4
        for row, own in zip(rows, probabilities, strict=True):
            assert [p.probability for p in row] == pytest.approx(sorted(own, reverse=True)[:expected])
            assert all(own[int(p.label)] == pytest.approx(p.probability) for p in row)
    assert sum(p.probability for p in predictor.predict(paths[0], top_k=10)[0]) == pytest.approx(1, abs=1e-5)


def test_pictures_keep_their_order_over_many_batches(predictor, paths):
    one_by_one = np.concatenate([predictor.probabilities([path]) for path in paths])
    for batch_size in (1, 7, 64):
        together = predictor.probabilities(paths, batch_size=batch_size)
        assert together.dtype == np.float32
        np.testing.assert_allclose(together, one_by_one, atol=1e-5)


def test_no_pictures_get_no_answers(predictor):
    assert predictor.predict([]) == []
    assert predictor.probabilities([]).shape == (0, 10)


def test_ready_pixels_skip_decoding(predictor, paths, lenet_preprocessing):
    pixels = np.stack([decode_pixels(path, lenet_preprocessing) for path in paths[:3]])
    np.testing.assert_allclose(predictor.from_pixels(pixels), predictor.probabilities(paths[:3]), atol=1e-6)


@pytest.mark.parametrize("crops", [1, 10])
def test_pictures_decoded_one_by_one_get_the_same_answer(bundle, paths, crops):
    predictor = Predictor.load(bundle, "litert", crops=crops)
    decoded = [predictor.decode(path) for path in paths[:3]]
    np.testing.assert_allclose(predictor.from_decoded(decoded), predictor.probabilities(paths[:3]), atol=1e-6)


def test_unreadable_picture_is_named(predictor, paths, tmp_path):
    (tmp_path / "bad.jpg").write_text("no")
    with pytest.raises(ImageError, match=r"bad\.jpg: not a picture"):
        predictor.predict([paths[0], tmp_path / "bad.jpg"])


def test_auto_is_a_float_engine_that_answers_as_the_saved_model(bundle, paths):
    auto = Predictor.load(bundle)
    assert auto.engine_name in FLOAT_ENGINES
    assert auto.labels == tuple("0123456789")
    reference = Predictor.load(bundle.parent, "savedmodel")
    assert reference.version_dir == bundle
    np.testing.assert_allclose(auto.probabilities(paths), reference.probabilities(paths), atol=1e-4)


def test_recommended_is_the_manifests_engine_where_it_is_installed(bundle, monkeypatch):
    assert Predictor.load(bundle, "recommended").engine_name == read_manifest(bundle).recommended_engine
    manifest = dataclasses.replace(read_manifest(bundle), recommended_engine="litert-int8")
    assert resolve_engine("recommended", bundle, manifest) == "litert-int8"
    assert resolve_engine("litert", bundle, manifest) == "litert"
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    assert resolve_engine("recommended", bundle, manifest) in FLOAT_ENGINES


def test_unknown_engine_is_one_clear_line(bundle):
    with pytest.raises(UserError, match=r"unknown engine 'tensorrt'; known: .*savedmodel"):
        Predictor.load(bundle, "tensorrt")


@pytest.mark.parametrize(
    ("engine", "file"),
    [
        ("litert", FLOAT_LITERT),
        ("litert-int8", INT8_LITERT),
        ("savedmodel", "saved_model.pb"),
        ("savedmodel", "variables/variables.data-00000-of-00001"),
        ("savedmodel", LABELS),
    ],
)
@pytest.mark.parametrize("damage", ["one byte", "gone"])
def test_damaged_or_missing_file_is_found_before_it_is_loaded(bundle_copy, engine, file, damage):
    path = bundle_copy / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink() if damage == "gone" else path.write_bytes(data)
    with pytest.raises(UserError, match="checksum" if damage == "one byte" else "missing|has no") as error:
        Predictor.load(bundle_copy, engine)
    assert str(path) in str(error.value) or file in str(error.value)
    assert "\n" not in str(error.value)


def test_damage_to_a_file_another_engine_reads_does_not_matter(bundle_copy, paths):
    (bundle_copy / INT8_LITERT).write_bytes(b"garbage")
    assert len(Predictor.load(bundle_copy, "litert").predict(paths[0])) == 1


def test_damaged_manifest_is_one_clear_line(bundle_copy):
    (bundle_copy / MANIFEST).write_text("{")
    with pytest.raises(UserError, match="damaged manifest"):
        Predictor.load(bundle_copy)
