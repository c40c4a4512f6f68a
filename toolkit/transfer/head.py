"""A linear classifier on cached features."""

from dataclasses import dataclass

import numpy as np

from toolkit.metrics import top_k_accuracy

#: Inverse regularisation strengths that the validation pictures choose from.
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


@dataclass(frozen=True)
class LinearHead:
    """``logits = features @ kernel + bias``.

    Attributes:
        kernel: float32 (features, classes).
        bias: float32 (classes,).
        strength: the inverse regularisation strength that was chosen.
        val_accuracy: its accuracy on validation, a fraction.
    """

    kernel: np.ndarray
    bias: np.ndarray
    strength: float
    val_accuracy: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        """float32 (examples, classes)."""
        return features.astype(np.float32) @ self.kernel + self.bias


def fit_head(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    val_features: np.ndarray,
    val_labels: np.ndarray,
    *,
    num_classes: int,
) -> LinearHead:
    """Multinomial logistic regression by L-BFGS, its strength chosen on validation.

    Features are standardised for the fit; that is folded into the returned kernel and bias, so the head applies to
    features as they are. Ties go to the stronger regularisation.

    Args:
        train_features: (examples, features), any float dtype.
        train_labels: integer class per example; every class must occur.
        val_features: as ``train_features``.
        val_labels: as ``train_labels``.
        num_classes: width of the head.
    """
    from sklearn.linear_model import LogisticRegression

    train = train_features.astype(np.float64)
    mean, std = train.mean(axis=0), train.std(axis=0) + 1e-6
    standardised = (train - mean) / std
    best: LinearHead | None = None
    for strength in STRENGTHS:
        probe = LogisticRegression(C=strength, max_iter=500).fit(standardised, train_labels)
        head = _fold(probe.coef_, probe.intercept_, mean, std, num_classes, strength)
        accuracy = top_k_accuracy(head.logits(val_features), np.asarray(val_labels), 1)
        if best is None or accuracy > best.val_accuracy:
            best = LinearHead(head.kernel, head.bias, strength, accuracy)
    assert best is not None
    return best


def _fold(
    coefficients: np.ndarray,
    intercept: np.ndarray,
    mean: np.ndarray,
    std: np.ndarray,
    num_classes: int,
    strength: float,
) -> LinearHead:
    if len(coefficients) == 1 and num_classes == 2:  # two classes come as one set of log odds
        coefficients = np.concatenate([-coefficients / 2, coefficients / 2])
        intercept = np.concatenate([-intercept / 2, intercept / 2])
    kernel = (coefficients / std).T
    bias = intercept - mean @ kernel
    return LinearHead(kernel.astype(np.float32), bias.astype(np.float32), strength, 0.0)
