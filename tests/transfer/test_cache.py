"""The feature cache: whole after any kill, shared by processes and threads, found by content and context alone."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import lmdb
import numpy as np
import pytest

from toolkit.spec import Preprocessing
from toolkit.transfer.cache import FeatureCache, feature_context

PREPROCESSING = Preprocessing(size=(8, 8))


@pytest.fixture
def cache(tmp_path):
    cache = FeatureCache(tmp_path / "cache", "context")
    yield cache
    cache.close()


def vector(seed: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=size).astype(np.float16)


def test_features_come_back_as_float16(cache):
    stored = {cache.key(bytes([i])): vector(i) for i in range(5)}
    cache.put({key: value.astype(np.float32) for key, value in stored.items()})
    found = cache.get([*stored, cache.key(b"other")])
    assert set(found) == set(stored)
    for key, value in stored.items():
        assert found[key].dtype == np.float16
        np.testing.assert_array_equal(found[key], value)
    assert len(cache) == 5


def test_features_are_there_in_another_process(cache, tmp_path):
    cache.put({cache.key(b"picture"): vector(1)})
    script = (
        "import sys; from toolkit.transfer.cache import FeatureCache; cache = FeatureCache(sys.argv[1], 'context');"
        "print(next(iter(cache.get([cache.key(b'picture')]).values())).tobytes().hex())"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "cache")]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert bytes.fromhex(answer) == vector(1).tobytes()


def test_another_context_or_picture_is_another_key(cache, tmp_path):
    cache.put({cache.key(b"picture"): vector(1)})
    other = FeatureCache(tmp_path / "cache", "another context")
    assert other.get([other.key(b"picture")]) == {}
    assert cache.get([cache.key(b"picture.")]) == {}
    assert len(cache.get([cache.key(b"picture")])) == 1
    other.close()


def test_context_follows_everything_features_depend_on():
    contexts = [
        feature_context("digest", "pool", PREPROCESSING),
        feature_context("other digest", "pool", PREPROCESSING),
        feature_context("digest", "other", PREPROCESSING),
        feature_context("digest", "pool", PREPROCESSING, view="flipped"),
        feature_context("digest", "pool", PREPROCESSING.resized((8, 9))),
        feature_context("digest", "pool", Preprocessing(size=(8, 8), std=(0.5, 0.5, 0.5))),
        feature_context("digest", "pool", Preprocessing(size=(8, 8), interpolation="bicubic")),
        feature_context("digest", "pool", Preprocessing(size=(8, 8), crop_fraction=0.9)),
    ]
    assert len(set(contexts)) == len(contexts)
    assert contexts[0] == feature_context("digest", "pool", Preprocessing(size=(8, 8)))


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_damaged_entry_counts_as_missing(cache, tmp_path, damage):
    keys = [cache.key(b"one"), cache.key(b"two")]
    cache.put({key: vector(i) for i, key in enumerate(keys)})
    cache.close()
    with lmdb.open(str(tmp_path / "cache"), map_size=1 << 30) as environment, environment.begin(write=True) as write:
        entry = bytearray(write.get(keys[0]))
        entry[40] ^= 1
        write.put(keys[0], {"flip": bytes(entry), "cut": bytes(entry[:-2]), "empty": b""}[damage])
    again = FeatureCache(tmp_path / "cache", "context")
    found = again.get(keys)
    again.close()
    assert list(found) == [keys[1]]
    np.testing.assert_array_equal(found[keys[1]], vector(1))


def test_write_that_fails_half_way_leaves_nothing(cache):
    good, bad = cache.key(b"good"), cache.key(b"bad")
    with pytest.raises(ValueError, match="could not convert"):
        cache.put({good: vector(1), bad: ["no number"]})
    assert cache.get([good, bad]) == {}


def test_threads_of_one_process_share_a_directory(tmp_path):
    def work(worker):
        cache = FeatureCache(tmp_path / "cache", "context")
        for index in range(20):
            cache.put({cache.key(f"{worker} {index}".encode()): vector(index)})
        found = cache.get([cache.key(f"{worker} {index}".encode()) for index in range(20)])
        cache.close()
        cache.close()
        return len(found)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [20] * 4
    cache = FeatureCache(tmp_path / "cache", "context")
    assert len(cache) == 80
    cache.close()


WRITER = """
import sys, numpy as np
from toolkit.transfer.cache import FeatureCache
cache = FeatureCache(sys.argv[1], "context")
batch = 0
while batch != int(sys.argv[3]):
    contents = [f"{sys.argv[2]} {batch} {i}" for i in range(32)]
    cache.put({cache.key(c.encode()): np.random.default_rng(i).normal(size=512) for i, c in enumerate(contents)})
    print(batch, flush=True)
    batch += 1
cache.close()
"""


def writer(directory, name, batches):
    command = [sys.executable, "-c", WRITER, str(directory), name, str(batches)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def keys_of(cache, name, batch):
    return [cache.key(f"{name} {batch} {i}".encode()) for i in range(32)]


def test_two_processes_write_at_once(tmp_path):
    workers = [writer(tmp_path / "cache", name, 25) for name in ("one", "two")]
    for worker in workers:
        worker.communicate()
        assert worker.returncode == 0
    cache = FeatureCache(tmp_path / "cache", "context")
    assert len(cache) == 2 * 25 * 32
    for name in ("one", "two"):
        for batch in range(25):
            found = cache.get(keys_of(cache, name, batch))
            for i, key in enumerate(keys_of(cache, name, batch)):
                np.testing.assert_array_equal(found[key], vector(i, 512))
    cache.close()


def test_killed_writer_leaves_whole_batches_and_a_cache_to_go_on_with(tmp_path):
    for attempt in range(2):
        worker = writer(tmp_path / "cache", f"run{attempt}", -1)
        printed = int(worker.stdout.readline())
        time.sleep(0.05 * attempt)
        os.kill(worker.pid, signal.SIGKILL)
        rest = worker.communicate()[0].split()
        last = int(rest[-1]) if rest else printed
        cache = FeatureCache(tmp_path / "cache", "context")
        counts = [len(cache.get(keys_of(cache, f"run{attempt}", batch))) for batch in range(last + 3)]
        assert counts[: last + 1] == [32] * (last + 1)
        assert set(counts[last + 1 :]) <= {0, 32}
        cache.put({cache.key(b"after"): vector(9)})
        assert len(cache.get([cache.key(b"after")])) == 1
        cache.close()
