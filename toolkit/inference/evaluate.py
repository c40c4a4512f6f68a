"""A bundle's accuracy on a folder of pictures."""

from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data import ImageFolder, scan_folder
from toolkit.inference.predictor import Predictor
from toolkit.metrics import accuracy_report
from toolkit.progress import step


def evaluate_bundle(
    predictor: Predictor,
    data: str | Path | ImageFolder,
    *,
    skip_bad: bool = False,
) -> dict[str, Any]:
    """Evaluate on every readable picture of a folder whose class folders are among the bundle's labels.

    Returns:
        ``{"top1", "top5", "n", "per_class", "engine", "skipped"}``, fractions in 0…1; where the bundle has a reject
        threshold also ``{"reject_below", "rejected", "top1_answered"}``: the threshold, the share of pictures whose
        answer lies below it, and the accuracy on the others, ``None`` if there are none.

    Raises:
        UserError: a class folder is not one of the labels, or pictures are unreadable and ``skip_bad`` is false.
    """
    folder = data if isinstance(data, ImageFolder) else scan_folder(data, class_names=predictor.labels)
    if not skip_bad:
        folder.require_clean()
    paths = [folder.root / path for path in folder.paths]
    parts: list[np.ndarray] = []
    with step("evaluating", len(paths)) as told:
        for batch in predictor.iter_probabilities(paths):
            parts.append(batch)
            told(sum(map(len, parts)))
    probabilities, labels = np.concatenate(parts), np.asarray(folder.labels)
    report = accuracy_report(probabilities, labels, predictor.labels)
    report |= {"engine": predictor.engine_name, "skipped": len(folder.problems)}
    return report | _rejection(predictor, probabilities, labels)


def _rejection(predictor: Predictor, probabilities: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    if predictor.reject_below is None:
        return {}
    answered = ~np.array([predictor.is_rejected(row) for row in probabilities])
    right = probabilities.argmax(axis=1) == labels
    return {
        "reject_below": predictor.reject_below,
        "rejected": float(1 - answered.mean()),
        "top1_answered": float(right[answered].mean()) if answered.any() else None,
    }
