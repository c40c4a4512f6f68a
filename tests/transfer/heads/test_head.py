import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from toolkit.errors import UserError
from toolkit.transfer import HeadOptions, fit_head
from toolkit.transfer.heads import head as head_module
from toolkit.transfer.heads.head import STRENGTHS, moments


def blobs(num_classes: int, *, seed: int = 0, noise: float = 2.5, count: int = 240):
    """Overlapping clouds in eight dimensions of very different scales and offsets."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(0, 2, (num_classes, 8))
    labels = np.arange(count) % num_classes
    points = centres[labels] + rng.normal(0, noise, (count, 8))
    return (points * np.logspace(-2, 2, 8) + np.linspace(-50, 50, 8)).astype(np.float32), labels


def fitted(num_classes: int, **options):
    train, val = blobs(num_classes), blobs(num_classes, seed=1)
    return fit_head(*train, *val, num_classes=num_classes, options=HeadOptions(**options))


def probabilities(logits):
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def logistic(strength):
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500))


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_head_answers_what_the_sklearn_pipeline_answers(num_classes):
    head = fitted(num_classes)
    assert head.solver == "lbfgs"
    pipeline = logistic(head.strength).fit(*blobs(num_classes))
    points, _ = blobs(num_classes, seed=2)
    logits = head.logits(points)
    assert logits.dtype == np.float32
    assert logits.shape == (240, num_classes)
    np.testing.assert_allclose(probabilities(logits), pipeline.predict_proba(points), atol=5e-3)


def test_mini_batches_converge_to_the_same_head():
    options = {"solver": "adam", "strengths": (0.01,), "epochs": 150, "batch_size": 240, "learning_rate": 0.05}
    head = fitted(3, **options)
    points, _ = blobs(3, seed=2)
    np.testing.assert_allclose(
        probabilities(head.logits(points)), logistic(0.01).fit(*blobs(3)).predict_proba(points), atol=5e-3
    )


@pytest.mark.parametrize("count", [5, 240])  # fewer examples than features, and more
def test_ridge_is_sklearns(count):
    train, val = blobs(3, count=count), blobs(3, seed=1)
    head = fit_head(*train, *val, num_classes=3, options=HeadOptions("ridge", strengths=(50.0,)))
    # The penalty is in units of the total variance, 8, and the loss is a mean.
    ridge = make_pipeline(StandardScaler(), Ridge(alpha=count * 8 / 50.0)).fit(train[0], np.eye(3)[train[1]])
    np.testing.assert_allclose(head.logits(val[0]), ridge.predict(val[0]), atol=2e-4)


@pytest.mark.parametrize("num_classes", [2, 5])
def test_strength_is_the_smallest_of_the_best_on_validation(num_classes):
    train, val = blobs(num_classes), blobs(num_classes, seed=1)
    scores = [logistic(strength).fit(*train).score(*val) for strength in STRENGTHS["lbfgs"]]
    head = fitted(num_classes)
    assert list(head.sweep) == list(STRENGTHS["lbfgs"])
    np.testing.assert_allclose(list(head.sweep.values()), scores, atol=0.009)
    assert head.val_accuracy == max(head.sweep.values())
    assert head.strength == next(s for s, accuracy in head.sweep.items() if accuracy == head.val_accuracy)
    assert head.val_accuracy > 1.2 / num_classes


@pytest.mark.parametrize("solver", ["lbfgs", "adam", "ridge"])
def test_constant_features_do_no_harm(solver):
    train, labels = blobs(3)
    val, val_labels = blobs(3, seed=1)
    wide, wide_val = (np.concatenate([x, np.full((240, 2), 7, np.float32)], axis=1) for x in (train, val))
    head = fit_head(wide, labels, wide_val, val_labels, num_classes=3, options=HeadOptions(solver))
    assert np.isfinite(head.layers[0][0]).all()
    assert head.val_accuracy == pytest.approx(fitted(3, solver=solver).val_accuracy, abs=0.02)


@pytest.mark.parametrize("solver", ["lbfgs", "adam", "ridge"])
def test_balanced_weights_hear_a_rare_class(solver):
    features, labels = blobs(2, noise=4, count=400)
    rare = np.flatnonzero((labels == 0) | (np.arange(400) % 20 == 1))
    val = blobs(2, seed=1, noise=4)
    recalls = []
    for balanced in (False, True):
        options = HeadOptions(solver, balanced=balanced, learning_rate=0.02)
        head = fit_head(features[rare], labels[rare], *val, num_classes=2, options=options)
        recalls.append(np.mean(head.logits(val[0])[val[1] == 1].argmax(axis=1) == 1))
    assert recalls[1] > recalls[0] + 0.05


def test_hidden_layer_learns_what_no_line_can():
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (600, 2)).astype(np.float32)
    labels = (points[:, 0] * points[:, 1] > 0).astype(int)
    train, val = (points[:400], labels[:400]), (points[400:], labels[400:])
    linear = fit_head(*train, *val, num_classes=2)
    options = HeadOptions(hidden=(32,), strengths=(1.0,), epochs=60, learning_rate=0.01)
    deep = fit_head(*train, *val, num_classes=2, options=options)
    assert linear.val_accuracy < 0.7
    assert deep.solver == "adam"
    assert deep.val_accuracy > 0.93
    assert [kernel.shape for kernel, _ in deep.layers] == [(2, 32), (32, 2)]


def test_auto_fits_by_mini_batches_what_would_not_fit_into_memory(tmp_path, monkeypatch):
    train, val = blobs(3), blobs(3, seed=1)
    on_disk = np.memmap(tmp_path / "features", np.float32, "w+", shape=train[0].shape)
    on_disk[:] = train[0]
    monkeypatch.setattr(head_module, "WHOLE_BYTES", 1000)
    head = fit_head(on_disk, train[1], *val, num_classes=3)
    assert head.solver == "adam"
    np.testing.assert_array_equal(head.layers[0][0], fitted(3, solver="adam").layers[0][0])


def test_heads_of_all_strengths_learn_as_each_would_alone():
    together = fitted(3, solver="adam", strengths=(1e-3, 1.0), hidden=(4,))
    for strength in (1e-3, 1.0):
        alone = fitted(3, solver="adam", strengths=(strength,), hidden=(4,))
        assert alone.val_accuracy == pytest.approx(together.sweep[strength], abs=1e-9)


def test_training_follows_from_the_seed():
    options = {"solver": "adam", "strengths": (1.0,), "hidden": (4,), "epochs": 3}
    one, same, other = (fitted(3, seed=seed, **options) for seed in (0, 0, 1))
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
