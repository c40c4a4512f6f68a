"""Progress of what takes long: told by whoever works, shown by whoever set up a display.

Without a display telling costs nothing, and who calls the package as a library sees none of it. The command line draws
bars on a terminal.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol, TypeVar


class Display(Protocol):
    """A place that shows steps under way. Called from several threads."""

    def begin(self, label: str, total: int | None, in_bytes: bool) -> int:
        """Show a new step, and give the number that it is known by."""
        ...

    def update(self, number: int, done: int, total: int | None) -> None: ...

    def end(self, number: int) -> None: ...


Item = TypeVar("Item")

_display: ContextVar[Display | None] = ContextVar("display", default=None)


class Step:
    """A step under way; calling it tells how far it has come."""

    def __init__(self, display: Display | None, number: int) -> None:
        self._display = display
        self._number = number

    def __call__(self, done: int, total: int | None = None) -> None:
        if self._display is not None:
            self._display.update(self._number, done, total)


@contextmanager
def step(label: str, total: int | None = None, *, in_bytes: bool = False) -> Iterator[Step]:
    """Tell that something begins which may take longer than two seconds, and ends with the ``with``.

    Args:
        label: what is done, in a few words, such as ``"reading pictures"``.
        total: how many of what it counts, if that is known by now. Where nothing is counted, only time is shown.
        in_bytes: it counts bytes.

    >>> with step("reading pictures", total=2) as told:
    ...     told(1)
    """
    display = _display.get()
    number = display.begin(label, total, in_bytes) if display is not None else 0
    try:
        yield Step(display, number)
    finally:
        if display is not None:
            display.end(number)


def track(items: Collection[Item], label: str) -> Iterator[Item]:
    """Give ``items`` one after another, telling how many are done."""
    with step(label, len(items)) as told:
        for done, item in enumerate(items, start=1):
            yield item
            told(done)


def is_shown() -> bool:
    """Tell whether steps that begin now are shown."""
    return _display.get() is not None


@contextmanager
def shown_on(display: Display) -> Iterator[None]:
    """Show on ``display`` the steps that begin in this ``with``."""
    token = _display.set(display)
    try:
        yield
    finally:
        _display.reset(token)
