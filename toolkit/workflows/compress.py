"""A bundle to its quantized next version."""

from pathlib import Path
from typing import Any

from toolkit.bundle import FLOAT_LITERT, KERAS_FILE, find_bundle, litert_file, read_manifest, verify_files
from toolkit.data import scan_folder, split_folder
from toolkit.registry import unknown_name
from toolkit.spec import UserError
from toolkit.workflows.steps import Progress, load_keras


def compress_bundle(
    bundle: str | Path,
    method: str,
    *,
    data: str | Path,
    skip_bad: bool = False,
    force: bool = False,
    scan_progress: Progress | None = None,
) -> dict[str, Any]:
    """Quantize a bundle's network and write the next version of the bundle with the file in it.

    Args:
        bundle: the bundle to start from; its ``model.keras`` is what is quantized.
        method: one of ``toolkit.compress.METHODS``.
        data: the pictures it was trained on: the training split calibrates, the held-out split judges.
        skip_bad: leave unreadable pictures out instead of refusing the folder.
        force: write it even if too much accuracy is lost.
        scan_progress: called with (done, total) files.

    Returns:
        ``{"bundle", "method", "bytes", "float_bytes", "top1", "float_top1"}``.
    """
    from toolkit.compress import METHODS
    from toolkit.export import export_bundle

    if method not in METHODS:
        raise UserError(unknown_name("method", method, list(METHODS)))
    version_dir = find_bundle(bundle)
    manifest = read_manifest(version_dir)
    verify_files(version_dir, manifest, (KERAS_FILE,))
    folder = scan_folder(data, class_names=manifest.labels, progress=scan_progress)
    if not skip_bad:
        folder.require_clean()
    split = split_folder(folder)
    path = export_bundle(
        load_keras(version_dir / KERAS_FILE),
        version_dir.parent,
        labels=manifest.labels,
        preprocessing=manifest.preprocessing,
        calibration=split.train,
        evaluation=split.held_out[1],
        methods=(method,),
        force=force,
    )
    metrics = read_manifest(path).metrics
    return {
        "bundle": str(path),
        "method": method,
        "bytes": (path / litert_file(method)).stat().st_size,
        "float_bytes": (path / FLOAT_LITERT).stat().st_size,
        "top1": metrics[f"top1_litert-{method}"],
        "float_top1": metrics["top1"],
    }
