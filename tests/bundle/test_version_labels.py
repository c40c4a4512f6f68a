"""Labels of versions: moved on and back whole, by one at a time, and kept by whoever prunes."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from toolkit.bundle import (
    MANIFEST,
    TRAFFIC,
    VERSION_LABELS,
    complete_versions,
    labelled_version,
    list_bundles,
    locate_version,
    move_label,
    move_label_back,
    prune_versions,
    read_traffic,
    read_version_labels,
    remove_label,
    share_traffic,
)
from toolkit.errors import UserError


@pytest.fixture
def pets(tmp_path):
    """A bundle's directory with versions 1 to 5."""
    for version in range(1, 6):
        manifest = tmp_path / "pets" / str(version) / MANIFEST
        manifest.parent.mkdir(parents=True)
        manifest.write_text("{}")
    return tmp_path / "pets"


def test_a_label_moves_on_and_back(pets):
    assert read_version_labels(pets) == {}
    assert move_label(pets, "stable", 2) is None
    assert move_label(pets, "stable", 4) == 2
    assert move_label(pets, "stable", 4) == 4  # which changes nothing
    assert move_label(pets, "canary", 5) is None
    assert read_version_labels(pets) == {"stable": 4, "canary": 5}
    assert move_label_back(pets, "stable") == (2, 4)
    assert read_version_labels(pets) == {"stable": 2, "canary": 5}
    with pytest.raises(UserError, match="no version that stable meant before 2 is left; promote one of 1, 2, 3, 4, 5"):
        move_label_back(pets, "stable")
    assert remove_label(pets, "canary") == 5
    assert read_version_labels(pets) == {"stable": 2}
    assert list(list_bundles(pets.parent)["pets"]) == [1, 2, 3, 4, 5]
    assert sorted(path.name for path in pets.iterdir()) == ["1", "2", "3", "4", "5", VERSION_LABELS]


def test_versions_that_are_gone_are_not_gone_back_to(pets):
    for version in (1, 2, 3):
        move_label(pets, "stable", version)
    shutil.rmtree(pets / "2")
    assert move_label_back(pets, "stable") == (1, 3)
    move_label(pets, "stable", 4)
    shutil.rmtree(pets / "1")
    with pytest.raises(UserError, match="before 4 is left; removed since: 1; promote one of 3, 4, 5, or take the lab"):
        move_label_back(pets, "stable")


def test_a_server_looks_a_label_up(pets):
    move_label(pets, "stable", 2)
    assert labelled_version(pets.parent, "pets", "stable") == labelled_version(pets, "pets", "stable") == 2
    for name, label in (("pets", "canary"), ("dogs", "stable"), ("../pets", "stable")):
        with pytest.raises(UserError, match="is labelled"):
            labelled_version(pets.parent, name, label)
    shutil.rmtree(pets / "2")
    with pytest.raises(UserError, match="version 2 of pets, which stable means, is not there any more"):
        labelled_version(pets.parent, "pets", "stable")


def test_what_cannot_be_labelled(pets):
    with pytest.raises(UserError, match="no version 9; there are 1, 2, 3, 4, 5"):
        move_label(pets, "stable", 9)
    for label in ("", "7", "a/b", "a b", "x" * 65, "stäble"):
        with pytest.raises(UserError, match="a label must be of letters"):
            move_label(pets, label, 1)
    for change in (move_label_back, remove_label):
        with pytest.raises(UserError, match="no version is labelled beta; labels are: none"):
            change(pets, "beta")
    assert not (pets / VERSION_LABELS).exists()


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"stable": 4}', '{"stable": []}', '{"stable": ["4"]}', "[" * 10**5]
)
def test_a_damaged_file_is_one_line_and_nothing_is_removed(pets, content):
    (pets / VERSION_LABELS).write_text(content)
    for use in (read_version_labels, lambda directory: prune_versions(directory, 1)):
        with pytest.raises(
            UserError, match=r'version_labels\.json: damaged; expected .* such as {"stable": \[4, 3\]}$'
        ):
            use(pets)
    assert list(complete_versions(pets)) == [1, 2, 3, 4, 5]


def test_pruning_keeps_the_highest_the_labelled_and_what_they_would_go_back_to(pets):
    for label, version in (("stable", 1), ("stable", 2), ("canary", 3), ("stable", 4)):
        move_label(pets, label, version)
    (pets / "0").mkdir()  # one without a manifest, such as is being copied there
    expected = [pets / "1"], [pets / "2", pets / "3", pets / "4"]
    assert prune_versions(pets, 1, dry_run=True) == expected
    assert (pets / "1").exists()
    assert prune_versions(pets, 1) == expected
    assert sorted(path.name for path in pets.iterdir()) == ["0", "2", "3", "4", "5", VERSION_LABELS]
    assert prune_versions(pets, 9) == ([], [])
    with pytest.raises(UserError, match="at least 1 version, got 0"):
        prune_versions(pets, 0)
    assert move_label_back(pets, "stable") == (2, 4)


def test_of_many_at_once_none_is_lost(pets):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: move_label(pets, f"label-{number}", 1 + number % 5), range(40)))
    assert read_version_labels(pets) == {f"label-{number}": 1 + number % 5 for number in range(40)}
    assert json.loads((pets / VERSION_LABELS).read_text())["label-7"] == [3]


def test_a_path_names_a_bundle_or_a_version_of_it(pets, tmp_path, monkeypatch):
    assert locate_version(pets) == (pets, None)
    assert locate_version(pets / "3") == (pets, 3)
    monkeypatch.chdir(pets / "3")
    assert locate_version(".") == (pets.resolve(), 3)
    shutil.copytree(pets / "3", tmp_path / "copy")
    with pytest.raises(UserError, match="copy: not a numbered version of a bundle"):
        locate_version(tmp_path / "copy")
    with pytest.raises(UserError, match="no such bundle"):
        locate_version(tmp_path / "nowhere")


def test_requests_are_shared_out_and_stable_answers_the_rest(pets):
    assert read_traffic(pets) == []
    for version, label in ((4, "stable"), (5, "canary")):
        with pytest.raises(UserError, match="no version is labelled"):
            share_traffic(pets, 0.1, label="canary")
        move_label(pets, label, version)
    assert share_traffic(pets, 0.1)["traffic"] == [
        {"label": "canary", "version": 5, "share": 0.1},
        {"label": "stable", "version": 4, "share": 0.9},
    ]
    move_label(pets, "old", 4)
    with pytest.raises(UserError, match="old and stable both mean version 4, and a share is for two"):
        share_traffic(pets, 0.1, label="old")
    move_label(pets, "old", 3)
    with pytest.raises(UserError, match=r"more than 1 together, got canary 0\.1, old 0\.95"):
        share_traffic(pets, 0.95, label="old")
    share_traffic(pets, 0.4, label="old")
    assert [tuple(each) for each in read_traffic(pets)] == [("canary", 5, 0.1), ("old", 3, 0.4), ("stable", 4, 0.5)]
    with pytest.raises(UserError, match="stable answers the requests that name no version; end that first"):
        remove_label(pets, "stable")
    remove_label(pets, "old")  # and its share
    move_label(pets, "old", 3)
    assert share_traffic(pets)["traffic"][-1] == {"label": "stable", "version": 4, "share": 0.9}
    (pets / TRAFFIC).write_text('{"stable": 0.9, "canary": 0.1}')  # as somebody may write it
    move_label(pets, "canary", 3)
    assert read_traffic(pets) == [("canary", 3, 0.1), ("stable", 4, 0.9)]
    assert share_traffic(pets, 0)["traffic"][-1]["share"] == 1
    assert share_traffic(pets, end=True)["traffic"] == []
    assert remove_label(pets, "stable") == 4


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan"), float("inf")])
def test_shares_that_are_none(pets, share):
    move_label(pets, "stable", 4)
    move_label(pets, "canary", 5)
    with pytest.raises(UserError, match="a share must be from 0 to 1"):
        share_traffic(pets, share)
    with pytest.raises(UserError, match="stable answers what is left"):
        share_traffic(pets, 0.5, label="stable")
    with pytest.raises(UserError, match="one version; give the bundle"):
        share_traffic(pets / "4", 0.5)
    for damaged in ("[", '{"canary": 2}', '{"canary": "x"}', '{"canary": true}', "[0.1]"):
        (pets / TRAFFIC).write_text(damaged)
        with pytest.raises(UserError, match="damaged; expected labels with their shares"):
            read_traffic(pets)
