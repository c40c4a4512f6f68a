"""A data set of pictures and classes, read without trusting it."""

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from toolkit.data.scan.cache import ScanCache
from toolkit.data.scan.duplicates import near_pairs
from toolkit.data.scan.imagenet import called_by_id, is_id, list_validation
from toolkit.data.scan.pictures import inspect_files
from toolkit.data.scan.quarantine import find_placeholders, match_quarantine, quarantine_file
from toolkit.data.scan.show import as_html, in_words
from toolkit.data.sources.alike import alike_groups, alike_key
from toolkit.data.sources.dataset import array_digest, list_source, write_pictures
from toolkit.data.sources.listing import Listing, describe_ignored, join_classes
from toolkit.data.sources.source import Source, as_source
from toolkit.errors import UserError, one_line
from toolkit.machine import cache_dir

log = logging.getLogger("toolkit")

_NAMED = 20  # classes that an error lists


@dataclass(frozen=True, repr=False)
class ImageFolder:
    """A scanned data set. ``paths`` are relative to ``root`` and sorted, so the same files give the same order.

    Attributes:
        root: the folder; of a CSV file the folder it is in, of an archive the one it was unpacked to.
        class_names: sorted; a label is an index into it.
        paths: readable pictures.
        labels: one label per path.
        splits: one of ``"train"``, ``"val"``, ``"test"`` per path, or empty where the data set is not split.
        problems: relative path and reason of each picture that cannot be read.
        ignored: relative path and reason of every other file there is.
        groups: one name per path, empty for a picture on its own; or no names at all where none were given.
            Pictures of one group belong in one subset.
        quarantined: relative path and reason of each picture that is left out on purpose.
        facts: what the scan measured, one row of ``toolkit.data.scan.facts.FACTS`` per path.
        source: what was scanned.
    """

    root: Path
    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    splits: tuple[str, ...] = ()
    problems: tuple[tuple[str, str], ...] = ()
    ignored: tuple[tuple[str, str], ...] = ()
    groups: tuple[str, ...] = ()
    quarantined: tuple[tuple[str, str], ...] = ()
    facts: np.ndarray | None = field(default=None, compare=False)
    source: Path | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.paths)

    def __repr__(self) -> str:
        return in_words(self)

    def _repr_html_(self) -> str:
        return as_html(self)

    def class_counts(self) -> dict[str, int]:
        """Readable pictures per class."""
        counts = np.bincount(np.asarray(self.labels, int), minlength=len(self.class_names))
        return dict(zip(self.class_names, counts.tolist(), strict=True))

    @cached_property
    def near_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of pictures that look the same, see ``toolkit.data.scan.duplicates.near_pairs``."""
        return near_pairs(self.facts) if self.facts is not None else (np.empty((0, 2), int), np.empty(0))

    def remarks(self) -> list[str]:
        """Sentences on what a person may not expect: files left out, classes that look the same."""
        counts = self.class_counts()
        told = [
            "classes "
            + " and ".join(f"{one_line(name)!r} ({counts[name]:,})" for name in group)
            + " look the same and are kept apart; --join-classes makes one of them"
            for group in alike_groups(self.class_names)
        ]
        left_out = describe_ignored(self.ignored)
        return [*told, *([f"left out: {left_out}"] if left_out else [])]

    def tell_left_out(self) -> None:
        """Log each picture that is left out, with its reason."""
        for path, reason in self.quarantined + self.problems:
            log.warning("left out %s: %s", one_line(path), reason)

    def require_clean(self) -> None:
        """Raise a ``UserError`` for the first unreadable picture, if there is any: what to do, how many others."""
        if self.problems:
            path, reason = self.problems[0]
            more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
            raise UserError(
                f"{self.root / path}: {reason}{more}; see `toolkit check {self.source or self.root}`, "
                "or pass --skip-bad to leave unreadable pictures out"
            )


def scan_folder(
    source: str | os.PathLike[str],
    *,
    class_names: Iterable[str] | None = None,
    quarantine: str | Path | None = None,
    remember: bool = True,
) -> ImageFolder:
    """Find every picture of a data set and decode each once in its life, in parallel, to learn which are readable.

    Args:
        source: a folder that holds one folder per class, or ``train``/``val``/``test`` folders which hold them; a CSV
            file ``path,label[,group[,split]]``; a tar or zip file of class folders; or MNIST's IDX files: the folder
            they are in, or one file of pictures. The last two are written out to the user's cache first. A
            ``toolkit.data.Source`` says more about it.
        class_names: the classes to expect, in label order; by default those found, sorted.
        quarantine: a list of pictures to leave out, see ``toolkit.data.scan.quarantine``; by default ``quarantine.txt``
            in the folder, or beside the file. Without one, evident placeholders are left out.
        remember: keep what was found in the user's cache, so that the next scan need not decode.

    Raises:
        UserError: no such data, no classes, fewer than two classes, a class without readable pictures.
    """
    given = as_source(source)
    source = given.path
    cache = ScanCache(cache_dir() / "scans" if remember else None)
    try:
        expected = tuple(class_names) if class_names is not None else ()
        listing = _listed(given, cache, expected)
        names = expected or listing.labels
        listed = _read_list(source, quarantine, listing)
        files = [file for file in listing.files if file.path not in (listed or {})]
        root = listing.root.absolute()
        facts, reasons = inspect_files([root / file.path for file in files], cache=cache)
    finally:
        cache.close()
    readable = [index for index, reason in enumerate(reasons) if reason is None]
    if listed is None:
        seen = [files[i] for i in readable]
        left_out = find_placeholders([each.path for each in seen], [each.label for each in seen], facts[readable])
        readable = [i for i in readable if files[i].path not in left_out]
    else:
        left_out = {file.path: listed[file.path] for file in listing.files if file.path in listed}
    kept = [files[i] for i in readable]
    label_of = {name: label for label, name in enumerate(names)}
    folder = ImageFolder(
        root=listing.root,
        class_names=names,
        paths=tuple(file.path for file in kept),
        labels=tuple(label_of[file.label] for file in kept),
        splits=tuple(file.split for file in kept) if kept and kept[0].split else (),
        problems=tuple((file.path, reason) for file, reason in zip(files, reasons, strict=True) if reason),
        ignored=listing.ignored,
        groups=tuple(file.group for file in kept) if any(file.group for file in kept) else (),
        quarantined=tuple(left_out.items()),
        facts=facts[readable],
        source=source,
    )
    _require_usable(source, listing, folder)
    return folder


def require_classes(source: str | os.PathLike[str], class_names: Iterable[str]) -> None:
    """Refuse a data set that is not there, or has other classes than these, before its pictures are read.

    Raises:
        UserError: no such data, or a class that is none of them.
    """
    cache = ScanCache(cache_dir() / "scans")
    try:
        _listed(as_source(source), cache, tuple(class_names))
    finally:
        cache.close()


def _listed(given: Source, cache: ScanCache, expected: tuple[str, ...]) -> Listing:
    """List a data set, whose classes are among those expected, where any are."""
    if given.devkit is not None:
        listing = list_validation(given.path, given.devkit)
    else:
        listing = list_source(given.path, cache_dir(), cache.file_digest, given.split_folders, expected)
    listing = called_by_id(listing, expected)
    listing = join_classes(listing, expected) if given.join_classes else listing
    _require_known_classes(given.path, listing, expected or listing.labels)
    return listing


def scan_arrays(
    pixels: np.ndarray,
    labels: Sequence[int],
    *,
    class_names: Iterable[str] | None = None,
    splits: Sequence[str] = (),
    groups: Sequence[str] = (),
) -> ImageFolder:
    """A data set in memory: its pictures are written to the user's cache as PNG files, once, and scanned there.

    >>> pixels = np.arange(4 * 8 * 8, dtype=np.uint8).reshape(4, 8, 8)
    >>> folder = scan_arrays(pixels, [0, 1, 0, 1], class_names=["cat", "dog"])
    >>> len(folder), folder.class_names, folder.labels
    (4, ('cat', 'dog'), (0, 1, 0, 1))

    Args:
        pixels: uint8 of shape (n, height, width), (n, height, width, 1) or (n, height, width, 3).
        labels: n indices into ``class_names``.
        class_names: by default "0", "1" …, up to the largest label.
        splits: n names of ``"train"``, ``"val"``, ``"test"``, or none.
        groups: n names, or none.

    Raises:
        UserError: other shapes, dtypes or lengths, or what ``scan_folder`` refuses.
    """
    pixels, targets = np.asarray(pixels), np.asarray(labels)
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or (pixels.ndim == 4 and pixels.shape[3] not in (1, 3)):
        raise UserError(f"pixels must be uint8 (n, height, width[, 1 or 3]), got {pixels.dtype} {pixels.shape}")
    if not len(pixels) or targets.shape != pixels.shape[:1] or not np.issubdtype(targets.dtype, np.integer):
        raise UserError(f"expected as many integer labels as pictures, got {targets.shape} for {pixels.shape}")
    # As a table's cells are read, which they become.
    names = tuple(map(str, range(targets.max() + 1) if class_names is None else map(str.strip, class_names)))
    splits, groups = list(map(str, splits)), list(map(str, groups))
    if not 0 <= targets.min() <= targets.max() < len(names):
        raise UserError(f"labels must be indices into {len(names)} class names, got {targets.min()} to {targets.max()}")
    if any(column and len(column) != len(pixels) for column in (splits, groups)):
        raise UserError(f"expected {len(pixels):,} splits and groups or none, got {len(splits):,} and {len(groups):,}")
    columns = (groups or [""] * len(pixels), splits or [""] * len(pixels))
    rows = (
        (picture, names[label], group, split)
        for picture, label, group, split in zip(pixels, targets, *columns, strict=True)
    )
    directory = cache_dir() / "arrays" / array_digest([pixels, targets], [*names, "", *splits, "", *groups])
    write_pictures(rows, directory)
    return scan_folder(directory / "index.csv", class_names=names)


def _read_list(source: Path, given: str | Path | None, listing: Listing) -> dict[str, str] | None:
    file = Path(given) if given is not None else quarantine_file(source)
    if given is None and not file.is_file():
        return None
    return match_quarantine(file, listing.root, [row.path for row in listing.files])


def _require_known_classes(source: Path, listing: Listing, expected: tuple[str, ...]) -> None:
    unknown = sorted(set(listing.labels) - set(expected))
    if unknown:
        twin = next((name for name in expected if alike_key(name) == alike_key(unknown[0])), None)
        hint = f"; --join-classes takes it for {twin!r}, which looks the same" if twin else ""
        if is_id(unknown[0]):
            hint = "; labels that begin with WordNet ids, such as 'n01440764 tench', would tell its name"
        more = f" and {len(expected) - _NAMED:,} more" if len(expected) > _NAMED else ""
        known = ", ".join(expected[:_NAMED]) + more
        raise UserError(f"{source}: class {unknown[0]!r} is none of the classes {known}{hint}")


def _require_usable(source: Path, listing: Listing, folder: ImageFolder) -> None:
    if not folder.paths:
        _require_readable(f"{source}", folder.problems)
        raise UserError(f"{source}: no pictures in its class folders ({', '.join(folder.class_names[:5])})")
    counts = folder.class_counts()
    # Classes that were asked for may be missing, but not those that the data set itself names.
    empty = [name for name in listing.labels if counts[name] == 0]
    if empty:
        members = {file.path for file in listing.files if file.label == empty[0]}
        place = f"{source}: class {empty[0]!r}"
        _require_readable(place, tuple(problem for problem in folder.problems if problem[0] in members))
        raise UserError(f"{place} is without pictures; add some or remove it")
    if len(folder.class_names) < 2:
        others = describe_ignored(listing.ignored)
        raise UserError(
            f"{source}: only one class ({folder.class_names[0]!r}); a classifier needs at least two class folders"
            + (f"; left out: {others}" if others else "")
        )


def _require_readable(place: str, problems: tuple[tuple[str, str], ...]) -> None:
    # Leaving these out would leave nothing, so there is no --skip-bad to offer.
    if problems:
        path, reason = problems[0]
        raise UserError(f"{place}: none of {len(problems)} pictures can be read; the first, {path}: {reason}")
