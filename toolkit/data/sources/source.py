"""A data set's place, together with what its owner says about it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from toolkit.data.sources.layout import SPLIT_NAMES, SPLIT_OF
from toolkit.errors import UserError


@dataclass(frozen=True)
class Source(os.PathLike[str]):
    """A path to a data set, for wherever one is taken, and how to read it.

    Attributes:
        path: a folder, table, archive or IDX file.
        split_folders: splits by the paths of their folders in it, where names do not tell; empty if there are none.
        join_classes: make one class of those whose names differ in case, blanks or Unicode form only.
        devkit: of a folder with ImageNet's validation pictures, flat as they come: the folder that tells their classes.
    """

    path: Path
    split_folders: Mapping[str, str] | None = None
    join_classes: bool = False
    devkit: Path | None = None

    def __post_init__(self) -> None:
        for name in ("path", "devkit"):  # a text will do
            given = getattr(self, name)
            object.__setattr__(self, name, given and Path(given))

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        """Tell if there is anything at the path."""
        return self.path.exists()

    @property
    def named_splits(self) -> str | None:
        """The splits as ``parse_split_folders`` reads them; None where names tell."""
        if self.split_folders is None:
            return None
        return ",".join(f"{split}={folder}" for folder, split in self.split_folders.items()) or "none"

    def arguments(self) -> list[str]:
        """Words of a command line that mean this data set."""
        splits = [] if self.named_splits is None else ["--split-folders", self.named_splits]
        return [str(self.path), *splits] + ["--join-classes"] * self.join_classes


def as_source(data: "str | os.PathLike[str]") -> Source:
    """Give a path of any kind as a ``Source``."""
    return data if isinstance(data, Source) else Source(Path(data))


def parse_split_folders(text: str) -> dict[str, str]:
    """Read ``train=FOLDER,val=FOLDER,test=FOLDER``, of which some may be absent, or ``none``.

    >>> parse_split_folders("train=fold 1,val=fold 2"), parse_split_folders("none")
    ({'fold 1': 'train', 'fold 2': 'val'}, {})

    Raises:
        UserError: something else.
    """
    if text.strip().lower() == "none":
        return {}
    folders: dict[str, str] = {}
    for part in text.split(","):
        name, _, folder = part.partition("=")
        split = SPLIT_OF.get(name.strip().lower(), "")
        folder = folder.strip().rstrip("/")
        if not split or not folder or folder in folders:
            known = ",".join(f"{name}=FOLDER" for name in SPLIT_NAMES)
            raise UserError(f"--split-folders {text}: expected {known}, some of them or none, got {part!r}")
        folders[folder] = split
    return folders
