"""Lines that several commands print."""

import sys
from typing import Any


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
