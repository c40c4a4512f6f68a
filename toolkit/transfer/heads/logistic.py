"""Multinomial logistic regression of many folds and strengths at once, on one decomposition of the features.

An L2-regularised linear classifier's weights lie in the span of its examples. So all that a fit needs is the examples'
Gram matrix: its eigenvectors, scaled, are coordinates in which every fold and strength is a small problem, however many
features there are. In them the bound of the Hessian (Böhning, 1992) is diagonal, and preconditioning by it leaves
L-BFGS a few dozen steps. The folds are solved as one problem, since a sum of convex functions of different variables is
one: their products become one product of matrices.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

_RELATIVE_RANK = 1e-6  # eigenvalues below this share of the largest are rounding errors of float32
_SEARCHED, _FINAL = 1e-5, 1e-9  # relative decrease of the loss at which a fit stops


@dataclass(frozen=True)
class Coordinates:
    """Examples in the basis of their Gram matrix' eigenvectors.

    Attributes:
        values: float32 (examples, rank); their products are those of the centred, scaled features.
        basis: float32 (examples, rank), which takes weights for coordinates to weights of examples.
    """

    values: np.ndarray
    basis: np.ndarray

    @classmethod
    def of(cls, gram: np.ndarray) -> "Coordinates":
        """Decompose a Gram matrix, float (examples, examples)."""
        from scipy.linalg import eigh

        eigenvalues, vectors = eigh(np.asarray(gram, np.float64), driver="evd")
        kept = eigenvalues > _RELATIVE_RANK * max(float(eigenvalues[-1]), 1e-30)
        roots = np.sqrt(eigenvalues[kept])
        vectors = vectors[:, kept]
        return cls((vectors * roots).astype(np.float32), (vectors / roots).astype(np.float32))


def logistic_path(
    coordinates: Coordinates,
    labels: np.ndarray,
    weights: np.ndarray,
    strengths: tuple[float, ...],
    *,
    num_classes: int,
    final: bool = False,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Fit from the strongest regularisation to the weakest, each fit starting from the one before.

    The loss of one problem is scikit-learn's: half the squared weights and ``strength`` times the sum of the examples'
    weighted cross-entropies. The intercept is free.

    Args:
        coordinates: of all examples.
        labels: integer class per example.
        weights: of each example in each problem, float (problems, examples): 0 for those held out.
        strengths: inverse regularisation strengths, ascending.
        num_classes: columns of each fit.
        final: to convergence, rather than as far as a comparison needs.

    Yields:
        For each strength the weights of coordinates (problems, rank, classes), and intercepts (problems, classes).
    """
    from scipy.optimize import minimize

    x = coordinates.values
    num_examples, rank = x.shape
    num_problems = len(weights)
    share = weights.T.astype(np.float32)[:, :, None]
    targets = np.eye(num_classes, dtype=np.float32)[labels][:, None]
    bound = 0.25 * np.square(x, dtype=np.float64).sum(axis=0) * float(weights.mean())
    shape = (rank + 1, num_problems * num_classes)
    solution = np.zeros(shape)
    penalty = np.append(np.ones(rank), 0.0)[:, None]
    for strength in strengths:
        scale = (
            1 / np.sqrt(np.append(1 + strength * bound, strength * 0.25 * float(weights.sum(axis=1).mean())))[:, None]
        )
        unit = 1 / (strength * max(float(weights.sum()), 1.0))

        def objective(
            values: np.ndarray, strength: float = strength, scale: np.ndarray = scale, unit: float = unit
        ) -> tuple[float, np.ndarray]:
            now = values.reshape(shape) * scale
            logits = x @ now[:-1].astype(np.float32) + now[-1].astype(np.float32)
            logits = logits.reshape(num_examples, num_problems, num_classes)
            logits -= logits.max(axis=2, keepdims=True)
            powers = np.exp(logits)
            sums = powers.sum(axis=2, keepdims=True)
            losses = (np.log(sums) - (logits * targets).sum(axis=2, keepdims=True)) * share
            errors = ((powers / sums - targets) * share).reshape(num_examples, -1)
            slope = np.concatenate([x.T @ errors, errors.sum(axis=0, keepdims=True)]).astype(np.float64)
            loss = strength * float(losses.sum(dtype=np.float64)) + 0.5 * float((penalty * now * now).sum())
            return loss * unit, ((strength * slope + penalty * now) * scale * unit).ravel()

        limits = {"maxiter": 500 if final else 60, "ftol": _FINAL if final else _SEARCHED, "gtol": 1e-7, "maxcor": 8}
        found = minimize(objective, (solution / scale).ravel(), jac=True, method="L-BFGS-B", options=limits)
        solution = found.x.reshape(shape) * scale
        blocks = solution.reshape(rank + 1, num_problems, num_classes).transpose(1, 0, 2).astype(np.float32)
        yield blocks[:, :-1], blocks[:, -1]
