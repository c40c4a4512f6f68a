"""Pictures that must not be divided: of one group, with equal bytes, or so alike that one gives the other away."""

from dataclasses import dataclass

import numpy as np

from toolkit.data.scan.duplicates import components
from toolkit.data.scan.folder import ImageFolder

#: Look-alikes in one lot stay together up to this share of a class, or this many …
_MAX_SHARE, _MAX_LOT = 0.2, 10
#: … and a larger lot, such as a film's frames, is taken apart where its pictures differ by more than these shares of
#: what counts as alike. At the last only equal bytes are left.
_TIGHTER = (0.5, 0.25, 0.125, -1.0)


@dataclass(frozen=True)
class Lots:
    """Indivisible lots of pictures.

    Attributes:
        lot_of: number of each picture's lot, counted from 0 in the order of their first pictures.
        num_copies: pictures in lots of several because of equal bytes or likeness.
        num_parted: pictures with a look-alike in another lot, because one lot would have been too large.
    """

    lot_of: np.ndarray
    num_copies: int
    num_parted: int


def find_lots(folder: ImageFolder, indices: np.ndarray, min_lots: int) -> Lots:
    """Put the pictures at ``indices`` into lots, so that each class is in ``min_lots`` of them if likeness allows."""
    count = len(indices)
    named = _links([folder.groups[i] for i in indices] if folder.groups else [""] * count)
    if folder.facts is None:
        return Lots(_in_order(components(named, count)), 0, 0)
    equal = _links([digest.tobytes() for digest in folder.facts["digest"][indices]])
    sure = np.concatenate([named, equal])
    near, differences = _within(folder, indices)
    labels = np.asarray(folder.labels)[indices]
    loose = near
    lots = components(np.concatenate([sure, loose]), count)
    for limit in _TIGHTER:
        is_tight = _too_large(lots, labels, min_lots)
        kept = ~(is_tight[loose[:, 0]] & (differences > limit))
        loose, differences = loose[kept], differences[kept]
        lots = components(np.concatenate([sure, loose]), count)
    lots = _in_order(lots)
    copies = np.unique(np.concatenate([equal, loose]))
    return Lots(lots, len(copies), len(np.unique(near[lots[near[:, 0]] != lots[near[:, 1]]])))


def num_repeated(folder: ImageFolder, held_out: np.ndarray, taught: np.ndarray) -> int:
    """Count the pictures at ``held_out`` that have the bytes of one at ``taught``, or look like one."""
    if folder.facts is None:
        return 0
    content = np.unique(folder.facts["digest"], axis=0, return_inverse=True)[1].ravel()
    pairs = content[folder.near_pairs[0]].reshape(-1, 2)
    known = content[taught]
    alike = [pairs[np.isin(pairs[:, end], known), 1 - end] for end in (0, 1)]
    return int(np.isin(content[held_out], np.concatenate([known, *alike])).sum())


def _within(folder: ImageFolder, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Near pairs within ``indices``, as positions there. Any of equal pictures stands for all of them."""
    pairs, differences = folder.near_pairs
    position = np.full(len(folder), -1)
    position[indices] = np.arange(len(indices))
    assert folder.facts is not None
    _, first, inverse = np.unique(folder.facts["digest"], axis=0, return_index=True, return_inverse=True)
    stand_in = np.full(len(first), -1)
    stand_in[inverse.ravel()[indices][::-1]] = indices[::-1]  # the first of those at hand
    chosen = stand_in[inverse.ravel()[pairs]]
    is_here = (chosen >= 0).all(axis=1)
    return position[chosen[is_here]], differences[is_here]


def _too_large(lots: np.ndarray, labels: np.ndarray, min_lots: int) -> np.ndarray:
    """Mark pictures in a lot that holds too much of a class, or in one of a class that is in too few lots."""
    is_tight = np.zeros(len(lots), bool)
    for label in np.unique(labels):
        members = lots[labels == label]
        sizes = np.bincount(members, minlength=lots.max() + 1)
        too_large = sizes > max(_MAX_LOT, _MAX_SHARE * len(members))
        if np.count_nonzero(sizes) < min_lots:
            too_large = sizes > 0
        is_tight |= too_large[lots]
    return is_tight


def _links(names: list) -> np.ndarray:
    """Pairs of neighbours among those of equal, non-empty names: int (pairs, 2)."""
    last: dict = {}
    pairs = []
    for index, name in enumerate(names):
        if name and name in last:
            pairs.append((last[name], index))
        last[name] = index
    return np.array(pairs, np.int32).reshape(-1, 2)


def _in_order(lots: np.ndarray) -> np.ndarray:
    _, first, inverse = np.unique(lots, return_index=True, return_inverse=True)
    rank = np.empty(len(first), int)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]
