"""Helpers of the tests of the feature cache."""

import hashlib

import lmdb
import numpy as np

from toolkit.spec import Preprocessing
from toolkit.transfer.cache import FORMAT_VERSION, FeatureContext

CONTEXT = FeatureContext("net", "pool", (64,), "weights", "graph", Preprocessing(size=(8, 8)))


def vector(seed: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size).astype(np.float16)


def picture(content: str | bytes) -> bytes:
    return hashlib.sha256(content if isinstance(content, bytes) else content.encode()).digest()


def store_file(tmp_path):
    return tmp_path / "cache" / f"features-{FORMAT_VERSION}"


def rewrite(tmp_path, key, change):
    """Change an entry behind the cache's back."""
    environment = lmdb.open(str(store_file(tmp_path)), map_size=1 << 30, max_dbs=3)
    database = environment.open_db(b"features")
    with environment.begin(write=True, db=database) as write:
        write.put(key, change(bytearray(write.get(key))))
    environment.close()
