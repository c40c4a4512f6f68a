"""Choice of the classifier: which features it reads, how they are scaled and how strongly it is regularised.

Every picture judges and every picture teaches. The candidates are compared by cross-validation, on pictures that the
fits compared did not see; then the best is fitted again on all of them. What is said about it, from its accuracy to the
labels it doubts, comes from the answers out of the folds.
"""

import logging
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from toolkit.errors import UserError
from toolkit.metrics import fit_temperature, reject_threshold, softmax
from toolkit.progress import step
from toolkit.transfer.heads.feature_set import FeatureSet, bounded_deviation
from toolkit.transfer.heads.folds import NUM_FOLDS, assign_folds, num_lots
from toolkit.transfer.heads.head import WHOLE_BYTES, Head, HeadOptions, Layers, apply_layers, fit_path, moments
from toolkit.transfer.heads.logistic import Coordinates, logistic_path

log = logging.getLogger("toolkit")

Scaling = Literal["cut", "feature"]

#: Inverse regularisation strengths, strongest first, for features whose squared lengths are 1 on average.
STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3)

#: Examples from which on candidates are compared on a part of them.
MAX_SEARCHED = 2000
#: Below so many pictures, candidates are compared over several divisions into folds.
FEW, NUM_REPEATS = 400, 3

_LEAST_PER_CLASS = 20  # of a class in the part that candidates are compared on, as far as it has them
_WORK = 4e7  # squared examples times classes, up to which every candidate is fitted by logistic regression
_SCREENED = 3  # candidates that are, beyond
_CHUNK = 4096  # examples at a time
_PATIENCE = 2  # strengths that may be worse than the best before the weaker ones are not tried


@dataclass(frozen=True)
class SelectionOptions:
    """Options of the choice.

    Attributes:
        head: solver, class weights, hidden layers, strengths. Logistic regression (``"auto"`` and ``"lbfgs"``) is tried
            on all feature sets, other solvers on the last cut's features; what Keras trains (``"adam"``) is
            judged on one fold.
        lots: number of each picture's lot, whose pictures must not be divided by a fold; by default each is its own.
        plain: try the last cut's features alone, as they are: what a network's own classifier reads.
        tolerance: standard errors of the difference by which a stronger regularisation may be worse than the best.
            Fewer cuts have to be as good: where test pictures are of another kind, early stages helped though they
            seemed to bring nothing.
        seed: of the folds.
    """

    head: HeadOptions = field(default_factory=HeadOptions)
    lots: np.ndarray | None = None
    plain: bool = False
    tolerance: float = 0.5
    seed: int = 0


@dataclass(frozen=True)
class Candidate:
    """A way to make a classifier.

    Attributes:
        features: what it reads.
        scaling: ``"cut"`` divides all features of a cut by one number, ``"feature"`` each by its own deviation.
        views: of each picture that it learns from.
    """

    features: FeatureSet
    scaling: Scaling
    views: int = 1

    def __str__(self) -> str:
        cuts = self.features.cuts
        text = "last stage" if len(cuts) == 1 else f"last {len(cuts)} stages"
        text += ", normalised" if self.features.normalized else ""
        text += ", each feature scaled" if self.scaling == "feature" else ""
        return text + (f", {self.views} views" if self.views > 1 else "")


@dataclass(frozen=True)
class Trial:
    """What a candidate came to at its best strength.

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
        trials: the candidates, in the order in which they were tried.
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
    trials: tuple[Trial, ...] = ()
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
            "pictures_judged": int(self.judged.sum()),
            "trials": [asdict(trial) for trial in self.trials],
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
        options: solver, lots, seed.

    Raises:
        UserError: a class has no pictures.
    """
    from threadpoolctl import threadpool_limits

    options = options or SelectionOptions()
    labels = np.asarray(labels)
    views = {name: own if own.ndim == 3 else own[None] for name, own in features.items()}
    counts = np.bincount(labels, minlength=num_classes)
    if len(counts) > num_classes or counts.min() == 0:
        raise UserError(f"labels must name each of {num_classes} classes, got counts {counts.tolist()}")
    lots = np.arange(len(labels)) if options.lots is None else np.asarray(options.lots)
    problem = _Problem(views, labels, lots, num_classes, options)
    # Products with so few columns are over before a second thread has started.
    with threadpool_limits(1), step("choosing the classifier"):
        if np.count_nonzero(problem.spread > 1) < 2:
            return _nearest_means(problem)
        return _selected(problem)


@dataclass(frozen=True)
class _Problem:
    """All that a choice depends on; ``views`` are by cut (views, pictures, width)."""

    views: Mapping[str, np.ndarray]
    labels: np.ndarray
    lots: np.ndarray
    num_classes: int
    options: SelectionOptions

    @property
    def spread(self) -> np.ndarray:
        """Lots that each class is in."""
        return num_lots(self.labels, self.lots, self.num_classes)

    @property
    def num_views(self) -> int:
        return next(iter(self.views.values())).shape[0]

    def part(self, pictures: np.ndarray) -> "_Problem":
        """The same of some pictures."""
        views = {name: own[:, pictures] for name, own in self.views.items()}
        return replace(self, views=views, labels=self.labels[pictures], lots=self.lots[pictures])

    def folds(self) -> np.ndarray:
        """Folds of each picture, int (repeats, pictures)."""
        repeats = NUM_REPEATS if len(self.labels) < FEW else 1
        seeds = range(self.options.seed, self.options.seed + repeats)
        return np.stack([assign_folds(self.labels, self.lots, num_folds=NUM_FOLDS, seed=seed) for seed in seeds])

    def class_shares(self, taught: np.ndarray) -> np.ndarray:
        """Weight of each picture: 0 where it is held out, and all classes alike where that is asked for."""
        weights = taught.astype(np.float64)
        if self.options.head.balanced:
            counts = np.bincount(self.labels[taught], minlength=self.num_classes)
            weights *= taught.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1))[self.labels]
        return weights


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


def _selected(problem: _Problem) -> Selection:
    options = problem.options.head
    if options.hidden or options.solver not in ("auto", "lbfgs"):
        solver = "adam" if options.hidden else options.solver
        best, head = _by_solver(problem, _last(problem), replace(options, solver=solver))
        return _described(problem, best, head, (_trial(problem, best, True),))
    drawn = _drawn(problem)
    searched = problem if drawn is None else problem.part(drawn)
    outcomes = _search(searched)
    best = min(outcomes, key=lambda outcome: outcome.loss)  # of equal ones the one of fewer cuts, which comes first
    trials = tuple(_trial(searched, outcome, outcome is best) for outcome in outcomes)
    if drawn is None:
        return _described(problem, best, _refit(problem, best), trials)
    log.info("candidates were compared on %s of %s pictures", f"{len(drawn):,}", f"{len(problem.labels):,}")
    if _num_values(problem, best.candidate) * 4 <= WHOLE_BYTES:
        best, head = _refit_large(problem, best.candidate, best.strength)
    else:
        final = replace(options, solver="adam", strengths=(best.strength / _width(problem, best.candidate),))
        best, head = _by_solver(problem, best.candidate, final)
    return _described(problem, best, head, trials)


def _trial(problem: _Problem, outcome: _Outcome, chosen: bool) -> Trial:
    right = outcome.logits.argmax(axis=1) == problem.labels
    cuts = outcome.candidate.features.cuts
    accuracy = float(right[outcome.judged].mean())
    return Trial(str(outcome.candidate), len(cuts), outcome.strength, outcome.loss, accuracy, chosen)


def _width(problem: _Problem, candidate: Candidate) -> int:
    """Features that a candidate reads."""
    return sum(problem.views[name].shape[-1] for name in candidate.features.cuts)


def _num_values(problem: _Problem, candidate: Candidate) -> int:
    return candidate.views * len(problem.labels) * _width(problem, candidate)


def _drawn(problem: _Problem) -> np.ndarray | None:
    """Pictures to compare candidates on, whole lots of every class; None for all."""
    num_parts = math.ceil(len(problem.labels) * problem.num_views / MAX_SEARCHED)
    if num_parts == 1:
        return None
    part = assign_folds(problem.labels, problem.lots, num_folds=num_parts, seed=problem.options.seed) == 0
    rare = np.bincount(problem.labels[part], minlength=problem.num_classes) < _LEAST_PER_CLASS
    for label in np.flatnonzero(rare):
        members = np.flatnonzero(problem.labels == label)
        wanted = problem.lots[members[:_LEAST_PER_CLASS]]
        part |= np.isin(problem.lots, wanted) & (problem.labels == label)
    return np.flatnonzero(part)


def _num_cuts(total: int) -> list[int]:
    """How many of the last cuts to try: one, two, four … and all.

    >>> _num_cuts(9), _num_cuts(1), _num_cuts(3)
    ([1, 2, 4, 9], [1], [1, 2, 3])
    """
    doubled = [2**power for power in range(total.bit_length()) if 1.5 * 2**power <= total]
    return [*doubled, total]


def _search(problem: _Problem) -> list[_Outcome]:
    """Fit every candidate, or of a large problem those that least squares find the best."""
    folds = problem.folds()
    grams = list(_grams(problem))
    if len(problem.labels) ** 2 * problem.num_classes > _WORK:
        screened = [
            _best_strength(problem, candidate, _ridge_logits(problem, folds, gram)) for candidate, gram in grams
        ]
        ranked = sorted(range(len(grams)), key=lambda i: screened[i].loss)[:_SCREENED]
        grams = [grams[i] for i in sorted(ranked)]
    return [
        _best_strength(problem, candidate, _logistic_logits(problem, folds, gram, candidate.views))
        for candidate, gram in grams
    ]


def _grams(problem: _Problem) -> Iterator[tuple[Candidate, np.ndarray]]:
    """Each candidate with the Gram matrix of its examples: that of several cuts is the sum of theirs."""
    names = list(problem.views)
    wanted = _num_cuts(1 if problem.options.plain else len(names))
    for views in sorted({1, problem.num_views}):
        for scaling in ("cut", "feature"):
            for normalized in (False,) if problem.options.plain else (False, True):
                total: np.ndarray | None = None
                for count in range(1, wanted[-1] + 1 if normalized else 2):
                    single = FeatureSet((names[-count],), normalized)
                    x = _scaled(problem, Candidate(single, scaling, views))[0]
                    total = x @ x.T if total is None else total + x @ x.T
                    if count in wanted:
                        features = FeatureSet(tuple(names[-count:]), normalized)
                        yield Candidate(features, scaling, views), total / count


def _scaled(problem: _Problem, candidate: Candidate) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Examples as the solver sees them, float32 (views · pictures, features), and each feature's mean and divisor."""
    x = candidate.features.join({name: problem.views[name][: candidate.views] for name in candidate.features.cuts})
    x = x.reshape(-1, x.shape[-1])
    mean = x.mean(axis=0)
    x = x - mean
    widths = [problem.views[name].shape[-1] for name in candidate.features.cuts]
    deviation = np.sqrt(np.square(x).mean(axis=0))
    divisor = bounded_deviation(deviation, widths) if candidate.scaling == "feature" else np.ones_like(deviation)
    lengths = [
        math.sqrt(float(np.square(part).sum())) for part in np.split(deviation / divisor, np.cumsum(widths)[:-1])
    ]
    # Every cut weighs alike, and the examples' squared lengths are 1 on average.
    divisor = divisor * np.repeat([max(length, 1e-6) * math.sqrt(len(widths)) for length in lengths], widths)
    divisor = divisor.astype(np.float32)
    return x / divisor, mean, divisor


def _logistic_logits(
    problem: _Problem, folds: np.ndarray, gram: np.ndarray, num_views: int
) -> Iterator[tuple[float, np.ndarray]]:
    """Out-of-fold logits of logistic regression by strength, (repeats, pictures, classes)."""
    coordinates = Coordinates.of(gram)
    num_pictures = len(problem.labels)
    taught = (folds[:, None, :] != np.arange(NUM_FOLDS)[None, :, None]).reshape(-1, num_pictures)
    weights = np.stack([problem.class_shares(own) for own in taught])
    examples = np.tile(problem.labels, num_views), np.tile(weights, (1, num_views))
    strengths = problem.options.head.strengths or STRENGTHS
    plain = coordinates.values[:num_pictures]
    for strength, (kernels, intercepts) in zip(
        strengths, logistic_path(coordinates, *examples, strengths, num_classes=problem.num_classes), strict=True
    ):
        logits = np.empty((len(folds), num_pictures, problem.num_classes), np.float32)
        for number, (kernel, intercept) in enumerate(zip(kernels, intercepts, strict=True)):
            held_out = ~taught[number]
            logits[number // NUM_FOLDS, held_out] = plain[held_out] @ kernel + intercept
        yield strength, logits


def _ridge_logits(problem: _Problem, folds: np.ndarray, gram: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
    """Out-of-fold answers of least squares towards one-hot targets, without a fit for each fold.

    Leaving a fold out changes its residuals by the inverse of the hat matrix' block (Hastie, Tibshirani and Friedman,
    *The Elements of Statistical Learning*, 7.10.1, for blocks).
    """
    num_pictures = len(problem.labels)
    gram = gram[:num_pictures, :num_pictures]
    targets = np.eye(problem.num_classes)[problem.labels]
    targets -= targets.mean(axis=0)
    coordinates = Coordinates.of(gram - gram.mean(axis=0) - gram.mean(axis=1, keepdims=True) + gram.mean())
    squares = np.square(coordinates.values, dtype=np.float64).sum(axis=0)
    vectors = coordinates.values / np.sqrt(squares)
    for strength in (1.0, 10.0, 100.0, 1e3):
        hat = (vectors * (squares / (squares + 1 / strength))) @ vectors.T + 1 / num_pictures
        residuals = targets - hat @ targets
        answers = targets.copy()
        for fold in range(NUM_FOLDS):
            held_out = np.flatnonzero(folds[0] == fold)
            block = np.eye(len(held_out)) - hat[np.ix_(held_out, held_out)]
            answers[held_out] -= np.linalg.solve(block + 1e-9 * np.eye(len(held_out)), residuals[held_out])
        yield strength, answers.astype(np.float32)[None]


def _best_strength(
    problem: _Problem,
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
    return next(outcome for outcome in tried if _is_close(outcome, tried[best], problem.options.tolerance))


def _is_close(outcome: _Outcome, best: _Outcome, tolerance: float) -> bool:
    """Tell whether an outcome is as good as the best but for ``tolerance`` standard errors of the difference."""
    difference = outcome.losses - best.losses
    return outcome is best or difference.mean() <= tolerance * difference.std() / math.sqrt(len(difference))


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of each example, float64."""
    from scipy.special import logsumexp

    values = logits.astype(np.float64)
    return logsumexp(values, axis=1) - values[np.arange(len(labels)), labels]


def _refit(problem: _Problem, chosen: _Outcome) -> Head:
    """Fit the chosen candidate on every picture."""
    candidate = chosen.candidate
    x, mean, divisor = _scaled(problem, candidate)
    coordinates = Coordinates.of(x @ x.T)
    labels = np.tile(problem.labels, candidate.views)
    weights = np.tile(problem.class_shares(np.ones(len(problem.labels), bool)), candidate.views)[None]
    ((kernels, intercepts),) = logistic_path(
        coordinates, labels, weights, (chosen.strength,), num_classes=problem.num_classes, final=True
    )
    kernel = x.T @ (coordinates.basis @ kernels[0]) / divisor[:, None]
    return Head(((kernel, (intercepts[0] - mean @ kernel).astype(np.float32)),), "lbfgs", chosen.strength)


def _last(problem: _Problem) -> Candidate:
    return Candidate(FeatureSet((list(problem.views)[-1],)), "feature", problem.num_views)


def _refit_large(problem: _Problem, candidate: Candidate, strength: float) -> tuple[_Outcome, Head]:
    """Fit folds and final classifier on more examples than features, where a Gram matrix would be the larger one."""
    x, mean, divisor = _scaled(problem, candidate)
    folds = problem.folds()[0]
    num_pictures = len(problem.labels)
    taught = np.concatenate([folds != np.arange(NUM_FOLDS)[:, None], np.ones((1, num_pictures), bool)])
    weights = np.tile(np.stack([problem.class_shares(own) for own in taught]), (1, candidate.views))
    labels = np.tile(problem.labels, candidate.views)
    ((kernels, intercepts),) = logistic_path(
        Coordinates(x, x), labels, weights, (strength,), num_classes=problem.num_classes, final=True
    )
    logits = np.empty((num_pictures, problem.num_classes), np.float32)
    for fold in range(NUM_FOLDS):
        held_out = np.flatnonzero(folds == fold)
        logits[held_out] = x[held_out] @ kernels[fold] + intercepts[fold]
    kernel = kernels[-1] / divisor[:, None]
    head = Head(((kernel, (intercepts[-1] - mean @ kernel).astype(np.float32)),), "lbfgs", strength)
    return _best_strength(problem, candidate, [(strength, logits[None])]), head


def _by_solver(problem: _Problem, candidate: Candidate, options: HeadOptions) -> tuple[_Outcome, Head]:
    """Fit folds and final classifier by a solver that sees the examples themselves, which may lie on disk."""
    x = _joined(problem, candidate)
    scale = _standard(x, [problem.views[name].shape[-1] for name in candidate.features.cuts], candidate.scaling)
    labels = np.tile(problem.labels, candidate.views)
    folds = problem.folds()[0]

    def fits(rows: np.ndarray, options: HeadOptions) -> Iterator[tuple[float, Layers]]:
        taught = _rows(x, rows)
        return fit_path(taught, labels[rows], num_classes=problem.num_classes, options=options, scale=scale)

    logits: dict[float, np.ndarray] = {}
    held_out = np.zeros(len(problem.labels), bool)
    # What Keras trains takes so long that one fold has to do.
    for fold in range(1 if options.solver == "adam" else NUM_FOLDS):
        own = folds == fold
        held_out |= own
        for strength, layers in fits(np.flatnonzero(np.tile(~own, candidate.views)), options):
            answers = logits.setdefault(strength, np.zeros((len(own), problem.num_classes), np.float32))
            answers[own] = apply_layers(layers, x[: len(own)][own])
    best = _best_strength(problem, candidate, [(key, own[None]) for key, own in logits.items()], held_out)
    final = replace(options, strengths=(best.strength,))
    ((_, layers),) = fits(np.arange(len(x)), final)
    return best, Head(layers, options.solver, best.strength)


def _joined(problem: _Problem, candidate: Candidate) -> np.ndarray:
    """The candidate's examples (views · pictures, features), in a file that is gone with the array if they are many."""
    num_examples, width = candidate.views * len(problem.labels), _width(problem, candidate)
    views = {name: problem.views[name][: candidate.views].reshape(num_examples, -1) for name in candidate.features.cuts}
    if num_examples * width * 4 <= WHOLE_BYTES:
        return candidate.features.join(views)
    joined = _on_disk((num_examples, width))
    for start in range(0, num_examples, _CHUNK):
        part = slice(start, start + _CHUNK)
        joined[part] = candidate.features.join({name: own[part] for name, own in views.items()})
    return joined


def _rows(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Some rows, on disk where all are."""
    if len(rows) == len(x):
        return x
    if not isinstance(x, np.memmap):
        return x[rows]
    taken = _on_disk((len(rows), x.shape[1]))
    for start in range(0, len(rows), _CHUNK):
        taken[start : start + _CHUNK] = x[rows[start : start + _CHUNK]]
    return taken


def _on_disk(shape: tuple[int, int]) -> np.memmap:
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float16, mode="w+", shape=shape)


def _standard(x: np.ndarray, widths: list[int], scaling: Scaling) -> tuple[np.ndarray, np.ndarray]:
    """Mean and divisor of each feature, such that features vary by about 1."""
    mean, deviation = moments(x)
    if scaling == "feature":
        return mean, bounded_deviation(deviation, widths)
    parts = np.split(deviation, np.cumsum(widths)[:-1])
    return mean, np.concatenate([np.full(len(part), max(np.sqrt(np.square(part).mean()), 1e-6)) for part in parts])


def _described(problem: _Problem, best: _Outcome, head: Head, trials: tuple[Trial, ...]) -> Selection:
    """Put the choice together with what its out-of-fold answers tell."""
    judged, labels = best.judged, problem.labels
    logits = np.where(judged[:, None], best.logits / np.float32(best.temperature), np.float32(0))
    right = logits.argmax(axis=1) == labels
    recalls = [right[judged & (labels == label)].mean() for label in np.unique(labels[judged])]
    return Selection(
        best.candidate.features,
        str(best.candidate),
        head.scaled(1 / best.temperature),
        best.temperature,
        logits,
        judged,
        accuracy=float(right[judged].mean()),
        standard_error=_standard_error(right[judged], problem.lots[judged]),
        balanced_accuracy=float(np.mean(recalls)),
        reject_below=reject_threshold(softmax(logits[judged]), labels[judged]),
        trials=trials,
        remarks=_remarks(problem),
    )


def _standard_error(right: np.ndarray, lots: np.ndarray) -> float:
    """Of the share of right answers, pictures of one lot being right or wrong together.

    Two right and two wrong answers are added (Agresti and Coull, 1998): else no mistake would mean no doubt.
    """
    count = len(right)
    share = (right.sum() + 2) / (count + 4)
    _, lot_of = np.unique(lots, return_inverse=True)
    sums = np.bincount(lot_of, weights=right - right.mean())
    return max(math.sqrt(share * (1 - share) / (count + 4)), math.sqrt(float(np.square(sums).sum())) / count)


def _remarks(problem: _Problem) -> tuple[str, ...]:
    alone = np.flatnonzero(problem.spread == 1)
    if not len(alone):
        return ()
    return (
        f"{len(alone):,} of {problem.num_classes:,} classes have one picture or one lot of look-alikes each: "
        "they are learned, but how well they are told apart cannot be measured",
    )


def _nearest_means(problem: _Problem) -> Selection:
    """The class whose mean is nearest, where no two classes can be judged: a linear classifier too."""
    features = FeatureSet(_last(problem).features.cuts, normalized=not problem.options.plain)
    candidate = Candidate(features, "cut", problem.num_views)
    x, mean, divisor = _scaled(problem, candidate)
    labels = np.tile(problem.labels, candidate.views)
    means = np.stack([x[labels == label].mean(axis=0) for label in range(problem.num_classes)])
    kernel = (means / divisor).T.astype(np.float32)
    bias = (-0.5 * np.square(means).sum(axis=1) - mean @ kernel).astype(np.float32)
    count = len(problem.labels)
    return Selection(
        candidate.features,
        "nearest class means",
        Head(((kernel, bias),), "means", 0.0),
        1.0,
        np.zeros((count, problem.num_classes), np.float32),
        np.zeros(count, bool),
        remarks=(
            "a picture gets the class whose mean is nearest: there are too few pictures to fit more, or to judge it",
        ),
    )
