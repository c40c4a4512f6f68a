"""The notes' X-or-O network worked by hand: three filters, ReLU, two poolings and votes, each map to be shown."""

from dataclasses import dataclass

import numpy as np

from toolkit.errors import UserError
from toolkit.models.baselines import XO_FILTERS, XO_VOTES

SIDE = 9
STROKE, GROUND = "#", "."
#: Of the notes: a clear X, a crooked one, and an O.
SAMPLES = {
    "X": ".........|.#.....#.|..#...#..|...#.#...|....#....|...#.#...|..#...#..|.#.....#.|.........",
    "crooked X": ".........|......#..|.#...#...|..##.#...|....#....|...#.##..|...#...#.|..#......|.........",
    "O": ".........|...###...|..#...#..|.#.....#.|.#.....#.|.#.....#.|..#...#..|...###...|.........",
}
#: What each filter looks for.
FILTER_NAMES = ("stroke down to the right", "crossing", "stroke up to the right")


@dataclass(frozen=True)
class Worked:
    """A board's way through the network; maps are (filter, row, column).

    Attributes:
        board: (9, 9) of 1 for strokes and -1 for ground.
        maps: mean of nine products at each place, (3, 7, 7).
        rectified: the same, nothing below zero.
        pooled: largest of each 2×2, the last windows partial, (3, 4, 4).
        last: largest of each 2×2 of these, (3, 2, 2).
        votes: of X and of O, (2,); each is the mean of what votes for it.
    """

    board: np.ndarray
    maps: np.ndarray
    rectified: np.ndarray
    pooled: np.ndarray
    last: np.ndarray
    votes: np.ndarray

    @property
    def answer(self) -> str:
        """X or O, or neither where the votes are equal."""
        for_x, for_o = self.votes
        return "" if abs(for_x - for_o) < 1e-9 else "X" if for_x > for_o else "O"


def read_board(text: object) -> np.ndarray:
    """Read a board from 81 characters, ``#`` for a stroke and ``.`` for ground, rows one after another.

    Raises:
        UserError: it is not that.
    """
    cells = text.replace("|", "") if isinstance(text, str) else ""
    if len(cells) != SIDE * SIDE or set(cells) - {STROKE, GROUND}:
        raise UserError(f"a board has {SIDE * SIDE} cells, each {STROKE!r} or {GROUND!r}; got {str(text)[:20]!r}")
    return np.where(np.array(list(cells)).reshape(SIDE, SIDE) == STROKE, 1.0, -1.0)


def work(board: np.ndarray) -> Worked:
    """Work a board of 1 and -1, (9, 9), through the network."""
    windows = np.lib.stride_tricks.sliding_window_view(board, (3, 3))
    maps = np.einsum("ijab,kab->kij", windows, np.array(XO_FILTERS, float)) / 9
    rectified = np.maximum(maps, 0)
    pooled = _pooled(rectified)
    last = _pooled(pooled)
    given = np.array(XO_VOTES, float)
    votes = (given * last).sum(axis=(1, 2, 3)) / given.sum(axis=(1, 2, 3))
    return Worked(board, maps, rectified, pooled, last, votes)


def _pooled(maps: np.ndarray) -> np.ndarray:
    """Take the largest of each 2×2; beyond the edge there is nothing larger than zero."""
    count, height, width = maps.shape
    padded = np.pad(maps, ((0, 0), (0, height % 2), (0, width % 2)))
    return padded.reshape(count, -(-height // 2), 2, -(-width // 2), 2).max(axis=(2, 4))
