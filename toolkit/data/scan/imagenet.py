"""ImageNet's validation pictures as their archive unpacks: all in one folder, with the classes in the devkit.

Classes of ImageNet have an id of WordNet, such as ``n01440764``, in folder names and in the devkit. A network's class
that begins with one is the class of that id.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from toolkit.data.sources.content import is_picture_name
from toolkit.data.sources.layout import entries_of
from toolkit.data.sources.listing import ListedFile, Listing
from toolkit.errors import UserError

_ID = re.compile(r"n\d{8}\b")
_NUMBERED = re.compile(r"_val_(\d{8})\.")
_TRUTH, _SYNSETS = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"


def list_validation(folder: Path, devkit: Path) -> Listing:
    """List pictures named ``ILSVRC2012_val_00000001.JPEG`` and so on; not all of them need be there.

    Args:
        folder: holds them.
        devkit: the folder that the archive ``ILSVRC2012_devkit_t12`` unpacks to, or ``data`` in it.

    Raises:
        UserError: there are no such pictures, or the devkit is none.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; --imagenet wants the one that holds ILSVRC2012_val_00000001.JPEG …")
    classes = _classes(devkit)
    files, others = [], []
    for entry in entries_of(str(folder)):
        number = _NUMBERED.search(entry.name)
        if number is None or not is_picture_name(entry.name):
            others.append((entry.name, "not named as a validation picture"))
        elif not 0 < int(number[1]) <= len(classes):
            raise UserError(f"{folder}: {entry.name} has no class in {devkit}, which knows {len(classes):,} pictures")
        else:
            files.append(ListedFile(entry.name, classes[int(number[1]) - 1]))
    if not files:
        raise UserError(
            f"{folder}: no pictures named ILSVRC2012_val_00000001.JPEG and so on; pictures in a folder per synset need "
            "no --imagenet"
        )
    return Listing(folder, tuple(sorted(files)), tuple(sorted({file.label for file in files})), tuple(others))


def _classes(devkit: Path) -> list[str]:
    """The WordNet id of each validation picture, in the order of their numbers."""
    from scipy.io import loadmat

    data = devkit / "data" if (devkit / "data").is_dir() else devkit
    truth, synsets = data / _TRUTH, data / _SYNSETS
    for file in (truth, synsets):
        if not file.is_file():
            raise UserError(f"{file}: no such file; --imagenet wants the folder of ILSVRC2012_devkit_t12, unpacked")
    try:
        rows = loadmat(synsets, squeeze_me=True)["synsets"]
        ids = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in rows}
        return [ids[int(number)] for number in truth.read_text().split()]
    except Exception as error:  # SciPy raises many kinds over a damaged file
        raise UserError(f"{data}: not the devkit of 2012, its {_TRUTH} and {_SYNSETS} do not fit: {error!r}") from None


def is_id(name: str) -> bool:
    """Tell if a class has the name of a WordNet id.

    >>> is_id("n01440764"), is_id("n01440764 tench"), is_id("nut")
    (True, False, False)
    """
    return bool(_ID.fullmatch(name))


def called_by_id(listing: Listing, class_names: Sequence[str]) -> Listing:
    """Call classes that have the name of a WordNet id as those of ``class_names`` that begin with the same id.

    >>> listing = Listing(Path("val"), (ListedFile("n01440764/1.jpg", "n01440764"),), ("n01440764",))
    >>> called_by_id(listing, ["n01440764 tench, Tinca tinca"]).labels
    ('n01440764 tench, Tinca tinca',)
    """
    name_of = {name[:9]: name for name in class_names if _ID.match(name)}
    if not name_of:
        return listing
    files = tuple(replace(file, label=name_of.get(file.label, file.label)) for file in listing.files)
    return replace(listing, files=files, labels=tuple(sorted({name_of.get(label, label) for label in listing.labels})))


def require_order_of_ids(class_names: Sequence[str]) -> None:
    """Refuse classes with WordNet ids in another order than that of published networks' outputs, which is ascending.

    Raises:
        UserError: names the first class that is out of order.
    """
    ids = [name[:9] for name in class_names if _ID.match(name)]
    if len(ids) != len(class_names):
        return
    for number, (before, after) in enumerate(pairwise(ids), start=2):
        if after <= before:
            raise UserError(
                f"labels: {after} in line {number} comes after {before}; networks published for ImageNet answer in "
                "the order of their WordNet ids: sort the lines"
            )
