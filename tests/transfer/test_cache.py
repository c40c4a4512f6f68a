"""The feature cache: whole after any kill, shared by processes and threads, found by content and context alone."""

import dataclasses
import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import lmdb
import numpy as np
import pytest
from caches import CONTEXT, picture, rewrite, store_file, vector
from PIL import Image

from toolkit.errors import UserError, WriteError
from toolkit.transfer import AugmentedViews
from toolkit.transfer import cache as cache_module
from toolkit.transfer.cache import (
    FeatureCache,
    close_store,
    file_digests,
    list_cache,
    open_store,
    prune_cache,
    verify_cache,
)


@pytest.fixture
def cache(tmp_path):
    cache = FeatureCache(tmp_path / "cache", CONTEXT)
    yield cache
    cache.close()


def test_features_come_back_as_they_were_stored(cache):
    stored = {cache.key(picture(bytes([i]))): vector(i) for i in range(5)}
    cache.put({key: value.astype(np.float32) for key, value in stored.items()})
    other = cache.key(picture("other"))
    found = cache.get([*stored, other])
    assert set(found) == set(stored)
    for key, value in stored.items():
        assert found[key].dtype == np.float16
        np.testing.assert_array_equal(found[key], value)
    out = np.zeros((6, 64), np.float16)
    assert cache.read_into(out, [*stored, other]) == [5]
    np.testing.assert_array_equal(out[:5], np.stack(list(stored.values())))
    assert cache.missing([other, *stored, other]) == [other]
    assert len(cache) == 5


def test_maps_and_float32_keep_shape_and_value(tmp_path):
    context = dataclasses.replace(CONTEXT, shape=(3, 3, 7), dtype="float32")
    cache = FeatureCache(tmp_path / "cache", context)
    value = np.random.default_rng(0).normal(size=(3, 3, 7)).astype(np.float32)
    cache.put({cache.key(picture("a")): value})
    np.testing.assert_array_equal(cache.get([cache.key(picture("a"))])[cache.key(picture("a"))], value)
    with pytest.raises(ValueError, match=r"shape \(7,\), expected \(3, 3, 7\)"):
        cache.put({cache.key(picture("b")): value[0, 0]})
    cache.close()


def test_what_float16_cannot_hold_is_refused_and_nothing_is_stored(cache):
    good, bad = cache.key(picture("good")), cache.key(picture("bad"))
    with pytest.raises(UserError, match=r"not finite in float16.*cache them as float32"):
        cache.put({good: vector(1), bad: np.full(64, 1e5)})
    assert cache.missing([good, bad]) == [good, bad]


def test_features_are_there_in_another_process(cache, tmp_path):
    cache.put({cache.key(picture("picture")): vector(1)})
    script = WRITER_CONTEXT + (
        "key = cache.key(picture('picture')); print(cache.get([key])[key].tobytes().hex()); cache.close()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "cache"), "64"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert bytes.fromhex(answer) == vector(1).tobytes()


def test_another_context_view_or_picture_is_another_key(cache, tmp_path):
    cache.put({cache.key(picture("picture")): vector(1)})
    other = FeatureCache(tmp_path / "cache", dataclasses.replace(CONTEXT, cut="another"))
    assert other.get([other.key(picture("picture"))]) == {}
    assert cache.get([cache.key(picture("picture."))]) == {}
    assert cache.get([cache.key(picture("picture"), "mirrored")]) == {}
    assert len(cache.get([cache.key(picture("picture"))])) == 1
    assert (len(cache), len(other)) == (1, 0)
    other.close()


def test_context_follows_everything_features_depend_on():
    preprocessing = CONTEXT.preprocessing
    changes = [
        {},
        {"weights": "other"},
        {"architecture": "other"},
        {"cut": "other"},
        {"shape": (8, 8)},
        {"dtype": "float32"},
        {"preprocessing": preprocessing.resized((8, 9))},
        {"preprocessing": dataclasses.replace(preprocessing, std=(0.5, 0.5, 0.5))},
        {"preprocessing": dataclasses.replace(preprocessing, interpolation="bicubic")},
        {"preprocessing": dataclasses.replace(preprocessing, crop_fraction=0.9)},
        {"preprocessing": dataclasses.replace(preprocessing, channel_order="bgr")},
    ]
    digests = [dataclasses.replace(CONTEXT, **change).digest for change in changes]
    assert len(set(digests)) == len(digests)
    assert dataclasses.replace(CONTEXT, network="renamed").digest == digests[0]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "swap"])
def test_damaged_entry_counts_as_missing(cache, tmp_path, damage):
    keys = [cache.key(picture("one")), cache.key(picture("two"))]
    cache.put({key: vector(i) for i, key in enumerate(keys)})
    whole = vector(1).tobytes()
    cache.close()

    def change(entry):
        flipped = bytearray(entry)
        flipped[40] ^= 1
        return {"flip": bytes(flipped), "cut": bytes(entry[:-2]), "empty": b"", "swap": bytes(entry[:4]) + whole}[
            damage
        ]

    rewrite(tmp_path, keys[0], change)
    again = FeatureCache(tmp_path / "cache", CONTEXT)
    found = again.get(keys)
    assert again.missing(keys) == keys[:1]
    again.close()
    assert list(found) == [keys[1]]
    np.testing.assert_array_equal(found[keys[1]], vector(1))


@pytest.mark.parametrize("damage", ["cut short", "overwritten"])
def test_damaged_file_is_one_clear_error_that_says_what_to_do(cache, tmp_path, damage):
    for batch in range(20):
        cache.put({cache.key(picture(f"{batch} {i}")): vector(i) for i in range(50)})
    cache.close()
    file = store_file(tmp_path) / "data.mdb"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2] if damage == "cut short" else b"\x55" * len(content))
    with pytest.raises(UserError, match=r"features-\d: the feature cache is damaged \(.*\); delete this folder"):
        FeatureCache(tmp_path / "cache", CONTEXT)


def test_place_that_cannot_hold_a_cache_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/features-\d: the feature cache cannot be written \(Not a directory\)"):
        FeatureCache(tmp_path / "file", CONTEXT)


def test_threads_of_one_process_share_a_directory(tmp_path):
    def work(worker):
        cache = FeatureCache(tmp_path / "cache", CONTEXT)
        keys = [cache.key(picture(f"{worker} {index}")) for index in range(20)]
        for index, key in enumerate(keys):
            cache.put({key: vector(index)})
        found = cache.get(keys)
        cache.close()
        cache.close()
        return len(found)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [20] * 4
    cache = FeatureCache(tmp_path / "cache", CONTEXT)
    assert len(cache) == 80
    cache.close()


WRITER_CONTEXT = """
import hashlib, sys
import numpy as np
from toolkit.spec import Preprocessing
from toolkit.transfer.cache import FeatureCache, FeatureContext
picture = lambda content: hashlib.sha256(content.encode()).digest()
context = FeatureContext("net", "pool", (int(sys.argv[2]),), "weights", "graph", Preprocessing(size=(8, 8)))
cache = FeatureCache(sys.argv[1], context)
"""

WRITER = (
    WRITER_CONTEXT
    + """
batch = 0
while batch != int(sys.argv[4]):
    keys = [cache.key(picture(f"{sys.argv[3]} {batch} {i}")) for i in range(32)]
    cache.put({key: np.random.default_rng(i).normal(size=512) for i, key in enumerate(keys)})
    print(batch, flush=True)
    batch += 1
cache.close()
"""
)

WIDE = dataclasses.replace(CONTEXT, shape=(512,))


def writer(directory, name, batches):
    command = [sys.executable, "-c", WRITER, str(directory), "512", name, str(batches)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def keys_of(cache, name, batch):
    return [cache.key(picture(f"{name} {batch} {i}")) for i in range(32)]


def test_two_processes_write_at_once(tmp_path):
    workers = [writer(tmp_path / "cache", name, 25) for name in ("one", "two")]
    for worker in workers:
        worker.communicate()
        assert worker.returncode == 0
    cache = FeatureCache(tmp_path / "cache", WIDE)
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
        cache = FeatureCache(tmp_path / "cache", WIDE)
        counts = [len(cache.get(keys_of(cache, f"run{attempt}", batch))) for batch in range(last + 3)]
        assert counts[: last + 1] == [32] * (last + 1)
        assert set(counts[last + 1 :]) <= {0, 32}
        after = cache.key(picture("after"))
        cache.put({after: np.zeros(512)})
        assert len(cache.get([after])) == 1
        cache.close()


OTHER = dataclasses.replace(CONTEXT, network="other net", weights="other", shape=(4096,), dtype="float32")


@pytest.fixture
def directory(tmp_path):
    for context, count in ((CONTEXT, 10), (OTHER, 100)):
        cache = FeatureCache(tmp_path / "cache", context)
        cache.put({cache.key(picture(str(i))): np.zeros(context.shape) + i for i in range(count)})
        cache.close()
    return tmp_path / "cache"


def test_list_tells_what_is_there(directory):
    report = list_cache(directory)
    rows = {row["network"]: row for row in report["contexts"]}
    assert {name: row["entries"] for name, row in rows.items()} == {"net": 10, "other net": 100}
    assert rows["net"]["bytes"] == 10 * (64 * 2 + 4)
    assert rows["other net"]["bytes"] == 100 * (4096 * 4 + 4)
    assert rows["other net"]["id"] == OTHER.digest
    assert rows["other net"]["shape"] == [4096]
    assert report["bytes"] >= 100 * 4096 * 4


def test_verify_removes_damaged_entries_alone(directory, tmp_path, told):
    cache = FeatureCache(directory, CONTEXT)
    keys = [cache.key(picture(str(i))) for i in range(10)]
    cache.close()
    rewrite(tmp_path, keys[3], lambda entry: bytes(entry[:-1]) + b"\x7f")
    report = verify_cache(directory)
    assert (report["entries"], report["damaged"]) == (110, 1)
    assert told[-1] == ("verifying", 110, 110)
    assert verify_cache(directory)["damaged"] == 0
    cache = FeatureCache(directory, CONTEXT)
    assert cache.missing(keys) == [keys[3]]
    cache.close()


def test_prune_by_identifier_shrinks_the_file_and_leaves_the_rest(directory):
    before = list_cache(directory)["bytes"]
    report = prune_cache(directory, contexts=(OTHER.digest[:6],))
    assert report["removed"] == [OTHER.digest]
    assert (report["entries"], report["compacted"]) == (100, True)
    assert report["bytes"] < before / 4
    assert [row["network"] for row in list_cache(directory)["contexts"]] == ["net"]
    cache = FeatureCache(directory, CONTEXT)
    np.testing.assert_array_equal(cache.get([cache.key(picture("7"))])[cache.key(picture("7"))], np.full(64, 7))
    cache.put({cache.key(picture("new")): vector(1)})
    assert len(cache) == 11
    cache.close()


def test_prune_by_age_and_everything(directory):
    assert prune_cache(directory, unused_days=1)["removed"] == []
    assert len(prune_cache(directory, unused_days=-1)["removed"]) == 2
    FeatureCache(directory, CONTEXT).close()
    assert prune_cache(directory, everything=True)["removed"] == [CONTEXT.digest]
    assert list_cache(directory)["contexts"] == []


def test_cache_in_use_elsewhere_is_pruned_but_not_replaced(directory):
    script = (
        "import sys; from toolkit.transfer.cache import open_store; open_store(sys.argv[1]);"
        "print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout.readline() == "open\n"
        report = prune_cache(directory, contexts=(OTHER.digest,))
        assert (report["entries"], report["compacted"]) == (100, False)
        user.stdin.close()
    assert [row["network"] for row in list_cache(directory)["contexts"]] == ["net"]
    assert prune_cache(directory, unused_days=99)["compacted"]


def test_what_cannot_be_done_is_said(directory, tmp_path):
    with pytest.raises(UserError, match="say what to prune"):
        prune_cache(directory)
    with pytest.raises(UserError, match=f"no context 'zz' in .*; there is .*{CONTEXT.digest[:8]}"):
        prune_cache(directory, contexts=("zz",))
    with pytest.raises(UserError, match="no feature cache there"):
        list_cache(tmp_path / "nowhere")
    assert len(list_cache(directory)["contexts"]) == 2


def test_keys_stay_what_they_were(cache):
    """Change one, and every cache there is is computed anew: raise ``FORMAT_VERSION`` only where that is right."""
    assert CONTEXT.digest == "930e4378079c81a03c506cab6050818c"
    name = AugmentedViews(2).name(1)
    assert name == "(ResizedCrop(min_area=0.35, max_area=1.0), Mirror(probability=0.5)) 2 seed 0 number 1"
    rest = "2ea922db4be7a8c2c83293b74ffbfc4db80a1c3589eb9b46b9a53afae1a5b2ad"
    assert cache.key(picture("picture"), name).hex() == CONTEXT.digest + rest


def test_new_decoding_leaves_features_of_jpegs_valid(cache, tmp_path, monkeypatch):
    paths = [tmp_path / "a.jpg", tmp_path / "b.png"]
    for path in paths:
        Image.new("RGB", (8, 8), "red").save(path)
        os.utime(path, (1, 1))  # long enough ago to be remembered
    before = file_digests(paths, cache.store)
    assert before == file_digests(paths, cache.store)
    assert before[0] == hashlib.sha256(paths[0].read_bytes()).digest()  # what features of earlier versions lie under
    monkeypatch.setattr(cache_module, "DECODING", 200)
    after = file_digests(paths, cache.store)
    assert after[0] == before[0]
    assert after[1] != before[1]


def test_file_of_an_older_version_with_a_fourth_database_opens(tmp_path):
    key = bytes.fromhex(CONTEXT.digest) + picture(picture("a") + b"plain")
    payload = vector(0).tobytes()
    store_file(tmp_path).mkdir(parents=True)
    environment = lmdb.open(str(store_file(tmp_path)), map_size=1 << 30, max_dbs=4)
    databases = [environment.open_db(name) for name in (b"features", b"contexts", b"files", b"networks")]
    with environment.begin(write=True) as write:
        write.put(key, zlib.crc32(payload, zlib.crc32(key)).to_bytes(4, "little") + payload, db=databases[0])
        write.put(b"a network", b"{}", db=databases[3])
    environment.close()
    cache = FeatureCache(tmp_path / "cache", CONTEXT)
    assert cache.missing([cache.key(picture("a"))]) == []
    np.testing.assert_array_equal(cache.get([key])[key], vector(0))
    cache.close()
    assert prune_cache(tmp_path / "cache", everything=True)["compacted"]


def store_in(directory, value):
    store = open_store(directory)
    try:
        with store.begin(write=True) as transaction:
            transaction.put(b"key", value)
    finally:
        close_store(store)


def test_a_full_disk_is_told_as_one_and_leaves_a_cache_that_works(tmp_path):
    """LMDB calls a write that came out short an input/output error, which was told as damage to the file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (5_000, 80_000):  # within its first pages, and behind them
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(WriteError, match=r"features-2: the feature cache cannot be written \("):
                store_in(tmp_path, bytes(200_000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    store_in(tmp_path, b"value")


_ON_A_FULL_DISK = """
mount -t tmpfs -o size=40k tmpfs "$1" || exit 77
mkdir -p "$1/cache/features-2"
cat /dev/zero > "$1/filling" 2> /dev/null
exec "$2" -c 'import sys; from toolkit.transfer.cache import open_store; open_store(sys.argv[1])' "$1/cache"
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs a disk of its own")
def test_a_disk_without_a_byte_left_does_not_end_the_process(tmp_path):
    """LMDB maps its table of readers into memory; touching a page without room was a bus error."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _ON_A_FULL_DISK, "sh"]
    result = subprocess.run([*command, tmp_path, sys.executable], capture_output=True, text=True, check=False)
    if result.returncode == 77 or result.stderr.startswith("unshare"):
        pytest.skip("this system gives nobody a disk of their own")
    assert result.returncode == 1, result.stderr
    assert "the feature cache cannot be written (No space left on device)" in result.stderr.splitlines()[-1]
