"""Choice of the classifier: which features it reads, how they are scaled and how strongly it is regularised.

Every picture judges and every picture teaches. The candidates are compared by cross-validation, on pictures that the
fits compared did not see; then the best is fitted again on all of them. What is said about it, from its accuracy to the
labels it doubts, comes from the answers out of the folds.
"""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from toolkit.errors import UserError
from toolkit.metrics import calibration_error, fit_temperature, reject_threshold, softmax, standard_error
from toolkit.progress import step
from toolkit.transfer.heads.curve import LearningCurve, learning_curve
from toolkit.transfer.heads.feature_set import FeatureSet
from toolkit.transfer.heads.fits import (
    Candidate,
    Problem,
    SolverFits,
    logistic_head,
    logistic_logits,
    logistic_logits_and_head,
    nearest_means_head,
    ridge_logits,
    scaled,
)
from toolkit.transfer.heads.folds import assign_folds
from toolkit.transfer.heads.head import Head, HeadOptions

log = logging.getLogger("toolkit")

#: Examples from which on candidates are compared on a part of them.
MAX_SEARCHED = 2000

#: Standard errors of the difference by which a stronger regularisation may be worse than the best. Fewer cuts have to
#: be as good: where test pictures are of another kind, early stages helped though they seemed to bring nothing.
TOLERANCE = 0.5

#: The candidate that everybody fits, in words: what others bring is told against it.
PROBE = str(Candidate(FeatureSet(("",)), "feature"))

_LEAST_PER_CLASS = 5, 20  # of a class in the part that candidates are compared on: with many classes, and with few
_WORK = 4e7  # squared examples times classes, up to which every candidate is fitted by logistic regression
_SCREENED = 3  # candidates that are, beyond
_PATIENCE = 2  # strengths that may be worse than the best before the weaker ones are not tried


@dataclass(frozen=True)
class SelectionOptions:
    """Options of the choice.

    Attributes:
        head: solver, class weights, hidden layers, strengths. Logistic regression (``"auto"`` and ``"lbfgs"``) is tried
            on all feature sets, other solvers on the last cut's features; what Keras trains (``"adam"``) is
            judged on one fold.
        lots: number of each picture's lot, whose pictures must not be divided by a fold; by default each is its own.
        curve: also measure accuracy by number of pictures, of logistic regression.
    """

    head: HeadOptions = field(default_factory=HeadOptions)
    lots: np.ndarray | None = None
    curve: bool = False


@dataclass(frozen=True)
class Trial:
    """The result of a candidate at its best strength.

    Attributes:
        name: the candidate in words.
        num_cuts: that it reads.
        strength: inverse regularisation strength.
        log_loss: mean out-of-fold cross-entropy, after one temperature.
        accuracy: out of fold, a fraction.
        chosen: whether it is the one that was taken.
    """

    name: str
    num_cuts: int
    strength: float
    log_loss: float
    accuracy: float
    chosen: bool = False


@dataclass(frozen=True)
class Selection:
    """A classifier and how good it is.

    Attributes:
        features: what the head reads.
        chosen: the candidate in words.
        head: fitted on every picture; logits are calibrated, the temperature is in its weights.
        temperature: the divisor of the logits that out-of-fold answers asked for.
        logits: out-of-fold and calibrated, float32 (pictures, classes); rows of pictures that were not judged are 0.
        judged: which pictures have an out-of-fold answer, bool (pictures,): those whose class was there without them.
        accuracy: out of fold, a fraction; None where nothing could be judged.
        standard_error: of the accuracy, over lots.
        balanced_accuracy: the mean of the classes' out-of-fold recalls.
        reject_below: refusing less probable answers costs 5 % of the right ones.
        calibration_error: expected, of the out-of-fold probabilities, a fraction; see ``metrics.calibration_error``.
        trials: the candidates, in the order in which they were tried.
        curve: accuracy by number of pictures, where it was asked for.
        remarks: sentences for people on what could not be done as usual.
    """

    features: FeatureSet
    chosen: str
    head: Head
    temperature: float
    logits: np.ndarray
    judged: np.ndarray
    accuracy: float | None = None
    standard_error: float | None = None
    balanced_accuracy: float | None = None
    reject_below: float = 0.0
    calibration_error: float | None = None
    trials: tuple[Trial, ...] = ()
    curve: LearningCurve | None = None
    remarks: tuple[str, ...] = ()

    def as_document(self) -> dict[str, Any]:
        """Describe the choice, JSON-ready."""
        return {
            "chosen": self.chosen,
            "cuts": list(self.features.cuts),
            "normalized": self.features.normalized,
            "solver": self.head.solver,
            "strength": self.head.strength,
            "out_of_fold_accuracy": self.accuracy,
            "standard_error": self.standard_error,
            "balanced_accuracy": self.balanced_accuracy,
            "calibration_error": self.calibration_error,
            "pictures_judged": int(self.judged.sum()),
            "trials": [asdict(trial) for trial in self.trials],
            "curve": self.curve and asdict(self.curve),
            "remarks": list(self.remarks),
        }


def select_head(
    features: Mapping[str, np.ndarray],
    labels: Sequence[int] | np.ndarray,
    *,
    num_classes: int,
    options: SelectionOptions | None = None,
) -> Selection:
    """Choose a classifier by cross-validation and fit it on all pictures.

    Args:
        features: by cut, from the network's input to its end, float16 or float32 (pictures, width), or
            (views, pictures, width), the plain pictures first.
        labels: integer class per picture.
        num_classes: width of the head.
        options: solver and its settings, lots.

    Raises:
        UserError: a class has no pictures.
    """
    from threadpoolctl import threadpool_limits

    options = options or SelectionOptions()
    problem = _problem(features, labels, num_classes, options)
    counts = np.bincount(problem.labels, minlength=num_classes)
    if len(counts) > num_classes or counts.min() == 0:
        raise UserError(f"labels must name each of {num_classes} classes, got counts {counts.tolist()}")
    # Products with so few columns are over before a second thread has started.
    with threadpool_limits(1), step("choosing the classifier"):
        if np.count_nonzero(problem.spread > 1) < 2:
            return _nearest_means(problem)
        return _selected(problem, options)


def _problem(
    features: Mapping[str, np.ndarray],
    labels: Sequence[int] | np.ndarray,
    num_classes: int,
    options: SelectionOptions,
) -> Problem:
    labels = np.asarray(labels)
    views = {name: own if own.ndim == 3 else own[None] for name, own in features.items()}
    lots = np.arange(len(labels)) if options.lots is None else np.asarray(options.lots)
    return Problem(views, labels, lots, num_classes, options.head)


@dataclass(frozen=True)
class _Outcome:
    """A candidate's out-of-fold logits at a strength, of the first repeat, and the calibrated losses of all."""

    candidate: Candidate
    strength: float
    logits: np.ndarray
    temperature: float
    judged: np.ndarray
    losses: np.ndarray
    loss: float


def _selected(problem: Problem, how: SelectionOptions) -> Selection:
    options = how.head
    if options.hidden or options.solver not in ("auto", "lbfgs"):
        solver = "adam" if options.hidden else options.solver
        best, head = _by_solver(problem, _last(problem), replace(options, solver=solver))
        return _described(problem, best, head, (_trial(problem, best, True),))
    drawn = _drawn(problem)
    searched = problem if drawn is None else problem.part(drawn)
    outcomes = _search(searched)
    best = min(outcomes, key=lambda outcome: outcome.loss)  # of equal ones the one of fewer cuts, which comes first
    trials = tuple(_trial(searched, outcome, outcome is best) for outcome in outcomes)
    candidate, strength = best.candidate, best.strength
    if drawn is None:
        head = logistic_head(problem, candidate, strength)
    elif problem.fits_into_memory(candidate):
        logits, head = logistic_logits_and_head(problem, candidate, strength)
        best = _best_strength(problem, candidate, [(strength, logits)])
    else:
        final = replace(options, solver="adam", strengths=(strength / sum(problem.widths(candidate)),))
        best, head = _by_solver(problem, candidate, final)
    if drawn is not None:
        log.info("candidates were compared on %s of %s pictures", f"{len(drawn):,}", f"{len(problem.labels):,}")
    selection = _described(problem, best, head, trials)
    if not how.curve:
        return selection
    right = best.logits.argmax(axis=1) == problem.labels
    return replace(selection, curve=learning_curve(problem, candidate, strength, right, best.judged))


def _by_solver(problem: Problem, candidate: Candidate, options: HeadOptions) -> tuple[_Outcome, Head]:
    fits = SolverFits(problem, candidate, options)
    logits, held_out = fits.out_of_fold()
    best = _best_strength(problem, candidate, logits.items(), held_out)
    return best, fits.head(best.strength)


def _last(problem: Problem) -> Candidate:
    return Candidate(FeatureSet((list(problem.views)[-1],)), "feature", problem.num_views)


def _trial(problem: Problem, outcome: _Outcome, chosen: bool) -> Trial:
    right = outcome.logits.argmax(axis=1) == problem.labels
    cuts = outcome.candidate.features.cuts
    accuracy = float(right[outcome.judged].mean())
    return Trial(str(outcome.candidate), len(cuts), outcome.strength, outcome.loss, accuracy, chosen)


def _drawn(problem: Problem) -> np.ndarray | None:
    """Pictures to compare candidates on, of every class; None for all.

    Single pictures, not whole lots: where lots are large, a class would be in one alone, and nothing could be judged.
    """
    num_parts = math.ceil(len(problem.labels) * problem.num_views / MAX_SEARCHED)
    if num_parts == 1:
        return None
    part = assign_folds(problem.labels, num_folds=num_parts) == 0
    num_wanted = int(np.clip(MAX_SEARCHED // (problem.num_classes * problem.num_views), *_LEAST_PER_CLASS))
    rare = np.bincount(problem.labels[part], minlength=problem.num_classes) < num_wanted
    for label in np.flatnonzero(rare):
        members = np.flatnonzero(problem.labels == label)
        first = np.unique(problem.lots[members], return_index=True)[1]  # of as many lots as there are
        part[np.concatenate([members[first], np.delete(members, first)])[:num_wanted]] = True
    return np.flatnonzero(part)


def _num_cuts(total: int) -> list[int]:
    """List the numbers of last cuts to try: one, two, four … and all.

    >>> _num_cuts(9), _num_cuts(1), _num_cuts(3)
    ([1, 2, 4, 9], [1], [1, 2, 3])
    """
    doubled = [2**power for power in range(total.bit_length()) if 1.5 * 2**power <= total]
    return [*doubled, total]


def _search(problem: Problem) -> list[_Outcome]:
    """Fit every candidate, or of a large problem the probe and those that least squares find the best."""
    folds = problem.folds()
    losses: dict[Candidate, float] = {}
    if len(problem.labels) ** 2 * problem.num_classes > _WORK:
        for candidate, gram in _grams(problem):
            losses[candidate] = _best_strength(problem, candidate, ridge_logits(problem, folds, gram)).loss
    ranked = sorted(losses, key=losses.__getitem__)[:_SCREENED]
    # Matrices are computed again rather than kept: with many classes each takes hundreds of megabytes.
    return [
        _best_strength(problem, candidate, logistic_logits(problem, folds, gram, candidate.views))
        for candidate, gram in _grams(problem)
        if not losses or candidate in ranked or str(candidate) == PROBE
    ]


def _grams(problem: Problem) -> Iterator[tuple[Candidate, np.ndarray]]:
    """Each candidate with the Gram matrix of its examples: that of several cuts is the sum of theirs."""
    names = list(problem.views)
    wanted = _num_cuts(len(names))
    for views in sorted({1, problem.num_views}):
        for scaling in ("cut", "feature"):
            for normalized in (False, True):
                total: np.ndarray | None = None
                for count in range(1, wanted[-1] + 1 if normalized else 2):
                    single = FeatureSet((names[-count],), normalized)
                    x = scaled(problem, Candidate(single, scaling, views))[0]
                    total = x @ x.T if total is None else total + x @ x.T
                    if count in wanted:
                        features = FeatureSet(tuple(names[-count:]), normalized)
                        yield Candidate(features, scaling, views), total / count


def _best_strength(
    problem: Problem,
    candidate: Candidate,
    logits_of: Iterable[tuple[float, np.ndarray]],
    held_out: np.ndarray | None = None,
) -> _Outcome:
    """Go along a candidate's strengths until they no longer help; ``held_out`` pictures have answers."""
    judged = problem.spread[problem.labels] > 1
    if held_out is not None:
        judged = judged & held_out
    labels = problem.labels[judged]
    weights = problem.class_shares(judged)[judged]
    tried: list[_Outcome] = []
    for strength, logits in logits_of:
        stacked = logits[:, judged].reshape(-1, problem.num_classes)
        repeated = np.tile(labels, len(logits))
        temperature = fit_temperature(stacked, repeated)
        # The mean of the repeats' losses, not the loss of their mean: that would praise fits that differ much.
        losses = _cross_entropy(stacked / temperature, repeated).reshape(len(logits), -1).mean(axis=0) * weights
        tried.append(_Outcome(candidate, strength, logits[0], temperature, judged, losses, float(losses.mean())))
        best = min(range(len(tried)), key=lambda i: tried[i].loss)
        if len(tried) - 1 - best >= _PATIENCE:
            break
    return next(outcome for outcome in tried if _is_close(outcome, tried[best]))


def _is_close(outcome: _Outcome, best: _Outcome) -> bool:
    """Tell whether an outcome is as good as the best but for ``TOLERANCE`` standard errors of the difference."""
    difference = outcome.losses - best.losses
    return outcome is best or difference.mean() <= TOLERANCE * difference.std() / math.sqrt(len(difference))


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of each example, float64."""
    from scipy.special import logsumexp

    values = logits.astype(np.float64)
    return logsumexp(values, axis=1) - values[np.arange(len(labels)), labels]


def _described(problem: Problem, best: _Outcome, head: Head, trials: tuple[Trial, ...]) -> Selection:
    """Put the choice together with what its out-of-fold answers tell."""
    judged, labels = best.judged, problem.labels
    logits = np.where(judged[:, None], best.logits / np.float32(best.temperature), np.float32(0))
    right = logits.argmax(axis=1) == labels
    probabilities = softmax(logits[judged])
    recalls = [right[judged & (labels == label)].mean() for label in np.unique(labels[judged])]
    return Selection(
        best.candidate.features,
        str(best.candidate),
        head.scaled(1 / best.temperature),
        best.temperature,
        logits,
        judged,
        accuracy=float(right[judged].mean()),
        standard_error=standard_error(right[judged], problem.lots[judged]),
        balanced_accuracy=float(np.mean(recalls)),
        reject_below=reject_threshold(probabilities, labels[judged]),
        calibration_error=calibration_error(probabilities, labels[judged]),
        trials=trials,
        remarks=_remarks(problem),
    )


def _remarks(problem: Problem) -> tuple[str, ...]:
    alone = np.flatnonzero(problem.spread == 1)
    if not len(alone):
        return ()
    return (
        f"{len(alone):,} of {problem.num_classes:,} classes have one picture or one lot of look-alikes each: "
        "they are learned, but how well they are told apart cannot be measured",
    )


def _nearest_means(problem: Problem) -> Selection:
    """The class whose mean is nearest, where no two classes can be judged."""
    last = _last(problem)
    candidate = replace(last, features=replace(last.features, normalized=True), scaling="cut")
    count = len(problem.labels)
    return Selection(
        candidate.features,
        "nearest class means",
        nearest_means_head(problem, candidate),
        1.0,
        np.zeros((count, problem.num_classes), np.float32),
        np.zeros(count, bool),
        remarks=(
            "a picture gets the class whose mean is nearest: there are too few pictures to fit more, or to judge it",
        ),
    )
