"""Equal and nearly equal pictures, found without comparing each with every other."""

import numpy as np

#: Of 256 perceptual bits, two copies of one photograph (another size, crop by a hair, compression, brightness or
#: colour) differ in at most this many. Set by eye on CIFAR-10, where all pairs below it were the same photograph.
MAX_DISTANCE = 40
#: A picture that is mostly one flat colour has less to be told by: two handwritten ones differ in twenty bits.
MAX_DISTANCE_FLAT = 12
#: Share of one grey value from which a picture counts as flat.
FLAT = 0.3
#: Pictures smaller than this, in pixels, are compared byte by byte only.
MIN_SIDE = 16

_NUM_TABLES = 16
# In a run of pictures that agree in a table's bits each meets this many of its neighbours. Longer runs are rows of
# like pictures, the frames of a film perhaps, and groups form along the chain.
_MAX_RUN = 64
_LOW_BITS = 0x00FF_00FF_00FF_00FF  # of the first two words: the 8 lowest frequencies of each of 8 rows


def equal_groups(facts: np.ndarray) -> list[np.ndarray]:
    """Indices of pictures with equal bytes, by group, from rows of ``toolkit.data.scan.facts.FACTS``."""
    _, inverse = np.unique(facts["digest"], axis=0, return_inverse=True)
    return _groups(inverse.ravel())


def near_pairs(facts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of pictures that look the same but differ in their bytes; each byte-equal set counts once.

    Candidates agree in some of sixteen seeded samples of their 64 lowest frequencies (locality-sensitive hashing,
    Indyk and Motwani 1998, section 4), so the work grows with n log n; all 256 bits then decide.

    Returns:
        Indices, int of shape (pairs, 2), and for each pair how different it is: 0 for no bit, 1 for as many as can be.
    """
    _, first = np.unique(facts["digest"], axis=0, return_index=True)
    is_comparable = facts["phash"].any(axis=1) & (np.minimum(facts["height"], facts["width"]) >= MIN_SIDE)
    chosen = np.sort(first[is_comparable[first]])
    if len(chosen) < 2:
        return np.empty((0, 2), np.int32), np.empty(0, np.float32)
    hashes, is_flat = facts["phash"][chosen], facts["flat"][chosen] >= FLAT
    found = [_close_pairs(hashes, is_flat, mask) for mask in _masks(len(chosen))]
    pairs, differences = (np.concatenate(column) for column in zip(*found, strict=True))
    return chosen[pairs].astype(np.int32), differences


def _masks(num_pictures: int) -> np.ndarray:
    """Samples of the low frequencies, longer for more pictures, so that runs stay short; uint64 (tables, 2)."""
    num_bits = int(np.clip(np.log2(num_pictures) + 2, 10, 28))
    low = np.flatnonzero(np.unpackbits(np.array([_LOW_BITS, _LOW_BITS], np.uint64).view(np.uint8)))
    rng = np.random.default_rng(0)
    masks = np.zeros((_NUM_TABLES, 128), np.uint8)
    for mask in masks:
        mask[rng.choice(low, num_bits, replace=False)] = 1
    return np.packbits(masks, axis=1).view(np.uint64)


def _close_pairs(hashes: np.ndarray, is_flat: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that agree under ``mask`` and in nearly all bits, and their differences."""
    keys = hashes[:, :2] & mask
    order = np.lexsort((*hashes.T, *keys.T))  # the last keys count first
    keys = keys[order]
    pairs, differences = [np.empty((0, 2), np.int32)], [np.empty(0, np.float32)]
    left = np.arange(len(order) - 1)
    for step in range(1, _MAX_RUN + 1):
        left = left[left + step < len(order)]
        left = left[(keys[left] == keys[left + step]).all(axis=1)]
        if not len(left):
            break
        a, b = order[left], order[left + step]
        limit = np.where(is_flat[a] | is_flat[b], MAX_DISTANCE_FLAT, MAX_DISTANCE)
        distance = np.bitwise_count(hashes[a] ^ hashes[b]).sum(axis=1)
        is_near = distance <= limit
        pairs.append(np.stack([a, b], axis=1)[is_near].astype(np.int32))
        differences.append((distance / limit)[is_near].astype(np.float32))
    return np.concatenate(pairs), np.concatenate(differences)


def linked_groups(pairs: np.ndarray, num_nodes: int) -> list[np.ndarray]:
    """Indices below ``num_nodes`` by group, of those that pairs link to others, directly or along a chain."""
    return _groups(components(pairs, num_nodes))


def components(pairs: np.ndarray, num_nodes: int) -> np.ndarray:
    """Number of the group that each index below ``num_nodes`` is in; most are alone in theirs."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(num_nodes, num_nodes))
    return connected_components(graph, directed=False)[1]


def _groups(component: np.ndarray) -> list[np.ndarray]:
    """Indices by component, of components with more than one member, in the order of their first members."""
    order = np.argsort(component, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(component[order])) + 1)
    return sorted((group for group in groups if len(group) > 1), key=lambda group: int(group[0]))
