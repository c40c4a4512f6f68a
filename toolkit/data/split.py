"""Stratified, seeded splits into training, validation and test pictures."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from toolkit.data.folder import ImageFolder
from toolkit.spec import UserError


@dataclass(frozen=True)
class Subset:
    """Part of a folder: ``paths`` are absolute, ``labels`` index the folder's class names."""

    paths: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class Split:
    """Three disjoint subsets; ``test`` is empty where a folder came with ``train`` and ``val`` only."""

    train: Subset
    val: Subset
    test: Subset

    @property
    def held_out(self) -> tuple[str, Subset]:
        """Name and pictures of the subset that final figures are measured on."""
        return ("test", self.test) if len(self.test) else ("val", self.val)

    def as_dict(self, root: Path) -> dict[str, list[str]]:
        """Paths relative to ``root``, by subset."""
        subsets = {"train": self.train, "val": self.val, "test": self.test}
        base = root.absolute()
        return {name: [Path(p).relative_to(base).as_posix() for p in s.paths] for name, s in subsets.items()}


def default_fractions(num_examples: int) -> tuple[float, float, float]:
    """Shares of training, validation and test: 60/20/20 up to 10,000 examples, 98/1/1 from a million, between
    them the held-out shares fall with the logarithm.

    >>> default_fractions(1797), default_fractions(2_000_000)
    ((0.6, 0.2, 0.2), (0.98, 0.01, 0.01))
    """
    progress = min(1.0, max(0.0, (math.log10(max(num_examples, 1)) - 4) / 2))
    held_out = round(0.2 * (0.01 / 0.2) ** progress, 4)
    return round(1 - 2 * held_out, 4), held_out, held_out


def split_folder(folder: ImageFolder, *, fractions: tuple[float, float, float] | None = None, seed: int = 0) -> Split:
    """Divide every class in the same shares, shuffled by ``seed``; a folder that comes split stays as it is,
    except that a missing ``val`` is taken from its ``train``.

    Args:
        folder: a scanned folder.
        fractions: training, validation and test shares, summing to 1; by default ``default_fractions``.
        seed: same files and seed, same split.

    Raises:
        UserError: a class has fewer than three pictures, or none to train on, or the shares do not sum to 1.
    """
    fractions = fractions or default_fractions(len(folder))
    if abs(sum(fractions) - 1) > 1e-6 or min(fractions) < 0 or fractions[0] == 0 or fractions[1] == 0:
        raise UserError(f"split shares must be positive (test may be 0) and sum to 1, got {fractions}")
    labels = np.asarray(folder.labels)
    if not folder.splits:
        train, val, test = _stratified(folder, np.arange(len(folder)), labels, fractions, seed)
        return Split(_subset(folder, train), _subset(folder, val), _subset(folder, test))
    given = np.asarray(folder.splits)
    train, val, test = (np.flatnonzero(given == name) for name in ("train", "val", "test"))
    if not len(val):
        val_share = fractions[1] / (fractions[0] + fractions[1])
        train, val, _ = _stratified(folder, train, labels, (1 - val_share, val_share, 0.0), seed)
    untrained = [name for label, name in enumerate(folder.class_names) if label not in labels[train]]
    if untrained:
        raise UserError(f"{folder.root}: class {untrained[0]!r} has no readable pictures to train on")
    return Split(_subset(folder, train), _subset(folder, val), _subset(folder, test))


def _stratified(folder: ImageFolder, indices: np.ndarray, labels: np.ndarray, fractions, seed: int):
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    rng = np.random.default_rng(seed)
    for label, name in enumerate(folder.class_names):
        members = rng.permutation(indices[labels[indices] == label])
        num_held_out = [max(1, round(len(members) * share)) if share else 0 for share in fractions[1:]]
        num_train = len(members) - sum(num_held_out)
        if num_train < 1:
            raise UserError(
                f"{folder.root}: class {name!r} has {len(members)} readable pictures; "
                f"at least {sum(num_held_out) + 1} are needed to split it"
            )
        bounds = np.cumsum([num_train, num_held_out[0]])
        for part, chosen in zip(parts, np.split(members, bounds), strict=True):
            part.extend(int(i) for i in chosen)
    return tuple(np.sort(np.asarray(part, dtype=int)) for part in parts)


def _subset(folder: ImageFolder, indices: np.ndarray) -> Subset:
    return Subset(
        paths=tuple(str((folder.root / folder.paths[i]).absolute()) for i in indices),
        labels=tuple(folder.labels[i] for i in indices),
    )
