"""An exported ensemble opened: by the predictor, the server, the demo and the comparisons of engines."""

import base64

import numpy as np
import pytest
from starlette.testclient import TestClient

from toolkit import Predictor
from toolkit.demo.classifier import Classifier
from toolkit.engines import available_engines
from toolkit.ensemble.export import export_ensemble
from toolkit.errors import UserError
from toolkit.inference import benchmark_bundle, verify_bundle
from toolkit.serving import create_app


def test_predictor_and_the_members_together_answer_the_same(ensemble, bundle, other, jpegs, expected):
    exported = Predictor.load(ensemble)
    assert (exported.engine_name, available_engines(ensemble)) == ("savedmodel", ["savedmodel"])
    np.testing.assert_allclose(exported.probabilities(jpegs), expected, atol=1e-4)
    together = Predictor.load_several([bundle, other], crops=10)
    np.testing.assert_allclose(together.probabilities(jpegs), expected, atol=1e-4)


@pytest.mark.slow
def test_server_and_demo_answer_the_same(ensemble, jpegs, expected):
    values = [{"b64": base64.b64encode(data).decode()} for data in jpegs]
    client = TestClient(create_app(ensemble.parent))
    served = client.post("/v1/models/both:predict", json={"inputs": values}).json()["outputs"]
    np.testing.assert_allclose(served["probabilities"], expected, atol=1e-4)
    shown = Classifier(ensemble.parent).classify(jpegs[0], "both")
    assert shown.predictions[0].label == str(expected[0].argmax())
    assert shown.predictions[0].probability == pytest.approx(expected[0].max(), abs=1e-4)


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
    with pytest.raises(UserError, match=r"its crops are built in \(10 crops of each of 2\)"):
        Predictor.load(ensemble, crops=10)
    with pytest.raises(UserError, match=r"an ensemble, not one network; take a bundle it was made of: digits/1, mlp/1"):
        export_ensemble([ensemble], tmp_path / "again")
    assert list(tmp_path.iterdir()) == []
