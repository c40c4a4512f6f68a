"""The shelf of loaded bundles: what is loaded when and how often, what is dropped, what is tried again."""

import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from toolkit.bundle import MANIFEST
from toolkit.errors import UserError
from toolkit.inference import Predictor, shelf
from toolkit.inference.shelf import Shelf, UnknownBundle


class Loads:
    """Stands in for loading a network: counted, as slow as told to, and failing where told to."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.shared: list[bool] = []
        self.fail: set[str] = set()
        self.before: Callable[[str], None] = lambda key: None

    def __call__(self, version_dir: Path, engine: str, *, shared: bool) -> SimpleNamespace:
        key = f"{version_dir.parent.name}/{version_dir.name} {engine}"
        self.keys.append(key)
        self.shared.append(shared)
        self.before(key)
        if key in self.fail:
            raise UserError(f"cannot load {key}")
        return SimpleNamespace(key=key)


@pytest.fixture
def loads(monkeypatch) -> Loads:
    loads = Loads()
    monkeypatch.setattr(shelf, "_load_warm", loads)
    return loads


def publish(root: Path, *names: str) -> None:
    for name in names:
        path = root / name / MANIFEST
        path.parent.mkdir(parents=True)
        path.write_text("{}")


@pytest.fixture
def root(tmp_path) -> Path:
    publish(tmp_path, "a/1", "a/2", "a/10", "b/1")
    (tmp_path / "a" / "11").mkdir()  # being copied: no manifest yet
    return tmp_path


def test_complete_versions_are_listed_as_they_come_and_go(root, loads):
    both = Shelf(root)
    assert {name: list(versions) for name, versions in both.bundles().items()} == {"a": [1, 2, 10], "b": [1]}
    assert both.bundles()["a"][10] == root / "a" / "10"
    assert list(Shelf(root / "a").bundles()) == ["a"]  # one bundle's own directory
    publish(root, "c/1")
    shutil.rmtree(root / "b")
    assert list(both.bundles()) == ["a", "c"]
    shutil.rmtree(root)
    assert both.bundles() == {}


def test_the_highest_version_is_meant_and_others_are_asked_for_by_number(root, loads):
    both = Shelf(root)
    assert both.get("a", engine="litert")[0] == 10
    assert both.get("a", 2, "litert")[0] == 2
    assert both.get("a", 2, "savedmodel")[1] is not both.get("a", 2, "litert")[1]
    assert loads.keys == ["a/10 litert", "a/2 litert", "a/2 savedmodel"]


def test_predictors_are_opened_for_several_threads_where_the_shelf_is_for_them(root, loads):
    Shelf(root).get("b")
    Shelf(root, shared=True).get("b")
    assert loads.shared == [False, True]


@pytest.mark.parametrize(("name", "version"), [("c", None), ("a", 3), ("a", 11), ("..", None), ("", 1)])
def test_what_is_not_there_is_told_apart_from_what_cannot_be_loaded(root, loads, name, version):
    with pytest.raises(UnknownBundle, match=f"no version {version} of bundle" if version else "no bundle"):
        Shelf(root).get(name, version)
    assert loads.keys == []


def test_a_network_is_loaded_once_for_many_threads_at_once(root, loads):
    loads.before = lambda key: time.sleep(0.05)
    both, start = Shelf(root), threading.Barrier(8)

    def get(_: int) -> int:
        start.wait()
        return id(both.get("a")[1])

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(get, range(8)))) == 1
    assert loads.keys == ["a/10 auto"]


def test_nobody_waits_for_another_bundle(root, loads):
    go_on = threading.Event()
    loads.before = lambda key: key.startswith("a") and go_on.wait(30)
    both = Shelf(root)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(both.get, "a")
        while not loads.keys:
            time.sleep(0.01)
        assert both.get("b")[0] == 1
        assert both.errors("a") == {1: "", 2: "", 10: ""}
        assert (both.loading("a"), both.loading("b"), both.loading("a", "litert")) == ([10], [], [])
        assert not slow.done()
        go_on.set()
        assert slow.result()[0] == 10
        assert both.loading("a") == []


def test_no_more_versions_of_a_bundle_load_at_once_than_are_kept(root, loads):
    under_way, most = [], []

    def load(key: str) -> None:
        under_way.append(key)
        most.append(len(under_way))
        time.sleep(0.05)
        under_way.remove(key)

    loads.before = load
    both = Shelf(root, max_versions=2)
    outcomes = [both.answering("a", version)[1] for version in (1, 2, 10)]
    assert [outcome.result(30).key for outcome in outcomes] == ["a/1 auto", "a/2 auto", "a/10 auto"]
    assert max(most) <= 2


def test_the_least_recently_used_is_dropped(root, loads):
    publish(root, "c/1")
    both = Shelf(root, max_loaded=2)
    for name in ("a", "b", "a", "c", "a", "b"):
        both.get(name)
    assert loads.keys == ["a/10 auto", "b/1 auto", "c/1 auto", "b/1 auto"]


def test_versions_are_bounded_bundle_by_bundle(root, loads):
    both = Shelf(root, max_versions=2)
    for name, version in (("b", 1), ("a", 1), ("a", 2), ("a", 1), ("a", 10), ("a", 1), ("b", 1), ("a", 2)):
        both.get(name, version)
    assert loads.keys == ["b/1 auto", "a/1 auto", "a/2 auto", "a/10 auto", "a/2 auto"]


def test_versions_that_are_kept_are_not_dropped_for_others(root, loads):
    publish(root, "a/3")
    some = Shelf(root, max_versions=2)
    some.keep("a", [1, 2])
    for version in (1, 2, 3, 10, 1, 2, 10):
        some.get("a", version)
    assert loads.keys == ["a/1 auto", "a/2 auto", "a/3 auto", "a/10 auto"]
    assert some.loaded() == {"a": [1, 2, 10]}
    some.keep("a", [])
    some.get("a", 3)
    assert some.loaded() == {"a": [3, 10]}


def test_what_was_slow_to_load_is_not_what_is_dropped(root, loads):
    """Else a busy server would load it again and again."""
    both = Shelf(root, max_versions=1)
    both.get("a", 1)
    loads.before = lambda key: both.get("a", 1) if key == "a/2 auto" else None  # used meanwhile
    both.get("a", 2)
    both.get("a", 2)
    assert loads.keys == ["a/1 auto", "a/2 auto"]


def test_a_damaged_new_version_leaves_the_old_one_answering(root, loads):
    loads.fail = {"a/10 auto"}
    both = Shelf(root, retry_seconds=1000)
    assert [both.get("a")[0] for _ in range(3)] == [2, 2, 2]
    assert both.errors("a") == {1: "", 2: "", 10: "cannot load a/10 auto"}
    with pytest.raises(UserError, match="cannot load a/10 auto"):
        both.get("a", 10)
    assert loads.keys == ["a/10 auto", "a/2 auto"]  # remembered, not tried at every request
    loads.fail = {"a/10 auto", "a/2 auto", "a/1 auto"}
    with pytest.raises(UserError, match="cannot load a/10 auto"):  # none loads: the highest one's reason
        Shelf(root).get("a")


def test_a_failed_load_is_tried_again_after_a_while(root, loads):
    loads.fail = {"b/1 auto"}
    both = Shelf(root, retry_seconds=0.2)
    for _ in range(3):
        with pytest.raises(UserError, match="cannot load"):
            both.get("b")
    loads.fail = set()
    time.sleep(0.25)
    assert both.get("b")[0] == 1
    assert both.errors("b") == {1: ""}
    assert loads.keys == ["b/1 auto"] * 2


def test_all_who_wait_are_told_why_and_the_next_tries_again(root, loads):
    loads.fail, start = {"b/1 auto"}, threading.Barrier(4)
    loads.before = lambda key: time.sleep(0.3)
    both = Shelf(root)

    def ask(_: int) -> str:
        start.wait()
        with pytest.raises(UserError) as error:
            both.get("b")
        return str(error.value)

    with ThreadPoolExecutor(4) as pool:
        assert Counter(pool.map(ask, range(4))) == {"cannot load b/1 auto": 4}
    loads.fail = set()
    assert both.get("b")[0] == 1


def test_an_unforeseen_failure_is_logged_and_not_told(root, loads, caplog):
    def fail(key: str) -> None:
        raise ZeroDivisionError("a secret")

    loads.before = fail
    with pytest.raises(UserError, match=r"b/1: cannot be loaded; the server's log says why"):
        Shelf(root).get("b")
    assert "a secret" in caplog.text


def test_an_interrupted_load_leaves_nobody_waiting(root, loads):
    def interrupt(key: str) -> None:
        raise KeyboardInterrupt

    loads.before = interrupt
    both = Shelf(root, retry_seconds=1000)
    with pytest.raises(KeyboardInterrupt):
        both.get("b")
    with pytest.raises(UserError, match="loading was interrupted"):
        both.get("b")


def test_what_was_written_anew_is_loaded_anew_and_what_is_gone_is_dropped(root, loads):
    loads.fail = {"b/1 auto"}
    both = Shelf(root, retry_seconds=1000)
    with pytest.raises(UserError, match="cannot load"):
        both.get("b")
    loads.fail = set()
    shutil.rmtree(root / "b")
    with pytest.raises(UnknownBundle):
        both.get("b")
    publish(root, "b/1")
    first = both.get("b")[1]
    assert both.get("b")[1] is first
    time.sleep(0.01)
    (root / "b" / "1" / MANIFEST).write_text("{ }")
    assert both.get("b")[1] is not first
    assert loads.keys == ["b/1 auto"] * 3


def test_real_bundles_come_warmed_up(bundle, monkeypatch):
    seen = []
    from_pixels = Predictor.from_pixels
    monkeypatch.setattr(Predictor, "from_pixels", lambda *args: seen.append(args[1].shape) or from_pixels(*args))
    version, predictor = Shelf(bundle.parent).get(bundle.parent.name, engine="litert")
    assert (version, predictor.version_dir, predictor.engine_name) == (1, bundle, "litert")
    assert seen == [(1, 32, 32, 3)]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_newer_version_is_loaded_beside_the_one_that_answers(root, loads):
    shutil.rmtree(root / "a" / "10")
    both = Shelf(root)
    number, outcome = both.answering("a")
    assert (number, outcome.result().key) == (2, "a/2 auto")
    go_on = threading.Event()
    loads.before = lambda key: go_on.wait(30)
    publish(root, "a/12")
    shutil.rmtree(root / "a" / "2")  # gone from disk, it answers still
    assert [both.answering("a")[0] for _ in range(3)] == [2, 2, 2]
    assert both.answering("a")[1].result() is outcome.result()
    assert both.loaded() == {}
    go_on.set()
    wait_for(lambda: both.answering("a")[0] == 12)
    assert loads.keys == ["a/2 auto", "a/12 auto"]
    shutil.rmtree(root / "a")
    with pytest.raises(UnknownBundle):
        both.answering("a")


def test_what_was_written_anew_answers_until_it_is_loaded_anew(root, loads):
    both = Shelf(root)
    first = both.answering("b")[1].result()
    go_on = threading.Event()
    loads.before = lambda key: go_on.wait(30)
    (root / "b" / "1" / MANIFEST).write_text("{ }")
    os.utime(root / "b" / "1" / MANIFEST, (1, 1))
    assert both.answering("b")[1].result() is first
    go_on.set()
    wait_for(lambda: both.answering("b")[1].result() is not first)


def test_what_was_written_anew_and_is_damaged_leaves_the_one_before_answering(root, loads):
    both = Shelf(root, retry_seconds=1000)
    first = both.answering("b")[1].result()
    loads.fail = {"b/1 auto"}
    (root / "b" / "1" / MANIFEST).write_text("{ }")
    os.utime(root / "b" / "1" / MANIFEST, (1, 1))
    wait_for(lambda: both.answering("b") and both.errors("b") == {1: "cannot load b/1 auto"})
    assert both.answering("b")[1].result() is first
    with pytest.raises(UserError, match="cannot load b/1 auto"):
        both.answering("b", 1)
    assert loads.keys == ["b/1 auto"] * 2


def test_a_damaged_newer_version_never_interrupts_the_one_that_answers(root, loads):
    loads.fail = {"a/12 auto"}
    both = Shelf(root, retry_seconds=0.01)
    assert both.answering("a")[1].result().key == "a/10 auto"
    publish(root, "a/12")
    for _ in range(20):
        assert both.answering("a")[1].result().key == "a/10 auto"
        time.sleep(0.01)
    assert loads.keys.count("a/12 auto") > 1  # it is tried again beside
    assert both.errors("a")[12] == "cannot load a/12 auto"


def test_where_nothing_answers_yet_lower_versions_follow_a_damaged_one(root, loads):
    loads.fail = {"a/10 auto"}
    both = Shelf(root, retry_seconds=1000)
    number, outcome = both.answering("a")
    assert (number, outcome.result()) == (10, "cannot load a/10 auto")
    assert both.answering("a")[0] == 2
    loads.fail |= {"b/1 auto"}
    assert both.answering("b")[1].result() == "cannot load b/1 auto"
    with pytest.raises(UserError, match="cannot load b/1 auto"):
        both.answering("b")


@pytest.mark.parametrize("name", ["..", ".", "", "a/1", "a\0", "\ud800"])
def test_a_name_is_never_made_a_path(root, loads, name):
    (root / "own").mkdir()
    publish(root / "own", "c/1")
    assert Shelf(root / "own").versions(name) == {}
    with pytest.raises(UnknownBundle):
        Shelf(root / "own").answering(name)
