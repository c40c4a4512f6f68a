"""Calls on a bundle's versions: list, verify, label and prune them, and set the engine that one recommends."""

import os
from pathlib import Path
from typing import Any

from toolkit.api.calls import call


@call
def list_bundles(directory: str | os.PathLike[str] = "saved_models") -> list[dict[str, Any]]:
    """List every version of the bundles in a directory, with its accuracy and its engines.

    Args:
        directory: holds ``NAME/VERSION``.

    Returns:
        Rows as ``toolkit.inference.bundles.describe_bundles`` gives them.
    """
    from toolkit.inference.bundles import describe_bundles

    return describe_bundles(Path(directory))


@call
def answer_examples(bundle: str | os.PathLike[str], *, engine: str = "auto") -> dict[str, Any]:
    """Classify the pictures that a bundle brings, beside their true labels.

    >>> import toolkit
    >>> rows = toolkit.answer_examples("lenet5-mnist", engine="litert")["rows"]
    >>> [(row["true_label"], row["label"]) for row in rows[:3]]
    [('0', '0'), ('1', '1'), ('2', '2')]

    Args:
        bundle: ``saved_models/NAME``, or one version of it.
        engine: what runs the network, see ``toolkit.Predictor.load``.

    Returns:
        ``{"bundle", "engine", "rows"}``.
    """
    from toolkit.inference import examples

    return examples.answer_examples(Path(bundle), engine)


@call
def recommend_engine(bundle: str | os.PathLike[str], engine: str, *, force: bool = False) -> dict[str, str]:
    """Make an engine the one that ``"recommended"`` means for a bundle, at once also where it is served.

    Args:
        bundle: ``saved_models/NAME``, or one version of it.
        engine: such as ``"litert-int8"``.
        force: even one whose accuracy was not measured, or was too low, when the bundle was written.

    Returns:
        ``{"bundle", "recommended"}``.
    """
    from toolkit.inference import bundles

    return {"bundle": str(bundles.recommend_engine(Path(bundle), engine, force=force)), "recommended": engine}


@call
def verify_version(bundle: str | os.PathLike[str]) -> dict[str, Any]:
    """Compare a version's files with their checksums, and its engines' answers with its network's.

    Args:
        bundle: ``saved_models/NAME``, or one version of it; or a folder of bundles, for all versions in it.

    Returns:
        ``{"bundle", "files", "pictures", "rows", "objections"}``, see ``toolkit.inference.verify_version``.
    """
    from toolkit import inference

    return inference.verify_version(Path(bundle))


@call
def promote_version(bundle: str | os.PathLike[str], *, label: str = "stable") -> dict[str, Any]:
    """Have a label mean a version.

    Args:
        bundle: one version; of ``saved_models/NAME`` the canary's, else the highest.
        label: ``"stable"``, ``"canary"``, or any other name.

    Returns:
        The version's folder, the label, and the version that it meant before.
    """
    from toolkit.bundle import promote

    return promote(Path(bundle), label)


@call
def roll_back_version(bundle: str | os.PathLike[str], *, label: str = "stable", remove: bool = False) -> dict[str, Any]:
    """Have a label mean the version again that it meant before.

    Args:
        bundle: ``saved_models/NAME``.
        label: see ``promote_version``.
        remove: take the label away instead.

    Returns:
        As ``promote_version``.
    """
    from toolkit.bundle import roll_back

    return roll_back(Path(bundle), label, remove=remove)


@call
def share_traffic(
    bundle: str | os.PathLike[str], share: float | None = None, *, label: str = "canary", end: bool = False
) -> dict[str, Any]:
    """Have a label's version answer a share of the requests that name no version, and ``stable`` the rest.

    Args:
        bundle: ``saved_models/NAME``.
        share: from 0 to 1; with 0 ``stable`` answers all of them. By default nothing is changed.
        label: ``"canary"``, or any other name but ``"stable"``.
        end: have the highest version answer them again, as it does where nothing is shared.

    Returns:
        ``{"bundle", "traffic"}``: each label that answers such requests, with its version and its share.
    """
    from toolkit.bundle import share_traffic as share_requests

    return share_requests(Path(bundle), share, label, end=end)


@call
def prune_bundles(bundle: str | os.PathLike[str], *, keep: int = 3, dry_run: bool = False) -> dict[str, Any]:
    """Remove a bundle's old versions, but none with a label or to roll back to.

    Args:
        bundle: ``saved_models/NAME``.
        keep: highest versions.
        dry_run: say what would be removed, and remove nothing.

    Returns:
        ``{"removed", "labelled", …}``, paths.
    """
    from toolkit.bundle import prune

    return prune(Path(bundle), keep, dry_run=dry_run)
