"""Pictures whose features point the same way: nearest neighbours by cosine, a block of the distances at a time."""

from collections.abc import Iterator, Sequence

import numpy as np

from toolkit.transfer.minibatch import single

_BLOCK = 1024


def unit(features: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32; rows of zeros stay."""
    rows = single(features)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def nearest(
    queries: np.ndarray, known: np.ndarray, count: int, *, exclude_self: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """The most similar rows of ``known`` to each row of ``queries``, best first.

    Args:
        queries: (n, features).
        known: (m, features).
        count: how many; at most m, or m - 1 where each query leaves itself out.
        exclude_self: ``queries`` and ``known`` are the same rows, and none is its own neighbour.

    Returns:
        Indices into ``known`` and cosines, (n, count) each.
    """
    count = min(count, len(known) - exclude_self)
    indices, cosines = np.empty((len(queries), count), np.int64), np.empty((len(queries), count), np.float32)
    for start, block in _similarities(queries, known):
        if exclude_self:
            rows = np.arange(len(block))
            block[rows, start + rows] = -np.inf
        best = np.argpartition(-block, count - 1, axis=1)[:, :count] if count < block.shape[1] else _all(block)
        values = np.take_along_axis(block, best, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        stop = start + len(block)
        indices[start:stop] = np.take_along_axis(best, order, axis=1)
        cosines[start:stop] = np.take_along_axis(values, order, axis=1)
    return indices, cosines


def knn_accuracy(
    train: np.ndarray, train_labels: Sequence[int], val: np.ndarray, val_labels: Sequence[int], *, k: int = 10
) -> float:
    """Accuracy of the vote of the ``k`` nearest training pictures, each weighed by its cosine (Wu et al., CVPR 2018,
    section 3.4, with their temperature of 0.07).
    """
    indices, cosines = nearest(val, train, k)
    labels = np.asarray(train_labels)[indices]
    votes = np.zeros((len(val), int(max(*train_labels, *val_labels)) + 1))
    weights = np.exp((cosines - cosines[:, :1]) / 0.07)
    np.add.at(votes, (np.arange(len(val))[:, None], labels), weights)
    return float(np.mean(votes.argmax(axis=1) == np.asarray(val_labels)))


def _similarities(queries: np.ndarray, known: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    columns = unit(known).T
    for start in range(0, len(queries), _BLOCK):
        yield start, unit(queries[start : start + _BLOCK]) @ columns


def _all(block: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.arange(block.shape[1]), block.shape)
