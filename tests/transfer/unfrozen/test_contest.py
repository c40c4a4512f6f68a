"""The verdict on deeper training: accuracy and log loss against those of the classifier alone."""

import numpy as np
import pytest

from toolkit.transfer.unfrozen.contest import _is_better


def logits(rng, labels, margin):
    return (rng.normal(0, 1, (len(labels), 3)) + margin * np.eye(3)[labels]).astype(np.float32)


@pytest.mark.parametrize("num_pictures", [50, 500])
def test_better_answers_win_and_worse_ones_lose(num_pictures):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, num_pictures)
    before, after = logits(rng, labels, 1.5), logits(rng, labels, 4.0)
    assert _is_better(after, before, labels)
    assert not _is_better(before, after, labels)
    assert not _is_better(before, before, labels)


def test_only_surer_answers_do_not_win():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    before = logits(rng, labels, 2.0)
    assert not _is_better(10 * before, before, labels)


def test_equally_good_answers_win_less_than_half_of_the_time_and_somewhat_worse_ones_seldom():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 100)
    wins = [
        [_is_better(logits(rng, labels, own), logits(rng, labels, 2.0), labels) for own in (2.0, 1.6)]
        for _ in range(60)
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
    assert _is_better(after, before, labels)
    after[1] = (0.0, 20.0, 0.0)
    assert not _is_better(after, before, labels)
