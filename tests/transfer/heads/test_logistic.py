import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from toolkit.transfer.heads.logistic import Coordinates, logistic_path


def clouds(num_classes, *, count=120, width=300, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % num_classes
    x = rng.normal(0, 1, (num_classes, width))[labels] + rng.normal(0, 3, (count, width))
    x -= x.mean(axis=0)
    return (x / np.sqrt(np.square(x).sum(axis=1).mean())).astype(np.float32), labels


def probabilities(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("num_classes", [2, 5])
@pytest.mark.parametrize("width", [30, 300])
def test_every_problem_is_solved_as_sklearn_solves_it_alone(num_classes, width):
    x, labels = clouds(num_classes, width=width)
    coordinates = Coordinates.of(x @ x.T)
    weights = np.stack([np.arange(120) % 5 != 0, np.where(labels == 0, 2.0, 1.0)]).astype(float)
    strengths = (3.0, 30.0)
    path = logistic_path(coordinates, labels, weights, strengths, num_classes=num_classes, final=True)
    for strength, (kernels, intercepts) in zip(strengths, path, strict=True):
        for own, kernel, intercept in zip(weights, kernels, intercepts, strict=True):
            # Two columns share what is one weight in scikit-learn, and so pay half for it.
            c = strength * (2 if num_classes == 2 else 1)
            expected = LogisticRegression(C=c, max_iter=5000, tol=1e-6).fit(x.astype(float), labels, own)
            ours = x @ (x.T @ (coordinates.basis @ kernel)) + intercept
            np.testing.assert_allclose(probabilities(ours), expected.predict_proba(x), atol=5e-3)


def test_examples_themselves_serve_as_coordinates():
    x, labels = clouds(3, width=20)
    weights = np.ones((1, 120))
    dual, primal = (
        next(logistic_path(own, labels, weights, (10.0,), num_classes=3, final=True))
        for own in (Coordinates.of(x @ x.T), Coordinates(x, x))
    )
    basis = x.T @ Coordinates.of(x @ x.T).basis
    np.testing.assert_allclose(x @ (basis @ dual[0][0]) + dual[1][0], x @ primal[0][0] + primal[1][0], atol=5e-3)


def test_equal_examples_do_no_harm():
    _, intercepts = next(
        logistic_path(Coordinates.of(np.zeros((4, 4))), np.array([0, 0, 0, 1]), np.ones((1, 4)), (1.0,), num_classes=2)
    )
    assert np.isfinite(intercepts).all()
    np.testing.assert_allclose(probabilities(intercepts)[0], [0.75, 0.25], atol=1e-2)
