"""A bundle on disk: found by name or version, whole or not at all, and every damage is one clear line."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from toolkit.bundle import (
    EXAMPLE_LABELS,
    KERAS_FILE,
    MANIFEST,
    OLDER_PICTURES,
    PICTURES,
    SCHEMA_VERSION,
    EnsembleMember,
    Example,
    Manifest,
    complete_versions,
    find_bundle,
    join_pictures,
    list_bundles,
    list_versions,
    next_version,
    picture_digests,
    publish,
    read_examples,
    read_manifest,
    read_pictures,
    require_bundle_place,
    same_network,
    sha256_of,
    staging_dir,
    verify_files,
    write_examples,
    write_manifest,
    write_pictures,
)
from toolkit.errors import UserError
from toolkit.spec import Preprocessing

MANIFEST_VALUES = Manifest(
    name="pets",
    model="resnet20",
    num_params=12,
    weights_digest="ab" * 32,
    preprocessing=Preprocessing(
        size=(24, 32), resize="stretch", interpolation="bicubic", channel_order="grey", mean=(0.1,), std=(0.3,)
    ),
    labels=("chat", "Hündin", "猫"),
    metrics={"top1": 0.875, "n": 8},
    parity={"litert": 1e-7},
    versions={"keras": "3"},
    recommended_engine="litert",
    forced=("litert-int8 loses 3 points",),
)


def write_version(directory: Path, text: str = "graph") -> Path:
    (directory / "assets.extra").mkdir(parents=True)
    (directory / "saved_model.pb").write_text(text)
    (directory / KERAS_FILE).write_text("weights")
    write_manifest(directory, MANIFEST_VALUES)
    return directory


def change(version_dir: Path, **values) -> None:
    document = json.loads((version_dir / MANIFEST).read_text()) | values
    (version_dir / MANIFEST).write_text(json.dumps(document))


def assert_one_line(error: pytest.ExceptionInfo, *parts: str) -> None:
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_manifest_comes_back_as_it_was_written_with_every_files_checksum(tmp_path):
    version_dir = write_version(tmp_path / "pets" / "1")
    found = read_manifest(version_dir)
    assert dataclasses.replace(found, files={}) == MANIFEST_VALUES
    assert found.files == {name: sha256_of(version_dir / name) for name in ("saved_model.pb", KERAS_FILE)}
    assert found.schema_version == SCHEMA_VERSION
    verify_files(version_dir, found)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("", ("damaged manifest", "document")),
        ("{]", ("damaged manifest", "document", "JSON")),
        ("[]", ("damaged manifest",)),
        ("{}", ("damaged manifest", "name")),
        ("\udcff", ("damaged manifest",)),
    ],
)
def test_manifest_that_is_no_manifest_is_one_clear_line(tmp_path, content, parts):
    version_dir = write_version(tmp_path / "1")
    (version_dir / MANIFEST).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(UserError) as error:
        read_manifest(version_dir)
    assert_one_line(error, str(version_dir / MANIFEST), *parts)


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"num_params": "many"}, "num_params"),
        ({"labels": "ab"}, "labels"),
        ({"labels": [1, 2]}, "labels.0"),
        ({"metrics": {"top1": "good"}}, "metrics.top1"),
        ({"preprocessing": {"size": [0, 5]}}, "size must be a positive"),
        ({"preprocessing": {"size": [5, 5], "interpolation": "nearest"}}, "preprocessing.interpolation"),
        ({"preprocessing": {"size": [5, 5], "std": [1, 0, 1]}}, "std must be positive"),
    ],
)
def test_value_of_the_wrong_type_is_named(tmp_path, values, where):
    version_dir = write_version(tmp_path / "1")
    change(version_dir, **values)
    with pytest.raises(UserError) as error:
        read_manifest(version_dir)
    assert_one_line(error, "damaged manifest", where)


def test_missing_and_unreadable_manifest_is_one_clear_line(tmp_path):
    version_dir = write_version(tmp_path / "1")
    (version_dir / MANIFEST).unlink()
    with pytest.raises(UserError, match="missing; the bundle is incomplete"):
        read_manifest(version_dir)
    (version_dir / MANIFEST).mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        read_manifest(version_dir)


def test_manifest_of_a_newer_schema_is_refused_and_not_misread(tmp_path):
    version_dir = write_version(tmp_path / "1")
    change(version_dir, schema_version=SCHEMA_VERSION + 1)
    with pytest.raises(UserError) as error:
        read_manifest(version_dir)
    assert_one_line(error, "newer toolkit", f"schema {SCHEMA_VERSION + 1}")


def test_damaged_and_missing_files_are_named(tmp_path):
    version_dir = write_version(tmp_path / "1")
    manifest = read_manifest(version_dir)
    (version_dir / KERAS_FILE).write_text("weighty")
    with pytest.raises(UserError) as error:
        verify_files(version_dir, manifest)
    assert_one_line(error, str(version_dir / KERAS_FILE), "checksum")
    verify_files(version_dir, manifest, ("saved_model.pb", "variables/"))
    (version_dir / KERAS_FILE).unlink()
    with pytest.raises(UserError) as error:
        verify_files(version_dir, manifest, ("assets.extra/",))
    assert_one_line(error, str(version_dir / KERAS_FILE), "missing")


def test_name_means_its_highest_version_and_a_version_itself(tmp_path):
    for version in (1, 2, 10):
        write_version(tmp_path / "pets" / str(version))
    assert find_bundle(tmp_path / "pets") == tmp_path / "pets" / "10"
    assert find_bundle(str(tmp_path / "pets" / "2")) == tmp_path / "pets" / "2"


def test_incomplete_versions_and_staging_are_no_bundles(tmp_path):
    write_version(tmp_path / "pets" / "1")
    (tmp_path / "pets" / "2").mkdir()
    write_version(tmp_path / "pets" / ".staging-77")
    write_version(tmp_path / "pets" / "old")
    write_version(staging_dir(tmp_path / "empty") / "x")
    assert find_bundle(tmp_path / "pets") == tmp_path / "pets" / "1"
    assert list_bundles(tmp_path) == {"pets": {1: tmp_path / "pets" / "1"}}


def test_bundles_are_listed_by_name_with_versions_in_order(tmp_path):
    for place in ("b/2", "b/10", "b/1", "a/7"):
        write_version(tmp_path / place)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "runs").mkdir()
    found = list_bundles(tmp_path)
    assert [(name, list(versions)) for name, versions in found.items()] == [("a", [7]), ("b", [1, 2, 10])]
    assert found["b"][10] == tmp_path / "b" / "10"
    assert list_bundles(tmp_path / "b") == {"b": found["b"]}  # one bundle's own directory
    with pytest.raises(UserError, match="b: no version 3; there is 1, 2, 10"):
        find_bundle(tmp_path / "b" / "3")
    with pytest.raises(UserError, match="no such folder; expected a folder of bundles"):
        list_bundles(tmp_path / "nowhere")


def test_one_garbage_manifest_does_not_hide_the_other_bundles(tmp_path):
    write_version(tmp_path / "good" / "1")
    write_version(tmp_path / "bad" / "1")
    (tmp_path / "bad" / "1" / MANIFEST).write_bytes(b"\0\xff garbage")
    assert list(list_bundles(tmp_path)["good"]) == [1]
    with pytest.raises(UserError, match="damaged manifest"):
        read_manifest(find_bundle(tmp_path / "bad"))


@pytest.mark.parametrize("place", ["nowhere", "file", "folder", "folder/sub"])
def test_what_is_no_bundle_is_one_clear_line(tmp_path, place):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    with pytest.raises(UserError) as error:
        find_bundle(tmp_path / place)
    assert_one_line(error, str(tmp_path / place), "bundle")


def test_what_stands_in_a_bundles_place_is_told_with_the_way_to_one(tmp_path):
    run, network, theirs = tmp_path / "run", tmp_path / "mine.onnx", tmp_path / "theirs"
    (weights := tmp_path / "mine.weights.h5").touch()
    run.mkdir()
    theirs.mkdir()
    for file in (run / "config.json", run / "model.json", run / "model.keras", network, theirs / "saved_model.pb"):
        file.touch()
    write_version(tmp_path / "saved_models" / "pets" / "1")
    for place, words in (
        (run, f"`toolkit train --resume {run} --export saved_models/NAME` makes one of this run"),
        (network, f"`toolkit import {network} --labels FILE --out saved_models/NAME` makes one of this network"),
        (theirs, f"`toolkit import {theirs} --labels FILE --out saved_models/NAME` makes one of this network"),
        (weights, "it is a file"),
        (run / "config.json", "it is a file"),
        (tmp_path / "saved_models", f"give one of them, such as {tmp_path / 'saved_models' / 'pets'}"),
    ):
        with pytest.raises(UserError) as error:
            find_bundle(place)
        assert_one_line(error, f"{place}: not a bundle; ", words)


def test_versions_only_grow_whatever_was_removed(tmp_path):
    for expected in ("1", "2", "3"):
        assert publish(staging_dir(tmp_path / "pets"), tmp_path / "pets").name == expected
    (tmp_path / "pets" / "2").rmdir()
    assert publish(staging_dir(tmp_path / "pets"), tmp_path / "pets").name == "4"
    assert list_versions(tmp_path / "pets") == [1, 3, 4]


def test_stray_file_with_a_versions_name_does_not_hang_publishing(tmp_path):
    staging = staging_dir(tmp_path / "pets")
    (tmp_path / "pets" / "1").write_text("not a version")
    assert publish(staging, tmp_path / "pets").name == "2"


def test_a_bundle_is_written_neither_over_other_bundles_nor_into_a_version(tmp_path):
    write_version(tmp_path / "saved_models" / "pets" / "1")
    for place, words in (
        ("saved_models", r"a folder of bundles; name a bundle in it, such as .*saved_models/NAME"),
        ("saved_models/pets/1", "one version of a bundle; give the bundle"),
    ):
        with pytest.raises(UserError, match=words):
            require_bundle_place(tmp_path / place)
    for place in ("saved_models/pets", "saved_models/new", "new/new"):
        require_bundle_place(tmp_path / place)
    assert [path.name for path in tmp_path.iterdir()] == ["saved_models"]


def test_staging_directories_of_one_process_are_apart(tmp_path):
    one, two = staging_dir(tmp_path / "pets"), staging_dir(tmp_path / "pets")
    assert one != two
    assert one.is_dir()
    assert two.is_dir()


def test_place_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "pets").write_text("a file")
    with pytest.raises(UserError) as error:
        staging_dir(tmp_path / "pets")
    assert_one_line(error, str(tmp_path / "pets"), "cannot be written")


PUBLISHER = """
import sys
from pathlib import Path
from toolkit.bundle import publish, staging_dir
directory, me = Path(sys.argv[1]), sys.argv[2]
for index in range(40):
    staging = staging_dir(directory)
    for part in range(5):
        (staging / f"part{part}").write_text(f"{me} {index}")
    print(publish(staging, directory).name)
"""


def test_processes_publishing_at_once_get_different_whole_versions(tmp_path):
    directory = tmp_path / "pets"
    command = [sys.executable, "-c", PUBLISHER, str(directory)]
    workers = [
        subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in ("one", "two", "three")
    ]
    seen_incomplete = 0
    while any(worker.poll() is None for worker in workers):
        for version in list_versions(directory):
            seen_incomplete += len(os.listdir(directory / str(version))) != 5
    taken = [line for worker in workers for line in worker.communicate()[0].split()]
    assert all(worker.returncode == 0 for worker in workers)
    assert sorted(map(int, taken)) == list(range(1, 121))
    assert seen_incomplete == 0
    for version in taken:
        contents = {path.read_text() for path in (directory / version).iterdir()}
        assert len(contents) == 1  # no version holds parts of two
    assert sorted(os.listdir(directory)) == sorted(taken)


def test_examples_keep_their_labels_and_do_without(tmp_path):
    picture = tmp_path / "secret name.PNG"
    picture.write_bytes(b"picture")
    write_examples(tmp_path / "1", [Example(picture, "a\n<b>$&"), Example(picture)])
    assert [(e.path.name, e.label) for e in read_examples(tmp_path / "1")] == [("00.png", "a\n<b>$&"), ("01.png", None)]
    for damaged in ("", "{", "[1]", '{"file": 1}', '[{"file": "00.png"}]', "\xff"):
        (tmp_path / "1" / EXAMPLE_LABELS).write_text(damaged, encoding="latin-1")
        assert [e.label for e in read_examples(tmp_path / "1")] == [None, None]
    assert read_examples(tmp_path / "2") == []


def test_pictures_are_noted_by_the_beginning_of_their_sha256(tmp_path):
    files = [tmp_path / name for name in ("a.png", "b.png", "c.png")]
    for file in files:
        file.write_text(file.name)
    digests = picture_digests(files)
    assert digests == [hashlib.sha256(file.read_bytes()).hexdigest()[:10] for file in files]
    version_dir = write_version(tmp_path / "pets" / "1")
    assert read_pictures(version_dir, read_manifest(version_dir)) is None  # an older bundle
    write_pictures(version_dir, {"train": digests[:2], "test": digests[2:]})
    write_manifest(version_dir, MANIFEST_VALUES)
    manifest = read_manifest(version_dir)
    noted = {"train": set(digests[:2]), "val": set(), "test": {digests[2]}}
    assert read_pictures(version_dir, manifest) == noted
    (version_dir / PICTURES).write_text("{")
    with pytest.raises(UserError, match=r"pictures\.npz: checksum"):
        read_pictures(version_dir, manifest)
    (version_dir / PICTURES).unlink()
    older = {name: [f"{digest}123456" for digest in own] for name, own in noted.items()}
    (version_dir / OLDER_PICTURES).write_text(json.dumps(older))
    write_manifest(version_dir, MANIFEST_VALUES)
    assert read_pictures(version_dir, read_manifest(version_dir)) == noted


def test_many_pictures_take_few_bytes_each(tmp_path):
    digests = sorted({hashlib.sha256(str(number).encode()).hexdigest()[:10] for number in range(20_000)} | {"0" * 10})
    version_dir = write_version(tmp_path / "pets" / "1")
    write_pictures(version_dir, {"train": digests})
    write_manifest(version_dir, MANIFEST_VALUES)
    assert read_pictures(version_dir, read_manifest(version_dir))["train"] == set(digests)
    assert (version_dir / PICTURES).stat().st_size < 3.7 * len(digests)


def test_what_taught_one_of_several_bundles_taught_all():
    def pictures(train, val, test):
        return {"train": frozenset(train), "val": frozenset(val), "test": frozenset(test)}

    one, other = pictures("abc", "de", "fgh"), pictures("xd", "yf", "zg")
    assert join_pictures([one]) == one
    assert join_pictures([one, other]) == pictures("abcxd", "eyf", "hgz")
    assert join_pictures([one, None]) is None


def test_one_network_in_two_bundles_is_named(tmp_path):
    paths = [tmp_path / "pets" / number for number in "12"]
    twice, changed = MANIFEST_VALUES, dataclasses.replace(MANIFEST_VALUES, weights_digest="cd" * 32)
    words = same_network(paths, [twice, twice])
    assert_one_line_of(words, f"{paths[1]}: has the same network as {paths[0]} (equal weights)")
    assert same_network(paths, [twice, changed]) == ""
    other_size = dataclasses.replace(twice, preprocessing=dataclasses.replace(twice.preprocessing, size=(48, 64)))
    assert same_network(paths, [twice, other_size]) == ""
    member = EnsembleMember("pets/1", twice.model, twice.weights_digest, twice.preprocessing)
    joined = dataclasses.replace(changed, members=(member,))
    assert str(paths[1]) in same_network(paths, [twice, joined])


def assert_one_line_of(words: str, part: str) -> None:
    assert "\n" not in words
    assert part in words


STAGER = """
import os, sys, time
from pathlib import Path
from toolkit.bundle import next_version
with next_version(Path(sys.argv[1])) as staging:
    (staging / "part").write_text("half of it")
    print(staging, flush=True)
    time.sleep(60)
"""


def test_what_a_killed_export_left_is_swept_by_the_next_and_only_that(tmp_path):
    directory = tmp_path / "pets"
    killed, alive = (
        subprocess.Popen([sys.executable, "-c", STAGER, str(directory)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    )
    left, used = (Path(process.stdout.readline().strip()) for process in (killed, alive))
    killed.kill()
    killed.wait()
    elsewhere = directory / left.name.replace(left.name.split("-")[2], "a0ffee12")  # another host's, on a shared disk
    elsewhere.mkdir()
    try:
        with next_version(directory) as staging:
            assert set(directory.iterdir()) == {staging, used, elsewhere}
        assert (used / "part").read_text() == "half of it"
    finally:
        alive.kill()
        alive.wait()
        alive.stdout.close()
        killed.stdout.close()


def test_staging_is_swept_after_a_week_though_its_number_was_given_again(tmp_path):
    left, fresh = staging_dir(tmp_path), staging_dir(tmp_path)  # by a process that runs
    os.utime(left, (then := time.time() - 8 * 24 * 3600, then))
    with next_version(tmp_path) as staging:
        assert set(tmp_path.iterdir()) == {fresh, staging}


def test_a_version_that_may_not_be_read_hides_no_other(bundle, tmp_path, monkeypatch, caplog):
    """As one that root exported for a server that is not root: the whole bundle was gone."""
    for version in ("1", "2"):
        shutil.copytree(bundle, tmp_path / "digits" / version)
    is_file = Path.is_file

    def refused(path: Path) -> bool:
        if path.parent.parent.name == "2":
            raise PermissionError(13, "Permission denied")
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refused)
    for _ in range(3):
        assert list(complete_versions(tmp_path / "digits")) == [1]
    assert caplog.text.count("digits/2: left out, as this user may not read it") == 1
