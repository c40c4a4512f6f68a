"""MNIST's IDX files (http://yann.lecun.com/exdb/mnist, "File formats"): pictures and labels as raw bytes."""

import gzip
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from toolkit.errors import UserError

_NAME = re.compile(r"(?P<stem>.*)(?P<kind>images|labels)(?P<idx>[-.]idx)(?P<rank>[134])(?P<rest>-ubyte(\.gz)?)$")
_UBYTE = 0x08
#: Deflate never expands more than this.
_MAX_GZIP_RATIO = 1032
#: Largest picture, in bytes: a header that announces more is damaged.
_MAX_PICTURE = 1 << 28
_MAX_EXAMPLES = 100_000_000


@dataclass(frozen=True)
class IdxPair:
    """A file of pictures and the file of their labels; ``split`` by the name, or empty."""

    images: Path
    labels: Path
    split: str = ""


def find_idx(folder: Path) -> list[IdxPair]:
    """The pairs in a folder, training and test; none where there are no such files.

    Raises:
        UserError: pictures without labels, or two pairs for one split.
    """
    pairs: dict[str, IdxPair] = {}
    for path in sorted(folder.iterdir()):
        match = _NAME.fullmatch(path.name)
        if not match or match["kind"] != "images" or (path.suffix == ".gz" and path.with_suffix("").exists()):
            continue
        split = "train" if "train" in match["stem"] else "test"
        if split in pairs:
            raise UserError(f"{folder}: both {pairs[split].images.name} and {path.name} are for {split}; name one file")
        pairs[split] = idx_pair(path, split)
    if set(pairs) == {"test"}:
        raise UserError(f"{folder}: {pairs['test'].images.name} is for testing, and nothing is there to train on")
    return [pairs[split] for split in ("train", "test") if split in pairs]


def is_idx_name(name: str) -> bool:
    """Tell if a file of this name claims to hold pictures as IDX.

    >>> is_idx_name("train-images-idx3-ubyte.gz"), is_idx_name("train-labels-idx1-ubyte.gz")
    (True, False)
    """
    match = _NAME.fullmatch(name)
    return match is not None and match["kind"] == "images"


def idx_pair(images: Path, split: str = "") -> IdxPair:
    """Find the file of labels beside a file of pictures."""
    match = _NAME.fullmatch(images.name)
    assert match is not None
    plain = f"{match['stem']}labels{match['idx']}1-ubyte"
    for name in (plain, f"{plain}.gz"):
        if images.with_name(name).is_file():
            return IdxPair(images, images.with_name(name), split)
    raise UserError(f"{images}: no {plain} beside it, which would hold the labels")


def read_idx(pair: IdxPair) -> Iterator[tuple[np.ndarray, int]]:
    """One picture after the other: uint8 (height, width) or (height, width, channels), and its label.

    What the headers announce is held against the files' sizes before any of it is allocated.

    Raises:
        UserError: not such files, damaged, or not as many pictures as labels.
    """
    with _opened(pair.images) as images, _opened(pair.labels) as labels:
        shape, label_shape = _header(images, pair.images), _header(labels, pair.labels)
        if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)) or len(label_shape) != 1:
            raise UserError(f"{pair.images}: expected grey or RGB pictures and labels, got {shape}, {label_shape}")
        if shape[0] != label_shape[0]:
            raise UserError(f"{pair.images}: {shape[0]:,} pictures but {label_shape[0]:,} labels in {pair.labels.name}")
        size = int(np.prod(shape[1:]))
        for _ in range(shape[0]):
            picture, label = _take(images, size, pair.images), _take(labels, 1, pair.labels)
            yield np.frombuffer(picture, np.uint8).reshape(shape[1:]), label[0]


def _opened(path: Path) -> IO[bytes]:
    try:
        return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def _header(stream: IO[bytes], path: Path) -> tuple[int, ...]:
    magic = _take(stream, 4, path)
    if magic[:2] != b"\0\0" or magic[2] != _UBYTE:
        raise UserError(f"{path}: not an IDX file of unsigned bytes")
    shape = tuple(int(n) for n in np.frombuffer(_take(stream, 4 * magic[3], path), ">u4"))
    available = path.stat().st_size * (_MAX_GZIP_RATIO if path.suffix == ".gz" else 1)
    announced = math.prod(shape)
    if not shape or announced > available or announced // max(shape[0], 1) > _MAX_PICTURE or shape[0] > _MAX_EXAMPLES:
        raise UserError(f"{path}: announces {' × '.join(map(str, shape))} bytes, more than the file can hold")
    return shape


def _take(stream: IO[bytes], size: int, path: Path) -> bytes:
    try:
        data = stream.read(size)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: damaged ({error})") from None
    if len(data) < size:
        raise UserError(f"{path}: truncated")
    return data
