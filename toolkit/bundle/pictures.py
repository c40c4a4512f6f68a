"""Pictures of a bundle: examples to show, and digests of those that it was made with."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from toolkit.bundle.manifest import (
    EXAMPLE_LABELS,
    EXAMPLES,
    OLDER_PICTURES,
    PICTURES,
    Manifest,
    sha256_of,
    verify_files,
)
from toolkit.lazy import lazy_module
from toolkit.machine import num_threads
from toolkit.progress import step

np = lazy_module("numpy")

#: Digests of the pictures that a bundle was made with, by subset: those that taught it, those that chose among its
#: settings, and those that it was measured on.
Pictures = Mapping[str, frozenset[str]]
_CHUNK = 64  # files per task
#: Hex digits that a digest keeps: among 60,000 known pictures another one is taken for one of them once in 18 million.
_DIGITS = 10


@dataclass(frozen=True)
class Example:
    """A picture that a bundle brings, and its true label where the bundle tells it."""

    path: Path
    label: str | None = None


def read_examples(version_dir: Path) -> list[Example]:
    """List the example pictures of a bundle; a missing or damaged file of labels leaves them without."""
    import json

    folder = version_dir / EXAMPLES
    if not folder.is_dir():
        return []
    try:
        rows = json.loads((version_dir / EXAMPLE_LABELS).read_text(encoding="utf-8"))
        labels = {str(row["file"]): str(row["label"]) for row in rows}
    except (OSError, ValueError, TypeError, KeyError):
        labels = {}
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return [Example(path, labels.get(path.name)) for path in paths]


def write_examples(version_dir: Path, examples: Sequence[Example]) -> None:
    """Copy pictures into a bundle that is being written, for the demo's visitors to click on, with their true labels.

    They are named by their number: what a picture was called may be private, or say what is on it.
    """
    import json

    if not examples:
        return
    (version_dir / EXAMPLES).mkdir(parents=True)
    rows = []
    for index, example in enumerate(examples):
        name = f"{index:02d}{example.path.suffix.lower()}"
        shutil.copyfile(example.path, version_dir / EXAMPLES / name)
        rows += [{"file": name, "label": example.label}] if example.label is not None else []
    (version_dir / EXAMPLE_LABELS).write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_pictures(version_dir: Path, pictures: Mapping[str, Iterable[str]]) -> None:
    """Note the digests of the pictures a bundle was made with by subset, see ``picture_digests``.

    In order, their differences are small numbers: byte by byte they take 3.4 bytes a picture of 60,000, for 20 as text.
    """
    subsets = {}
    for subset in ("train", "val", "test"):
        numbers = np.array(sorted({int(digest, 16) for digest in pictures.get(subset, ())}), "<u8")
        differences = np.diff(numbers, prepend=np.zeros(1, "<u8"))
        subsets[subset] = np.ascontiguousarray(differences.view(np.uint8).reshape(-1, 8).T)
    np.savez_compressed(version_dir / PICTURES, **subsets)


def read_pictures(version_dir: Path, manifest: Manifest) -> Pictures | None:
    """Read what ``write_pictures`` noted; None for a bundle that does not know its pictures.

    Raises:
        UserError: the file is missing or damaged.
    """
    import json

    if OLDER_PICTURES in manifest.files:
        verify_files(version_dir, manifest, (OLDER_PICTURES,))
        older = json.loads((version_dir / OLDER_PICTURES).read_bytes())
        return {subset: frozenset(digest[:_DIGITS] for digest in digests) for subset, digests in older.items()}
    if PICTURES not in manifest.files:
        return None
    verify_files(version_dir, manifest, (PICTURES,))
    with np.load(version_dir / PICTURES) as subsets:
        numbers = {name: np.ascontiguousarray(own.T).view("<u8")[:, 0].cumsum() for name, own in subsets.items()}
    return {name: frozenset(f"{number:0{_DIGITS}x}" for number in own.tolist()) for name, own in numbers.items()}


def join_pictures(pictures: Sequence[Pictures | None]) -> Pictures | None:
    """Pictures that several bundles together were made with; None if one of them does not know its own.

    What taught one of them taught all, and what chose among the settings of one is held out for none.
    """
    known = [own for own in pictures if own is not None]
    if len(known) < len(pictures):
        return None
    train, val, test = (frozenset().union(*(own[subset] for own in known)) for subset in ("train", "val", "test"))
    return {"train": train, "val": val - train, "test": test - val - train}


def picture_digests(paths: Sequence[str | Path]) -> list[str]:
    """Compute the first hex digits of the sha256 of each file, by which a picture is known again."""
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    digests: list[str] = []
    with step("recognising pictures", len(paths)) as told, ThreadPoolExecutor(num_threads()) as pool:
        for found in pool.map(lambda chunk: [sha256_of(Path(path))[:_DIGITS] for path in chunk], chunks):
            digests += found
            told(len(digests))
    return digests
