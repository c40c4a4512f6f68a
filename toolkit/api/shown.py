"""Progress of a call where a person looks on: bars of tqdm in a notebook and on a terminal."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from toolkit.progress import is_shown, shown_on


@contextmanager
def bars_for_people() -> Iterator[None]:
    """Draw a bar for each step under way, unless something shows them already or nobody looks on."""
    if is_shown() or not _is_watched():
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # a person has no use for what TensorFlow says of its build
    bars = Bars()
    try:
        with shown_on(bars):
            yield
    finally:
        bars.close()


def _is_watched() -> bool:
    """Tell whether this is a notebook, or a terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None or sys.stderr.isatty()


class Bars:
    """Steps as bars of ``tqdm.auto``; of a step without an end, the time alone."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a notebook without widgets gets bars of text
            from tqdm.auto import tqdm

        self._new = tqdm
        self._bars: dict[int, Any] = {}
        self._begun = 0

    def begin(self, label: str, total: int | None, in_bytes: bool) -> int:
        self._begun += 1
        form = {} if total else {"bar_format": "{desc}: {elapsed}"}
        units = {"unit": "B" if in_bytes else "", "unit_scale": in_bytes}
        self._bars[self._begun] = self._new(desc=label, total=total, leave=False, **units, **form)
        return self._begun

    def update(self, number: int, done: int, total: int | None) -> None:
        bar = self._bars[number]
        if total and bar.total != total:
            bar.total, bar.bar_format = total, None
        bar.update(done - bar.n)

    def end(self, number: int) -> None:
        self._bars.pop(number).close()

    def close(self) -> None:
        while self._bars:
            self._bars.popitem()[1].close()
