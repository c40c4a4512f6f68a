import keras
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from toolkit.data.arrays import load_pixels
from toolkit.data.decode import normalize
from toolkit.engines.convert import feature_tensor
from toolkit.transfer import fit_head
from toolkit.transfer.head import STRENGTHS


def blobs(num_classes: int, *, seed: int = 0, noise: float = 2.5):
    """Overlapping clouds in eight dimensions of very different scales and offsets."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(0, 2, (num_classes, 8))
    labels = np.arange(240) % num_classes
    points = centres[labels] + rng.normal(0, noise, (240, 8))
    return points * np.logspace(-2, 2, 8) + np.linspace(-50, 50, 8), labels


def fitted(num_classes: int):
    train, train_labels = blobs(num_classes)
    val, val_labels = blobs(num_classes, seed=1)
    return fit_head(train, train_labels, val, val_labels, num_classes=num_classes)


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_head_answers_what_the_sklearn_pipeline_answers(num_classes):
    head = fitted(num_classes)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=head.strength, max_iter=500))
    pipeline.fit(*blobs(num_classes))
    points, _ = blobs(num_classes, seed=2)
    logits = head.logits(points)
    assert logits.dtype == np.float32
    assert logits.shape == (240, num_classes)
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exponents / exponents.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, pipeline.predict_proba(points), atol=2e-3)
    decided = np.sort(probabilities, axis=1)[:, -1] - np.sort(probabilities, axis=1)[:, -2] > 0.01
    np.testing.assert_array_equal(logits.argmax(axis=1)[decided], pipeline.predict(points)[decided])


@pytest.mark.parametrize("num_classes", [2, 5])
def test_strength_is_the_smallest_of_the_best_on_validation(num_classes):
    train, val = blobs(num_classes), blobs(num_classes, seed=1)
    scores = [
        make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=500)).fit(*train).score(*val)
        for c in STRENGTHS
    ]
    head = fitted(num_classes)
    assert head.val_accuracy == pytest.approx(max(scores), abs=0.005)
    assert head.strength == STRENGTHS[int(np.argmax(scores))]
    assert head.val_accuracy > 1.2 / num_classes


def test_constant_features_do_no_harm():
    train, labels = blobs(3)
    val, val_labels = blobs(3, seed=1)
    train, val = (np.concatenate([x, np.full((240, 2), 7.0)], axis=1) for x in (train, val))
    head = fit_head(train, labels, val, val_labels, num_classes=3)
    assert np.isfinite(head.kernel).all()
    np.testing.assert_allclose(head.logits(val), fitted(3).logits(val[:, :8]), atol=0.05)


def test_head_on_features_equals_the_network_it_is_put_into(lenet, lenet_preprocessing, digits_split):
    inputs = normalize(load_pixels(digits_split.train.paths[::4], lenet_preprocessing), lenet_preprocessing)
    labels = np.asarray(digits_split.train.labels[::4])
    model = keras.models.clone_model(lenet)
    model.set_weights(lenet.get_weights())
    features = keras.Model(model.input, feature_tensor(model)).predict(inputs, verbose=0)
    half = len(features) // 2
    head = fit_head(
        features[::2].astype(np.float16), labels[::2], features[1::2].astype(np.float16), labels[1::2], num_classes=10
    )
    model.layers[-1].set_weights([head.kernel, head.bias])
    logits = model.predict(inputs, verbose=0)
    np.testing.assert_allclose(logits, head.logits(features), atol=1e-4)
    assert np.mean(logits[:half].argmax(1) == labels[:half]) > 0.9
