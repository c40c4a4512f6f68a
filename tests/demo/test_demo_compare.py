"""One picture through several networks and engines, without a browser."""

import html
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from toolkit.demo import comparison
from toolkit.demo.classifier import Classifier
from toolkit.demo.markup import compare as words
from toolkit.errors import UserError
from toolkit.inference import Predictor
from toolkit.inference.predictor import Prediction

BOTH, ENGINES = ["digits/1", "digits/2"], ["litert-int8", "litert", "savedmodel"]


@pytest.fixture(scope="module")
def classifier(bundles):
    return Classifier(bundles)


@pytest.fixture(scope="module")
def rows(classifier, digits):
    seven = sorted((digits / "7").glob("*.png"))[3].read_bytes()
    pairs = comparison.pairs_of(classifier, BOTH, ENGINES)
    return list(comparison.compare(classifier, seven, pairs))


def test_every_network_is_asked_in_the_engines_it_has_float_first(rows):
    assert [(row.bundle, row.engine) for row in rows] == [
        ("digits/1", "litert"),
        ("digits/1", "savedmodel"),
        ("digits/1", "litert-int8"),
        ("digits/2", "litert"),
        ("digits/2", "savedmodel"),
    ]


def test_answers_sizes_and_agreement_are_those_of_the_engines(rows, bundles, seven):
    for row in rows[0], rows[2]:
        expected = Predictor.load(bundles / row.bundle, row.engine).predict(seven)[0]
        assert row.predictions[0].label == expected[0].label
        assert row.predictions[0].probability == pytest.approx(expected[0].probability, abs=1e-6)
    assert all(row.milliseconds > 0 and row.predictions[0].label == "7" for row in rows)
    first, served, int8 = rows[:3]
    assert first.size == (bundles / "digits/1/assets.extra/model.fp32.tflite").stat().st_size
    assert int8.size == (bundles / "digits/1/assets.extra/model.int8.tflite").stat().st_size
    assert first.difference is None
    assert served.difference < 1e-4
    answers = [
        Predictor.load(bundles / "digits/1", engine).probabilities(seven)[0] for engine in ("litert", "litert-int8")
    ]
    assert int8.difference == pytest.approx(float(np.abs(answers[0] - answers[1]).max()), abs=1e-6)


def test_float_against_int8_stands_below_the_table(rows, classifier):
    manifests = {bundle: classifier.manifest(bundle) for bundle in BOTH}
    shown = html.unescape(words.comparison(rows, manifests))
    assert "all 5 agree" in shown
    assert shown.count("int8 against float") == 1
    ratio = rows[0].size / rows[2].size
    assert f"{ratio:.1f}× smaller" in shown
    assert "the same answer" in shown


def test_the_best_label_of_an_answer_that_is_none_of_these_is_called_a_guess(rows, classifier):
    unsure = replace(rows[0], predictions=(Prediction("8", 0.74),), reason="unsure")
    shown = words.comparison([unsure], {"digits/1": classifier.manifest("digits/1")})
    assert re.search(r'>none of these</span>\s*<span class="tk-share">best guess 8, 74.0 %</span>', shown)


def test_what_cannot_be_compared_is_one_line(classifier):
    with pytest.raises(UserError, match=r"engine 'tpu' cannot run any of these networks; choose from "):
        comparison.pairs_of(classifier, BOTH, ["tpu"])
    with pytest.raises(UserError, match=r"unknown bundle 'digitz/1'"):
        comparison.pairs_of(classifier, ["digitz/1"], ["auto"])
    assert comparison.pairs_of(classifier, ["digits/2"], ["auto"]) == [
        ("digits/2", classifier.resolve_engine("digits/2", "auto"))
    ]


def test_more_rows_than_are_answered_at_once_are_refused(classifier, monkeypatch):
    monkeypatch.setattr(comparison, "MAX_ROWS", 2)
    with pytest.raises(UserError, match=r"5 networks and engines; 2 are compared at once"):
        comparison.pairs_of(classifier, BOTH, ENGINES)


def test_a_damaged_network_does_not_keep_the_others_from_answering(bundles, tmp_path, seven, sent):
    from toolkit.demo.tabs.compare import Compare

    shutil.copytree(bundles / "digits" / "1", tmp_path / "good" / "1")
    bad = Path(shutil.copytree(bundles / "digits" / "1", tmp_path / "bad" / "1"))
    (bad / "assets.extra" / "model.fp32.tflite").write_bytes(b"nonsense")
    picture = sent(seven)
    *_, (_, shown, asked) = Compare(Classifier(tmp_path)).look(picture, ["bad/1", "good/1"], ["litert"])
    shown = html.unescape(shown)
    assert "bad/1/assets.extra/model.fp32.tflite: checksum differs" in shown
    assert str(tmp_path) not in shown
    assert '<span class="tk-label">7</span>' in shown
    assert next(iter(Compare(Classifier(tmp_path)).look(picture, ["bad/1", "good/1"], ["litert"], asked)))[1] != shown


@pytest.mark.parametrize(
    ("kind", "bundles_", "message"),
    [
        ("text", ["digits/1"], "cannot be read as a picture"),
        ("whole", ["digits/9"], "unknown bundle 'digits/9'"),
        ("whole", [["x"], 3], 'data-state="done"'),
    ],
)
def test_bad_input_is_explained(classifier, bad_files, sent, kind, bundles_, message):
    from toolkit.demo.tabs.compare import Compare

    *_, (_, shown, _) = Compare(classifier).look(sent(bad_files[kind]), bundles_, ["litert"])
    assert message in html.unescape(shown)


def test_compare_by_the_programming_interface(client, seven):
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    told = client.predict(handle_file(seven), ["digits"], ["litert", "auto"], api_name="/compare")
    assert next((row["bundle"], row["predictions"][0]["label"]) for row in told) == ("digits/2", "7")
    with pytest.raises(AppError, match="unknown bundle 'x/1'"):
        client.predict(handle_file(seven), ["x/1"], [], api_name="/compare")
