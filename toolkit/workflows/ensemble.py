"""Several bundles turned into one that averages them."""

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.bundle import (
    Pictures,
    join_pictures,
    picture_digests,
    read_manifest,
    read_pictures,
    require_bundle_place,
)
from toolkit.data import ImageFolder, split_folder
from toolkit.data.feed.split import subset_of
from toolkit.workflows.steps import ExportOptions, scan

if TYPE_CHECKING:
    from toolkit.ensemble.export import HeldOut

log = logging.getLogger("toolkit")


def ensemble_bundles(
    bundles: Sequence[str | os.PathLike[str]],
    *,
    export: ExportOptions,
    crops: int = 1,
    scales: Sequence[int] = (),
    data: str | os.PathLike[str] | None = None,
    skip_bad: bool = False,
) -> dict[str, Any]:
    """Export one or several bundles as one whose SavedModel averages their answers, over several crops if asked.

    Args:
        bundles: with equal labels in the same order.
        export: where the bundle goes.
        crops: of a picture that each network is shown, see ``toolkit.ensemble.crops.plan_crops``.
        scales: shorter sides to resize a picture to; by default each network's own.
        data: the pictures the members were trained on: accuracy is measured on those that no member learned from, and
            the reject threshold is fitted on those that chose among settings, or where there are none on the same.
            Without such pictures the bundle has neither.
        skip_bad: leave unreadable pictures out instead of refusing the folder.

    Returns:
        ``{"bundle", "members", "crops", "scales", "metrics", "parity", "reject_below"}``.

    Raises:
        UserError: see ``toolkit.ensemble.export.export_ensemble``.
    """
    from toolkit.ensemble.export import export_ensemble, require_members

    require_bundle_place(export.directory, "--out")
    members = require_members(bundles, crops, scales)
    held_out, subset = None, ""
    if data is not None:
        known = join_pictures([read_pictures(*member) for member in members])
        held_out, subset = _held_out(scan(data, skip_bad, members[0][1].labels), known, export.num_examples)
    path = export_ensemble(
        bundles,
        export.directory,
        crops=crops,
        scales=scales,
        held_out=held_out,
        force=export.force,
    )
    manifest = read_manifest(path)
    return {
        "bundle": str(path),
        "members": [asdict(member) for member in manifest.members],
        "crops": crops,
        "scales": list(scales),
        "metrics": manifest.metrics | ({"subset": subset, "num_classes": len(manifest.labels)} if subset else {}),
        "parity": manifest.parity,
        "reject_below": manifest.reject_below,
    }


def _held_out(folder: ImageFolder, known: Pictures | None, num_examples: int) -> "tuple[HeldOut, str]":
    """Find what no member learned from, and say what it is: ``unseen``, or ``val`` where it chose among settings.

    Where it is not known what taught them, that is the folder's split, by its name; nothing where all of it did.
    """
    from toolkit.ensemble.export import HeldOut

    if known is None:
        split = split_folder(folder)
        name, judging = split.held_out
        log.info("it is not known which pictures taught the members: the %s subset measures them", name)
        return HeldOut(judging, split.val, num_examples), name
    digests = picture_digests([folder.root / path for path in folder.paths])
    taught, chose = (np.isin(digests, list(known[name])) for name in ("train", "val"))
    others = ~taught & ~chose
    if taught.all():
        log.info("all pictures taught the members: neither accuracy nor a reject threshold is measured on them")
        return HeldOut(subset_of(folder, np.arange(len(folder))), None, num_examples, taught=True), ""
    judging = subset_of(folder, np.flatnonzero(others if others.any() else chose))
    choosing = subset_of(folder, np.flatnonzero(chose)) if chose.any() else judging
    return HeldOut(judging, choosing, num_examples), "unseen" if others.any() else "val"
