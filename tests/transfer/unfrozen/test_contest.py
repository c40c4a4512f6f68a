"""What counts as better."""

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


def test_equally_good_answers_seldom_win():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 100)
    wins = [_is_better(logits(rng, labels, 2.0), logits(rng, labels, 2.0), labels) for _ in range(50)]
    assert np.mean(wins) < 0.25
