"""Fits of a candidate classifier: its answers out of fold by strength, and the head that all pictures teach.

Logistic regression is fitted on the Gram matrix of the examples while they are few, and on their features while those
fit into memory. Other solvers see the examples themselves, on disk if need be.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from toolkit.files import spare_file
from toolkit.transfer.heads.feature_set import FeatureSet, bounded_deviation
from toolkit.transfer.heads.folds import NUM_FOLDS, assign_folds, judging_pictures, num_lots
from toolkit.transfer.heads.head import Head, HeadOptions, Layers, apply_layers, fit_path, moments
from toolkit.transfer.heads.logistic import Coordinates, logistic_path

Scaling = Literal["cut", "feature"]

#: Inverse strengths of logistic regression, strongest first, for features whose squared lengths are 1 on average.
STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3)

#: Features of more bytes, as float32, are not copied whole for a fit.
WHOLE_BYTES = 256 << 20
#: Below so many pictures, candidates are compared over several divisions into folds.
FEW, NUM_REPEATS = 400, 3

_CHUNK = 4096  # examples at a time


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
class Problem:
    """All that a fit depends on.

    Attributes:
        views: features by cut, from the network's input to its end, (views, pictures, width).
        labels: integer class per picture.
        lots: number of each picture's lot.
        num_classes: width of the head.
        options: solver, class weights, strengths.
    """

    views: Mapping[str, np.ndarray]
    labels: np.ndarray
    lots: np.ndarray
    num_classes: int
    options: HeadOptions

    @property
    def spread(self) -> np.ndarray:
        """Lots that each class is in."""
        return num_lots(self.labels, self.lots, self.num_classes)

    @property
    def num_views(self) -> int:
        """Views of each picture."""
        return next(iter(self.views.values())).shape[0]

    def part(self, pictures: np.ndarray) -> "Problem":
        """The same of some pictures."""
        views = {name: own[:, pictures] for name, own in self.views.items()}
        return replace(self, views=views, labels=self.labels[pictures], lots=self.lots[pictures])

    def folds(self) -> np.ndarray:
        """Folds of each picture, int (repeats, pictures)."""
        repeats = NUM_REPEATS if len(self.labels) < FEW else 1
        return np.stack([assign_folds(self.labels, self.lots, seed=seed) for seed in range(repeats)])

    def class_shares(self, taught: np.ndarray) -> np.ndarray:
        """Weight of each picture: 0 where it is held out, and all classes alike where that is asked for."""
        weights = taught.astype(np.float64)
        if self.options.balanced:
            counts = np.bincount(self.labels[taught], minlength=self.num_classes)
            weights *= taught.sum() / (np.count_nonzero(counts) * np.maximum(counts, 1))[self.labels]
        return weights

    def widths(self, candidate: Candidate) -> list[int]:
        """Features of each cut that a candidate reads."""
        return [self.views[name].shape[-1] for name in candidate.features.cuts]

    def fits_into_memory(self, candidate: Candidate) -> bool:
        """Tell if a candidate's examples may be copied whole."""
        return candidate.views * len(self.labels) * sum(self.widths(candidate)) * 4 <= WHOLE_BYTES


def scaled(problem: Problem, candidate: Candidate) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give examples as the solver sees them, (views · pictures, features), and each feature's mean and divisor.

    Every cut weighs alike, and the examples' squared lengths are 1 on average. All are float32.
    """
    x = candidate.features.join({name: problem.views[name][: candidate.views] for name in candidate.features.cuts})
    x = x.reshape(-1, x.shape[-1])
    mean = x.mean(axis=0)
    x = x - mean
    widths = problem.widths(candidate)
    deviation = np.sqrt(np.square(x).mean(axis=0))
    divisor = bounded_deviation(deviation, widths) if candidate.scaling == "feature" else np.ones_like(deviation)
    lengths = [np.sqrt(np.square(part).sum()) for part in np.split(deviation / divisor, np.cumsum(widths)[:-1])]
    divisor = divisor * np.repeat(np.maximum(lengths, 1e-6) * np.sqrt(len(widths)), widths)
    divisor = divisor.astype(np.float32)
    return x / divisor, mean, divisor


def logistic_logits(
    problem: Problem, folds: np.ndarray, gram: np.ndarray, num_views: int
) -> Iterator[tuple[float, np.ndarray]]:
    """Fit logistic regression without each fold in turn, from the Gram matrix of the examples.

    Yields:
        Each strength with the answers out of fold, float32 (repeats, pictures, classes).
    """
    coordinates = Coordinates.of(gram)
    num_pictures = len(problem.labels)
    taught = (folds[:, None, :] != np.arange(NUM_FOLDS)[None, :, None]).reshape(-1, num_pictures)
    weights = np.stack([problem.class_shares(own) for own in taught])
    examples = np.tile(problem.labels, num_views), np.tile(weights, (1, num_views))
    strengths = problem.options.strengths or STRENGTHS
    plain = coordinates.values[:num_pictures]
    for strength, (kernels, intercepts) in zip(
        strengths, logistic_path(coordinates, *examples, strengths, num_classes=problem.num_classes), strict=True
    ):
        logits = np.empty((len(folds), num_pictures, problem.num_classes), np.float32)
        for number, (kernel, intercept) in enumerate(zip(kernels, intercepts, strict=True)):
            held_out = ~taught[number]
            logits[number // NUM_FOLDS, held_out] = plain[held_out] @ kernel + intercept
        yield strength, logits


def ridge_logits(problem: Problem, folds: np.ndarray, gram: np.ndarray) -> Iterator[tuple[float, np.ndarray]]:
    """Answer out of fold by least squares towards one-hot targets, without a fit for each fold.

    Leaving a fold out changes its residuals by the inverse of the hat matrix' block (Hastie, Tibshirani and Friedman,
    *The Elements of Statistical Learning*, 7.10.1, for blocks).

    Yields:
        As ``logistic_logits``, of the first repeat.
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


def logistic_head(problem: Problem, candidate: Candidate, strength: float) -> Head:
    """Fit logistic regression on every picture, from the Gram matrix of the examples."""
    x, mean, divisor = scaled(problem, candidate)
    coordinates = Coordinates.of(x @ x.T)
    labels = np.tile(problem.labels, candidate.views)
    weights = np.tile(problem.class_shares(np.ones(len(problem.labels), bool)), candidate.views)[None]
    ((kernels, intercepts),) = logistic_path(
        coordinates, labels, weights, (strength,), num_classes=problem.num_classes, final=True
    )
    return _linear(x.T @ (coordinates.basis @ kernels[0]), intercepts[0], mean, divisor, ("lbfgs", strength))


def logistic_logits_and_head(problem: Problem, candidate: Candidate, strength: float) -> tuple[np.ndarray, Head]:
    """Fit folds and head on more examples than features, where a Gram matrix would be the larger one.

    Returns:
        The answers out of fold, float32 (1, pictures, classes), and the head that all pictures taught.
    """
    x, mean, divisor = scaled(problem, candidate)
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
    return logits[None], _linear(kernels[-1], intercepts[-1], mean, divisor, ("lbfgs", strength))


def nearest_means_head(problem: Problem, candidate: Candidate) -> Head:
    """Make the head that answers the class whose mean is nearest: a linear classifier too."""
    x, mean, divisor = scaled(problem, candidate)
    labels = np.tile(problem.labels, candidate.views)
    means = np.stack([x[labels == label].mean(axis=0) for label in range(problem.num_classes)])
    return _linear(means.T, -0.5 * np.square(means).sum(axis=1), mean, divisor, ("means", 0.0))


def _linear(
    kernel: np.ndarray, intercept: np.ndarray, mean: np.ndarray, divisor: np.ndarray, origin: tuple[str, float]
) -> Head:
    """Fold the scaling of the features into a linear head of this solver and strength."""
    kernel = (kernel / divisor[:, None]).astype(np.float32)
    return Head(((kernel, (intercept - mean @ kernel).astype(np.float32)),), *origin)


class SolverFits:
    """Fits of one candidate by a solver that sees the examples themselves, which may lie on disk.

    Args:
        problem: pictures, labels, folds.
        candidate: features, scaling, views.
        options: the solver, ``"adam"`` or ``"ridge"``, and its settings.
    """

    def __init__(self, problem: Problem, candidate: Candidate, options: HeadOptions) -> None:
        self._problem = problem
        self._options = options
        self._views = candidate.views
        self._labels = np.tile(problem.labels, candidate.views)
        self._x = _joined(problem, candidate)
        self._scale = _standard(self._x, problem.widths(candidate), candidate.scaling)

    def out_of_fold(self) -> tuple[dict[float, np.ndarray], np.ndarray]:
        """Answer held-out pictures: of every fold, or of one where Keras trains, which takes long.

        Returns:
            Answers by strength, float32 (1, pictures, classes), and which pictures have some, bool (pictures,).
        """
        folds = self._problem.folds()[0]
        shape = 1, len(folds), self._problem.num_classes
        logits: dict[float, np.ndarray] = {}
        held_out = [folds == fold for fold in range(NUM_FOLDS)]
        if self._options.solver == "adam":
            held_out = [judging_pictures(self._problem.labels, folds)]
        for own in held_out:
            for strength, layers in self._fits(np.flatnonzero(np.tile(~own, self._views)), self._options):
                answers = logits.setdefault(strength, np.zeros(shape, np.float32))
                answers[0, own] = apply_layers(layers, self._x[: len(own)][own])
        return logits, np.any(held_out, axis=0)

    def head(self, strength: float) -> Head:
        """Fit on every picture."""
        options = replace(self._options, strengths=(strength,))
        ((_, layers),) = self._fits(np.arange(len(self._x)), options)
        return Head(layers, options.solver, strength)

    def _fits(self, rows: np.ndarray, options: HeadOptions) -> Iterator[tuple[float, Layers]]:
        taught, labels = _rows(self._x, rows), self._labels[rows]
        return fit_path(taught, labels, num_classes=self._problem.num_classes, options=options, scale=self._scale)


def _joined(problem: Problem, candidate: Candidate) -> np.ndarray:
    """The candidate's examples (views · pictures, features), in a file that is gone with the array if they are many."""
    num_examples = candidate.views * len(problem.labels)
    views = {name: problem.views[name][: candidate.views].reshape(num_examples, -1) for name in candidate.features.cuts}
    if problem.fits_into_memory(candidate):
        return candidate.features.join(views)
    joined = _on_disk((num_examples, sum(problem.widths(candidate))))
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
    with spare_file(math.prod(shape) * np.dtype(np.float16).itemsize) as file:
        return np.memmap(file, np.float16, mode="r+", shape=shape)


def _standard(x: np.ndarray, widths: list[int], scaling: Scaling) -> tuple[np.ndarray, np.ndarray]:
    """Mean and divisor of each feature, such that features vary by about 1."""
    mean, deviation = moments(x)
    if scaling == "feature":
        return mean, bounded_deviation(deviation, widths)
    parts = np.split(deviation, np.cumsum(widths)[:-1])
    return mean, np.concatenate([np.full(len(part), max(np.sqrt(np.square(part).mean()), 1e-6)) for part in parts])
