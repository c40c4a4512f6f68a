"""Folders of a data set told apart: classes, splits, and those that only lie beside them or around them."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from toolkit.data.sources.alike import alike_key
from toolkit.data.sources.content import why_no_picture
from toolkit.data.sources.junk import is_junk, is_output
from toolkit.errors import UserError

#: Names that mark a folder as already split; the first of each row is the name used from then on.
SPLIT_NAMES = {
    "train": ("train", "training", "trainset", "traindata"),
    "val": ("val", "valid", "validation", "valset", "validate", "dev", "devset"),
    "test": ("test", "testing", "testset", "testdata"),
}

SPLIT_OF = {alias: split for split, aliases in SPLIT_NAMES.items() for alias in aliases}

#: What lies beside one training folder and is neither a class nor another training folder.
_ASIDE = re.compile(
    r"examples?|samples?|demo|docs?|pred(ict(ion)?s?)?|un-?label?led|extra|figures?|assets|screenshots?"
)

_MAX_DEPTH = 32  # class folders are near the top

# Words that say nothing of what a folder holds.
_NEUTRAL = (
    *("set", "data", "dataset", "images", "image", "imgs", "img"),
    *("pictures", "photos", "files", "split", "folder"),
)

NO_CLASS = "in no class folder"
BESIDE = "beside the split folders"
UNLABELLED = "not in a folder of a class that is trained"
EMPTY = "in a folder without pictures"
OUTPUT = "written by this package"


@dataclass(frozen=True)
class ClassFolder:
    """A folder whose pictures have one label, and are of one split or of none."""

    path: str
    label: str
    split: str = ""


@dataclass(frozen=True)
class Layout:
    """Class folders, and the reasons why other folders are left out, by path; ``top`` is within all that is wrapped."""

    top: str
    classes: tuple[ClassFolder, ...]
    left_out: Mapping[str, str]


def find_layout(root: Path, split_folders: Mapping[str, str] | None = None, class_names: Iterable[str] = ()) -> Layout:
    """Find the class folders below ``root``: straight in it, or in ``train``, ``val`` and ``test`` folders.

    Folders that only wrap the others are seen through.

    Args:
        root: a folder.
        split_folders: splits by the paths of their folders below ``root``, where these have other names; an empty
            mapping says that there are none, whatever the names are.
        class_names: classes that are known: a folder of such a name is no wrapper, even if it is the only one.

    Raises:
        UserError: no class folders, or folders that may be splits or classes.
    """
    known = {alike_key(name) for name in class_names}
    top = Folder(str(root), frozenset(chain_of(root)))
    if not top.folders:
        held = " but pictures straight in it" if top.holds_pictures_itself else ""
        raise UserError(f"{root}: no class folders in it{held}; expected one sub-folder of pictures per class")
    if split_folders:
        named = {_named_folder(root, name): split for name, split in split_folders.items()}
        return _split_layout(root, named, top, known, is_told=True)
    left_out: dict[str, str] = {}
    while True:
        left_out |= {folder.path: EMPTY for folder in top.folders if not folder.is_full and folder.has_files}
        if split_folders is None:
            splits = _recognised(root, top)
            if splits:
                layout = _split_layout(root, splits, top, known)
                return replace(layout, left_out=left_out | dict(layout.left_out))
        if not top.is_wrapper or top.class_names & known:
            break
        (top,) = top.full
    if split_folders is None:
        inside = _split_inside_classes(top)
        if inside:
            return Layout(top.path, inside, left_out)
        if not top.class_names & known:
            _require_distinct(root, top)
    classes = tuple(ClassFolder(f.path, f.name) for f in top.folders if f.path not in left_out)
    if not classes:
        raise UserError(f"{root}: no pictures in its folders ({_some({f.name for f in top.folders})})")
    return Layout(top.path, classes, left_out)


def split_of(name: str) -> str:
    """Read in a folder's name the split that it holds, if there is a word for one, alone or with others.

    >>> [split_of(name) for name in ("Train", "seg_train", "TestImages", "val2017", "dev set", "trains", "contest")]
    ['train', 'train', 'test', 'val', 'val', '', '']
    """
    found = {SPLIT_OF[word] for word in _words(name) if word in SPLIT_OF}
    return found.pop() if len(found) == 1 else ""


def _is_plain(name: str) -> bool:
    """Tell if a split's name says nothing else, as that of a class may."""
    return all(word in SPLIT_OF or word in _NEUTRAL for word in _words(name))


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]


class Folder:
    """A folder on disk, looked at as far as it is asked."""

    def __init__(self, path: str, above: frozenset[tuple[int, int]] = frozenset()) -> None:
        self.path = path
        self.name = os.path.basename(path)
        self._above = above | {identity(path)}

    @cached_property
    def _entries(self) -> list[os.DirEntry[str]]:
        return entries_of(self.path)

    @cached_property
    def folders(self) -> list["Folder"]:
        """Sub-folders that may hold the data set's pictures; a hidden one only if it has pictures straight in it."""
        found = []
        for entry in self._entries:
            if is_junk(entry.name) or not is_folder(entry) or is_output(entry.path):
                continue
            if len(self._above) > _MAX_DEPTH or identity(entry.path) in self._above:
                continue
            folder = Folder(entry.path, self._above)
            if not entry.name.startswith(".") or folder.holds_pictures_itself:
                found.append(folder)
        return found

    @cached_property
    def holds_pictures_itself(self) -> bool:
        return any(
            not (is_junk(entry.name) or entry.name.startswith(".") or is_folder(entry) or why_no_picture(entry.path))
            for entry in self._entries
        )

    @cached_property
    def is_full(self) -> bool:
        """Pictures are somewhere in it."""
        return self.holds_pictures_itself or any(folder.is_full for folder in self.folders)

    @cached_property
    def has_files(self) -> bool:
        """Anything but empty folders and junk is somewhere in it."""
        kept = [entry for entry in self._entries if not is_junk(entry.name)]
        return any(not is_folder(entry) or is_output(entry.path) for entry in kept) or any(
            folder.has_files for folder in self.folders
        )

    @cached_property
    def full(self) -> list["Folder"]:
        return [folder for folder in self.folders if folder.is_full]

    @property
    def is_wrapper(self) -> bool:
        """There is nothing in it but another folder of folders."""
        return len(self.full) == 1 and self.full[0].holds_folders

    @property
    def holds_folders(self) -> bool:
        """There are several folders of pictures in it, or in the one that is, or but one and no picture beside it."""
        if len(self.full) != 1:
            return len(self.full) > 1
        return not self.holds_pictures_itself or self.full[0].holds_folders

    def levels(self) -> Iterator["Folder"]:
        """Itself, and what is left as one folder around the class folders after another is taken off."""
        folder = self
        yield folder
        while folder.is_wrapper:
            (folder,) = folder.full
            yield folder

    @property
    def class_names(self) -> set[str]:
        """Names of the folders with pictures that it holds, in the form in which those that look the same are equal."""
        return {alike_key(folder.name) for folder in self.full}


def entries_of(folder: str) -> list[os.DirEntry[str]]:
    """List a folder by name, or raise a ``UserError`` if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from None


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Tell if an entry is a folder or leads to one."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def identity(path: str) -> tuple[int, int]:
    """Device and number of a folder, equal for all paths to it."""
    status = os.stat(path)
    return status.st_dev, status.st_ino


def chain_of(folder: str | Path) -> set[tuple[int, int]]:
    """Identities of all folders that hold a folder, where links to them would lead in a circle."""
    return {identity(str(parent)) for parent in Path(folder).resolve().parents}


def _recognised(root: Path, top: Folder) -> dict[Folder, str]:
    """Folders that are splits by their names; none where they may as well be classes."""
    named = {folder: split for folder in top.full if (split := split_of(folder.name))}
    inner = {folder: split for folder, split in named.items() if folder.full}
    if not inner:
        if len(set(named.values())) > 1 and len(named) == len(top.full) and all(_is_plain(f.name) for f in named):
            names = " and ".join(folder.name for folder in named)
            raise UserError(
                f"{root}: {names} hold pictures but no class folders; put each class into a folder of its own, or list "
                "the pictures in a CSV file path,label,group,split"
            )
        return {}
    others = [folder for folder in top.full if folder not in named]
    if not all(_is_plain(folder.name) for folder in inner) and not _share_classes(list(inner)):
        return {} if others or len(inner) < 2 else inner
    if len(set(inner.values())) > 1 or not others or all(_ASIDE.fullmatch(f.name.lower()) for f in others):
        return inner
    one, names = next(iter(inner)), ", ".join(folder.name for folder in others[:3])
    raise UserError(
        f"{root}: {one.name} has the name of a split and holds folders of pictures, but {names} beside it may be "
        f"classes; {_how_to_say(one, others[0])}"
    )


def _split_layout(
    root: Path, splits: Mapping[Folder, str], top: Folder, known: set[str], *, is_told: bool = False
) -> Layout:
    """Class folders of folders known to be splits."""
    tops = _class_level(splits, known)
    trained = {name for folder, split in splits.items() if split == "train" for name in tops[folder].class_names}
    left_out = {}
    for folder in _beside(top, list(splits)):
        # It may be the whole data set once more, as where an archive was unpacked twice.
        is_aside = is_told or any(split_of(inner.name) for inner in folder.full)
        shared = trained & [*folder.levels()][-1].class_names
        if len(shared) > 1 and not is_aside:
            raise UserError(
                f"{root}: {folder.name} holds folders of pictures named {_some(shared)} as {next(iter(splits)).name} "
                f"does, but its name is no split's; {_how_to_say(folder, None)}"
            )
        left_out[folder.path] = EMPTY if not folder.is_full else UNLABELLED if split_of(folder.name) else BESIDE
    classes = []
    for folder, split in splits.items():
        level = tops[folder]
        if trained and level.full and not level.class_names & trained:
            left_out[folder.path] = UNLABELLED
            continue
        for inner in level.folders:
            if inner.is_full or not inner.has_files:
                classes.append(ClassFolder(inner.path, inner.name, split))
            else:
                left_out[inner.path] = EMPTY
    return Layout(top.path, tuple(classes), left_out)


def _class_level(splits: Mapping[Folder, str], known: set[str]) -> dict[Folder, Folder]:
    """See through ``seg_train/seg_train``, but not through the only class that a small split may have."""
    levels = {folder: list(folder.levels()) for folder in splits}
    sure = known | {name for found in levels.values() if len(found) == 1 for name in found[0].class_names}
    return {
        folder: next((level for level in found if level.class_names & sure), found[-1])
        for folder, found in levels.items()
    }


def _beside(top: Folder, splits: list[Folder]) -> list[Folder]:
    """Folders that hold none of ``splits`` and are in none of them."""
    found = []
    for folder in top.folders:
        below = [s for s in splits if s.path.startswith(folder.path + "/")]
        if below:
            found += _beside(folder, below)
        elif not any(s.path == folder.path for s in splits):
            found.append(folder)
    return found


def _split_inside_classes(top: Folder) -> tuple[ClassFolder, ...]:
    """``cats/train`` and ``cats/test`` beside ``dogs/train`` and ``dogs/test``."""
    pairs = [(outer, inner) for outer in top.full for inner in outer.full]
    splits = {SPLIT_OF.get(inner.name.lower(), "") for _, inner in pairs}
    if len(top.full) < 2 or len(splits) < 2 or "" in splits or any(f.holds_pictures_itself for f in top.full):
        return ()
    return tuple(ClassFolder(inner.path, outer.name, SPLIT_OF[inner.name.lower()]) for outer, inner in pairs)


def _require_distinct(root: Path, top: Folder) -> None:
    """Refuse folders that hold the same folders, as splits do."""
    outer = [folder for folder in top.full if not folder.holds_pictures_itself]
    for index, one in enumerate(outer):
        for other in outer[index + 1 :]:
            shared = _share_classes([one, other])
            if shared:
                raise UserError(
                    f"{root}: {one.name} and {other.name} both hold folders of pictures named {_some(shared)}: "
                    f"which are classes? {_how_to_say(one, other)}"
                )


def _share_classes(folders: list[Folder]) -> set[str]:
    """Names of two or more class folders that several of ``folders`` have in common."""
    names = [name for folder in folders for name in [*folder.levels()][-1].class_names]
    shared = {name for name in names if names.count(name) > 1}
    return shared if len(shared) > 1 else set()


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (" …" if len(names) > 3 else "")


def _how_to_say(one: Folder, other: Folder | None) -> str:
    example = f"train={one.name}" + (f",val={other.name}" if other else "")
    return f"say which, such as --split-folders {example}, or --split-folders none if {one.name} is a class"


def _named_folder(root: Path, name: str) -> Folder:
    below = os.path.normpath(name)
    path = os.path.join(root, below)
    if below.startswith(("..", "/")) or below == "." or not os.path.isdir(path):
        raise UserError(f"{root}: no folder {name!r} in it, which --split-folders names")
    return Folder(path)
