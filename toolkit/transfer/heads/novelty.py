"""Novelty of a picture: how far its features are from those of every class, beside what a classifier answers.

A classifier divides all pictures among its classes, and is sure of many that belong to none: far from the pictures
that taught it, its probabilities say nothing. The distance of features does. Of the scores compared in
``benchmarks/unknown.py`` the simplest is among the best: the distance to the nearest class mean, of features at unit
length.
"""

import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolkit.bundle import NOVELTY_FILE, Manifest, verify_files
from toolkit.errors import UserError
from toolkit.transfer.heads.feature_set import normalize_rows
from toolkit.transfer.heads.folds import NUM_FOLDS, assign_folds, num_lots

#: Share of pictures of the classes that may be taken for novel, and how sure that is.
REFUSED, CONFIDENCE = 0.05, 0.9

_CHUNK = 4096  # pictures at a time
_SMALLEST = 1e-3  # of a threshold: a distance is a difference of numbers near 1, rounded as such


@dataclass(frozen=True)
class Novelty:
    """The distance to the nearest class mean, relative to the one up to which a picture counts as of the classes.

    The least of ``features @ kernel + bias`` for features at unit length: 1 at that distance, and more beyond it.

    Attributes:
        kernel: float32 (width, classes).
        bias: float32 (classes,).
        num_judged: pictures whose distances, out of fold, gave the threshold.
        refused: share of them beyond it.
    """

    kernel: np.ndarray
    bias: np.ndarray
    num_judged: int
    refused: float

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Compute from features, (pictures, width), the novelty of each picture, float32 (pictures,)."""
        parts = [(rows @ self.kernel + self.bias).min(axis=1) for rows in _unit_rows(features)]
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    def write(self, path: Path) -> None:
        """Write a NumPy archive."""
        content = io.BytesIO()
        np.savez(content, kernel=self.kernel, bias=self.bias, judged=[self.num_judged, self.refused])
        path.write_bytes(content.getvalue())

    @classmethod
    def read(cls, path: Path) -> "Novelty":
        """Read what ``write`` wrote.

        Raises:
            UserError: the file is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                num_judged, refused = file["judged"].tolist()
                return cls(file["kernel"], file["bias"], int(num_judged), refused)
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: damaged ({error}); copy the bundle again") from None

    @classmethod
    def of_bundle(cls, version_dir: Path, manifest: Manifest) -> "Novelty | None":
        """Read the novelty that a bundle's forms answer; None where they answer none.

        Raises:
            UserError: its file is missing or fails its checksum.
        """
        if NOVELTY_FILE not in manifest.files:
            return None
        verify_files(version_dir, manifest, (NOVELTY_FILE,))
        return cls.read(version_dir / NOVELTY_FILE)


def fit_novelty(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    *,
    lots: np.ndarray | None = None,
    held_out: np.ndarray | None = None,
) -> Novelty | None:
    """Fit class means on all pictures, and the threshold on distances to means that a picture had no part in.

    The threshold is the least one beyond which, with a confidence of ``CONFIDENCE``, lies at most the share ``REFUSED``
    of pictures like these: few pictures give a wider one (Wilks, *Determination of sample sizes for setting tolerance
    limits*, 1941). Where they are too few for any, it is the largest distance.

    Args:
        features: pooled, float (pictures, width); may lie on disk.
        labels: integer class per picture.
        num_classes: each has at least one picture.
        lots: number of each picture's lot, which no fold divides; by default each is its own.
        held_out: features of further pictures of the classes, for a network that was trained on ``features``'
            pictures and knows them better than others: the threshold is from their distances then.

    Returns:
        None where no picture can be judged: none is held out, and no class has two lots.
    """
    labels = np.asarray(labels)
    lots = np.arange(len(labels)) if lots is None else np.asarray(lots)
    folds = assign_folds(labels, lots)
    sums, counts = _sums(features, labels, folds, num_classes)
    means = sums.sum(axis=0) / counts.sum(axis=0)[:, None]
    if held_out is not None:
        judging = _distances(held_out, means)
    else:
        judging = _out_of_fold(features, sums, counts, folds)[num_lots(labels, lots, num_classes)[labels] > 1]
    if not len(judging):
        return None
    beyond = _num_beyond(len(judging))
    threshold = float(np.sort(judging)[-1 - beyond])
    kernel, bias = _linear(means)
    scale = np.float32(1 / max(threshold, _SMALLEST))
    return Novelty(kernel * scale, bias * scale, len(judging), beyond / len(judging))


def _out_of_fold(features: np.ndarray, sums: np.ndarray, counts: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Distances to means of the other folds; ``sums`` and ``counts`` are those of ``_sums``."""
    distances = np.empty(len(folds), np.float32)
    for fold in range(NUM_FOLDS):
        held_out = np.flatnonzero(folds == fold)
        known = counts.sum(axis=0) > counts[fold]
        means = (sums.sum(axis=0) - sums[fold])[known] / (counts.sum(axis=0) - counts[fold])[known, None]
        for start in range(0, len(held_out) if known.any() else 0, _CHUNK):
            rows = held_out[start : start + _CHUNK]
            distances[rows] = _distances(features[rows], means)
    return distances


def _num_beyond(count: int) -> int:
    """Find how many of ``count`` pictures may lie beyond a threshold.

    >>> [_num_beyond(count) for count in (10, 45, 100, 244, 1000)]
    [0, 0, 1, 7, 40]
    """
    from scipy.stats import binom

    return max(0, int(binom.ppf(1 - CONFIDENCE, count, REFUSED)) - 1)


def _linear(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Write squared distances of unit vectors to means as a kernel and a bias. A vector of zeros counts as such."""
    return (-2 * means.T).astype(np.float32), (1 + np.square(means).sum(axis=1)).astype(np.float32)


def _distances(features: np.ndarray, means: np.ndarray) -> np.ndarray:
    kernel, bias = _linear(means)
    return (normalize_rows(features.astype(np.float32)) @ kernel + bias).min(axis=1)


def _sums(features: np.ndarray, labels: np.ndarray, folds: np.ndarray, num_classes: int) -> tuple[np.ndarray, ...]:
    """Sums of unit features by fold and class, and how many they are."""
    sums = np.zeros((NUM_FOLDS, num_classes, features.shape[1]))
    counts = np.zeros((NUM_FOLDS, num_classes), int)
    start = 0
    for rows in _unit_rows(features):
        part = slice(start, start + len(rows))
        np.add.at(sums, (folds[part], labels[part]), rows)
        np.add.at(counts, (folds[part], labels[part]), 1)
        start += len(rows)
    return sums, counts


def _unit_rows(features: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(features), _CHUNK):
        yield normalize_rows(features[start : start + _CHUNK].astype(np.float32))
