"""Plans of deeper training: which stages, for how many epochs, and whether on all pictures again, within a time."""

import math
import time
from dataclasses import dataclass

from toolkit.transfer.unfrozen.training import StepTime

#: Epochs under which training stages is not tried: they leave the classifier's start and arrive nowhere.
MIN_EPOCHS = 3

#: Of a training step's time: answering its pictures.
FORWARD = 1 / 3


@dataclass(frozen=True)
class Work:
    """Steps of an epoch on the pictures that teach at first, on those that judge, and on all of them again.

    ``again`` is 0 where none of them were held out.
    """

    taught: int
    judging: int
    again: int


@dataclass(frozen=True)
class Schedule:
    """Epochs of the training that is judged, whether all pictures are trained on afterwards, and the time for each.

    Attributes:
        epochs: of either.
        again: whether the training is repeated on all pictures.
        judged_by: the ``time.monotonic()`` by which the first training must end, such that there is time to judge it.
        deadline: when all must end.
    """

    epochs: int
    again: bool
    judged_by: float = math.inf
    deadline: float = math.inf


def what_fits(seconds: float, work: Work, took: StepTime, most: int) -> Schedule:
    """Plan as many epochs as fit: such that all pictures can be trained on afterwards, or else without that.

    Args:
        seconds: there are.
        work: steps.
        took: measured.
        most: epochs.

    >>> took = StepTime(step=1.0, start=10.0)
    >>> what_fits(560, Work(30, 9, 38), took, most=12).epochs, what_fits(200, Work(30, 9, 38), took, most=12).again
    (7, False)
    """
    now = time.monotonic()
    judging = took.start * FORWARD + work.judging * took.step * FORWARD
    both = seconds - 2 * judging - took.start  # the second training is traced anew
    epochs = min(most, int(both / (took.step * (work.taught + work.again))))
    if work.again and epochs >= min(MIN_EPOCHS, most):
        first = both * work.taught / (work.taught + work.again)
        return Schedule(epochs, True, now + first, now + seconds)
    epochs = min(most, int((seconds - judging) / (took.step * work.taught)))
    return Schedule(max(0, epochs), False, now + seconds - judging, now + seconds)


def in_words(seconds: float) -> str:
    """Write a time for people.

    >>> in_words(42.4), in_words(450)
    ('42 s', '7.5 min')
    """
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
