"""Real pictures that come with the packages this one needs, written out as files: nothing is downloaded."""

import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from toolkit.errors import UserError, unknown_name
from toolkit.files import new_folder

# By package and place in it: whose the photograph is. scikit-learn is always there.
_BY = "{}, CC BY 2.0 (https://creativecommons.org/licenses/by/2.0/), https://www.flickr.com/photos/{}"
_OF_GRADIO = "part of Gradio, which is under the Apache License 2.0 and does not name the photographer"
_PHOTOGRAPHS = {
    ("sklearn", "datasets/images/china.jpg"): _BY.format("danielbuechele", "danielbuechele/6061409035"),
    ("sklearn", "datasets/images/flower.jpg"): _BY.format("vultilion", "vultilion/6056698931"),
    ("gradio", "media_assets/images/cheetah1.jpg"): _OF_GRADIO,
    ("gradio", "media_assets/images/lion.jpg"): _OF_GRADIO,
    ("gradio", "media_assets/images/tower.jpg"): _OF_GRADIO,
}
_SOURCES = "SOURCES.txt"


def write_samples(name: str, directory: str | Path) -> int:
    """Write bundled pictures into a new folder.

    ``digits`` are the 1,797 handwritten digits of scikit-learn as ``directory/CLASS/NAME.png``: 8×8 grey pictures from
    43 people, the test part of E. Alpaydin and C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI (1998).

    ``photographs`` are those that come with scikit-learn, and with Gradio where it is installed, as
    ``directory/NAME.jpg``: two or five, for a network to look at. ``SOURCES.txt`` beside them says whose they are.

    Args:
        name: one of ``SAMPLES``.
        directory: must not exist yet, or be empty. It appears whole or not at all.

    Returns:
        The number of pictures written.

    Raises:
        UserError: unknown name, or the directory has something in it.
    """
    if name not in _WRITERS:
        raise UserError(unknown_name("samples", name, list(SAMPLES)))
    directory = Path(directory)
    if not directory.name:
        raise UserError(f"{directory}: cannot be replaced in one step; name a new folder")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory}: {'is not empty' if directory.is_dir() else 'is a file'}; name a new folder")
    with new_folder(directory) as staging:
        return _WRITERS[name](staging)


def _write_digits(folder: Path) -> int:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    for index, (image, label) in enumerate(zip(pixels, digits.target, strict=True)):
        class_dir = folder / str(label)
        class_dir.mkdir(exist_ok=True)
        Image.fromarray(image).save(class_dir / f"{index:04d}.png")
    return len(pixels)


def _write_photographs(folder: Path) -> int:
    sources = []
    for (package, place), source in _PHOTOGRAPHS.items():
        found = importlib.util.find_spec(package)  # importing Gradio would take seconds
        files = [Path(root) / place for root in (found and found.submodule_search_locations) or ()]
        for file in filter(Path.is_file, files):
            shutil.copyfile(file, folder / file.name)
            sources.append(f"{file.name}: {source}\n")
    (folder / _SOURCES).write_text("".join(sources), encoding="utf-8")
    return len(sources)


_WRITERS: dict[str, Callable[[Path], int]] = {"digits": _write_digits, "photographs": _write_photographs}
SAMPLES = tuple(_WRITERS)
