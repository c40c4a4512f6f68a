"""Examination of a data set before a network is trained on it. Nothing is changed or deleted."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from toolkit.data.feed.split import divide_folder, lots_remarks
from toolkit.data.pixels.decode import FORMATS
from toolkit.data.scan.duplicates import equal_groups, linked_groups
from toolkit.data.scan.facts import TRAITS, notes
from toolkit.data.scan.folder import ImageFolder
from toolkit.data.scan.pictures import inspect_files
from toolkit.data.sources.listing import LIST
from toolkit.errors import UserError

#: Fewer pictures than this in a class are too few to learn from and to measure on.
FEW_PICTURES = 10
#: The largest class over the smallest; beyond it plain accuracy misleads.
IMBALANCE = 10.0
#: A picture this many times as long as wide loses most of itself to a centre crop.
LONG = 5.0
#: In a picture smaller than this, in pixels, there is nothing to see.
TINY = 4


def examine_folder(folder: ImageFolder, *, input_size: tuple[int, int] | None = None) -> dict[str, Any]:
    """Findings about a scanned data set.

    Args:
        folder: of ``scan_folder``.
        input_size: height and width of the network to be trained; smaller pictures are told.

    Returns:
        A JSON-ready dictionary. ``source``, ``root``, ``n``, ``classes``, ``splits``: what there is. ``split``:
        pictures per subset and class that training would use. ``corrupt``, ``quarantined``: what is not used, and
        why. ``ignored``: every other file there is, and why. ``mistyped``: whose format is not its extension's.
        ``duplicates``: groups of paths with equal bytes, ``near_duplicates`` of pictures that look the same;
        ``leaks`` and ``near_leaks``: those of them that span splits; ``conflicts`` and ``near_conflicts``: those that
        span classes. ``traits``: how many pictures are greyscale, CMYK, 16-bit, EXIF-rotated, animated, transparent,
        or of 16 bits with values of fewer.
        ``sizes``: smallest, median and largest height and width. ``odd_sizes``: paths, sizes and reasons.
        ``warnings``: all of it in sentences.
    """
    facts = folder.facts
    if facts is None:
        facts, _ = inspect_files([folder.root.absolute() / path for path in folder.paths])
        folder = replace(folder, facts=facts)
    equal, near = equal_groups(facts), linked_groups(folder.near_pairs[0], len(facts))
    subset_counts, complaints = _subset_counts(folder)
    report: dict[str, Any] = {
        "source": str(folder.source or folder.root),
        "root": str(folder.root),
        "n": len(folder),
        "classes": folder.class_counts(),
        "splits": {name: folder.splits.count(name) for name in dict.fromkeys(folder.splits)},
        "split": subset_counts,
        "corrupt": [{"path": path, "reason": reason} for path, reason in folder.problems],
        "quarantined": [{"path": path, "reason": reason} for path, reason in folder.quarantined],
        "ignored": [{"path": path, "reason": reason} for path, reason in folder.ignored if reason != LIST],
        "mistyped": _mistyped(folder.paths, facts),
        "duplicates": _paths(folder, equal),
        "leaks": _paths(folder, _spanning(equal, folder.splits)),
        "conflicts": _paths(folder, _spanning(equal, folder.labels)),
        "near_duplicates": _paths(folder, near),
        "near_leaks": _paths(folder, _spanning(near, folder.splits)),
        "near_conflicts": _paths(folder, _spanning(near, folder.labels)),
        "traits": {name: int(np.sum(facts["traits"] >> bit & 1)) for bit, name in enumerate(TRAITS)},
        "sizes": _sizes(facts),
        "odd_sizes": _odd_sizes(folder.paths, facts, input_size),
    }
    return report | {"warnings": [*_warnings(report), *notes(facts), *folder.remarks(), *complaints]}


def _subset_counts(folder: ImageFolder) -> tuple[dict[str, dict[str, int]], list[str]]:
    try:
        split, lots = divide_folder(folder)
    except UserError as error:
        return {}, [str(error)]
    return split.counts(folder.class_names), lots_remarks(lots)


def _paths(folder: ImageFolder, groups: Sequence[np.ndarray]) -> list[list[str]]:
    return [[folder.paths[index] for index in group] for group in groups]


def _spanning(groups: list[np.ndarray], values: Sequence[Any]) -> list[np.ndarray]:
    """Groups whose members have more than one of ``values``; none where there are no values."""
    return [group for group in groups if values and len({values[index] for index in group}) > 1]


def _mistyped(paths: Sequence[str], facts: np.ndarray) -> list[dict[str, str]]:
    format_of = Image.registered_extensions()
    formats = [FORMATS[index] for index in facts["format"]]
    return [
        {"path": path, "format": name}
        for path, name in zip(paths, formats, strict=True)
        if format_of.get(os.path.splitext(path)[1].lower(), name) != name
    ]


def _sizes(facts: np.ndarray) -> dict[str, list[int]]:
    by_area = np.argsort(facts["height"].astype(np.int64) * facts["width"], kind="stable")
    chosen = {"smallest": by_area[0], "median": by_area[len(by_area) // 2], "largest": by_area[-1]}
    return {name: [int(facts["height"][i]), int(facts["width"][i])] for name, i in chosen.items()}


def _odd_sizes(paths: Sequence[str], facts: np.ndarray, input_size: tuple[int, int] | None) -> list[dict[str, str]]:
    height, width = facts["height"].astype(int), facts["width"].astype(int)
    shorter, longer = np.minimum(height, width), np.maximum(height, width)
    least_height, least_width = input_size or (0, 0)
    oddities = [
        (shorter <= TINY, f"{TINY} pixels or fewer on a side"),
        (longer > LONG * shorter, f"more than {LONG:g} times as long as wide, or as wide as long"),
        ((height < least_height) | (width < least_width), f"smaller than the network's {least_height} × {least_width}"),
    ]
    reasons: dict[int, str] = {}
    for is_odd, reason in oddities:
        for index in np.flatnonzero(is_odd):
            reasons.setdefault(int(index), reason)
    return [
        {"path": paths[index], "size": f"{height[index]} × {width[index]}", "reason": reasons[index]}
        for index in sorted(reasons)
    ]


def _warnings(report: dict[str, Any]) -> list[str]:
    counts = report["classes"]
    few = [f"{name} ({count})" for name, count in counts.items() if count < FEW_PICTURES]
    traits = [f"{count} {name}" for name, count in report["traits"].items() if 0 < count < report["n"]]
    held_out_flattered = "span training and held-out pictures: held-out figures will flatter"
    found = [
        (report["corrupt"], "{n} unreadable pictures; training needs --skip-bad, or a list made with --quarantine"),
        (report["quarantined"], "{n} pictures are left out on purpose"),
        (bool(few), f"classes with fewer than {FEW_PICTURES} pictures: {', '.join(few)}"),
        (
            max(counts.values()) > IMBALANCE * max(1, min(counts.values())),
            f"imbalanced: the largest class has {max(counts.values())} pictures, the smallest {min(counts.values())}",
        ),
        (report["mistyped"], "{n} files are in another format than their extension says"),
        (report["duplicates"], "{n} groups of identical files"),
        (report["leaks"], "{n} of them " + held_out_flattered),
        (report["conflicts"], "{n} of them are in two classes: at most one can be right"),
        (report["near_duplicates"], "{n} groups of pictures that look the same"),
        (report["near_leaks"], "{n} of those groups " + held_out_flattered),
        (report["near_conflicts"], "{n} of those groups are in two classes: at most one can be right"),
        (bool(traits), f"some pictures are unlike the rest: {', '.join(traits)}"),
        (report["odd_sizes"], "{n} pictures have a suspicious size"),
    ]
    return [
        text.replace("{n}", f"{len(items):,}") if isinstance(items, list) else text for items, text in found if items
    ]
