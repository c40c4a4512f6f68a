"""Steps that the journeys have in common: reading the folder, exporting and measuring on held-out pictures."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.data import ImageFolder, Split, scan_folder
from toolkit.errors import UserError
from toolkit.lazy import keras
from toolkit.spec import Preprocessing

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportOptions:
    """Settings of the bundle in which a journey ends.

    Attributes:
        directory: ``…/NAME``; the next version is written below it.
        num_examples: held-out pictures to put into the bundle for the demo's visitors to click on. None by default:
            a bundle is passed on, and the pictures may be private.
        force: write it even if its engines disagree.
    """

    directory: Path
    num_examples: int = 0
    force: bool = False


def require_writable(directory: Path, option: str = "--out") -> None:
    """Refuse a place where nothing can be written, before hours of training and not after them."""
    existing = directory.absolute()
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(
            f"{directory}: cannot be created below {existing}, which is not a writable folder; "
            f"name another place by {option}"
        )


def scan(data: str | Path, skip_bad: bool, class_names: tuple[str, ...] | None = None) -> ImageFolder:
    """Scan a folder, refusing or naming its unreadable pictures; ``class_names``, if given, are all it may have."""
    folder = scan_folder(data, class_names=class_names)
    if not skip_bad:
        folder.require_clean()
    for path, reason in folder.quarantined + folder.problems:
        log.warning("left out %s: %s", path, reason)
    return folder


def export_held_out(
    model: "keras.Model",
    folder: ImageFolder,
    split: Split,
    preprocessing: Preprocessing,
    export: ExportOptions,
    **options: Any,
) -> tuple[Path, dict[str, Any]]:
    """Export a network and measure it, in one pass over the held-out pictures; the training pictures calibrate.

    ``options`` are further fields of ``toolkit.export.BundleOptions``.

    Returns:
        The new version's directory, and the network's accuracy: ``"subset"``, ``"test"`` or where there is none
        ``"val"``, and the figures of ``accuracy_report``.
    """
    from toolkit.export import REFERENCE, BundleOptions, draft_bundle
    from toolkit.metrics import accuracy_report

    name, subset = split.held_out
    chosen = BundleOptions(split.train, subset, num_examples=export.num_examples, force=export.force, **options)
    with draft_bundle(model, export.directory, folder.class_names, preprocessing, chosen) as draft:
        answers = draft.measure()
        labels = np.asarray(subset.labels)
        report = accuracy_report(answers.probabilities[REFERENCE], labels, folder.class_names)
        return draft.publish(answers), {"subset": name} | report
