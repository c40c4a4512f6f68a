"""Accuracy by number of training pictures, and what more of them would probably bring.

The chosen candidate is fitted again on growing shares of each fold's training pictures. Features are at hand, so the
pictures need not be seen again.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from toolkit.metrics import standard_error
from toolkit.transfer.heads.fits import Candidate, Problem, scaled
from toolkit.transfer.heads.folds import NUM_FOLDS, assign_folds
from toolkit.transfer.heads.logistic import Coordinates, logistic_path

_MOST_TAUGHT = 1000  # pictures in a fit of a share
_MOST_JUDGED = 2000  # pictures that the shares' fits answer
_LEAST, _LEAST_PER_CLASS = 10, 2  # pictures that a fit learns from, in all and of a class on average
_MOST_HALVINGS, _MOST_DRAWS = 5, 3

_LEAST_POINTS = 4  # to fit a law to
_SURE = 2.0  # standard errors from which a rise is one, and up to which a point may lie beside the law
_LITTLE = 0.01  # of accuracy
_NUM_RESAMPLED = 200
_EXPONENTS = np.arange(0.1, 1.55, 0.1)


@dataclass(frozen=True)
class CurvePoint:
    """Out-of-fold accuracy of classifiers that learned from so many pictures.

    Attributes:
        num_pictures: that each classifier learned from, on average.
        accuracy: a fraction.
        standard_error: of the accuracy.
    """

    num_pictures: int
    accuracy: float
    standard_error: float


@dataclass(frozen=True)
class Forecast:
    """The accuracy that twice as many pictures would probably bring, by an inverse power law through the points.

    Attributes:
        low: accuracy gained, a fraction; 95 % of the laws through resampled points lie between ``low`` and ``high``.
        likely: by the law through the points.
        high: see ``low``.
    """

    low: float
    likely: float
    high: float


@dataclass(frozen=True)
class LearningCurve:
    """Accuracy over the number of training pictures.

    Attributes:
        points: by number of pictures, each at least about twice the one before.
        last_gain: accuracy that the last step of the curve brought; None of a single point.
        last_gain_error: its standard error, which is less than the points': the same pictures judged both.
        forecast: None where the points do not support one.
        advice: sentences for people on whether more pictures would help.
    """

    points: tuple[CurvePoint, ...]
    last_gain: float | None
    last_gain_error: float | None
    forecast: Forecast | None
    advice: str


def learning_curve(
    problem: Problem, candidate: Candidate, strength: float, right: np.ndarray, judged: np.ndarray
) -> LearningCurve:
    """Fit a candidate on shares of the pictures that halve, and judge each fit on those of the fold it did not see.

    Args:
        problem: all pictures.
        candidate: that was chosen for them.
        strength: of its logistic regression; the same for every share, as a prior that does not follow the data.
        right: out of fold, whether the fits on whole folds answer each picture rightly, bool (pictures,).
        judged: which pictures have such an answer, bool (pictures,).
    """
    shares = _Shares.of(problem)
    asked = shares.sample & judged
    lots = np.unique(problem.lots[asked], return_inverse=True)[1]
    smaller = list(_by_share(problem, candidate, strength, shares, asked)) if asked.any() else []
    points = [CurvePoint(count, *_accuracy(own, lots)) for count, own in smaller]
    points.append(CurvePoint(_num_taught(len(problem.labels)), *_accuracy(right[judged], problem.lots[judged])))
    return _described(tuple(points), np.stack([*(own for _, own in smaller), right[asked]]), lots)


@dataclass(frozen=True)
class _Shares:
    """Shares of the pictures, each a half of the one before, whole lots of every class alike.

    Attributes:
        parts: number of each picture's part, of ``2 ** halvings[0]``, int (pictures,).
        halvings: of the pictures, the smallest share first.
        sample: pictures that are asked, bool (pictures,).
    """

    parts: np.ndarray
    halvings: tuple[int, ...]
    sample: np.ndarray

    @classmethod
    def of(cls, problem: Problem) -> "_Shares":
        num_pictures = len(problem.labels)
        least = max(_LEAST_PER_CLASS * problem.num_classes, _LEAST)
        most = math.floor(math.log2(max(_num_taught(len(np.unique(problem.lots))) / least, 1)))
        first = max(1, math.ceil(math.log2(num_pictures / _MOST_TAUGHT)))
        halvings = tuple(reversed(range(first, min(most, first + _MOST_HALVINGS - 1) + 1)))
        depth = max(halvings, default=0)
        # Of another seed than the folds, which must not follow from the parts.
        parts = assign_folds(problem.labels, problem.lots, num_folds=2**depth, seed=1) if depth else 0 * problem.labels
        num_asked = max(1, round(2**depth * min(1.0, _MOST_JUDGED / num_pictures)))
        return cls(parts, halvings, parts >= 2**depth - num_asked)

    def drawn(self, halving: int) -> list[np.ndarray]:
        """Some shares of this size that have no picture in common, bool (pictures,)."""
        return [self.parts >> (self.halvings[0] - halving) == number for number in range(min(2**halving, _MOST_DRAWS))]


def _num_taught(num_pictures: float) -> int:
    return round(num_pictures * (1 - 1 / NUM_FOLDS))


def _by_share(
    problem: Problem, candidate: Candidate, strength: float, shares: _Shares, asked: np.ndarray
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield for each share the number of pictures taught, and of each asked one how often it was answered rightly."""
    if not shares.halvings:
        return
    needed = np.flatnonzero(np.any([asked, *shares.drawn(shares.halvings[-1])], axis=0))
    part, folds = problem.part(needed), problem.folds()[0][needed]
    x = scaled(part, candidate)[0]
    for halving in shares.halvings:
        drawn = [own[needed] for own in shares.drawn(halving)]
        answers = [_answered(part, candidate.views, strength, folds, x, taught)[asked[needed]] for taught in drawn]
        yield _num_taught(float(np.mean([taught.sum() for taught in drawn]))), np.mean(answers, axis=0)


def _answered(
    problem: Problem, num_views: int, strength: float, folds: np.ndarray, x: np.ndarray, taught: np.ndarray
) -> np.ndarray:
    """Tell of each picture whether a fit on the taught ones of the other folds answers it rightly, bool (pictures,)."""
    teaching = np.stack([taught & (folds != fold) for fold in range(NUM_FOLDS)])
    weights = np.stack([problem.class_shares(own) for own in teaching])[:, taught]
    rows = x[np.tile(taught, num_views)]
    coordinates = Coordinates.of(rows @ rows.T)
    examples = np.tile(problem.labels[taught], num_views), np.tile(weights, (1, num_views))
    ((kernels, intercepts),) = logistic_path(coordinates, *examples, (strength,), num_classes=problem.num_classes)
    right = np.zeros(len(folds), bool)
    for fold in range(NUM_FOLDS):
        own = np.flatnonzero(folds == fold)
        kernel = rows.T @ (coordinates.basis @ kernels[fold])
        right[own] = (x[own] @ kernel + intercepts[fold]).argmax(axis=1) == problem.labels[own]
    return right


def _accuracy(right: np.ndarray, lots: np.ndarray) -> tuple[float, float]:
    """Give the share of right answers and its standard error."""
    return float(right.mean()), standard_error(right, lots)


def _described(points: tuple[CurvePoint, ...], right: np.ndarray, lots: np.ndarray) -> LearningCurve:
    """Say what the points tell; ``right`` is (points, pictures), what each asked picture's answers were worth."""
    if len(points) < 2 or right.shape[1] == 0:
        return LearningCurve(
            points, None, None, None, "There are too few pictures, or groups of them, to say what more would bring."
        )
    counts = np.array([point.num_pictures for point in points], float)
    errors, resampled = 1 - right.mean(axis=1), _resampled(right, lots)
    gain, gain_error = float(errors[-2] - errors[-1]), float((resampled[:, -2] - resampled[:, -1]).std())
    forecast = _forecast(counts, errors, resampled)
    return LearningCurve(points, gain, gain_error, forecast, _advice(points, gain, gain_error, forecast))


def _resampled(right: np.ndarray, lots: np.ndarray) -> np.ndarray:
    """Errors of samples of the asked lots, drawn with replacement, (samples, points)."""
    num_lots = int(lots.max()) + 1
    drawn = np.random.default_rng(0).multinomial(num_lots, np.full(num_lots, 1 / num_lots), _NUM_RESAMPLED)
    sums = np.stack([np.bincount(lots, weights=own, minlength=num_lots) for own in right])
    return 1 - (drawn @ sums.T) / (drawn @ np.bincount(lots, minlength=num_lots))[:, None]


def _forecast(counts: np.ndarray, errors: np.ndarray, resampled: np.ndarray) -> Forecast | None:
    """Fit an inverse power law to the errors, where there are enough of them and they fall clearly."""
    deviations = np.maximum(resampled.std(axis=0), 1e-3)
    fall = resampled[:, 0] - resampled[:, -1]
    if len(counts) < _LEAST_POINTS or errors[0] - errors[-1] <= _SURE * fall.std():
        return None
    laws = _power_laws(counts, np.concatenate([errors[None], resampled]), deviations)
    if np.any(np.abs(laws[0, :-1] - errors) > _SURE * deviations):
        return None
    gains = laws[:, -2] - laws[:, -1]
    low, high = np.quantile(gains[1:], [0.025, 0.975])
    return Forecast(float(low), float(gains[0]), float(high))


def _power_laws(counts: np.ndarray, errors: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """Fit ``limit + scale · pictures ** -exponent``, limit and scale at least 0, to each row of errors.

    Returns:
        What the laws say for each count and for twice the last, (rows, counts + 1).
    """
    weights = deviations**-2
    best, laws = np.full(len(errors), np.inf), np.zeros((len(errors), len(counts) + 1))
    for exponent in _EXPONENTS:
        powers = (np.append(counts, 2 * counts[-1]) / counts[-1]) ** -exponent
        known = powers[:-1]
        centre = np.average(known, weights=weights)
        means = np.average(errors, axis=1, weights=weights)
        slopes = ((errors - means[:, None]) * weights) @ (known - centre) / (weights @ np.square(known - centre))
        limits = means - slopes * centre
        through_zero = (errors * weights) @ known / (weights @ np.square(known))
        slopes = np.where(limits < 0, through_zero, np.maximum(slopes, 0))
        limits = np.where(limits < 0, 0, np.where(slopes > 0, limits, means))
        found = limits[:, None] + slopes[:, None] * powers
        losses = np.square(found[:, :-1] - errors) @ weights
        laws[losses < best] = found[losses < best]
        best = np.minimum(best, losses)
    return laws


def _advice(points: tuple[CurvePoint, ...], gain: float, gain_error: float, forecast: Forecast | None) -> str:
    """Say what more pictures would probably bring: no more than the points support."""
    before, last = points[-2], points[-1]
    measured = (
        f"From {before.num_pictures:,} to {last.num_pictures:,} pictures accuracy changed by "
        f"{100 * gain:+.1f} ± {100 * gain_error:.1f} points."
    )
    twice = "Twice as many pictures like these would probably bring"
    if forecast is not None:
        low, high = math.floor(200 * forecast.low) / 2, math.ceil(200 * forecast.high) / 2
        likely = f"{twice} {f'{low:g} to' if low else 'at most'} {high:g} points more."
        if high <= 100 * _LITTLE:
            likely = f"{twice} less than 1 point more."
    elif gain + _SURE * gain_error < _LITTLE:  # what a doubling brings falls from one to the next
        likely = f"{twice} less than 1 point more."
    elif gain > _SURE * gain_error:
        likely = "It still rises: more pictures like these would probably help, but how much cannot be told from here."
    else:
        likely = "That is too uncertain to promise anything of more pictures."
    return f"{measured} {likely}"
