"""Features of a frozen network on disk, found by content.

A key is made of everything that changes the value: the frozen weights, the cut layer, the preprocessing, the view,
the stored dtype, the format's version, and the picture's own bytes. A renamed file is found again; other weights or
another cut never are.
"""

import hashlib
import json
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import lmdb
import numpy as np

from toolkit.spec import Preprocessing

FORMAT_VERSION = 1

_HEADER = struct.Struct("<I")  # crc32 of the payload
_MAP_SIZE = 1 << 38  # address space, not disk: LMDB's file grows with its content

# LMDB refuses to open an environment twice in one process, so caches in one directory share it.
_LOCK = threading.Lock()
_ENVIRONMENTS: dict[Path, lmdb.Environment] = {}
_NUM_USERS: Counter[Path] = Counter()


class FeatureCache:
    """Feature vectors in an LMDB environment: safe for several processes and threads, whole after a kill.

    A write is one transaction: it is there entirely or not at all. A damaged entry fails its checksum and counts
    as missing.

    Args:
        directory: created if need be; shared by all networks and data sets.
        context: everything but the picture that the features depend on, from ``feature_context``.
    """

    def __init__(self, directory: str | Path, context: str) -> None:
        path = Path(directory)
        path.mkdir(parents=True, exist_ok=True)
        self._path = path.resolve()
        self._closed = False
        with _LOCK:
            if self._path not in _ENVIRONMENTS:
                _ENVIRONMENTS[self._path] = lmdb.open(str(path), map_size=_MAP_SIZE, subdir=True, max_readers=512)
            _NUM_USERS[self._path] += 1
            self._environment = _ENVIRONMENTS[self._path]
        self._context = context.encode()

    def key(self, content: bytes) -> bytes:
        """The key of a picture, given its encoded bytes."""
        return hashlib.sha256(self._context + hashlib.sha256(content).digest()).digest()

    def get(self, keys: Iterable[bytes]) -> dict[bytes, np.ndarray]:
        """float16 features of those keys that are there and whole."""
        found: dict[bytes, np.ndarray] = {}
        with self._environment.begin() as transaction:
            for key in keys:
                features = _unpack(transaction.get(key))
                if features is not None:
                    found[key] = features
        return found

    def put(self, features: Mapping[bytes, np.ndarray]) -> None:
        """Store features as float16, all of them or none."""
        with self._environment.begin(write=True) as transaction:
            for key, value in features.items():
                payload = np.asarray(value, np.float16).tobytes()
                transaction.put(key, _HEADER.pack(zlib.crc32(payload)) + payload)

    def __len__(self) -> int:
        return self._environment.stat()["entries"]

    def close(self) -> None:
        """Release the files; closing twice does nothing."""
        with _LOCK:
            if self._closed:
                return
            self._closed = True
            _NUM_USERS[self._path] -= 1
            if not _NUM_USERS[self._path]:
                _ENVIRONMENTS.pop(self._path).close()


def feature_context(weights_digest: str, cut: str, preprocessing: Preprocessing, *, view: str = "plain") -> str:
    """Digest of what features depend on beside the picture."""
    document = [FORMAT_VERSION, weights_digest, cut, preprocessing.as_dict(), view, "float16"]
    return hashlib.sha256(json.dumps(document).encode()).hexdigest()


def _unpack(entry: bytes | None) -> np.ndarray | None:
    if entry is None or len(entry) < _HEADER.size:
        return None
    payload = entry[_HEADER.size :]
    if zlib.crc32(payload) != _HEADER.unpack_from(entry)[0]:
        return None
    return np.frombuffer(payload, np.float16)
