import numpy as np
import pytest

from toolkit.metrics import accuracy_report, top_k_accuracy

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
        "per_class": {"a": 1.0, "b": 0.5, "f": 1.0},
    }
