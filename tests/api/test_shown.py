"""Progress of calls: bars where a person looks on, and nothing elsewhere."""

import io
import sys
from types import SimpleNamespace

import pytest

from toolkit.api import shown
from toolkit.api.calls import call
from toolkit.progress import is_shown, step, track


@call
def work(items):
    """Count items."""
    with step("opening"):
        return list(track(items, "counting"))


class Terminal(io.StringIO):
    """A person's terminal, and what is drawn on it."""

    def isatty(self):
        return True


@pytest.fixture
def open_terminal(monkeypatch):
    """Put a terminal in stderr's place; within the test, for pytest puts its own there before."""

    def open_one():
        terminal = Terminal()
        monkeypatch.setattr(sys, "stderr", terminal)
        return terminal

    return open_one


def test_bars_are_drawn_on_a_terminal_and_are_gone_afterwards(open_terminal):
    terminal = open_terminal()
    assert work(range(3)) == [0, 1, 2]
    assert "opening" in terminal.getvalue()
    assert "counting" in terminal.getvalue()
    assert not is_shown()


def test_nothing_is_drawn_where_nobody_looks_on(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert work(range(3)) == [0, 1, 2]
    assert sys.stderr.getvalue() == ""


def test_a_display_that_is_there_is_left_alone(open_terminal, told):
    terminal = open_terminal()
    work(range(3))
    assert terminal.getvalue() == ""
    assert [label for label, _ in told.begun] == ["opening", "counting"]


def test_a_notebook_is_watched(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    ipython = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert shown._is_watched()
    ipython.get_ipython = lambda: None
    assert not shown._is_watched()


def test_bars_count_what_steps_tell(open_terminal):
    open_terminal()
    bars = shown.Bars()
    number = bars.begin("downloading", None, True)
    bars.update(number, 500, 1000)
    bars.update(number, 900, 1000)
    assert (bars._bars[number].n, bars._bars[number].total) == (900, 1000)
    bars.close()
    assert not bars._bars


def test_bars_end_with_an_error(open_terminal):
    open_terminal()

    @call
    def fail():
        """Fail."""
        with step("failing", 3) as told:
            told(1)
            raise ValueError("three were too many")

    with pytest.raises(ValueError, match="three were too many"):
        fail()
    assert not is_shown()
