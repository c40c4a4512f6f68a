"""Orders follow from seed and epoch; balanced ones show classes, and the pictures within a class, equally often."""

import itertools

import numpy as np
import pytest

from toolkit.data.feed.order import batch_plans, epoch_order, epoch_plans

LABELS = [0] * 70 + [1] * 20 + [2] * 7 + [4] * 3


def test_plain_epoch_is_a_permutation_that_differs_by_seed_and_epoch():
    orders = [epoch_order(LABELS, seed=seed, epoch=epoch) for seed in (0, 1, -1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert len({order.tobytes() for order in orders}) == 6
    assert np.array_equal(orders[0], epoch_order(LABELS, seed=0, epoch=0))


def test_balanced_epochs_show_classes_and_pictures_equally_often():
    shown = np.concatenate([epoch_order(LABELS, seed=5, epoch=epoch, balanced=True) for epoch in range(21)])
    assert np.bincount(np.asarray(LABELS)[shown]).tolist() == [525, 525, 525, 0, 525]
    times = np.bincount(shown, minlength=100)
    for label in (0, 1, 2, 4):
        own = times[np.asarray(LABELS) == label]
        assert np.ptp(own) <= 1
    for epoch in (0, 20):
        order = epoch_order(LABELS, seed=5, epoch=epoch, balanced=True)
        assert len(order) == 100
        assert np.bincount(np.asarray(LABELS)[order]).tolist() == [25, 25, 25, 0, 25]
        assert len(set(np.asarray(LABELS)[order[:12]])) > 1  # shuffled
    assert not np.array_equal(shown[:100], shown[100:200])


@pytest.mark.parametrize("balanced", [False, True])
def test_going_on_anywhere_gives_what_the_unbroken_run_gave(balanced):
    def batches(**start):
        return batch_plans(epoch_plans(LABELS, seed=3, balanced=balanced, **start), 30)

    unbroken = list(itertools.islice(batches(), 12))
    assert [(plan.epoch, len(plan.examples)) for plan in unbroken[:5]] == [(0, 30), (0, 30), (0, 30), (0, 10), (1, 30)]
    for epoch, step in ((0, 0), (1, 2), (2, 3), (0, 4)):
        resumed = itertools.islice(batches(first_epoch=epoch, first_position=step * 30), 3)
        for plan, expected in zip(resumed, unbroken[epoch * 4 + step :], strict=False):
            assert plan.epoch == expected.epoch
            assert np.array_equal(plan.examples, expected.examples)
            assert np.array_equal(plan.positions, expected.positions)
