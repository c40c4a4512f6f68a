import numpy as np
import pytest

from toolkit.report import classification

# Six examples of three classes: true 0, 0, 0, 1, 1, 2, called 0, 0, 1, 1, 1, 1.
LABELS = np.array([0, 0, 0, 1, 1, 2])
PROBABILITIES = np.array(
    [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.4, 0.5, 0.1], [0.1, 0.7, 0.2], [0.2, 0.6, 0.2], [0.05, 0.9, 0.05]]
)


def test_class_table_is_worked_by_hand():
    zero, one, two = classification.class_table(PROBABILITIES, LABELS, ["zero", "one", "two"])
    assert (zero.precision, zero.recall) == pytest.approx((1.0, 2 / 3))
    assert (one.precision, one.recall) == pytest.approx((2 / 4, 1.0))
    assert (two.precision, two.recall, two.f1, two.num_examples) == (0.0, 0.0, 0.0, 1)
    assert zero.f1 == pytest.approx(0.8)
    means = classification.macro_means([zero, one, two])
    assert means["macro_recall"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert means["macro_f1"] == pytest.approx((0.8 + 2 / 3 + 0) / 3)


def test_confusions_and_mistakes_are_worked_by_hand():
    matrix = classification.confusion_matrix(PROBABILITIES, LABELS)
    np.testing.assert_array_equal(matrix, [[2, 1, 0], [0, 2, 0], [0, 1, 0]])
    assert classification.confused_pairs(matrix, 5) == [(0, 1, 1), (2, 1, 1)]
    np.testing.assert_array_equal(classification.worst_mistakes(PROBABILITIES, LABELS, 5), [5, 2])
