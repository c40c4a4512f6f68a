"""The verdict on deeper training: accuracy and log loss against those of the classifier alone."""

import numpy as np
import pytest

from toolkit.data.feed.split import Split, Subset
from toolkit.transfer.freeze import FreezePlan
from toolkit.transfer.unfrozen.contest import Outcome, _held_out, _is_better


def is_better(after, before, labels, lots=None):
    return _is_better(after, before, labels, np.arange(len(labels)) if lots is None else lots)


def logits(rng, labels, margin):
    return (rng.normal(0, 1, (len(labels), 3)) + margin * np.eye(3)[labels]).astype(np.float32)


@pytest.mark.parametrize("num_pictures", [50, 500])
def test_better_answers_win_and_worse_ones_lose(num_pictures):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, num_pictures)
    before, after = logits(rng, labels, 1.5), logits(rng, labels, 4.0)
    assert is_better(after, before, labels)
    assert not is_better(before, after, labels)
    assert not is_better(before, before, labels)


def test_only_surer_answers_do_not_win():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    before = logits(rng, labels, 2.0)
    assert not is_better(10 * before, before, labels)


def test_equally_good_answers_win_less_than_half_of_the_time_and_somewhat_worse_ones_seldom():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 100)
    wins = [
        [is_better(logits(rng, labels, own), logits(rng, labels, 2.0), labels) for own in (2.0, 1.6)] for _ in range(60)
    ]
    equal, worse = np.mean(wins, axis=0)
    assert equal < 0.5
    assert worse < 0.15


def test_one_more_right_wins_only_with_a_smaller_log_loss():
    labels = np.zeros(20, int)
    before = np.tile(np.float32([2.0, 0.0, 0.0]), (20, 1))
    before[:2] = (0.0, 1.0, 0.0)
    after = before.copy()
    after[0] = before[2]
    assert is_better(after, before, labels)
    after[1] = (0.0, 20.0, 0.0)
    assert not is_better(after, before, labels)


def test_pictures_of_one_lot_count_as_one():
    labels = np.zeros(60, int)
    before = np.zeros((60, 3), np.float32)
    before[:, 0] = np.tile([2, 2, 2, -2, 2], 12)
    after = before.copy()
    after[:, 0] += np.repeat([1.5, -0.3, -0.3, 1.5, -0.3, -0.3], 10)  # six films of ten frames each
    assert is_better(after, before, labels)
    assert not is_better(after, before, labels, np.repeat(np.arange(6), 10))
    halves = np.float32([[1, 0, 0]] * 30 + [[0, 1, 0]] * 30)
    judged = Subset(("",) * 60, (0,) * 60)
    errors = [
        Outcome(FreezePlan(None, ""), None, Split(judged, judged, judged), judged, lots, halves).standard_error
        for lots in (np.arange(60), np.repeat(np.arange(6), 10))
    ]
    assert errors[1] == pytest.approx(0.5 / 6**0.5)
    assert errors[0] < errors[1] / 2


def test_the_fold_that_judges_has_pictures_to_judge():
    """The largest lot goes to the first fold: here it is all there is of its class."""
    labels = (0,) * 50 + (1, 2) * 8
    lots = np.array([0] * 50 + [1, 2] * 4 + [3, 4] * 4)
    train = Subset(tuple(map(str, range(66))), labels)
    taught, split, judging = _held_out(Split(train, Subset((), ()), Subset((), ())), lots)
    assert set(split.val.labels) <= {1, 2}
    assert len(split.val) >= 4
    assert len(taught) + len(split.val) == 66
    assert not set(lots[taught]) & set(judging)
    alone = Subset(("a", "b", "c"), (0, 1, 2))
    taught, split, judging = _held_out(Split(alone, Subset((), ()), Subset((), ())), np.arange(3))
    assert (len(taught), len(split.val), len(judging)) == (3, 0, 0)
