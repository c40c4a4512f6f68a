"""Folds for cross-validation: every class spread over them, pictures of one lot in the same."""

import numpy as np

NUM_FOLDS = 5


def assign_folds(
    labels: np.ndarray, lots: np.ndarray | None = None, *, num_folds: int = NUM_FOLDS, seed: int = 0
) -> np.ndarray:
    """Assign each picture to a fold: lots in falling size, each to the fold that has least of its classes.

    Equal lots are shuffled by ``seed``. So a class of few pictures is in as many folds as it has lots.

    Args:
        labels: integer class per picture.
        lots: number of each picture's lot, whose pictures must not be divided; by default each is one of its own.
        num_folds: at least 2.
        seed: same arguments and seed, same folds.

    Returns:
        The fold of each picture, 0…``num_folds`` - 1, int (pictures,).

    >>> folds = assign_folds(np.array([0, 0, 1, 1]), num_folds=2)
    >>> sorted(folds[:2].tolist()), sorted(folds[2:].tolist())
    ([0, 1], [0, 1])
    """
    labels = np.asarray(labels)
    lots = np.arange(len(labels)) if lots is None else np.asarray(lots)
    order = np.argsort(lots, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(lots[order])) + 1) if len(order) else []
    rng = np.random.default_rng(seed)
    members = [members[i] for i in rng.permutation(len(members))]
    members.sort(key=len, reverse=True)
    totals = np.bincount(labels, minlength=1)
    held = np.zeros((num_folds, len(totals)))  # share of each class
    sizes = np.zeros(num_folds)
    folds = np.empty(len(labels), int)
    for lot in members:
        own, counts = np.unique(labels[lot], return_counts=True) if len(lot) > 1 else (labels[lot], np.ones(1, int))
        crowding = held[:, own].max(axis=1)
        fold = int(np.lexsort((sizes, np.round(crowding, 9)))[0])
        folds[lot] = fold
        held[fold, own] += counts / totals[own]
        sizes[fold] += len(lot)
    return folds


def judging_pictures(labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Mark the pictures that judge where one fold does: those whose class the others have.

    The first fold that has at least half as many of them as any: the one with the largest lot may have none.

    Args:
        labels: integer class per picture.
        folds: of each picture, see ``assign_folds``.

    Returns:
        bool (pictures,); nowhere true where each class is in one fold only.

    >>> judging_pictures(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2])).tolist()
    [False, False, True, False]
    """
    marked = [(folds == fold) & np.isin(labels, labels[folds != fold]) for fold in range(int(folds.max()) + 1)]
    counts = np.array([own.sum() for own in marked])
    return marked[int(np.argmax(2 * counts >= counts.max()))]


def num_lots(labels: np.ndarray, lots: np.ndarray, num_classes: int) -> np.ndarray:
    """Count the lots that each class is in, int (classes,)."""
    pairs = np.unique(np.stack([np.asarray(labels), np.asarray(lots)], axis=1), axis=0)
    return np.bincount(pairs[:, 0], minlength=num_classes)
