import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from toolkit.transfer import neighbours
from toolkit.transfer.neighbours import knn_accuracy, nearest

RNG = np.random.default_rng(0)
KNOWN = RNG.normal(size=(300, 16)).astype(np.float16)
QUERIES = RNG.normal(size=(70, 16)).astype(np.float16)


@pytest.mark.parametrize("block", [32, 1024])
def test_neighbours_are_sklearns(block, monkeypatch):
    monkeypatch.setattr(neighbours, "_BLOCK", block)
    reference = NearestNeighbors(n_neighbors=6, metric="cosine").fit(KNOWN.astype(np.float64))
    distances, expected = reference.kneighbors(QUERIES.astype(np.float64))
    indices, cosines = nearest(QUERIES, KNOWN, 6)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(1 - cosines, distances, atol=1e-5)
    own, _ = nearest(KNOWN, KNOWN, 5, exclude_self=True)
    assert not np.any(own == np.arange(300)[:, None])
    _, expected = reference.kneighbors(KNOWN.astype(np.float64))
    np.testing.assert_array_equal(own, expected[:, 1:])


def test_asking_for_more_than_there_are_gives_all():
    indices, _ = nearest(QUERIES[:2], KNOWN[:3], 10)
    assert np.sort(indices, axis=1).tolist() == [[0, 1, 2]] * 2


def test_vote_of_neighbours():
    labels = np.arange(300) % 3
    centres = 4 * np.eye(3, 16)
    train, val = KNOWN + centres[labels], RNG.normal(size=(90, 16)) + centres[np.arange(90) % 3]
    assert knn_accuracy(train, labels, val, np.arange(90) % 3) > 0.9
    assert knn_accuracy(train, labels, val, (np.arange(90) + 1) % 3) < 0.1
