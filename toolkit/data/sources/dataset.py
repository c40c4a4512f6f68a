"""Every kind of data set as a list of files and classes.

What does not come as picture files is written out as such, once, into a folder of the user's cache that is named by
the content. Training, features, exports and reports then know one kind of picture, with a path that a person can open.
"""

import csv
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from toolkit.data.sources.archive import is_archive_name, list_archive
from toolkit.data.sources.idx import IdxPair, find_idx, idx_pair, is_idx_name, read_idx
from toolkit.data.sources.listing import Listing, list_folder
from toolkit.data.sources.table import is_table_name, list_csv
from toolkit.errors import UserError
from toolkit.files import new_folder

#: Raise it whenever the same source would be written out differently.
_FORMAT_VERSION = 2
_PER_FOLDER = 1000

DigestOf = Callable[[Path], bytes]
Row = tuple[np.ndarray, str, str, str]  # a picture, its label, group and split


def list_source(
    source: Path,
    cache: Path,
    digest_of: DigestOf,
    split_folders: Mapping[str, str] | None = None,
    class_names: Iterable[str] = (),
) -> Listing:
    """List the files of a folder, a CSV, archive or IDX file; what is no picture file is written out into ``cache``.

    Args:
        source: where it is.
        cache: where pictures are written to that are no files yet.
        digest_of: digests a file's content.
        split_folders: of a folder or archive, see ``toolkit.data.sources.layout.find_layout``.
        class_names: of a folder or archive, see there.

    Raises:
        UserError: there is no such thing, or it is damaged.
    """
    if not source.exists():
        raise UserError(f"{source}: no such folder or file")
    if source.is_dir():
        pairs = find_idx(source)
        return _list_idx(pairs, cache, digest_of) if pairs else list_folder(source, split_folders, class_names)
    if is_table_name(source.name):
        return list_csv(source)
    if is_idx_name(source.name):
        return _list_idx([idx_pair(source)], cache, digest_of)
    if is_archive_name(source.name):
        return list_archive(source, cache / "unpacked" / _digest([source], digest_of), split_folders, class_names)
    raise UserError(
        f"{source}: not a folder of class folders, a CSV file of path,label, a tar or zip file, or an IDX file "
        "(…images-idx3-ubyte)"
    )


def write_pictures(rows: Iterable[Row], directory: Path) -> None:
    """Write pictures as PNG files with a table ``index.csv`` that ``list_csv`` reads, unless they are there.

    Args:
        rows: uint8 pictures (height, width), (…, 1) or (…, 3), each with label, group and split.
        directory: appears whole or not at all; its name must stand for the content.
    """
    if directory.is_dir():
        return
    with (
        new_folder(directory, shared=True) as staging,
        (staging / "index.csv").open("w", encoding="utf-8", newline="") as file,
    ):
        table = csv.writer(file)
        table.writerow(("path", "label", "group", "split"))
        for index, (pixels, *columns) in enumerate(rows):
            name = f"{index // _PER_FOLDER:05d}/{index:08d}.png"
            if index % _PER_FOLDER == 0:
                (staging / name).parent.mkdir()
            grey_or_rgb = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
            Image.fromarray(grey_or_rgb).save(staging / name, compress_level=1)
            table.writerow((name, *columns))


def array_digest(arrays: Iterable[np.ndarray], names: Sequence[str]) -> str:
    """A name for the content of arrays: their dtypes, shapes and values, and the given names."""
    digest = hashlib.sha256(repr((_FORMAT_VERSION, list(names))).encode())
    for array in arrays:
        digest.update(repr((array.dtype.str, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:32]


def _list_idx(pairs: list[IdxPair], cache: Path, digest_of: DigestOf) -> Listing:
    files = [file for pair in pairs for file in (pair.images, pair.labels)]
    directory = cache / "idx" / _digest(files, digest_of)
    write_pictures(
        ((picture, str(label), "", pair.split) for pair in pairs for picture, label in read_idx(pair)), directory
    )
    listing = list_csv(directory / "index.csv")
    return Listing(listing.root, listing.files, tuple(sorted(listing.labels, key=int)))


def _digest(files: Sequence[Path], digest_of: DigestOf) -> str:
    parts = [digest_of(file) for file in files]
    return hashlib.sha256(repr((_FORMAT_VERSION, parts)).encode()).hexdigest()[:32]
