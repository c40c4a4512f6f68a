"""The bundles of a directory described, one of them verified, and the engine set that it recommends."""

import datetime
from collections.abc import Container
from pathlib import Path
from typing import Any

from toolkit.bundle import (
    GRAPH,
    MANIFEST,
    find_bundle,
    read_manifest,
    read_version_labels,
    require_bundles,
    set_recommended,
)
from toolkit.engines import ENGINES
from toolkit.errors import UserError, unknown_name
from toolkit.inference.choice import is_trusted


def recommend_engine(bundle: str | Path, engine: str, *, force: bool = False) -> Path:
    """Make an engine the one that ``recommended`` means for a bundle, at once also where the bundle is served.

    Args:
        bundle: ``…/NAME/VERSION``, or ``…/NAME`` for its highest version.
        engine: one of ``toolkit.engines.ENGINES`` that the bundle has a file for.
        force: even one whose accuracy was not measured at export, or lost more than the budget allows.

    Returns:
        The version's directory.

    Raises:
        UserError: not a bundle, no such engine, the bundle has no file for it, or it is not trusted.
    """
    if engine not in ENGINES:
        raise UserError(unknown_name("engine", engine, list(ENGINES)))
    version_dir = find_bundle(bundle)
    manifest = read_manifest(version_dir)
    having = _engines_of(version_dir)
    if engine not in having:
        raise UserError(
            f"{version_dir}: has no {ENGINES[engine].file}, which {engine} runs; it has {', '.join(having)}"
        )
    if not force and not is_trusted(engine, manifest):
        objections = [reason for reason in manifest.forced if reason.startswith(f"{engine} ")]
        reason = objections[0] if objections else f"the accuracy of {engine} was not measured when it was written"
        trusted = ", ".join(name for name in having if is_trusted(name, manifest))
        raise UserError(
            f"{version_dir}: {reason}; --force recommends it all the same, trusted are: {trusted or 'none'}"
        )
    set_recommended(version_dir, engine)
    return version_dir


def describe_bundles(directory: str | Path) -> list[dict[str, Any]]:
    """Describe every version of the bundles in a directory, or of one bundle.

    Returns:
        ``{"bundle", "version", "state", "labels", "model", "num_classes", "top1", "n", "subset", "bytes", "written",
        "engines", "recommended", "error"}`` each. ``state`` is ``whole``, ``incomplete`` where files are missing, or
        ``damaged`` where the manifest cannot be read; ``error`` says more, see ``verify_version`` for what is in the
        files. ``labels`` are those that mean this version. Then come the network, its accuracy, a fraction, the number
        of pictures and their kind, ``held-out`` or ``out-of-fold``, ``None`` where it was not measured; the size of all
        files; when the graph was written, in ISO 8601; the engines that it has files for; the one that ``recommended``
        means. Of a damaged version all from ``model`` on is ``None``.

    Raises:
        UserError: no such directory, or no bundles in it.
    """
    rows: list[dict[str, Any]] = []
    for versions in require_bundles(directory).values():
        labels, reason = _labels_of(next(iter(versions.values())).parent, versions)
        for number, version_dir in versions.items():
            own = [label for label, version in labels.items() if version == number]
            rows.append({"bundle": str(version_dir), "version": number} | _description(version_dir, own))
            reason, rows[-1]["error"] = "", rows[-1]["error"] or reason
    return rows


def _labels_of(directory: Path, versions: Container[int]) -> tuple[dict[str, int], str]:
    """Read a bundle's labels, and what is wrong with them."""
    try:
        labels = read_version_labels(directory)
    except UserError as error:
        return {}, str(error)
    gone = [f"{label} means version {number}" for label, number in labels.items() if number not in versions]
    return labels, f"{directory}: {', '.join(gone)}, which is not there any more" if gone else ""


def _description(version_dir: Path, labels: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"state": "damaged", "labels": labels}
    row |= dict.fromkeys(("model", "num_classes", "top1", "n", "subset", "bytes", "written", "engines", "recommended"))
    try:
        manifest = read_manifest(version_dir)
    except UserError as error:
        return row | {"error": str(error)}
    files = [version_dir / name for name in (*manifest.files, MANIFEST)]
    missing = [file for file in files if not file.is_file()]
    return row | {
        "state": "incomplete" if missing else "whole",
        "model": manifest.model,
        "num_classes": len(manifest.labels),
        "top1": manifest.metrics.get("top1"),
        "n": manifest.metrics.get("n"),
        "subset": manifest.subset if "top1" in manifest.metrics else None,
        "bytes": sum(file.stat().st_size for file in files if file not in missing),
        "written": _written(version_dir),
        "engines": _engines_of(version_dir),
        "recommended": manifest.recommended_engine,
        "error": f"{missing[0]}: missing; the bundle is incomplete, export or copy it again" if missing else "",
    }


def _written(version_dir: Path) -> str:
    graph = version_dir / GRAPH  # which nothing changes, as the manifest may be
    when = (graph if graph.is_file() else version_dir).stat().st_mtime
    return datetime.datetime.fromtimestamp(when).astimezone().isoformat(timespec="seconds")


def _engines_of(version_dir: Path) -> list[str]:
    """Engines that a bundle has files for, whether or not they are installed here."""
    return [name for name, row in ENGINES.items() if (version_dir / row.file).exists()]
