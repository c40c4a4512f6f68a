import numpy as np
import pytest

from toolkit.transfer.heads.folds import assign_folds, num_lots


def test_every_class_is_spread_evenly():
    labels = np.repeat([0, 1, 2], [50, 7, 23])
    folds = assign_folds(labels)
    for label, count in enumerate((50, 7, 23)):
        sizes = np.bincount(folds[labels == label], minlength=5)
        assert sizes.max() - sizes.min() <= 1
        assert sizes.sum() == count
    assert np.ptp(np.bincount(folds)) <= 2


def test_lots_stay_together_whatever_their_classes():
    rng = np.random.default_rng(0)
    labels, lots = rng.integers(0, 4, 300), rng.integers(0, 80, 300)
    folds = assign_folds(labels, lots)
    assert all(len(set(folds[lots == lot])) == 1 for lot in set(lots))
    assert np.bincount(folds, minlength=5).min() > 40


@pytest.mark.parametrize("count", [2, 3, 4])
def test_class_of_few_pictures_is_in_as_many_folds(count):
    labels = np.array([0] * 40 + [1] * count)
    assert len(set(assign_folds(labels)[labels == 1])) == count


def test_folds_follow_from_the_seed():
    labels = np.arange(100) % 4
    np.testing.assert_array_equal(assign_folds(labels, seed=1), assign_folds(labels, seed=1))
    assert not np.array_equal(assign_folds(labels, seed=1), assign_folds(labels, seed=2))


def test_lots_of_a_class_are_counted():
    assert num_lots(np.array([0, 0, 0, 1]), np.array([5, 5, 6, 5]), 3).tolist() == [2, 1, 0]
