"""An ensemble exported as one bundle: what it answers, by every way there is to ask it, and what is refused."""

import io
import json
from argparse import Namespace
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import toolkit.export.ensemble
from toolkit import Predictor, create_model
from toolkit.bundle import read_manifest, verify_files, write_manifest
from toolkit.cli.commands import bundles as commands
from toolkit.data.crops import plan_crops
from toolkit.data.feed.split import Subset
from toolkit.data.pixels.decode import decode_pixels, resize_rgb
from toolkit.data.views import decode_views
from toolkit.demo.classifier import Classifier
from toolkit.engines import available_engines
from toolkit.errors import UserError
from toolkit.export import ParityError, export_bundle, export_ensemble
from toolkit.inference import benchmark_bundle, load_classifier, verify_bundle
from toolkit.metrics import reject_threshold
from toolkit.serving.models import ModelTable
from toolkit.serving.protocol import PredictRequest
from toolkit.spec import Preprocessing

MARGIN = Preprocessing(size=(24, 24), crop_fraction=0.75, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A bundle of the same labels that differs in network, input size, colour and margin."""
    keras.utils.set_random_seed(3)
    model = create_model("mlp", num_classes=10, input_shape=(24, 24, 3))
    return export_bundle(
        model, tmp_path_factory.mktemp("other") / "mlp", labels=tuple("0123456789"), preprocessing=MARGIN
    )


def part(subset: Subset, step: int) -> Subset:
    return Subset(subset.paths[::step], subset.labels[::step])


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory, bundle, other, digits_split):
    return export_ensemble(
        [bundle, other],
        tmp_path_factory.mktemp("ensembles") / "both",
        crops=10,
        evaluation=part(digits_split.test, 6),
        validation=part(digits_split.val, 6),
        num_examples=2,
    )


@pytest.fixture(scope="module")
def loaded(ensemble):
    return tf.saved_model.load(str(ensemble))


@pytest.fixture(scope="module")
def jpegs(digits_split):
    """Real digits as colour JPEGs of several shapes, in bytes."""
    found = []
    for index, path in enumerate(digits_split.test.paths[::70]):
        buffer = io.BytesIO()
        Image.open(path).convert("RGB").resize((30 + 9 * index, 60 - 5 * index)).save(buffer, "JPEG")
        found.append(buffer.getvalue())
    return found


@pytest.fixture(scope="module")
def expected(bundle, other, jpegs):
    """The mean by hand, from the members' own bundles and views cut on the host."""
    members = []
    for member in (Predictor.load(bundle, "litert"), Predictor.load(other, "litert")):
        preprocessing = member.manifest.preprocessing
        plan = plan_crops(preprocessing, 10)
        members.append([member.from_pixels(decode_views(data, preprocessing, plan)).mean(axis=0) for data in jpegs])
    return np.mean(members, axis=0)


def test_jpeg_bytes_in_one_call_get_the_mean_over_members_and_views(loaded, jpegs, expected):
    answer = loaded.signatures["serving_default"](image_bytes=tf.constant(jpegs))
    np.testing.assert_allclose(answer["probabilities"], expected, atol=1e-4)
    order = np.argsort(-expected, axis=1)[:, :5].astype(str).astype(bytes)
    np.testing.assert_array_equal(answer["top_labels"].numpy()[:, 0], order[:, 0])
    assert answer["top_scores"].shape == (len(jpegs), 5)
    assert loaded.signatures["serving_default"](image_bytes=tf.constant([], tf.string))["probabilities"].shape == (
        0,
        10,
    )


def test_predictor_and_the_members_together_answer_the_same(ensemble, bundle, other, jpegs, expected):
    exported = Predictor.load(ensemble)
    assert (exported.engine_name, available_engines(ensemble)) == ("savedmodel", ["savedmodel"])
    np.testing.assert_allclose(exported.probabilities(jpegs), expected, atol=1e-4)
    together = load_classifier([bundle, other], crops=10)
    np.testing.assert_allclose(together.probabilities(jpegs), expected, atol=1e-4)


def test_server_and_demo_answer_the_same(ensemble, jpegs, expected):
    import base64

    values = [{"b64": base64.b64encode(data).decode()} for data in jpegs]
    _, model = ModelTable(ensemble.parent).get("both")
    served = model.answer(PredictRequest("serving_default", values, columnar=False))
    np.testing.assert_allclose(served["probabilities"], expected, atol=1e-4)
    shown = Classifier(ensemble.parent).classify(jpegs[0], "both")
    assert shown.predictions[0].label == str(expected[0].argmax())
    assert shown.predictions[0].probability == pytest.approx(expected[0].max(), abs=1e-4)


def test_pixels_are_one_view_that_all_members_see(ensemble, loaded, bundle, other, jpegs):
    assert read_manifest(ensemble).preprocessing.size == (32, 32)  # the larger of the two
    first, second = Predictor.load(bundle, "litert"), Predictor.load(other, "litert")
    pixels = np.stack([decode_pixels(data, first.manifest.preprocessing) for data in jpegs])
    shrunk = np.stack([resize_rgb(view, 24, 24, "bilinear") for view in pixels])
    mean = (first.from_pixels(pixels) + second.from_pixels(shrunk)) / 2
    answer = loaded.signatures["pixels"](pixels=pixels)["probabilities"]
    np.testing.assert_allclose(answer, mean, atol=1e-3)  # 32 to 24 meets many ties in rounding
    np.testing.assert_allclose(Predictor.load(ensemble).from_pixels(pixels), answer, atol=1e-6)


def test_features_are_those_of_the_members_side_by_side(loaded, bundle, other, jpegs):
    own = [
        tf.saved_model.load(str(path)).signatures["features"](image_bytes=tf.constant(jpegs))["features"]
        for path in (bundle, other)
    ]
    found = loaded.signatures["features"](image_bytes=tf.constant(jpegs))["features"]
    np.testing.assert_allclose(found, np.concatenate(own, axis=1), atol=1e-4)


def test_manifest_says_what_is_in_it_and_how_good_it_is(ensemble, bundle, other, digits_split):
    manifest, parts = read_manifest(ensemble), [read_manifest(bundle), read_manifest(other)]
    verify_files(ensemble, manifest)
    assert [member.name for member in manifest.members] == ["digits/1", "mlp/1"]
    assert [member.weights_digest for member in manifest.members] == [part.weights_digest for part in parts]
    assert [member.preprocessing for member in manifest.members] == [part.preprocessing for part in parts]
    assert (manifest.name, manifest.model, manifest.crops) == ("both", "lenet5 + mlp, 10 views", 10)
    assert manifest.num_params == sum(part.num_params for part in parts)
    assert manifest.parity["savedmodel"] < 1e-4
    assert manifest.forced == ()
    assert len(list((ensemble / "assets.extra/examples").iterdir())) == 2
    predictor, test, val = Predictor.load(ensemble), part(digits_split.test, 6), part(digits_split.val, 6)
    right = predictor.probabilities(test.paths).argmax(axis=1) == test.labels
    assert (manifest.metrics["top1"], manifest.metrics["n"]) == (pytest.approx(right.mean()), len(test))
    threshold = reject_threshold(predictor.probabilities(val.paths), np.asarray(val.labels))
    assert manifest.reject_below == predictor.reject_below == pytest.approx(threshold, abs=1e-4)


@pytest.mark.slow
def test_verify_and_benchmark_know_ensembles(ensemble, digits_split):
    report = verify_bundle(ensemble, digits_split.test.paths[:2])
    assert [row["engine"] for row in report["rows"]] == ["savedmodel", "savedmodel image_bytes"] * 2
    assert all(row["difference"] < 1e-4 for row in report["rows"])
    (row,) = benchmark_bundle(ensemble, batch_sizes=(1,))["rows"]
    assert row["engine"] == "savedmodel"


def test_what_an_ensemble_does_not_have_is_one_clear_line(ensemble, tmp_path):
    with pytest.raises(UserError, match=r"model\.fp32\.tflite, which engine 'litert' runs"):
        Predictor.load(ensemble, "litert")
    with pytest.raises(UserError, match=r"its views are built in \(10 crops of each of 2\)"):
        Predictor.load(ensemble, crops=10)
    with pytest.raises(UserError, match=r"an ensemble, not one network; take a bundle it was made of: digits/1, mlp/1"):
        export_ensemble([ensemble], tmp_path / "again")
    assert list(tmp_path.iterdir()) == []


def test_members_that_do_not_fit_are_refused_and_nothing_is_left(bundle, bundle_copy, other, tmp_path):
    write_manifest(bundle_copy, replace(read_manifest(bundle_copy), labels=tuple("1023456789")))
    with pytest.raises(UserError, match=r"cannot be averaged with .*: it has the same labels in another order"):
        export_ensemble([bundle, bundle_copy], tmp_path / "out" / "both")
    with pytest.raises(
        UserError, match="scale 30 is smaller than the 32 × 32 pixels the network sees; give 32 or more"
    ):
        export_ensemble([bundle, other], tmp_path / "out" / "both", scales=(30,))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_graph_that_cuts_other_views_is_not_published(bundle, tmp_path, monkeypatch):
    plain = toolkit.export.ensemble.Panel.decode_all

    def shifted(self, sources):
        return tuple(np.roll(views, 1, axis=3) for views in plain(self, sources))

    monkeypatch.setattr(toolkit.export.ensemble.Panel, "decode_all", shifted)
    with pytest.raises(
        ParityError, match="not written, its engines disagree: savedmodel cuts other views than the host"
    ):
        export_ensemble([bundle], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_command_measures_on_held_out_pictures_and_fits_the_threshold_on_validation(
    bundle, digits, digits_split, tmp_path, monkeypatch, capsys
):
    asked = {}

    def export(bundles, directory, **options):
        asked.update(options, bundles=bundles, directory=directory)
        return bundle  # any finished bundle

    monkeypatch.setattr(toolkit.export, "export_ensemble", export)
    options = {"crops": 10, "scales": [32, 40], "examples": 1, "force": False, "skip_bad": False, "json": True}
    commands.ensemble(Namespace(bundles=[bundle], out=tmp_path / "both", data=digits, **options))
    assert (asked["bundles"], asked["directory"]) == ([bundle], tmp_path / "both")
    assert (asked["crops"], asked["scales"], asked["num_examples"]) == (10, [32, 40], 1)
    assert sorted(asked["evaluation"].paths) == sorted(digits_split.test.paths)
    assert sorted(asked["validation"].paths) == sorted(digits_split.val.paths)
    report = json.loads(capsys.readouterr().out)
    assert type(report["metrics"]["n"]) is int
    assert (report["bundle"], report["metrics"]["subset"], report["scales"]) == (str(bundle), "test", [32, 40])
    commands.ensemble(Namespace(bundles=[bundle], out=tmp_path / "both", data=None, **options))
    assert (asked["evaluation"], asked["validation"]) == (None, None)
