"""Several bundles turned into one that averages them."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from toolkit.bundle import read_manifest, require_bundle_place
from toolkit.data import split_folder
from toolkit.workflows.steps import ExportOptions, scan


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
        data: the pictures the members were trained on: accuracy is measured on the held-out split and the reject
            threshold fitted on the validation split. Without it the bundle has neither.
        skip_bad: leave unreadable pictures out instead of refusing the folder.

    Returns:
        ``{"bundle", "members", "crops", "scales", "metrics", "parity", "reject_below"}``.

    Raises:
        UserError: see ``toolkit.ensemble.export.export_ensemble``.
    """
    from toolkit.ensemble.export import HeldOut, export_ensemble, require_members

    require_bundle_place(export.directory, "--out")
    members = require_members(bundles, crops, scales)
    split = None if data is None else split_folder(scan(data, skip_bad, members[0][1].labels))
    path = export_ensemble(
        bundles,
        export.directory,
        crops=crops,
        scales=scales,
        held_out=HeldOut(split.held_out[1], split.val, export.num_examples) if split else None,
        force=export.force,
    )
    manifest = read_manifest(path)
    return {
        "bundle": str(path),
        "members": [asdict(member) for member in manifest.members],
        "crops": crops,
        "scales": list(scales),
        "metrics": manifest.metrics
        | ({"subset": split.held_out[0], "num_classes": len(manifest.labels)} if split else {}),
        "parity": manifest.parity,
        "reject_below": manifest.reject_below,
    }
