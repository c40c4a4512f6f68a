"""Behind the page: finding bundles, keeping networks, answering."""

import io
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from toolkit.bundle import read_manifest, write_manifest
from toolkit.demo import markup
from toolkit.demo.classifier import Classifier
from toolkit.errors import UserError
from toolkit.inference import Predictor


def test_bundles_newest_version_first_and_engines_follow_the_bundle(bundles):
    classifier = Classifier(bundles)
    assert classifier.bundles() == ["digits/2", "digits/1"]
    assert "litert-int8" in classifier.engines("digits/1")
    assert "litert-int8" not in classifier.engines("digits/2")


def test_the_bundle_written_to_last_comes_first(bundles, tmp_path):
    for name, written in (("a", 3_000), ("b", 9_000), ("c", 6_000)):
        shutil.copytree(bundles / "digits" / "2", tmp_path / name / "1")
        os.utime(tmp_path / name / "1", (written, written))
    assert Classifier(tmp_path).bundles() == ["b/1", "c/1", "a/1"]


def test_one_bundles_own_directory_will_do(bundles):
    assert Classifier(bundles / "digits").bundles() == ["digits/2", "digits/1"]


def test_a_bundle_published_later_appears(bundles, tmp_path):
    shutil.copytree(bundles / "digits" / "2", tmp_path / "digits" / "1")
    classifier = Classifier(tmp_path)
    shutil.copytree(bundles / "digits" / "2", tmp_path / "digits" / "10")
    assert classifier.bundles() == ["digits/10", "digits/1"]


@pytest.mark.parametrize("engine", ["auto", "savedmodel", "litert", "litert-int8"])
def test_answers_are_the_predictors(bundles, seven, engine):
    answer = Classifier(bundles).classify(seven.read_bytes(), "digits/1", engine)
    predictor = Predictor.load(bundles / "digits" / "1", engine)
    expected = predictor.predict(seven)[0]
    assert answer.engine == predictor.engine_name
    assert answer.milliseconds > 0
    assert [p.label for p in answer.predictions] == [p.label for p in expected]
    np.testing.assert_allclose(
        [p.probability for p in answer.predictions], [p.probability for p in expected], rtol=0, atol=1e-6
    )
    assert answer.predictions[0].label == "7"


def test_an_answer_below_the_bundles_threshold_is_none_of_these(bundles, seven, tmp_path):
    shutil.copytree(bundles / "digits" / "2", tmp_path / "digits" / "1")
    version_dir = tmp_path / "digits" / "1"
    assert not Classifier(tmp_path).classify(seven.read_bytes(), "digits", "litert").rejected
    write_manifest(version_dir, replace(read_manifest(version_dir), reject_below=1.0))
    answer = Classifier(tmp_path).classify(seven.read_bytes(), "digits", "litert")
    assert answer.rejected is True
    card = markup.answer_card(answer)
    assert '<span class="tk-label">none of these</span>' in card
    best = markup.escape(f"best guess 7, {markup.percent(answer.predictions[0].probability)}")
    assert f'<span class="tk-sure">{best}</span>' in card


def test_a_bare_name_means_its_newest_version(bundles, seven):
    assert Classifier(bundles).classify(seven.read_bytes(), "digits").bundle == "digits/2"


@pytest.mark.parametrize("name", ["digits/3", "../digits/1", "/etc", "", None])
def test_a_bundle_is_looked_up_and_never_joined(bundles, seven, name):
    with pytest.raises(UserError, match="unknown bundle"):
        Classifier(bundles).classify(seven.read_bytes(), name)


def test_unknown_engine_suggests_the_nearest(bundles, seven):
    with pytest.raises(UserError, match="did you mean 'litert'"):
        Classifier(bundles).classify(seven.read_bytes(), "digits/1", "litertt")
    with pytest.raises(UserError, match="did you mean 'openvino'"):
        Classifier(bundles, engine="openvin")


def test_an_engine_no_bundle_has_is_refused_at_the_start(bundles):
    with pytest.raises(UserError, match=r"'litert-float16' cannot run any bundle.*savedmodel"):
        Classifier(bundles, engine="litert-float16")


def test_preferred_engine_where_the_bundle_has_it(bundles):
    classifier = Classifier(bundles, engine="litert-int8")
    assert classifier.preferred_engine("digits/1") == "litert-int8"
    assert classifier.preferred_engine("digits/2") == "auto"
    assert Classifier(bundles, engine="recommended").preferred_engine("digits/2") in classifier.engines("digits/2")


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_no_bundles_says_how_to_make_one(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        UserError, match=r"toolkit train DATA --model lenet5 --out runs/x --export saved_models/x"
    ) as info:
        Classifier(tmp_path / name)
    assert "\n" not in str(info.value)


def test_a_damaged_bundle_is_reported_without_the_servers_paths(bundles, tmp_path, seven):
    damaged = shutil.copytree(bundles / "digits" / "2", tmp_path / "digits" / "1")
    (damaged / "assets.extra" / "model.fp32.tflite").write_bytes(b"nonsense")
    classifier = Classifier(tmp_path)
    with pytest.raises(UserError, match="checksum differs") as info:
        classifier.classify(seven.read_bytes(), "digits/1", "litert")
    message = classifier.without_paths(info.value)
    assert message.startswith("digits/1/")
    assert str(tmp_path) not in message


def test_examples_of_a_bundle(bundles):
    classifier = Classifier(bundles)
    examples = classifier.examples("digits/1")
    assert [(e.path.name, e.label) for e in examples] == [("00.png", "0"), ("01.png", "1"), ("02.png", "2")]
    assert classifier.classify(examples[1].path.read_bytes(), "digits/1", "litert").true_label == "1"


def test_only_examples_have_a_true_label(bundles, seven):
    answer = Classifier(bundles).classify(seven.read_bytes(), "digits/1", "litert")
    assert answer.true_label is None


def test_ink_on_paper_is_answered_as_white_on_black(bundles, seven):
    classifier = Classifier(bundles)
    upright = Image.open(seven).convert("L").resize((64, 64), Image.Resampling.BILINEAR)
    paper = upright.point(lambda value: 225 - 0.8 * value)
    plain = classifier.classify(_png(upright), "digits/1", "litert")
    turned = classifier.classify(_png(paper), "digits/1", "litert")
    assert (plain.turned, turned.predictions[0].label) == (None, "7")
    assert abs(turned.predictions[0].probability - plain.predictions[0].probability) < 0.05
    assert turned.turned.shape == (32, 32, 3)
    assert turned.as_document()["turned"] is True
    json.dumps(turned.as_document())


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_auto_and_the_engine_it_means_are_loaded_once_and_only_so_many_are_kept(bundles, seven, monkeypatch):
    loads = []
    load = Predictor.load
    monkeypatch.setattr(Predictor, "load", lambda *args, **options: loads.append(args) or load(*args, **options))
    classifier = Classifier(bundles, max_loaded=2)
    meant = classifier.resolve_engine("digits/1", "auto")
    for engine in ("auto", meant, "savedmodel", "litert-int8", "auto"):
        classifier.classify(seven.read_bytes(), "digits/1", engine)
    assert [engine for _, engine in loads] == [meant, "savedmodel", "litert-int8", meant]
