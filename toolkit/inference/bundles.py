"""The bundles of a directory described, and the engine set that one of them recommends."""

from pathlib import Path
from typing import Any

from toolkit.bundle import Manifest, find_bundle, read_manifest, require_bundles, set_recommended
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
        ``{"bundle", "model", "num_classes", "top1", "n", "subset", "engines", "recommended", "error"}`` each: the
        network, its accuracy, a fraction, the number of pictures and their kind, ``held-out`` or ``out-of-fold``,
        ``None`` where it was not measured; the engines that it has files for; the one that ``recommended`` means. Of a
        version that cannot be read ``bundle`` and ``error`` alone are set.

    Raises:
        UserError: no such directory, or no bundles in it.
    """
    rows: list[dict[str, Any]] = []
    for versions in require_bundles(directory).values():
        for version_dir in versions.values():
            row = dict.fromkeys(("model", "num_classes", "top1", "n", "subset", "engines", "recommended"))
            try:
                row |= _description(version_dir, read_manifest(version_dir)) | {"error": ""}
            except UserError as error:
                row["error"] = str(error)
            rows.append({"bundle": str(version_dir)} | row)
    return rows


def _description(version_dir: Path, manifest: Manifest) -> dict[str, Any]:
    return {
        "model": manifest.model,
        "num_classes": len(manifest.labels),
        "top1": manifest.metrics.get("top1"),
        "n": manifest.metrics.get("n"),
        "subset": manifest.subset if "top1" in manifest.metrics else None,
        "engines": _engines_of(version_dir),
        "recommended": manifest.recommended_engine,
    }


def _engines_of(version_dir: Path) -> list[str]:
    """Engines that a bundle has files for, whether or not they are installed here."""
    return [name for name, row in ENGINES.items() if (version_dir / row.file).exists()]
