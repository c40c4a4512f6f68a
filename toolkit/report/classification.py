"""Precision, recall and confusions of a trained network, class by class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClassRow:
    """Scores of one class, fractions; 0 where there is nothing to divide by.

    Precision is the share of right ones among those called by this name, recall the share found of those of this class.
    """

    name: str
    num_examples: int
    precision: float
    recall: float
    f1: float


def class_table(probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> list[ClassRow]:
    """Score each class, in label order, by probabilities (examples, classes) and integer labels (examples,).

    >>> class_table(np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]), np.array([0, 1, 1]), ["a", "b"])[1]
    ClassRow(name='b', num_examples=2, precision=1.0, recall=0.5, f1=0.66...)
    """
    from sklearn.metrics import precision_recall_fscore_support

    found = probabilities.argmax(axis=1)
    columns = precision_recall_fscore_support(labels, found, labels=range(len(class_names)), zero_division=0.0)
    return [
        ClassRow(name, int(count), float(precision), float(recall), float(f1))
        for name, precision, recall, f1, count in zip(class_names, *columns, strict=True)
    ]


def macro_means(rows: Sequence[ClassRow]) -> dict[str, float]:
    """Average over the classes that have examples, each class counting alike."""
    present = [row for row in rows if row.num_examples]
    return {
        f"macro_{name}": float(np.mean([getattr(row, name) for row in present]))
        for name in ("precision", "recall", "f1")
    }


def confusion_matrix(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Count examples by true class (rows) and predicted class (columns), int64 (classes, classes)."""
    from sklearn import metrics

    return metrics.confusion_matrix(labels, probabilities.argmax(axis=1), labels=range(probabilities.shape[1]))


def worst_mistakes(probabilities: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Find the indices of up to ``count`` wrong answers, the most confident first.

    >>> worst_mistakes(np.array([[0.6, 0.4], [0.1, 0.9], [0.2, 0.8]]), np.array([1, 0, 1]), 5)
    array([1, 0])
    """
    sureness = probabilities.max(axis=1)
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-sureness[wrong], kind="stable")][:count]


def confused_pairs(matrix: np.ndarray, count: int) -> list[tuple[int, int, int]]:
    """List the most frequent mistakes: true class, predicted class, how often.

    >>> confused_pairs(np.array([[8, 2, 0], [0, 9, 1], [0, 0, 5]]), 5)
    [(0, 1, 2), (1, 2, 1)]
    """
    mistakes = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:count]
    return [
        (int(true), int(called), int(mistakes[true, called]))
        for true, called in zip(*np.unravel_index(order, mistakes.shape), strict=True)
        if mistakes[true, called]
    ]
