"""Scores of a set of probabilities, and their calibration."""

import math

import numpy as np

#: Share of the right answers on validation that the reject threshold lets through.
KEPT = 0.95

_LOG_RANGE = (-5.0, 5.0)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis, float32.

    >>> [round(float(p), 3) for p in softmax(np.array([5.0, 2.0, -1.0, 3.0]))]
    [0.842, 0.042, 0.002, 0.114]
    """
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (shifted / shifted.sum(axis=-1, keepdims=True)).astype(np.float32)


def top_k_accuracy(probabilities: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share, 0…1, of examples whose label is among the ``k`` most probable classes, or all if they are fewer.

    Args:
        probabilities: (examples, classes); logits serve as well.
        labels: integer class per example.

    >>> top_k_accuracy(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1]), 1)
    0.5
    """
    best = np.argsort(-probabilities, axis=-1, kind="stable")[:, :k]
    return float(np.mean(np.any(best == np.asarray(labels)[:, None], axis=1)))


def estimated_share(right: float, count: int) -> tuple[float, float]:
    """Estimate a share from a sample, and the standard error of that, with two right and two wrong examples added.

    Agresti and Coull, *Approximate Is Better than "Exact" for Interval Estimation of Binomial Proportions* (1998): else
    no mistake would mean no doubt.

    Args:
        right: how many are.
        count: of how many.

    >>> [round(value, 3) for value in estimated_share(96, 96)]
    [0.98, 0.014]
    """
    share = (right + 2) / (count + 4)
    return share, math.sqrt(share * (1 - share) / (count + 4))


def standard_error(right: np.ndarray, lots: np.ndarray) -> float:
    """Compute that of the share of right answers, pictures of one lot being right or wrong together.

    At least that of ``estimated_share``.
    """
    _, lot_of = np.unique(lots, return_inverse=True)
    sums = np.bincount(lot_of, weights=right - right.mean())
    return max(estimated_share(right.sum(), len(right))[1], math.sqrt(float(np.square(sums).sum())) / len(right))


def confidence_interval(share: float, count: int, error: float | None = None) -> tuple[float, float]:
    """Compute the bounds between which a share lies at 95 % confidence, in 0…1.

    Args:
        share: found in a sample, in 0…1.
        count: among how many.
        error: the share's standard error where it is known; by default both are estimated, see ``estimated_share``.

    >>> [round(bound, 3) for bound in confidence_interval(0.9, 100)]
    [0.823, 0.946]
    """
    if error is None:
        share, error = estimated_share(share * count, count)
    return max(0.0, share - 1.96 * error), min(1.0, share + 1.96 * error)


def accuracy_report(probabilities: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> dict:
    """Top-1 and top-5, how many examples and classes there are, and recall by class, fractions in 0…1.

    Returns:
        ``{"top1", "top5", "n", "num_classes", "per_class"}``, the last with the classes that have examples.
    """
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
        "num_classes": len(class_names),
        "per_class": per_class,
    }


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Find the divisor of the logits that makes the cross-entropy on ``labels`` smallest.

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


def reliability(probabilities: np.ndarray, labels: np.ndarray, *, num_bins: int = 15) -> np.ndarray:
    """Hold how sure the answers are against how often they are right, over bins of equal width.

    Args:
        probabilities: (examples, classes).
        labels: integer class per example.
        num_bins: of the likeliest class' probability, between 0 and 1.

    Returns:
        Number of examples, mean probability and share of right answers of each bin that has examples, from the least
        sure to the surest, float64 (bins, 3).

    >>> reliability(np.array([[0.9, 0.1], [0.1, 0.9], [0.6, 0.4]]), np.array([0, 0, 0])).round(3).tolist()
    [[1.0, 0.6, 1.0], [2.0, 0.9, 0.5]]
    """
    sureness = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((sureness * num_bins).astype(int), num_bins - 1)
    counts, sure, correct = (np.bincount(bins, own, num_bins) for own in (np.ones(len(bins)), sureness, right))
    some = counts > 0
    return np.stack([counts[some], sure[some] / counts[some], correct[some] / counts[some]], axis=1)


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, *, num_bins: int = 15) -> float:
    """Compute the expected calibration error, a fraction: how far from the share of right answers the probability is.

    Guo, Pleiss, Sun and Weinberger (ICML 2017), section 2: the mean over the bins of ``reliability``, each counting
    by its examples.

    >>> calibration_error(np.array([[0.9, 0.1], [0.1, 0.9], [0.6, 0.4]]), np.array([0, 0, 0]))
    0.4
    """
    counts, sure, right = reliability(probabilities, labels, num_bins=num_bins).T
    return round(float(counts @ np.abs(sure - right) / counts.sum()), 6)


def chance_calibration_error(probabilities: np.ndarray, *, num_bins: int = 15, num_draws: int = 100) -> float:
    """Estimate the calibration error that true probabilities would show: with few examples, bins are off by chance.

    It is the mean over answers that are drawn, right as often as the likeliest class is probable, from the same seed.

    >>> few, many = np.tile([0.7, 0.3], (10, 1)), np.tile([0.7, 0.3], (1000, 1))
    >>> [round(chance_calibration_error(sure), 2) for sure in (few, many)]
    [0.12, 0.01]
    """
    dice, right = np.random.default_rng(0), probabilities.argmax(axis=1)
    sure, wrong = probabilities.max(axis=1), (right + 1) % probabilities.shape[1]
    drawn = (np.where(dice.random(len(sure)) < sure, right, wrong) for _ in range(num_draws))
    return float(np.mean([calibration_error(probabilities, labels, num_bins=num_bins) for labels in drawn]))


def rejection_curve(
    probabilities: np.ndarray, labels: np.ndarray
) -> tuple[tuple[float, ...], tuple[int, ...], tuple[int, ...]]:
    """Count what refusing unsure answers costs and gains, for thresholds from 0 in steps of 0.01.

    Args:
        probabilities: calibrated, (examples, classes), of pictures the classifier was not fitted on.
        labels: integer class per example.

    Returns:
        The thresholds below 1; for each, the answers whose best probability is no less; and how many of these are
        right.

    >>> below, answered, right = rejection_curve(np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]]), np.array([0, 0, 1]))
    >>> len(below), below[65], answered[0], right[0], answered[65], right[65]
    (100, 0.65, 3, 2, 2, 2)
    """
    below = tuple(round(0.01 * number, 2) for number in range(100))
    best, is_right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    kept = [best >= threshold for threshold in below]
    return below, tuple(int(own.sum()) for own in kept), tuple(int((own & is_right).sum()) for own in kept)


def reject_threshold(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Find the highest probability below which an answer can be refused while ``KEPT`` of the right ones stay.

    A picture of none of the classes tends to get a flat answer (Hendrycks and Gimpel, ICLR 2017), but how flat cannot
    be known from pictures of the classes: the threshold states its price and not its benefit.

    Args:
        probabilities: calibrated, (examples, classes), of pictures the classifier was not fitted on.
        labels: integer class per example.

    Returns:
        A probability; 0, which refuses nothing, where no answer was right.
    """
    best = probabilities.max(axis=1)[probabilities.argmax(axis=1) == labels]
    return float(np.quantile(best, 1 - KEPT, method="lower")) if len(best) else 0.0
