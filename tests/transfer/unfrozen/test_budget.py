"""Plans that fit into a time."""

import time

import pytest

from toolkit.transfer.unfrozen.budget import Work, what_fits
from toolkit.transfer.unfrozen.training import StepTime

WORK = Work(taught=30, judging=8, again=38)
TOOK = StepTime(step=1.0, start=10.0)


@pytest.mark.parametrize(
    ("seconds", "epochs", "again"),
    [(10_000, 12, True), (560, 7, True), (150, 4, False), (20, 0, False), (-5, 0, False)],
)
def test_as_many_epochs_as_there_is_time_for(seconds, epochs, again):
    plan = what_fits(seconds, WORK, TOOK, most=12)
    assert (plan.epochs, plan.again) == (epochs, again)


def test_what_is_planned_ends_in_time():
    now = time.monotonic()
    plan = what_fits(560, WORK, TOOK, most=12)
    assert plan.deadline == pytest.approx(now + 560, abs=1)
    assert now + 7 * 30 <= plan.judged_by <= plan.deadline - 7 * 38


def test_without_a_fold_all_time_is_for_one_training():
    plan = what_fits(560, Work(taught=30, judging=8, again=0), TOOK, most=100)
    assert (plan.epochs, plan.again) == (18, False)
