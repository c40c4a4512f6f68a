"""Bundles pulled from a hub on loopback: whole and as their manifest says, or one line and nothing."""

import errno
import json
import os
import re

import numpy as np
import pytest

from toolkit import Predictor, UserError, machine
from toolkit.cli import main
from toolkit.hub.pull import fetch_bundle, pull_bundle

MANIFEST = "assets.extra/manifest.json"


def edited(repository, tag: str = "v1", **files: bytes | None) -> None:
    """Commit other contents of files, by the ends of their names, None to leave them out."""
    content = dict(repository.files(tag))
    for end, other in files.items():
        name = next(name for name in content if name.endswith(end.replace("__", ".")))
        content.pop(name)
        if other is not None:
            content[name] = other
    repository.refs[tag] = repository.commit(content)


def with_manifest(repository, tag: str = "v1", **values) -> None:
    document = json.loads(repository.files(tag)[MANIFEST])
    edited(repository, tag, manifest__json=json.dumps(document | values).encode())


def listed(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_bundle_becomes_the_next_version_to_the_byte(pushed, plain_bundle, tmp_path):
    target = tmp_path / "saved_models" / "mine"
    for version in ("1", "2"):
        result = pull_bundle("hf://user/digits@v1", target)
        assert result["bundle"] == str(target / version)
        assert result["commit"] == pushed.refs["v1"]
    files = {path.relative_to(plain_bundle) for path in plain_bundle.rglob("*") if path.is_file()}
    assert {path.relative_to(target / "1") for path in (target / "1").rglob("*") if path.is_file()} == files
    assert all((target / "1" / file).read_bytes() == (plain_bundle / file).read_bytes() for file in files)
    assert listed(target) == ["1", "2"]


def test_only_what_the_manifest_names_is_asked_for(hub, pushed, tmp_path):
    content = dict(pushed.files("v1")) | {"setup.py": b"import os", "assets.extra/more.py": b"import os"}
    pushed.refs["v1"] = pushed.commit(content)
    pull_bundle("hf://user/digits@v1", tmp_path / "mine")
    assert not [request for request in hub.requests if request.endswith(".py")]
    assert not list(tmp_path.rglob("*.py"))


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("hf://user/none", "hf://user/none: no such repository at http.*; if it is private, set HF_TOKEN, or run"),
        ("hf://user/digits@v9", "hf://user/digits@v9: no revision v9 of it; http.*/refs lists"),
        ("hf://digits", "expected an address such as hf://user/name or hf://user/name@v2, got 'hf://digits'"),
        ("hf://user/digits@", "expected an address"),
        ("hf://user/../digits", "expected an address"),
        ("https://huggingface.co/user/digits", "expected an address"),
    ],
)
def test_what_is_not_there_is_said_in_a_line(pushed, tmp_path, capfd, address, line):
    assert main(["pull", address, str(tmp_path / "mine")]) == 2
    told = capfd.readouterr().err
    assert re.match(f"toolkit: error: {line}", told)
    assert told.count("\n") == 1
    assert not (tmp_path / "mine").exists()


def test_private_repository_wants_a_token(pushed, tmp_path, monkeypatch):
    pushed.private = True
    with pytest.raises(UserError, match=r"no such repository at .*; if it is private, set HF_TOKEN"):
        pull_bundle("hf://user/digits", tmp_path / "mine")
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody_else")
    with pytest.raises(UserError, match="or the token in use may not see it"):
        pull_bundle("hf://user/digits", tmp_path / "mine")
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    assert pull_bundle("hf://user/digits", tmp_path / "mine")["bundle"].endswith("mine/1")


def test_repository_without_a_bundle(hub, pushed, tmp_path):
    edited(pushed, "main", manifest__json=None)
    with pytest.raises(UserError, match=r"not a bundle; it has no assets\.extra/manifest\.json"):
        pull_bundle("hf://user/digits", tmp_path / "mine")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"labels__txt": b"zero\n"}, "assets/labels.txt differs from the manifest's checksum"),
        ({"labels__txt": None}, "lacks assets/labels.txt, which its manifest names"),
        ({"manifest__json": b"{"}, "assets.extra/manifest.json: damaged manifest"),
    ],
)
def test_damage_leaves_nothing(pushed, tmp_path, change, line):
    edited(pushed, **change)
    with pytest.raises(UserError, match=f"^hf://user/digits@v1: {line}"):
        pull_bundle("hf://user/digits@v1", tmp_path / "mine")
    assert listed(tmp_path) == []


@pytest.mark.parametrize(
    "name", ["../escaped", "/escaped", "assets/../../escaped", "run.py", "saved_model.pbtxt", "a\n"]
)
def test_manifest_may_name_files_of_bundles_alone(hub, pushed, tmp_path, name):
    files = json.loads(pushed.files("v1")[MANIFEST])["files"]
    with_manifest(pushed, files=files | {name: "0" * 64})
    with pytest.raises(UserError, match=r"its manifest names .*, and a bundle has no such file"):
        pull_bundle("hf://user/digits@v1", tmp_path / "mine")
    assert listed(tmp_path) == []


def test_manifest_that_names_nothing_is_no_bundle(pushed, tmp_path):
    with_manifest(pushed, files={})
    with pytest.raises(UserError, match=r"names no saved_model\.pb"):
        pull_bundle("hf://user/digits@v1", tmp_path / "mine")


def test_commit_is_no_path_to_a_bundle_elsewhere(pushed, plain_bundle):
    elsewhere = os.path.relpath(plain_bundle, machine.cache_dir() / "bundles/user/digits")
    pushed.commits[elsewhere] = pushed.files("v1")
    pushed.refs["v1"] = elsewhere
    with pytest.raises(UserError, match="does not answer as a hub does"):
        fetch_bundle("hf://user/digits@v1")


def test_graph_that_writes_files_is_refused(pushed, tmp_path):
    import hashlib

    graph = pushed.files("v1")["saved_model.pb"] + b"\x12\x09WriteFile"
    edited(pushed, saved_model__pb=graph)
    files = json.loads(pushed.files("v1")[MANIFEST])["files"]
    with_manifest(pushed, files=files | {"saved_model.pb": hashlib.sha256(graph).hexdigest()})
    with pytest.raises(UserError, match="its graph has the operation WriteFile"):
        pull_bundle("hf://user/digits@v1", tmp_path / "mine")
    assert listed(tmp_path) == []


def test_connection_that_breaks_leaves_nothing(hub, pushed, tmp_path, capfd):
    hub.broken["model.fp32.tflite"] = 0
    assert main(["pull", "hf://user/digits@v1", str(tmp_path / "mine")]) == 2
    told = capfd.readouterr().err
    broken = r"toolkit: error: hf://user/digits@v1: the connection to http://127\S+ failed \(.*\); "
    assert re.fullmatch(f"{broken}check the network, or name its proxy by HTTPS_PROXY; HF_ENDPOINT names .*\n", told)
    assert listed(tmp_path) == []


def test_hub_that_fails_or_is_not_there(hub, pushed, tmp_path, monkeypatch):
    hub.failing = 503
    with pytest.raises(UserError, match="answers with status 503; try again later"):
        pull_bundle("hf://user/digits@v1", tmp_path / "mine")
    for endpoint in ("http://127.0.0.1:1", "http://user:secret@127.0.0.1:1"):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        with pytest.raises(UserError, match=r"the connection to http://127\.0\.0\.1:1 failed"):
            pull_bundle("hf://user/digits@v1", tmp_path / "mine")


def test_full_disk_is_named(pushed, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(UserError, match=r"mine: cannot be written \(No space left on device\)"):
        pull_bundle("hf://user/digits@v1", tmp_path / "mine")
    assert listed(tmp_path) == []


def test_mistake_of_ours_is_not_taken_for_the_hubs(pushed, tmp_path, monkeypatch):
    monkeypatch.setattr("toolkit.hub.pull.sha256_of", {}.__getitem__)
    with pytest.raises(KeyError):
        pull_bundle("hf://user/digits@v1", tmp_path / "mine")
    with pytest.raises(KeyError):
        fetch_bundle("hf://user/digits@v1")
    assert listed(tmp_path / "mine") == []


@pytest.mark.parametrize("variable", ["TOOLKIT_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_nothing_is_asked_for(hub, pushed, tmp_path, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(UserError, match="the hub is not asked while TOOLKIT_OFFLINE or HF_HUB_OFFLINE is set"):
        pull_bundle("hf://user/digits@v1", tmp_path / "mine")
    assert hub.requests == []


def test_a_place_that_cannot_be_written_is_refused_before_the_hub_is_asked(hub, pushed, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"not a writable folder \(Not a directory\); name another place"):
        pull_bundle("hf://user/digits@v1", tmp_path / "file" / "mine")
    assert hub.requests == []


def test_one_version_is_no_place_for_versions(pushed, plain_bundle):
    with pytest.raises(UserError, match="one version of a bundle; give the bundle"):
        pull_bundle("hf://user/digits@v1", plain_bundle)


def test_predictor_opens_an_address_and_keeps_it(hub, put, bundle, jpegs, monkeypatch):
    put(bundle)
    expected = Predictor.load(bundle, engine="litert").probabilities(jpegs[:2])
    predictor = Predictor.load("hf://user/digits@v1", engine="litert")
    np.testing.assert_array_equal(predictor.probabilities(jpegs[:2]), expected)
    downloads = len(hub.requests)
    Predictor.load("hf://user/digits@v1", engine="litert")
    assert len(hub.requests) == downloads + 1  # what v1 means now
    monkeypatch.setenv("TOOLKIT_OFFLINE", "1")
    Predictor.load("hf://user/digits@v1", engine="litert")
    assert len(hub.requests) == downloads + 1
    with pytest.raises(UserError, match="the hub is not asked while"):
        Predictor.load("hf://user/digits@main", engine="litert")


def test_tag_that_moved_is_fetched_anew_and_the_last_one_serves_without_a_network(hub, pushed, caplog):
    first = fetch_bundle("hf://user/digits@v1")
    pushed.refs["v1"] = pushed.commit(dict(pushed.files("v1")))
    second = fetch_bundle("hf://user/digits@v1")
    assert [first.name, second.name] == list(pushed.commits)
    hub.failing = 500
    assert fetch_bundle("hf://user/digits@v1") == second
    assert "answers with status 500; try again later; taking what was fetched before" in caplog.text


def test_commands_that_want_a_folder_name_the_command_that_brings_it(tmp_path, capfd):
    assert main(["benchmark", "hf://user/digits@v1"]) == 2
    assert "`toolkit pull hf://user/digits@v1 saved_models/NAME` brings the bundle here" in capfd.readouterr().err
