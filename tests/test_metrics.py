import numpy as np
import pytest

from toolkit import metrics
from toolkit.metrics import accuracy_report, fit_temperature, reject_threshold, softmax, top_k_accuracy

PROBABILITIES = np.array(
    [
        [0.5, 0.3, 0.1, 0.06, 0.03, 0.01],
        [0.1, 0.5, 0.3, 0.06, 0.03, 0.01],
        [0.01, 0.03, 0.06, 0.1, 0.3, 0.5],
        [0.3, 0.2, 0.19, 0.18, 0.12, 0.01],
    ]
)
LABELS = np.array([0, 2, 3, 5])  # ranks 1, 2, 3, 6


@pytest.mark.parametrize(("k", "share"), [(1, 0.25), (2, 0.5), (3, 0.75), (5, 0.75), (6, 1.0), (50, 1.0)])
def test_top_k_counts_labels_among_the_k_most_probable(k, share):
    assert top_k_accuracy(PROBABILITIES, LABELS, k) == share


def test_top_k_is_the_same_for_logits_and_for_plain_lists():
    assert top_k_accuracy(np.log(PROBABILITIES) * 7 - 3, LABELS.tolist(), 2) == 0.5


def test_ties_are_decided_by_position_and_not_counted_twice():
    assert top_k_accuracy(np.full((4, 4), 0.25), np.arange(4), 1) == 0.25


def test_report_holds_top1_top5_number_and_recall_of_the_classes_present():
    labels = np.array([0, 1, 5, 1])
    assert accuracy_report(PROBABILITIES, labels, tuple("abcdef")) == {
        "top1": 0.75,
        "top5": 1.0,
        "n": 4,
        "num_classes": 6,
        "per_class": {"a": 1.0, "b": 0.5, "f": 1.0},
    }


RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, (20_000, 5)).astype(np.float32)
DRAWN = np.array([RNG.choice(5, p=row / row.sum()) for row in softmax(LOGITS).astype(np.float64)])


@pytest.mark.parametrize("factor", [0.2, 1.0, 6.0])
def test_temperature_finds_by_what_logits_are_too_large(factor):
    assert fit_temperature(LOGITS * factor, DRAWN) == pytest.approx(factor, rel=0.03)


def test_classifier_without_mistakes_is_not_told_to_be_certain():
    logits = np.eye(3)[np.arange(30) % 3]
    temperature = fit_temperature(logits, np.arange(30) % 3)
    confidence = softmax(logits / temperature).max(axis=1)
    assert 0.9 < confidence.min() < 1
    assert confidence.mean() == pytest.approx(1 - 1 / 32, abs=1e-3)


def test_temperature_without_examples_is_one():
    assert fit_temperature(np.empty((0, 3)), np.empty(0, int)) == 1.0


@pytest.mark.parametrize("kept", [0.95, 0.5])
def test_threshold_keeps_the_stated_share_of_right_answers(kept, monkeypatch):
    monkeypatch.setattr(metrics, "KEPT", kept)
    probabilities = softmax(LOGITS)
    threshold = reject_threshold(probabilities, DRAWN)
    best = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == DRAWN
    assert np.mean(best[right] >= threshold) == pytest.approx(kept, abs=1e-3)
    assert np.mean(best[~right] >= threshold) < kept - 0.1


def test_nothing_is_refused_where_nothing_was_right():
    assert reject_threshold(np.array([[0.9, 0.1]]), np.array([1])) == 0.0
