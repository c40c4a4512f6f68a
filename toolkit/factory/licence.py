"""Licences of weights that a training begins with."""

import os
from pathlib import Path

from toolkit.bundle import find_bundle, read_manifest
from toolkit.catalogue import model_info
from toolkit.errors import UserError
from toolkit.weights.download import hash_file


def licence_of(name: str, weights: str | os.PathLike[str]) -> str:
    """Look up the licence of published weights, also of a file of them, or of those that a bundle began with.

    Args:
        name: a registered network.
        weights: as ``create_model`` takes them.

    Returns:
        As the source words it, such as ``"BSD-3-Clause"``; empty where nothing tells.

    >>> licence_of("googlenet", "imagenet")
    'unrestricted use'
    """
    published = model_info(name).weights
    if isinstance(weights, str) and weights in published:
        return published[weights].licence
    path = Path(weights)
    if path.is_dir():
        try:
            return read_manifest(find_bundle(path)).licence
        except UserError:  # a run's directory
            return ""
    rows = [row for row in published.values() if row.digest]
    try:
        digests = [hash_file(path, algorithm) for algorithm in {row.digest.partition(":")[0] for row in rows}]
    except UserError:
        return ""
    return next((row.licence for row in rows if any(digest.startswith(row.digest) for digest in digests)), "")
