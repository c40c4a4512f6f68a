"""Output of commands: tables and progress for people, one JSON document for programs."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any


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
    sys.stdout = os.fdopen(out, "w", encoding="utf-8", errors="replace", buffering=1)
    sys.stderr = os.fdopen(err, "w", encoding="utf-8", errors="replace", buffering=1)


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


def progress_bar(label: str) -> Callable[[int, int], None]:
    """Make a callback (done, total) that draws a bar while stderr is a terminal, and nothing otherwise."""
    if not sys.stderr.isatty():
        return lambda done, total: None
    from tqdm import tqdm

    bar = tqdm(desc=label, file=sys.stderr, leave=False)

    def advance(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)
        if done >= total:
            bar.close()

    return advance


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def print_epoch(row: dict[str, Any]) -> None:
    print(
        f"epoch {row['epoch']:>3}/{row['epochs']}  loss {row['loss']:.4f}  accuracy {row['accuracy']:.4f}  "
        f"val_loss {row['val_loss']:.4f}  val_accuracy {row['val_accuracy']:.4f}",
        file=sys.stderr,
    )


def print_metrics(metrics: dict[str, Any]) -> None:
    print(
        f"{metrics['subset']} accuracy: top-1 {100 * metrics['top1']:.2f} %, top-5 {100 * metrics['top5']:.2f} % "
        f"({metrics['n']:,} pictures)"
    )
