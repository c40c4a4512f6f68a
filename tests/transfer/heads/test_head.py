import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from toolkit.errors import UserError
from toolkit.transfer import Head, HeadOptions
from toolkit.transfer.heads.head import STRENGTHS, fit_path, moments


def blobs(num_classes: int, *, seed: int = 0, noise: float = 2.5, count: int = 240):
    """Overlapping clouds in eight dimensions of very different scales and offsets."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(0, 2, (num_classes, 8))
    labels = np.arange(count) % num_classes
    points = centres[labels] + rng.normal(0, noise, (count, 8))
    return (points * np.logspace(-2, 2, 8) + np.linspace(-50, 50, 8)).astype(np.float32), labels


def path(features, labels, **options):
    """Heads by strength, on standardised features."""
    how = HeadOptions(**options)
    found = fit_path(features, labels, num_classes=int(labels.max()) + 1, options=how, scale=moments(features))
    return {strength: Head(layers, how.solver, strength) for strength, layers in found}


def fitted(features, labels, *, strength, **options):
    return path(features, labels, strengths=(strength,), **options)[strength]


def accuracy(head, features, labels):
    return float(np.mean(head.logits(features).argmax(axis=1) == labels))


def probabilities(logits):
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def test_mini_batches_converge_to_sklearns_logistic_regression():
    train, (points, _) = blobs(3), blobs(3, seed=2)
    head = fitted(*train, strength=0.01, solver="adam", epochs=150, batch_size=240, learning_rate=0.05)
    logits = head.logits(points)
    assert (logits.dtype, logits.shape) == (np.float32, (240, 3))
    expected = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500)).fit(*train)
    np.testing.assert_allclose(probabilities(logits), expected.predict_proba(points), atol=5e-3)


@pytest.mark.parametrize("count", [5, 240])  # fewer examples than features, and more
def test_ridge_is_sklearns(count):
    train, (points, _) = blobs(3, count=count), blobs(3, seed=1)
    heads = path(*train, solver="ridge")
    assert tuple(heads) == STRENGTHS["ridge"]
    for strength, head in heads.items():
        # The penalty is in units of the total variance, 8, and the loss is a mean.
        ridge = make_pipeline(StandardScaler(), Ridge(alpha=count * 8 / strength)).fit(train[0], np.eye(3)[train[1]])
        np.testing.assert_allclose(head.logits(points), ridge.predict(points), atol=2e-4)


@pytest.mark.parametrize("solver", ["adam", "ridge"])
def test_constant_features_do_no_harm(solver):
    (train, labels), val = blobs(3), blobs(3, seed=1)
    wide, wide_val = (np.concatenate([x, np.full((240, 2), 7, np.float32)], axis=1) for x in (train, val[0]))
    with_them, without = (fitted(x, labels, solver=solver, strength=1.0) for x in (wide, train))
    assert np.isfinite(with_them.layers[0][0]).all()
    assert accuracy(with_them, wide_val, val[1]) == pytest.approx(accuracy(without, *val), abs=0.02)


@pytest.mark.parametrize("solver", ["adam", "ridge"])
def test_balanced_weights_hear_a_rare_class(solver):
    features, labels = blobs(2, noise=4, count=400)
    rare = np.flatnonzero((labels == 0) | (np.arange(400) % 20 == 1))
    points, true = blobs(2, seed=1, noise=4)
    plain, balanced = (
        fitted(features[rare], labels[rare], solver=solver, strength=1.0, balanced=own, learning_rate=0.02)
        for own in (False, True)
    )
    seldom = points[true == 1], 1
    assert accuracy(balanced, *seldom) > accuracy(plain, *seldom) + 0.05


def test_hidden_layer_learns_what_no_line_can():
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (600, 2)).astype(np.float32)
    labels = (points[:, 0] * points[:, 1] > 0).astype(int)
    train, val = (points[:400], labels[:400]), (points[400:], labels[400:])
    linear, deep = (
        fitted(*train, solver="adam", hidden=hidden, strength=1.0, epochs=60, learning_rate=0.01)
        for hidden in ((), (32,))
    )
    assert accuracy(linear, *val) < 0.7
    assert accuracy(deep, *val) > 0.93
    assert [kernel.shape for kernel, _ in deep.layers] == [(2, 32), (32, 2)]


def test_heads_of_all_strengths_learn_as_each_would_alone():
    options = {"solver": "adam", "hidden": (4,), "epochs": 5}
    together = path(*blobs(3), strengths=(1e-3, 1.0), **options)
    assert not np.allclose(together[1e-3].layers[0][0], together[1.0].layers[0][0], atol=1e-3)
    for strength, head in together.items():
        alone = fitted(*blobs(3), strength=strength, **options)
        for ours, theirs in zip(head.layers, alone.layers, strict=True):
            np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-3, atol=1e-5)


def test_training_follows_from_the_seed():
    options = {"solver": "adam", "strength": 1.0, "hidden": (4,), "epochs": 3}
    one, same, other = (fitted(*blobs(3), seed=seed, **options) for seed in (0, 0, 1))
    for ours, theirs in zip(one.layers, same.layers, strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
    assert not np.array_equal(one.layers[0][0], other.layers[0][0])


def test_standardisation_survives_a_large_mean():
    features = np.random.default_rng(0).normal(1000, 0.5, (2000, 3)).astype(np.float32)
    mean, std = moments(features)
    np.testing.assert_allclose(mean, features.astype(np.float64).mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(std, features.astype(np.float64).std(axis=0), rtol=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "lbgfs"}, "unknown head 'lbgfs'; did you mean 'lbfgs'"),
        ({"solver": "ridge", "hidden": (8,)}, "hidden layers are trained by the head 'adam', not by 'ridge'"),
        ({"epochs": 0}, "must be at least 1"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(UserError, match=message):
        HeadOptions(**options)
