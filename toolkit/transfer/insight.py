"""What cached features tell of a data set: copies, labels that look wrong, and a map to see it whole."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.transfer.minibatch import single

#: Cosine from which two pictures are shown as near duplicates.
SAME = 0.97

_NUM_FOLDS = 5
_MAX_ON_MAP = 5000  # t-SNE takes minutes beyond
_MAX_DIMENSIONS = 50


@dataclass(frozen=True)
class Doubt:
    """A picture whose label the others of its class do not bear out.

    Attributes:
        index: of the picture.
        given: its label.
        suggested: what a classifier that never saw it says.
        margin: probability of the suggestion less that of the label.
    """

    index: int
    given: int
    suggested: int
    margin: float


def near_duplicates(features: np.ndarray, *, same: float = SAME, limit: int = 100) -> list[tuple[int, int, float]]:
    """Pairs of pictures whose features point nearly the same way, the most alike first.

    Args:
        features: (pictures, features), pooled.
        same: the smallest cosine to tell of.
        limit: the most pairs to tell of.

    Returns:
        (index, larger index, cosine), of each picture's five nearest.
    """
    if len(features) < 2:
        return []
    indices, cosines = nearest(features, features, 5, exclude_self=True)
    pairs = {
        (min(i, int(j)), max(i, int(j))): float(cosine)
        for i, (row, values) in enumerate(zip(indices, cosines, strict=True))
        for j, cosine in zip(row, values, strict=True)
        if cosine >= same
    }
    ordered = sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))
    return [(first, second, cosine) for (first, second), cosine in ordered[:limit]]


def label_doubts(
    features: np.ndarray, labels: Sequence[int], *, strength: float = 0.01, limit: int = 100, seed: int = 0
) -> list[Doubt]:
    """Pictures that classifiers fitted without them would label otherwise, the surest first.

    Five-fold cross-validated logistic regression. A label is doubted where another class is more probable, and the
    doubts are ordered by how much more: the margin by which *Confident Learning* ranks them (Northcutt, Jiang and
    Chuang, JAIR 2021, section 3.2).

    Args:
        features: (pictures, features), pooled.
        labels: integer class per picture; classes of fewer than five pictures are left out.
        strength: inverse regularisation strength.
        limit: the most to tell of.
        seed: of the folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    given = np.asarray(labels)
    classes, counts = np.unique(given, return_counts=True)
    usable = np.flatnonzero(np.isin(given, classes[counts >= _NUM_FOLDS]))
    classes = classes[counts >= _NUM_FOLDS]
    if len(classes) < 2:
        return []
    given = given[usable]
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500))
    folds = StratifiedKFold(_NUM_FOLDS, shuffle=True, random_state=seed)
    with threadpool_limits(1):
        probabilities = cross_val_predict(model, single(features[usable]), given, cv=folds, method="predict_proba")
    own = np.searchsorted(classes, given)
    suggested = probabilities.argmax(axis=1)
    rows = np.arange(len(given))
    margins = probabilities[rows, suggested] - probabilities[rows, own]
    doubted = np.flatnonzero(margins > 0)
    ordered = doubted[np.argsort(-margins[doubted], kind="stable")][:limit]
    return [Doubt(int(usable[i]), int(given[i]), int(classes[suggested[i]]), float(margins[i])) for i in ordered]


def map_of(features: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two coordinates for each picture such that pictures with like features lie together.

    Principal components, then t-SNE (van der Maaten and Hinton, JMLR 2008) from their first two; distances between far
    groups mean little. Of more than five thousand pictures a seeded sample is drawn.

    Returns:
        Indices of the pictures drawn, and their coordinates, float32 (drawn, 2).
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    drawn = np.arange(len(features))
    if len(drawn) > _MAX_ON_MAP:
        drawn = np.sort(np.random.default_rng(seed).choice(drawn, _MAX_ON_MAP, replace=False))
    values = single(features[drawn])
    num_components = min(_MAX_DIMENSIONS, *values.shape)
    if len(values) < 5 or num_components < 2:
        return drawn, np.zeros((len(drawn), 2), np.float32)
    perplexity = min(30.0, (len(values) - 1) / 3)
    # So few points are moved faster by one thread than by several that wait for each other.
    with threadpool_limits(1):
        components = PCA(num_components, svd_solver="randomized", random_state=seed).fit_transform(values)
        return drawn, TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(components)


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
