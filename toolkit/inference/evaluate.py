"""A bundle's accuracy on a folder of pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data import ImageFolder, scan_folder
from toolkit.inference.predictor import Predictor
from toolkit.metrics import accuracy_report


def evaluate_bundle(
    predictor: Predictor,
    data: str | Path | ImageFolder,
    *,
    skip_bad: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Evaluate on every readable picture of a folder whose class folders are among the bundle's labels.

    Returns:
        ``{"top1", "top5", "n", "per_class", "engine", "skipped"}``, fractions in 0…1.

    Raises:
        UserError: a class folder is not one of the labels, or pictures are unreadable and ``skip_bad`` is false.
    """
    folder = data if isinstance(data, ImageFolder) else scan_folder(data, class_names=predictor.labels)
    if not skip_bad:
        folder.require_clean()
    paths = [folder.root / path for path in folder.paths]
    parts: list[np.ndarray] = []
    for batch in predictor.iter_probabilities(paths):
        parts.append(batch)
        if progress:
            progress(sum(map(len, parts)), len(paths))
    report = accuracy_report(np.concatenate(parts), np.asarray(folder.labels), predictor.labels)
    return report | {"engine": predictor.engine_name, "skipped": len(folder.problems)}
