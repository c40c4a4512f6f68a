"""Real pictures that come with a dependency, written out as an image folder: nothing is downloaded."""

from pathlib import Path

import numpy as np
from PIL import Image

from toolkit.errors import UserError
from toolkit.files import new_folder

SAMPLES = ("digits",)


def write_samples(name: str, directory: str | Path) -> int:
    """Write a bundled data set as ``directory/CLASS/NAME.png``.

    ``digits`` are the 1,797 handwritten digits of scikit-learn: 8×8 grey pictures from 43 people, the test part of
    E. Alpaydin and C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI (1998).

    Args:
        name: one of ``SAMPLES``.
        directory: must not exist yet, or be empty. It appears whole or not at all.

    Returns:
        The number of pictures written.

    Raises:
        UserError: unknown name, or the directory has something in it.
    """
    if name not in SAMPLES:
        raise UserError(f"unknown samples {name!r}; known: {', '.join(SAMPLES)}")
    directory = Path(directory)
    if not directory.name:
        raise UserError(f"{directory}: cannot be replaced in one step; name a new folder")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory}: exists and is not empty; name a new folder")
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    with new_folder(directory) as staging:
        for index, (image, label) in enumerate(zip(pixels, digits.target, strict=True)):
            class_dir = staging / str(label)
            class_dir.mkdir(exist_ok=True)
            Image.fromarray(image).save(class_dir / f"{index:04d}.png")
    return len(pixels)
