"""Listing, verifying and pruning a feature cache."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from caches import CONTEXT, picture, rewrite, vector

from toolkit.errors import UserError
from toolkit.transfer.cache import FeatureCache
from toolkit.transfer.maintenance import list_cache, prune_cache, verify_cache

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


def test_verify_removes_damaged_entries_alone(directory, tmp_path):
    cache = FeatureCache(directory, CONTEXT)
    keys = [cache.key(picture(str(i))) for i in range(10)]
    cache.close()
    rewrite(tmp_path, keys[3], lambda entry: bytes(entry[:-1]) + b"\x7f")
    seen = []
    report = verify_cache(directory, progress=lambda done, total: seen.append((done, total)))
    assert (report["entries"], report["damaged"]) == (110, 1)
    assert seen[-1] == (110, 110)
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
