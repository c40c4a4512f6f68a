"""What is wrong with a folder of pictures, before a network is trained on it. Nothing is changed or deleted."""

import hashlib
from collections import defaultdict
from pathlib import Path
from typing import Any

from toolkit.data.folder import ImageFolder

#: Fewer pictures than this in a class are too few to learn from and to measure on.
FEW_PICTURES = 10
#: The largest class over the smallest; beyond it plain accuracy misleads.
IMBALANCE = 10.0


def examine_folder(folder: ImageFolder) -> dict[str, Any]:
    """Findings about a scanned folder.

    Returns:
        ``{"root", "n", "classes", "splits", "corrupt", "ignored", "duplicates", "leaks", "conflicts", "warnings"}``.
        ``duplicates`` are groups of paths with equal bytes; ``leaks`` those that span splits; ``conflicts`` those
        that span classes.
    """
    label_of = dict(zip(folder.paths, folder.labels, strict=True))
    split_of = dict(zip(folder.paths, folder.splits, strict=True)) if folder.splits else {}
    duplicates = _equal_files(folder.root, folder.paths)
    leaks = [group for group in duplicates if len({split_of.get(path) for path in group}) > 1]
    conflicts = [group for group in duplicates if len({label_of[path] for path in group}) > 1]
    counts = folder.class_counts()
    return {
        "root": str(folder.root),
        "n": len(folder),
        "classes": counts,
        "splits": {name: folder.splits.count(name) for name in dict.fromkeys(folder.splits)},
        "corrupt": [{"path": path, "reason": reason} for path, reason in folder.problems],
        "ignored": list(folder.ignored),
        "duplicates": duplicates,
        "leaks": leaks,
        "conflicts": conflicts,
        "warnings": _warnings(folder, counts, duplicates, leaks, conflicts),
    }


def _warnings(folder: ImageFolder, counts: dict[str, int], duplicates, leaks, conflicts) -> list[str]:
    few = [f"{name} ({count})" for name, count in counts.items() if count < FEW_PICTURES]
    found = [
        (folder.problems, f"{len(folder.problems)} unreadable pictures; training needs --skip-bad"),
        (few, f"classes with fewer than {FEW_PICTURES} pictures: {', '.join(few)}"),
        (
            max(counts.values()) > IMBALANCE * max(1, min(counts.values())),
            f"imbalanced: the largest class has {max(counts.values())} pictures, the smallest {min(counts.values())}",
        ),
        (duplicates, f"{len(duplicates)} groups of identical files"),
        (leaks, f"{len(leaks)} of them span training and held-out pictures: held-out figures will flatter"),
        (conflicts, f"{len(conflicts)} of them are in two classes: at most one can be right"),
        (folder.ignored, f"{len(folder.ignored)} files are not pictures and were ignored"),
    ]
    return [text for present, text in found if present]


def _equal_files(root: Path, paths: tuple[str, ...]) -> list[list[str]]:
    by_size: defaultdict[int, list[str]] = defaultdict(list)
    for path in paths:
        by_size[(root / path).stat().st_size].append(path)
    by_digest: defaultdict[bytes, list[str]] = defaultdict(list)
    for candidates in by_size.values():
        if len(candidates) > 1:
            for path in candidates:
                by_digest[hashlib.sha256((root / path).read_bytes()).digest()].append(path)
    return sorted(group for group in by_digest.values() if len(group) > 1)
