"""A folder with one sub-folder per class, read without trusting it."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.data.decode import ImageError, read_rgb
from toolkit.spec import Preprocessing, UserError

#: Names that mark a folder as already split; the first of each row is the name used from then on.
SPLIT_NAMES = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}

_IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".heic", ".heif", ".avif")
)

# Small enough that a JPEG decoder shrinks by 8, yet every compressed byte is still read.
_PROBE = Preprocessing(size=(32, 32), resize="stretch")


@dataclass(frozen=True)
class ImageFolder:
    """What a scan found. ``paths`` are relative to ``root`` and sorted, so the same files give the same order.

    Attributes:
        root: the folder.
        class_names: sorted; a label is an index into it.
        paths: readable pictures.
        labels: one label per path.
        splits: one of ``"train"``, ``"val"``, ``"test"`` per path, or empty where the folder is not split.
        problems: relative path and reason of each picture that cannot be read.
        ignored: files that do not claim to be pictures.
    """

    root: Path
    class_names: tuple[str, ...]
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    splits: tuple[str, ...] = ()
    problems: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.paths)

    def class_counts(self) -> dict[str, int]:
        """Readable pictures per class."""
        counts = dict.fromkeys(self.class_names, 0)
        for label in self.labels:
            counts[self.class_names[label]] += 1
        return counts

    def require_clean(self) -> None:
        """Raise for the first unreadable picture, if there is any.

        Raises:
            UserError: names the file, the reason, how many others there are and what to do.
        """
        if self.problems:
            path, reason = self.problems[0]
            more = f" (and {len(self.problems) - 1} more)" if len(self.problems) > 1 else ""
            raise UserError(
                f"{self.root / path}: {reason}{more}; see `toolkit check {self.root}`, "
                "or pass --skip-bad to leave unreadable pictures out"
            )


def scan_folder(
    root: str | Path,
    *,
    class_names: Iterable[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImageFolder:
    """Find every picture below ``root`` and decode each once, in parallel, to learn which are readable.

    Args:
        root: holds one folder per class, or ``train``/``val``/``test`` folders which hold them.
        class_names: the classes to expect, in label order; by default the folder names, sorted.
        progress: called with (done, total).

    Raises:
        UserError: no such folder, no classes, fewer than two classes, a class without readable pictures.
    """
    root = Path(root)
    class_dirs = _class_dirs(root)
    names = tuple(class_names) if class_names is not None else tuple(sorted({name for name, _, _ in class_dirs}))
    _require_known_classes(root, {name for name, _, _ in class_dirs}, names)

    files: list[tuple[str, str, int]] = []
    ignored: list[str] = []
    for name, split, directory in class_dirs:
        for path in _files_below(directory):
            relative = path.relative_to(root).as_posix()
            if path.suffix.lower() in _IMAGE_SUFFIXES:
                files.append((relative, split, names.index(name)))
            else:
                ignored.append(relative)
    files.sort()

    readable, problems = _probe_all(root, files, progress)
    folder = ImageFolder(
        root=root,
        class_names=names,
        paths=tuple(path for path, _, _ in readable),
        labels=tuple(label for _, _, label in readable),
        splits=tuple(split for _, split, _ in readable) if readable and readable[0][1] else (),
        problems=tuple(problems),
        ignored=tuple(sorted(ignored)),
    )
    _require_usable(folder, expected=names if class_names is None else ())
    return folder


def _class_dirs(root: Path) -> list[tuple[str, str, Path]]:
    if not root.exists():
        raise UserError(f"{root}: no such folder")
    if not root.is_dir():
        raise UserError(f"{root}: not a folder; expected one with a sub-folder per class")
    top = _subfolders(root)
    if not top:
        raise UserError(f"{root}: no class folders in it; expected one sub-folder of pictures per class")
    split_of = {alias: split for split, aliases in SPLIT_NAMES.items() for alias in aliases}
    if any(d.name.lower() in SPLIT_NAMES["train"] for d in top) and all(d.name.lower() in split_of for d in top):
        return [(c.name, split_of[s.name.lower()], c) for s in top for c in _subfolders(s)]
    return [(d.name, "", d) for d in top]


def _subfolders(directory: Path) -> list[Path]:
    return sorted(d for d in directory.iterdir() if d.is_dir() and not d.name.startswith("."))


def _files_below(directory: Path) -> Iterable[Path]:
    for parent, folders, files in os.walk(directory):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        yield from (Path(parent, f) for f in sorted(files) if not f.startswith("."))


def _require_known_classes(root: Path, found: set[str], expected: tuple[str, ...]) -> None:
    unknown = sorted(found - set(expected))
    if unknown:
        raise UserError(f"{root}: class folder {unknown[0]!r} is none of the classes {', '.join(expected)}")


def _probe_all(root: Path, files: list[tuple[str, str, int]], progress: Callable[[int, int], None] | None):
    readable: list[tuple[str, str, int]] = []
    problems: list[tuple[str, str]] = []
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        reasons = pool.map(lambda file: _why_unreadable(root / file[0]), files)
        for done, (file, reason) in enumerate(zip(files, reasons, strict=True), start=1):
            if reason is None:
                readable.append(file)
            else:
                problems.append((file[0], reason))
            if progress:
                progress(done, len(files))
    return readable, problems


def _why_unreadable(path: Path) -> str | None:
    try:
        read_rgb(path, _PROBE)
    except ImageError as error:
        return str(error).removeprefix(f"{path}: ")
    return None


def _require_readable(folder: ImageFolder, place: Path, problems: tuple[tuple[str, str], ...]) -> None:
    # Leaving these out would leave nothing, so there is no --skip-bad to offer.
    if problems:
        path, reason = problems[0]
        raise UserError(f"{place}: none of {len(problems)} pictures can be read; the first, {path}: {reason}")


def _require_usable(folder: ImageFolder, expected: tuple[str, ...]) -> None:
    if not folder.paths:
        _require_readable(folder, folder.root, folder.problems)
        raise UserError(f"{folder.root}: no pictures in its class folders ({', '.join(folder.class_names[:5])})")
    counts = folder.class_counts()
    empty = [name for name in expected if counts[name] == 0]
    if empty:
        place = 1 if folder.splits else 0
        own = tuple(problem for problem in folder.problems if problem[0].split("/")[place] == empty[0])
        _require_readable(folder, folder.root / empty[0], own)
        raise UserError(f"{folder.root / empty[0]}: a class folder without pictures; fill it or remove it")
    if len(folder.class_names) < 2:
        raise UserError(
            f"{folder.root}: only one class ({folder.class_names[0]!r}); a classifier needs at least two class folders"
        )
