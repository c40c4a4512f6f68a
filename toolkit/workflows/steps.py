"""What the journeys have in common: reading the folder, measuring on held-out pictures, exporting."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data import ImageFolder, Split, scan_folder
from toolkit.errors import UserError
from toolkit.lazy import keras
from toolkit.spec import Preprocessing

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ExportOptions:
    """Where and how a journey ends in a bundle.

    Attributes:
        directory: ``…/NAME``; the next version is written below it.
        num_examples: held-out pictures to put into the bundle for the demo's visitors to click on. None by default:
            a bundle is passed on, and the pictures may be private.
        force: write it even if its engines disagree.
    """

    directory: Path
    num_examples: int = 0
    force: bool = False


def require_writable(directory: Path) -> None:
    """Learn now, and not after hours of training, that the bundle has nowhere to go."""
    existing = directory.absolute()
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"{directory}: cannot be created below {existing}, which is not a writable folder")


def scan(data: str | Path, skip_bad: bool, progress: Progress | None) -> ImageFolder:
    """Scan a folder, refusing or naming its unreadable pictures."""
    folder = scan_folder(data, progress=progress)
    if not skip_bad:
        folder.require_clean()
    for path, reason in folder.quarantined + folder.problems:
        log.warning("left out %s: %s", path, reason)
    return folder


def held_out_metrics(
    model: "keras.Model", preprocessing: Preprocessing, folder: ImageFolder, split: Split
) -> dict[str, Any]:
    """Accuracy of ``accuracy_report`` on the test pictures, or on validation where there are none."""
    from toolkit.data.feed.arrays import load_pixels
    from toolkit.engines.runtimes import KerasEngine
    from toolkit.metrics import accuracy_report
    from toolkit.network import as_float32

    name, subset = split.held_out
    engine = KerasEngine(as_float32(model), preprocessing)
    chunks = (subset.paths[i : i + 64] for i in range(0, len(subset), 64))
    probabilities = np.concatenate([engine.probabilities(load_pixels(chunk, preprocessing)) for chunk in chunks])
    return {"subset": name} | accuracy_report(probabilities, np.asarray(subset.labels), folder.class_names)


def export_held_out(
    model: "keras.Model",
    folder: ImageFolder,
    split: Split,
    preprocessing: Preprocessing,
    options: ExportOptions,
    *,
    temperature: float | None = None,
    reject_below: float | None = None,
) -> Path:
    """Export with the training pictures to calibrate on and the held-out ones to judge by."""
    from toolkit.export import export_bundle

    return export_bundle(
        model,
        options.directory,
        labels=folder.class_names,
        preprocessing=preprocessing,
        calibration=split.train,
        evaluation=split.held_out[1],
        num_examples=options.num_examples,
        force=options.force,
        temperature=temperature,
        reject_below=reject_below,
    )
