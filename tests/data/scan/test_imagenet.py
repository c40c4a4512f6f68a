"""ImageNet's validation pictures, made up: flat with a devkit, or in a folder per synset."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from toolkit.data import scan_folder
from toolkit.data.scan.imagenet import called_by_id, require_order_of_ids
from toolkit.data.sources.listing import ListedFile, Listing
from toolkit.data.sources.source import Source
from toolkit.errors import UserError

NAMES = ("n01440764 tench, Tinca tinca", "n01443537 goldfish", "n01484850 great white shark")
#: The devkit numbers classes in an order of its own.
NUMBERS = {"n01484850": 1, "n01440764": 2, "n01443537": 3}
TRUTH = [2, 3, 1, 2]


def write_devkit(folder: Path) -> Path:
    data = folder / "data"
    data.mkdir(parents=True)
    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O")]
    rows = np.array([(float(number), name, "words") for name, number in NUMBERS.items()], kinds)
    savemat(data / "meta.mat", {"synsets": rows})
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(map(str, TRUTH)) + "\n")
    return folder


def write_pictures(folder: Path, numbers: range = range(1, 5)) -> Path:
    folder.mkdir()
    for number in numbers:
        pixels = np.full((20, 24, 3), 30 * number, np.uint8)
        Image.fromarray(pixels).save(folder / f"ILSVRC2012_val_{number:08}.JPEG", "JPEG")
    return folder


@pytest.fixture
def validation(tmp_path):
    return Source(write_pictures(tmp_path / "val"), devkit=write_devkit(tmp_path / "devkit"))


def named(folder):
    return {path: folder.class_names[label] for path, label in zip(folder.paths, folder.labels, strict=True)}


def test_devkit_tells_the_classes_of_flat_pictures(validation):
    found = scan_folder(validation, class_names=NAMES)
    tench, goldfish, shark = NAMES
    expected = zip(range(1, 5), (tench, goldfish, shark, tench), strict=True)
    assert named(found) == {f"ILSVRC2012_val_{number:08}.JPEG": name for number, name in expected}
    assert found.class_names == NAMES
    shutil.move(validation.path / "ILSVRC2012_val_00000003.JPEG", validation.path.parent)
    assert len(scan_folder(validation, class_names=NAMES)) == 3


def test_folders_of_synsets_are_the_classes_that_begin_with_them(validation, tmp_path):
    for number, path in enumerate(sorted(validation.path.iterdir())):
        (tmp_path / "sorted" / NAMES[number % 3][:9]).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "sorted" / NAMES[number % 3][:9])
    found = scan_folder(tmp_path / "sorted", class_names=NAMES)
    assert {path[:9]: name for path, name in named(found).items()} == {name[:9]: name for name in NAMES}
    with pytest.raises(UserError, match="class 'n01440764' is none of the classes a, b; labels that begin with"):
        scan_folder(tmp_path / "sorted", class_names=("a", "b"))


def test_a_class_in_two_folders_is_one():
    files = tuple(ListedFile(f"{label}/1.jpg", label) for label in (NAMES[0][:9], NAMES[0]))
    listing = called_by_id(Listing(Path("val"), files, (NAMES[0][:9], NAMES[0])), NAMES)
    assert listing.labels == (NAMES[0],)


def test_mistakes_are_told(validation, tmp_path):
    def refused(source: Source, message: str) -> None:
        with pytest.raises(UserError, match=message):
            scan_folder(source, class_names=NAMES)

    refused(Source(validation.path, devkit=tmp_path), "ground_truth.txt: no such file; --imagenet wants the folder of")
    refused(Source(tmp_path, devkit=validation.devkit), r"no pictures named ILSVRC2012_val_00000001.JPEG")
    refused(Source(tmp_path / "gone", devkit=validation.devkit), "gone: no such folder")
    write_pictures(tmp_path / "more", range(4, 7))
    refused(Source(tmp_path / "more", devkit=validation.devkit), r"00000005.JPEG has no class in .* knows 4 pictures")
    (validation.devkit / "data" / "meta.mat").write_bytes(b"no matrix")
    refused(validation, "not the devkit of 2012")


def test_order_of_synsets_is_checked():
    require_order_of_ids(NAMES)
    require_order_of_ids(("zebra", "ant"))
    with pytest.raises(UserError, match="n01443537 in line 3 comes after n01484850"):
        require_order_of_ids((NAMES[0], NAMES[2], NAMES[1]))
