"""The pictures of a compression, divided into those that calibrate, train on, choose and judge."""

from dataclasses import dataclass

import numpy as np

from toolkit.bundle import Pictures, picture_digests
from toolkit.data import ImageFolder, Split, split_folder
from toolkit.data.feed.split import Subset, subset_of


@dataclass(frozen=True)
class DividedPictures:
    """The pictures, divided as the bundle's were.

    Attributes:
        calibration: those that taught the network.
        training: those that train it on.
        choosing: those that choose among epochs.
        judging: those that are reported on.
        words: says what ``judging`` is.
        unseen: it is known that none of ``judging`` taught the bundle.
    """

    calibration: Subset
    training: Subset
    choosing: Subset
    judging: Subset
    words: str
    unseen: bool = False


def divide(folder: ImageFolder, known: Pictures | None) -> DividedPictures:
    """Report on what the bundle did not learn from; where there is nothing, on what does not train it on."""
    if known is not None:
        digests = picture_digests([folder.root / path for path in folder.paths])
        taught, chose = (np.isin(digests, list(known[name])) for name in ("train", "val"))
        others = ~taught & ~chose
        unseen = others if others.any() else chose & ~taught
        if taught.any() and unseen.any():
            training, own_val = subset_of(folder, np.flatnonzero(taught)), np.flatnonzero(chose & ~taught)
            parts = (
                (training, subset_of(folder, own_val)) if others.any() and len(own_val) else _fifth_chooses(training)
            )
            judging = subset_of(folder, np.flatnonzero(unseen))
            words = f"{len(judging):,} pictures that did not teach the bundle"
            return DividedPictures(training, *parts, judging, words, unseen=True)
    split = split_folder(folder)
    judging = split.held_out[1]
    if known is None or not taught.any():
        words = f"{len(judging):,} held-out pictures; it is not known which pictures taught the bundle"
        return DividedPictures(split.train, *training_parts(split), judging, words)
    words = f"{len(judging):,} pictures that taught the bundle, like all others: look at the change, not at the level"
    return DividedPictures(subset_of(folder, np.flatnonzero(taught)), *training_parts(split), judging, words)


def training_parts(split: Split) -> tuple[Subset, Subset]:
    """Divide the pictures into those to train on and those that choose among epochs; none of them is reported on.

    A folder that came with ``train`` and ``val`` only is judged on ``val``, so every fifth training picture chooses.
    """
    return (split.train, split.val) if len(split.test) else _fifth_chooses(split.train)


def _fifth_chooses(training: Subset) -> tuple[Subset, Subset]:
    choosing = range(0, len(training), 5)
    kept = sorted(set(range(len(training))) - set(choosing))
    return training.picked(kept), training.picked(choosing)
