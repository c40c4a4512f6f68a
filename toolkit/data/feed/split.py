"""Stratified, seeded splits into training, validation and test pictures."""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from toolkit.data.feed.together import Lots, find_lots, num_repeated
from toolkit.data.scan.folder import ImageFolder
from toolkit.data.sources.alike import alike_key
from toolkit.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subset:
    """Part of a folder: ``paths`` are absolute, ``labels`` index the folder's class names.

    ``skip_bad`` lets training go on without a picture that has become unreadable since the folder was scanned.
    """

    paths: tuple[str, ...]
    labels: tuple[int, ...]
    skip_bad: bool = False

    def __len__(self) -> int:
        return len(self.paths)

    def picked(self, indices: Iterable[int]) -> "Subset":
        """Some of its pictures, by their places in it."""
        indices = list(indices)
        return replace(self, paths=tuple(self.paths[i] for i in indices), labels=tuple(self.labels[i] for i in indices))


@dataclass(frozen=True)
class Split:
    """Three disjoint subsets; ``test`` is empty where a folder came with ``train`` and ``val`` only."""

    train: Subset
    val: Subset
    test: Subset

    def skipping_bad(self, skip_bad: bool) -> "Split":
        """The same subsets, with another ``skip_bad``."""
        return Split(*(replace(own, skip_bad=skip_bad) for own in (self.train, self.val, self.test)))

    @property
    def held_out(self) -> tuple[str, Subset]:
        """Name and pictures of the subset that final figures are measured on."""
        return ("test", self.test) if len(self.test) else ("val", self.val)

    def as_dict(self, root: Path) -> dict[str, list[str]]:
        """Paths relative to ``root``, where they are below it, by subset."""
        base = root.absolute()

        def relative(path: Path) -> Path:
            return path.relative_to(base) if path.is_relative_to(base) else path

        return {name: [relative(Path(p)).as_posix() for p in own.paths] for name, own in vars(self).items()}

    def counts(self, class_names: Sequence[str]) -> dict[str, dict[str, int]]:
        """Pictures per subset and class."""
        numbers = {name: np.bincount(own.labels or [], minlength=len(class_names)) for name, own in vars(self).items()}
        return {name: dict(zip(class_names, map(int, row), strict=True)) for name, row in numbers.items()}


def default_fractions(num_examples: int) -> tuple[float, float, float]:
    """Shares of training, validation and test: 60/20/20 up to 10,000 examples, 98/1/1 from a million, between
    them the held-out shares fall with the logarithm.

    >>> default_fractions(1797), default_fractions(2_000_000)
    ((0.6, 0.2, 0.2), (0.98, 0.01, 0.01))
    """
    progress = min(1.0, max(0.0, (math.log10(max(num_examples, 1)) - 4) / 2))
    held_out = round(0.2 * (0.01 / 0.2) ** progress, 4)
    return round(1 - 2 * held_out, 4), held_out, held_out


def class_weights(labels: Sequence[int], num_classes: int | None = None) -> dict[int, float]:
    """Weight of each class in the loss such that all count alike and the mean over the examples is 1.

    >>> class_weights([0, 0, 0, 1])
    {0: 0.6666666666666666, 1: 2.0}

    There are ``num_classes``, by default the largest label and one. A class without examples gets no weight.
    """
    counts = np.bincount(np.asarray(labels, int), minlength=num_classes or 0)
    present = np.flatnonzero(counts)
    return {int(label): float(counts.sum() / (len(present) * counts[label])) for label in present}


def split_folder(folder: ImageFolder, *, fractions: tuple[float, float, float] | None = None, seed: int = 0) -> Split:
    """Divide every class in the same shares, shuffled by ``seed``; a folder that comes split stays as it is,
    except that a missing ``val`` is taken from its ``train``. Pictures of one group stay together, and so do copies and
    look-alikes, which would flatter held-out figures; a line in the log says how many.

    Args:
        folder: a scanned folder.
        fractions: training, validation and test shares, summing to 1; by default ``default_fractions``. With groups
            they are met as nearly as the groups' sizes allow.
        seed: same files and seed, same split.

    Raises:
        UserError: a class has fewer than three pictures or groups, or none to train on, the shares do not sum to 1,
            or a group is in two of the given splits.
    """
    split, lots = divide_folder(folder, fractions=fractions, seed=seed)
    for remark in lots_remarks(lots):
        log.info(remark)
    return split


def divide_folder(
    folder: ImageFolder, *, fractions: tuple[float, float, float] | None = None, seed: int = 0
) -> tuple[Split, Lots | None]:
    """Do what ``split_folder`` does, and give the lots that were not divided; None where nothing had to be divided."""
    fractions = fractions or default_fractions(len(folder))
    if abs(sum(fractions) - 1) > 1e-6 or min(fractions) < 0 or fractions[0] == 0 or fractions[1] == 0:
        raise UserError(f"split shares must be positive (test may be 0) and sum to 1, got {fractions}")
    if not folder.splits:
        parts, divided = _divide(folder, np.arange(len(folder)), fractions, seed)
        return _split(folder, *parts), divided
    given = np.asarray(folder.splits)
    _require_groups_apart(folder)
    train, val, test = (np.flatnonzero(given == name) for name in ("train", "val", "test"))
    _require_train(folder, train)
    lots: Lots | None = None
    if not len(val):
        val_share = fractions[1] / (fractions[0] + fractions[1])
        (train, val, _), lots = _divide(folder, train, (1 - val_share, val_share, 0.0), seed)
    return _split(folder, train, val, test), lots


def teaching_split(folder: ImageFolder, *, keep_val: bool = False) -> tuple[Split, Lots]:
    """Let every picture teach but the test pictures of a folder that comes with some.

    Args:
        folder: a scanned folder.
        keep_val: hold the validation pictures out as well, where there are some.

    Returns:
        The split, its ``val`` empty unless kept, and the lots of its training pictures, which cross-validation must not
        divide.

    Raises:
        UserError: a class has no pictures to train on, or a group is in two of the given splits.
    """
    given = np.asarray(folder.splits) if folder.splits else np.full(len(folder), "train")
    _require_groups_apart(folder)
    val = np.flatnonzero(given == "val") if keep_val else np.empty(0, int)
    test = np.flatnonzero(given == "test")
    train = np.setdiff1d(np.arange(len(folder)), np.concatenate([val, test]))
    if folder.splits:
        _require_train(folder, train)
    return _split(folder, train, val, test), find_lots(folder, train, min_lots=2)


def lots_remarks(lots: Lots | None) -> list[str]:
    """Sentences on what a computed split keeps together, and on what it could not."""
    found = []
    if lots and lots.num_copies:
        found.append(f"{lots.num_copies:,} pictures are copies or look-alikes of others: each lot is in one subset")
    if lots and lots.num_parted:
        found.append(
            f"{lots.num_parted:,} pictures look like some in another subset, in lots too large to stay whole: held-out "
            "figures may flatter; name groups in a CSV file path,label,group to keep them apart"
        )
    return found


def repeats_remarks(folder: ImageFolder, *, keep_val: bool = False) -> list[str]:
    """Sentences on what ``teaching_split`` holds out although it repeats what teaches: figures on it would flatter."""
    if not folder.splits:
        return []
    is_held_out = np.isin(folder.splits, ["val", "test"] if keep_val else ["test"])
    held_out = np.flatnonzero(is_held_out)
    count = num_repeated(folder, held_out, np.flatnonzero(~is_held_out)) if len(held_out) else 0
    if not count:
        return []
    return [
        f"{count:,} of {len(held_out):,} held-out pictures are copies or look-alikes of pictures that teach: figures "
        "measured on them flatter; `toolkit check` names them"
    ]


def _split(folder: ImageFolder, train: np.ndarray, val: np.ndarray, test: np.ndarray) -> Split:
    trained = set(np.asarray(folder.labels)[train])
    untrained = [name for label, name in enumerate(folder.class_names) if label not in trained]
    if untrained:
        twin = next(
            (n for n in folder.class_names if n != untrained[0] and alike_key(n) == alike_key(untrained[0])), ""
        )
        hint = f"; it looks like {twin!r}, and --join-classes makes one class of them" if twin else ""
        raise UserError(f"{folder.root}: class {untrained[0]!r} has no readable pictures to train on{hint}")
    return Split(subset_of(folder, train), subset_of(folder, val), subset_of(folder, test))


def _divide(folder: ImageFolder, indices: np.ndarray, fractions, seed: int) -> tuple[list[np.ndarray], Lots]:
    lots = find_lots(folder, indices, sum(share > 0 for share in fractions))
    rng = np.random.default_rng(seed)
    if folder.groups or lots.lot_of.max(initial=-1) + 1 < len(indices):
        parts = _by_lot(folder, indices, lots, fractions, rng)
    else:
        parts = _by_class(folder, indices, fractions, rng)
    return [np.sort(np.asarray(part, dtype=int)) for part in parts], lots


def _by_class(folder: ImageFolder, indices: np.ndarray, fractions, rng: np.random.Generator) -> list[list[int]]:
    parts: list[list[int]] = [[], [], []]
    labels = np.asarray(folder.labels)
    for label, name in enumerate(folder.class_names):
        members = rng.permutation(indices[labels[indices] == label])
        num_held_out = [max(1, round(len(members) * share)) if share else 0 for share in fractions[1:]]
        num_train = len(members) - sum(num_held_out)
        if num_train < 1:
            reason = f"{len(members)} readable pictures; at least {sum(num_held_out) + 1} are needed to split it"
            raise UserError(f"{folder.root}: class {name!r} has {reason}")
        bounds = np.cumsum([num_train, num_held_out[0]])
        for part, chosen in zip(parts, np.split(members, bounds), strict=True):
            part.extend(int(i) for i in chosen)
    return parts


def _by_lot(
    folder: ImageFolder, indices: np.ndarray, lots: Lots, fractions, rng: np.random.Generator
) -> list[list[int]]:
    """Lots in falling size, equal ones shuffled, each to the part that lacks most of what the lot holds."""
    names: dict[int, str] = {}
    members: dict[str, list[int]] = {}
    for i, lot in zip(map(int, indices), map(int, lots.lot_of), strict=True):
        own = folder.groups[i] if folder.groups else ""
        members.setdefault(names.setdefault(lot, own or f"\0{folder.paths[i]}"), []).append(i)
    groups = [members[name] for name in sorted(members)]
    groups = [groups[i] for i in rng.permutation(len(groups))]
    counts = [np.bincount([folder.labels[i] for i in group], minlength=len(folder.class_names)) for group in groups]
    num_needed = sum(share > 0 for share in fractions)
    spread = np.sum([count > 0 for count in counts], axis=0)
    for label, name in enumerate(folder.class_names):
        if 0 < spread[label] < num_needed:
            if folder.groups:
                reason = f"is in fewer than {num_needed} groups, too few to split it"
            else:
                count = sum(int(own[label]) for own in counts)
                copies = f", of which {count - spread[label]} repeat others" if count > spread[label] else ""
                reason = f"has {count} readable pictures{copies}; at least {num_needed} are needed to split it"
            raise UserError(f"{folder.root}: class {name!r} {reason}")
    wanted = np.outer(fractions, np.sum(counts, axis=0))
    lacking = wanted.copy()
    parts: list[list[int]] = [[], [], []]
    for index in sorted(range(len(groups)), key=lambda i: -len(groups[i])):
        held = counts[index] > 0
        shares = np.where(wanted > 0, lacking / np.maximum(wanted, 1e-9), -np.inf)
        chosen = int(np.argmax(shares[:, held] @ counts[index][held]))
        parts[chosen].extend(groups[index])
        lacking[chosen] -= counts[index]
    return parts


def _require_train(folder: ImageFolder, train: np.ndarray) -> None:
    if not len(train):
        there = " and ".join(dict.fromkeys(folder.splits))
        raise UserError(
            f"{folder.root}: {there} but nothing to train on; name a folder train, or say --split-folders "
            "train=FOLDER, or --split-folders none for a new split of all pictures"
        )


def _require_groups_apart(folder: ImageFolder) -> None:
    split_of: dict[str, str] = {}
    for group, split in zip(folder.groups, folder.splits, strict=False):
        if group and split_of.setdefault(group, split) != split:
            raise UserError(f"{folder.root}: group {group!r} is in both {split_of[group]} and {split}")


def subset_of(folder: ImageFolder, indices: np.ndarray) -> Subset:
    """Take some of a folder's pictures, in the order of ``indices``."""
    paths = (str((folder.root / folder.paths[i]).absolute()) for i in indices)
    return Subset(tuple(paths), tuple(folder.labels[i] for i in indices))
