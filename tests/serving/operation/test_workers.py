"""Processes that end, and what follows from it; none is started."""

from types import SimpleNamespace

import pytest

from toolkit.errors import UserError
from toolkit.serving import ServerOptions
from toolkit.serving.operation import workers
from toolkit.serving.operation.metrics import SHARED_DIR
from toolkit.serving.operation.workers import _CANNOT_START, _Workers


@pytest.fixture
def two(monkeypatch, tmp_path):
    """Two workers; ``started`` are the indices of all that were started."""
    monkeypatch.setenv(SHARED_DIR, str(tmp_path))
    monkeypatch.setattr(workers, "SHORT_LIFE", 0)  # no pauses
    two = _Workers(print, ("", ""), "127.0.0.1", 0, ServerOptions(workers=2))
    two.started = []

    def start(index: int) -> None:
        two.started.append(index)
        process = SimpleNamespace(name=f"worker {index}", pid=1, exitcode=None)
        process.join = lambda seconds=None: None
        process.terminate = lambda: setattr(process, "exitcode", 0)
        two._running[index] = index, process, 0.0

    monkeypatch.setattr(two, "_start", start)
    for index in range(2):
        start(index)
    return two


def end(two: _Workers, index: int, status: int) -> None:
    two._running[index][1].exitcode = status
    two._replace(index)


def test_one_that_cannot_start_at_first_ends_all(two):
    other = two._running[0][1]
    with pytest.raises(UserError, match="could not start"):
        end(two, 1, _CANNOT_START)
    assert other.exitcode == 0


def test_a_replacement_that_cannot_start_is_tried_again_and_the_others_go_on(two, caplog):
    for status in (-9, _CANNOT_START, _CANNOT_START):
        end(two, 1, status)
    assert two.started == [0, 1, 1, 1, 1]
    assert two._running[0][1].exitcode is None
    assert caplog.text.count(f"worker 1 ended with status {_CANNOT_START}; starting it anew") == 2
