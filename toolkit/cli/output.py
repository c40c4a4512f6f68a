"""Output of commands: tables and progress for people, one JSON document for programs."""

import io
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from toolkit.errors import one_line
from toolkit.progress import shown_on

if TYPE_CHECKING:
    from rich.progress import Progress


_STDOUT = "standard output"  # what errors of that stream call it


def claim_streams() -> None:
    """Give this package's own output the real stdout and stderr, and let what native libraries write vanish.

    ``--json`` promises one JSON document on stdout and an error promises one line on stderr; converters and
    delegates print to both from C++.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    out, err = os.dup(1), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    # A byte of a file's name that is no UTF-8 is written \udcXX, which JSON readers turn back.
    stdout, stderr = (io.BufferedWriter(_Stream(*named)) for named in ((out, _STDOUT), (err, "standard error")))
    sys.stdout = io.TextIOWrapper(stdout, "utf-8", errors="backslashreplace", line_buffering=True)
    sys.stderr = io.TextIOWrapper(stderr, "utf-8", errors="backslashreplace", line_buffering=True)


class _Stream(io.FileIO):
    """A stream whose errors say what could not be written: a redirected one may lie on a full disk."""

    def __init__(self, descriptor: int, label: str) -> None:
        super().__init__(descriptor, "w")
        self._label = label

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = self._label
            raise


def is_of_stdout(error: Exception) -> bool:
    """Tell if an error is that of writing to stdout."""
    return isinstance(error, OSError) and error.filename == _STDOUT


def drop_stdout() -> None:
    """Have what is still to be written to stdout at the process's end vanish: the first of it could not be."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_json(document: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(document, indent=1, ensure_ascii=False))


def print_table(rows: Sequence[Sequence[Any]], header: Sequence[str]) -> None:
    """Print aligned columns: text to the left, numbers to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(header), *cells]) for i in range(len(header))]
    numeric = [bool(rows) and all(isinstance(row[i], int | float | None) for row in rows) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        aligned = [c.rjust(w) if n else c.ljust(w) for c, w, n in zip(row, widths, numeric, strict=True)]
        return "  ".join(aligned).rstrip()

    print(line(header))
    print(line(["-" * width for width in widths]))
    for row in cells:
        print(line(row))


@contextmanager
def progress_bars() -> Iterator[None]:
    """Draw a bar for each step under way while stderr is a terminal, and nothing otherwise."""
    if not sys.stderr.isatty():
        yield
        return
    bars = _Bars()
    try:
        with shown_on(bars):
            yield
    finally:
        bars.close()


class _Bars:
    """Steps as bars, drawn while there are any; one whose end is not known moves to and fro.

    Between steps nothing is drawn, and what is printed goes straight to its stream.
    """

    def __init__(self) -> None:
        self._bars: Progress | None = None
        self._totals: dict[int, tuple[int | None, bool]] = {}
        self._lock = threading.Lock()

    def begin(self, label: str, total: int | None, in_bytes: bool) -> int:
        with self._lock:
            if self._bars is None:
                self._bars = _new_progress()
            self._bars.start()
            number = self._bars.add_task(one_line(label), total=total, count=_count(0, total, in_bytes))
            self._totals[number] = total, in_bytes
        return number

    def update(self, number: int, done: int, total: int | None) -> None:
        from rich.progress import TaskID

        known, in_bytes = self._totals[number]
        known = total or known
        if self._bars is not None:
            self._bars.update(TaskID(number), completed=done, total=known, count=_count(done, known, in_bytes))

    def end(self, number: int) -> None:
        from rich.progress import TaskID

        with self._lock:
            if self._bars is not None:
                self._bars.remove_task(TaskID(number))
                if not self._bars.tasks:
                    self._bars.stop()

    def close(self) -> None:
        with self._lock:
            if self._bars is not None:
                self._bars.stop()


def _new_progress() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    text = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[count]}"))
    # Elapsed, then what is left; a dash while nobody can know.
    times = (TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn(compact=True))
    console = Console(file=sys.stderr, soft_wrap=True)
    # Only what goes to the terminal too is printed above the bars; a file or a pipe gets its lines as ever.
    return Progress(*text, *times, console=console, transient=True, redirect_stdout=sys.stdout.isatty())


def _count(done: int, total: int | None, in_bytes: bool) -> str:
    """Write how much is done: nothing where nothing is counted.

    >>> _count(3, 1200, False), _count(1_500_000, 3_000_000, True), _count(0, None, False)
    ('3/1,200', '1.5/3.0 MB', '')
    """
    if in_bytes:
        return f"{done / 1e6:,.1f}" + (f"/{total / 1e6:,.1f} MB" if total else " MB")
    return f"{done:,}/{total:,}" if total else ""


class StderrHandler(logging.StreamHandler):
    """Writes to what is ``sys.stderr`` now: while bars are drawn, that is a stream which prints above them."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return one_line(str(value))


def print_epoch(row: dict[str, Any]) -> None:
    names = ("loss", "accuracy", "val_loss", "val_accuracy")
    figures = "  ".join(f"{name} {row[name]:.4f}" for name in names if name in row)
    print(f"epoch {row['epoch']:>3}/{row['epochs']}  {figures}", file=sys.stderr)


def print_metrics(metrics: dict[str, Any]) -> None:
    """Print top-1, and top-5 where there are more than five classes: of five it is always 100 %."""
    shown = [f"top-{k} {100 * metrics[f'top{k}']:.2f} %" for k in (1, 5) if metrics["num_classes"] > k]
    if "standard_error" in metrics:
        shown[0] += f" ± {100 * metrics['standard_error']:.2f}"
    print(f"{metrics['subset']} accuracy: {', '.join(shown)} ({metrics['n']:,} pictures)")
