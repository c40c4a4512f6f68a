import numpy as np
import pytest

from toolkit.training.losses import SparseCrossEntropy, classifier


def test_label_smoothing_is_the_papers_formula():
    logits = np.array([[2.0, -1.0, 0.5]], np.float32)
    log_probabilities = logits - np.log(np.exp(logits).sum())
    targets = np.array([0.1 / 3, 0.1 / 3, 0.9 + 0.1 / 3])
    loss = SparseCrossEntropy(label_smoothing=0.1)(np.array([2]), logits)
    assert float(loss) == pytest.approx(-(targets * log_probabilities).sum(), rel=1e-5)


def test_classifier_is_the_logits_alone_with_the_same_weights(convolutional):
    model = convolutional()
    stripped = classifier(model)
    inputs = np.ones((1, 8, 8, 30), np.float32)
    np.testing.assert_array_equal(stripped(inputs), model(inputs)["logits"])
    assert "aux" not in [layer.name for layer in stripped.layers]
