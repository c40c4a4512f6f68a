import numpy as np
import pytest

from toolkit.engines.runtimes import softmax
from toolkit.transfer.calibrate import fit_temperature, reject_threshold

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, (20_000, 5)).astype(np.float32)
LABELS = np.array([RNG.choice(5, p=row / row.sum()) for row in softmax(LOGITS).astype(np.float64)])


@pytest.mark.parametrize("factor", [0.2, 1.0, 6.0])
def test_temperature_finds_by_what_logits_are_too_large(factor):
    assert fit_temperature(LOGITS * factor, LABELS) == pytest.approx(factor, rel=0.03)


def test_classifier_without_mistakes_is_not_told_to_be_certain():
    logits = np.eye(3)[np.arange(30) % 3]
    temperature = fit_temperature(logits, np.arange(30) % 3)
    confidence = softmax(logits / temperature).max(axis=1)
    assert 0.9 < confidence.min() < 1
    assert confidence.mean() == pytest.approx(1 - 1 / 32, abs=1e-3)


def test_temperature_without_examples_is_one():
    assert fit_temperature(np.empty((0, 3)), np.empty(0, int)) == 1.0


@pytest.mark.parametrize("kept", [0.95, 0.5])
def test_threshold_keeps_the_stated_share_of_right_answers(kept):
    probabilities = softmax(LOGITS)
    threshold = reject_threshold(probabilities, LABELS, kept=kept)
    best = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == LABELS
    assert np.mean(best[right] >= threshold) == pytest.approx(kept, abs=1e-3)
    assert np.mean(best[~right] >= threshold) < kept - 0.1


def test_nothing_is_refused_where_nothing_was_right():
    assert reject_threshold(np.array([[0.9, 0.1]]), np.array([1])) == 0.0
