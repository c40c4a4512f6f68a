"""Novelty of a picture: how far its features are from those of every class, beside what a classifier answers.

A classifier divides all pictures among its classes, and is sure of many that belong to none: far from the pictures
that taught it, its probabilities say nothing. The distance of features does: to the nearest class mean, of features at
unit length, where a step along a direction in which pictures of one class differ counts less: Mahalanobis' (Lee, Lee,
Lee and Shin, A simple unified framework for detecting out-of-distribution samples and adversarial attacks, NeurIPS
2018). ``benchmarks/unknown.py`` compares scores.
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

_CHUNK = 4096  # pictures at a time, and from which directions are found
_DIRECTIONS = 32  # in which pictures of a class differ most
#: The covariance of pictures around their class means, beyond those directions that of a sphere, is mixed with this
#: share of one whose variance is that of all, divided by so many dimensions.
_SPHERE, _DIMENSIONS = 0.3, 100
_NOISE = 1e-4  # least variance along a direction: what computing in bfloat16 makes of features
_SMALLEST = 1e-3  # of a threshold: a distance is a difference of numbers near 1, rounded as such


@dataclass(frozen=True)
class Novelty:
    """The distance to the nearest class mean, relative to the one up to which a picture counts as of the classes.

    The least of ``features @ kernel + bias`` for features at unit length, less the sum of the squares of ``features @
    along``: 1 at that distance, and more beyond it.

    Attributes:
        kernel: float32 (width, classes).
        bias: float32 (classes,).
        along: float32 (width, directions); of no direction in older files and for pictures that are all alike.
        num_judged: pictures whose distances, out of fold, gave the threshold.
        refused: share of them beyond it.
    """

    kernel: np.ndarray
    bias: np.ndarray
    along: np.ndarray
    num_judged: int
    refused: float

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Compute from features, (pictures, width), the novelty of each picture, float32 (pictures,)."""
        parts = [_nearest(rows, self.kernel, self.bias, self.along) for rows in _unit_rows(features)]
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    def write(self, path: Path) -> None:
        """Write a NumPy archive."""
        content = io.BytesIO()
        np.savez(content, kernel=self.kernel, bias=self.bias, along=self.along, judged=[self.num_judged, self.refused])
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
                kernel = file["kernel"]
                along = file["along"] if "along" in file else np.zeros((len(kernel), 0), np.float32)
                return cls(kernel, file["bias"], along, int(num_judged), refused)
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
    some = np.linspace(0, len(labels) - 1, min(len(labels), _CHUNK)).astype(int)
    shown = normalize_rows(features[some].astype(np.float32))
    along = _directions(shown - means[labels[some]])
    if held_out is not None:
        judging = _distances(held_out, means, along)
    else:
        sample = shown, labels[some], folds[some]
        judging = _out_of_fold(features, sums, counts, folds, sample)
        judging = judging[num_lots(labels, lots, num_classes)[labels] > 1]
    if not len(judging):
        return None
    beyond = _num_beyond(len(judging))
    threshold = float(np.sort(judging)[-1 - beyond])
    kernel, bias = _linear(means, along)
    scale = np.float32(1 / max(threshold, _SMALLEST))
    return Novelty(kernel * scale, bias * scale, along * np.sqrt(scale), len(judging), beyond / len(judging))


def _out_of_fold(
    features: np.ndarray,
    sums: np.ndarray,
    counts: np.ndarray,
    folds: np.ndarray,
    sample: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> np.ndarray:
    """Distances to means of the other folds, along directions found there.

    ``sums`` and ``counts`` are those of ``_sums``; ``sample`` has features at unit length, their labels and folds.
    """
    distances = np.empty(len(folds), np.float32)
    shown, classes, of_shown = sample
    for fold in range(NUM_FOLDS):
        held_out = np.flatnonzero(folds == fold)
        known = counts.sum(axis=0) > counts[fold]
        if not len(held_out) or not known.any():
            continue
        rest = (counts.sum(axis=0) - counts[fold])[:, None]
        means = (sums.sum(axis=0) - sums[fold]) / np.maximum(rest, 1)
        others = of_shown != fold
        along = _directions(shown[others] - means[classes[others]])
        for start in range(0, len(held_out), _CHUNK):
            rows = held_out[start : start + _CHUNK]
            distances[rows] = _distances(features[rows], means[known], along)
    return distances


def _directions(away: np.ndarray) -> np.ndarray:
    """Find directions in which pictures differ most from their class means, (pictures, width), as (width, directions).

    Their length is the root of the share by which the square of a step along each counts less.
    """
    from sklearn.utils.extmath import randomized_svd

    total = float(np.square(away).sum()) / max(len(away), 1)
    if total < _SMALLEST**2:  # pictures that are all alike
        return np.zeros((away.shape[1], 0), np.float32)
    number = min(_DIRECTIONS, *away.shape)
    _, lengths, directions = randomized_svd(np.asarray(away, np.float32), number, random_state=0)
    floor = max(_SPHERE * total / _DIMENSIONS, _NOISE)
    less = 1 - floor / ((1 - _SPHERE) * np.square(lengths) / len(away) + floor)
    return np.asarray(directions * np.sqrt(less)[:, None], np.float32).T


def _num_beyond(count: int) -> int:
    """Find how many of ``count`` pictures may lie beyond a threshold.

    >>> [_num_beyond(count) for count in (10, 45, 100, 244, 1000)]
    [0, 0, 1, 7, 40]
    """
    from scipy.stats import binom

    return max(0, int(binom.ppf(1 - CONFIDENCE, count, REFUSED)) - 1)


def _linear(means: np.ndarray, along: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Write squared distances of unit vectors to means as a kernel and a bias. A vector of zeros counts as such.

    Less what the squares of ``along`` have of a vector's own, see ``Novelty``.
    """
    turned = means - means @ along @ along.T
    return (-2 * turned.T).astype(np.float32), (1 + (means * turned).sum(axis=1)).astype(np.float32)


def _nearest(rows: np.ndarray, kernel: np.ndarray, bias: np.ndarray, along: np.ndarray) -> np.ndarray:
    return (rows @ kernel + bias).min(axis=1) - np.square(rows @ along).sum(axis=1)


def _distances(features: np.ndarray, means: np.ndarray, along: np.ndarray) -> np.ndarray:
    return _nearest(normalize_rows(features.astype(np.float32)), *_linear(means, along), along)


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
