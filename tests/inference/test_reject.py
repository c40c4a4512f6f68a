"""'None of these', and multi-crop of one bundle, on the host."""

import json
from argparse import Namespace
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from toolkit import Predictor
from toolkit.bundle import read_manifest, write_manifest
from toolkit.cli import commands
from toolkit.data import scan_folder
from toolkit.ensemble.crops import plan_crops
from toolkit.ensemble.cut import decode_crops
from toolkit.errors import UserError
from toolkit.inference import evaluate_bundle
from toolkit.serving import protocol


@pytest.fixture
def paths(digits_split):
    return list(digits_split.test.paths[::12])


@pytest.fixture
def median_rejecting(bundle, bundle_copy, paths):
    """The bundle with a threshold that half of ``paths`` fall below, and their probabilities."""
    probabilities = Predictor.load(bundle, "litert").probabilities(paths)
    threshold = float(np.median(probabilities.max(axis=1)))
    write_manifest(bundle_copy, replace(read_manifest(bundle_copy), temperature=2.5, reject_below=threshold))
    return SimpleNamespace(path=bundle_copy, threshold=threshold, probabilities=probabilities)


@pytest.mark.parametrize("engine", ["litert", "savedmodel"])
def test_temperature_is_in_the_weights_and_never_divided_by_again(median_rejecting, paths, engine):
    answers = Predictor.load(median_rejecting.path, engine).probabilities(paths)
    np.testing.assert_allclose(answers, median_rejecting.probabilities, atol=1e-5)


def test_answers_below_the_threshold_are_rejected_and_no_others(median_rejecting, bundle, paths):
    predictor = Predictor.load(median_rejecting.path, "litert")
    rejected = [predictor.is_rejected(row) for row in median_rejecting.probabilities]
    assert rejected == list(median_rejecting.probabilities.max(axis=1) < median_rejecting.threshold)
    assert sum(rejected) == len(paths) // 2
    assert not any(Predictor.load(bundle, "litert").is_rejected(row) for row in median_rejecting.probabilities)


def test_evaluation_tells_the_share_rejected_and_the_accuracy_of_the_others(median_rejecting, digits, tmp_path):
    root = tmp_path / "some"
    for label in "178":
        (root / label).mkdir(parents=True)
        for path in sorted((digits / label).iterdir())[:25]:
            (root / label / path.name).write_bytes(path.read_bytes())
    predictor = Predictor.load(median_rejecting.path, "litert")
    folder = scan_folder(root, class_names=predictor.labels)
    probabilities = predictor.probabilities([folder.root / path for path in folder.paths])
    kept = probabilities.max(axis=1) >= median_rejecting.threshold
    report = evaluate_bundle(predictor, folder)
    assert 0 < report["rejected"] < 1
    assert report["rejected"] == pytest.approx(1 - kept.mean())
    right = probabilities.argmax(axis=1) == np.asarray(folder.labels)
    assert report["top1_answered"] == pytest.approx(right[kept].mean())
    assert report["top1"] == pytest.approx(right.mean())
    assert report["reject_below"] == median_rejecting.threshold
    predictor.reject_below = 1.01
    assert evaluate_bundle(predictor, folder)["top1_answered"] is None
    predictor.reject_below = None
    assert "rejected" not in evaluate_bundle(predictor, folder)


def arguments(bundle, **changed) -> Namespace:
    plain = {
        "engine": "litert",
        "others": [],
        "cluster": None,
        "server": None,
        "crops": 1,
        "scales": [],
        "json": False,
        "csv": False,
        "top_k": 2,
    }
    return Namespace(bundle=bundle, **(plain | changed))


def test_predict_says_none_of_these(median_rejecting, paths, capsys):
    best = median_rejecting.probabilities.max(axis=1)
    images = [paths[int(best.argmin())], paths[int(best.argmax())]]
    commands.predict(arguments(median_rejecting.path, images=images))
    unsure, sure = capsys.readouterr().out.splitlines()
    label = median_rejecting.probabilities[best.argmin()].argmax()
    assert unsure.startswith(f"{images[0]}: none of these ({label} {100 * best.min():.1f} %, ")
    assert "none of these" not in sure
    commands.predict(arguments(median_rejecting.path, images=images, json=True))
    assert [answer["rejected"] for answer in json.loads(capsys.readouterr().out)] == [True, False]


def test_served_metadata_tells_the_threshold_beside_the_signatures(median_rejecting, bundle):
    for path, expected in ((median_rejecting.path, {"reject_below": median_rejecting.threshold}), (bundle, None)):
        document = protocol.metadata_of("digits", 1, read_manifest(path))
        assert document["metadata"].get("rejection") == expected
        assert "signature_def" in document["metadata"]


def test_many_crops_are_the_mean_over_them_and_have_no_threshold(median_rejecting, paths, capsys):
    predictor = Predictor.load(median_rejecting.path, "litert", crops=10, scales=(32, 40))
    plan = plan_crops(predictor.manifest.preprocessing, 10, (32, 40))
    expected = [
        predictor.from_pixels(decode_crops(path, predictor.manifest.preprocessing, plan)).mean(axis=0)
        for path in paths[:8]
    ]
    np.testing.assert_allclose(predictor.probabilities(paths[:8]), expected, atol=1e-6)
    assert np.abs(expected - median_rejecting.probabilities[:8]).max() > 0.01
    assert predictor.reject_below is None
    own = Predictor.load(median_rejecting.path, "litert", scales=(32,))  # this network's own scale: the plain crop
    assert own.reject_below == median_rejecting.threshold
    commands.predict(arguments(median_rejecting.path, images=paths[:1], crops=10, scales=[32, 40], json=True))
    answer = json.loads(capsys.readouterr().out)[0]["predictions"][0]
    assert answer["probability"] == pytest.approx(expected[0].max(), abs=1e-6)


def test_bundles_with_other_labels_are_not_averaged(bundle, bundle_copy):
    manifest = read_manifest(bundle_copy)
    for labels, reason in (
        (tuple("1023456789"), "the same labels in another order"),
        (tuple("01234"), "5 labels, not 10"),
        (tuple("012345678x"), "'x' where the first has '9'"),
    ):
        write_manifest(bundle_copy, replace(manifest, labels=labels))
        with pytest.raises(UserError, match=reason) as error:
            Predictor.load_several([bundle, bundle_copy], "litert")
        assert str(bundle_copy) in str(error.value)


def test_bundle_averaged_with_itself_answers_as_alone_and_without_a_threshold(median_rejecting, bundle, paths):
    both = Predictor.load_several([bundle, median_rejecting.path], "litert")
    np.testing.assert_allclose(both.probabilities(paths), median_rejecting.probabilities, atol=1e-6)
    assert (both.engine_name, both.reject_below) == ("litert", None)
    assert both.predict(paths[0], top_k=1)[0][0].label == str(median_rejecting.probabilities[0].argmax())
    alone = Predictor.load_several([median_rejecting.path], "litert")
    assert isinstance(alone, Predictor)
