"""Look at a data set through its cached features: copies, labels that look wrong, neighbours, and a map."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Cosine from which two pictures are shown as near duplicates.
SAME = 0.97

_MAX_ON_MAP = 5000  # t-SNE takes minutes beyond
_MAX_DIMENSIONS = 50
# Of rows of length 1 the squared distance is 2 - 2 cosine, and scikit-learn computes it a block at a time.
_BY_DIRECTION = {"metric": "sqeuclidean", "algorithm": "brute"}


@dataclass(frozen=True)
class Doubt:
    """A picture whose label does not fit its features.

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
    """Find pairs of pictures whose features point nearly the same way, the most alike first.

    Args:
        features: (pictures, features), pooled.
        same: the smallest cosine to report.
        limit: the most pairs to report.

    Returns:
        (index, larger index, cosine), of each picture's five nearest.
    """
    if len(features) < 2:
        return []
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=min(5, len(features) - 1), **_BY_DIRECTION).fit(_unit(features))
    distances, indices = index.kneighbors()  # of each picture among the others
    cosines = 1 - distances / 2
    pairs = {
        (min(i, int(j)), max(i, int(j))): float(cosine)
        for i, (row, values) in enumerate(zip(indices, cosines, strict=True))
        for j, cosine in zip(row, values, strict=True)
        if cosine >= same
    }
    ordered = sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))
    return [(first, second, cosine) for (first, second), cosine in ordered[:limit]]


def label_doubts(probabilities: np.ndarray, labels: Sequence[int], *, limit: int = 100) -> list[Doubt]:
    """Find pictures that classifiers fitted without them label otherwise, the surest first.

    A label is doubted where another class is more probable, and the doubts are ordered by how much more: the margin by
    which *Confident Learning* ranks them (Northcutt, Jiang and Chuang, JAIR 2021, section 3.2).

    Args:
        probabilities: out of fold, (pictures, classes).
        labels: integer class per picture.
        limit: the most to report.

    >>> label_doubts(np.array([[0.9, 0.1], [0.8, 0.2]]), [0, 1])
    [Doubt(index=1, given=1, suggested=0, margin=0.6)]
    """
    given = np.asarray(labels, int)
    rows = np.arange(len(given))
    suggested = probabilities.argmax(axis=1)
    margins = probabilities[rows, suggested] - probabilities[rows, given]
    doubted = np.flatnonzero(margins > 0)
    ordered = doubted[np.argsort(-margins[doubted], kind="stable")][:limit]
    return [Doubt(int(i), int(given[i]), int(suggested[i]), round(float(margins[i]), 6)) for i in ordered]


def map_of(features: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Give each picture two coordinates such that pictures with like features lie together.

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
    values = features[drawn].astype(np.float32)
    num_components = min(_MAX_DIMENSIONS, *values.shape)
    if len(values) < 5 or num_components < 2:
        return drawn, np.zeros((len(drawn), 2), np.float32)
    perplexity = min(30.0, (len(values) - 1) / 3)
    # So few points are moved faster by one thread than by several that wait for each other.
    with threadpool_limits(1):
        components = PCA(num_components, svd_solver="randomized", random_state=seed).fit_transform(values)
        if not components[:, 0].std():  # copies of one picture: scikit-learn would divide by it, and its tree crash
            return drawn, np.zeros((len(drawn), 2), np.float32)
        return drawn, TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(components)


def knn_accuracy(
    train: np.ndarray, train_labels: np.ndarray, val: np.ndarray, val_labels: np.ndarray, *, k: int = 10
) -> float:
    """Score the vote of the ``k`` nearest training pictures, each weighed by its cosine.

    Wu et al. (CVPR 2018), section 3.4, with their temperature of 0.07.

    Args:
        train: features (pictures, features), pooled.
        train_labels: integer class per picture.
        val: as ``train``.
        val_labels: as ``train_labels``.
        k: voters.

    Returns:
        A fraction.
    """
    from sklearn.neighbors import KNeighborsClassifier

    voters = KNeighborsClassifier(
        min(k, len(train)), weights=lambda distances: np.exp((1 - distances / 2) / 0.07), **_BY_DIRECTION
    )
    return float(voters.fit(_unit(train), train_labels).score(_unit(val), val_labels))


def _unit(features: np.ndarray) -> np.ndarray:
    """Scale rows to length 1, float32; rows of zeros stay."""
    from sklearn.preprocessing import normalize

    return normalize(features.astype(np.float32), copy=False)
