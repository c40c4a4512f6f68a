"""How good a set of probabilities is."""

import numpy as np


def top_k_accuracy(probabilities: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of examples whose label is among the ``k`` most probable classes.

    Args:
        probabilities: (examples, classes); logits serve as well.
        labels: integer class per example.
        k: capped at the number of classes.

    Returns:
        A fraction in 0…1.

    >>> top_k_accuracy(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1]), 1)
    0.5
    """
    best = np.argsort(-probabilities, axis=-1, kind="stable")[:, :k]
    return float(np.mean(np.any(best == np.asarray(labels)[:, None], axis=1)))


def accuracy_report(probabilities: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> dict:
    """Top-1, top-5, their number, and recall by class: ``{"top1", "top5", "n", "per_class"}``, fractions in 0…1."""
    labels = np.asarray(labels)
    correct = np.argmax(probabilities, axis=-1) == labels
    per_class = {
        name: float(correct[labels == index].mean())
        for index, name in enumerate(class_names)
        if np.any(labels == index)
    }
    return {
        "top1": top_k_accuracy(probabilities, labels, 1),
        "top5": top_k_accuracy(probabilities, labels, 5),
        "n": len(labels),
        "per_class": per_class,
    }
