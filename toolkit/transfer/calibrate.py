"""Probabilities that mean what they say, and the point below which a classifier had better not answer."""

import numpy as np

#: Share of the right answers on validation that the reject threshold lets through.
KEPT = 0.95

_LOG_RANGE = (-5.0, 5.0)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """What to divide logits by so that the cross-entropy on ``labels`` is smallest.

    Guo, Pleiss, Sun and Weinberger, *On Calibration of Modern Neural Networks* (ICML 2017), section 4.2: one number,
    which changes no answer. A classifier that makes no mistake there would be sure of everything, so one example is
    counted as wrong, half of it in each direction a probability can go (Platt's correction, 1999).

    Args:
        logits: (examples, classes), of pictures the classifier was not fitted on.
        labels: integer class per example.
    """
    from scipy.optimize import minimize_scalar

    logits = np.asarray(logits, np.float64)
    num_examples, num_classes = logits.shape
    if num_examples == 0 or num_classes < 2:
        return 1.0
    doubt = 1 / (num_examples + 2)
    targets = np.full(logits.shape, doubt / (num_classes - 1))
    targets[np.arange(num_examples), labels] = 1 - doubt

    def cross_entropy(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - (targets * scaled).sum(axis=1)))

    found = minimize_scalar(cross_entropy, bounds=_LOG_RANGE, method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def reject_threshold(probabilities: np.ndarray, labels: np.ndarray, *, kept: float = KEPT) -> float:
    """The highest probability below which an answer can be refused while ``kept`` of the right ones stay.

    A picture of none of the classes tends to get a flat answer (Hendrycks and Gimpel, ICLR 2017), but how flat cannot
    be known from pictures of the classes: the threshold states its price and not its benefit.

    Args:
        probabilities: calibrated, (examples, classes), of pictures the classifier was not fitted on.
        labels: integer class per example.
        kept: share of the right answers to keep.

    Returns:
        A probability; 0, which refuses nothing, where no answer was right.
    """
    best = probabilities.max(axis=1)[probabilities.argmax(axis=1) == labels]
    return float(np.quantile(best, 1 - kept, method="lower")) if len(best) else 0.0
