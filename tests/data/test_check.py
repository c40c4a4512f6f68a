"""`toolkit check`: what it prints and writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit.data import split_folder
from toolkit.workflows.steps import scan

HYMENOPTERA = Path(os.environ.get("TOOLKIT_DATA", "nowhere")) / "hymenoptera"


def run(*arguments: object, cwd: Path, code: int = 0) -> str:
    command = [sys.executable, "-m", "toolkit", *map(str, arguments)]
    environment = os.environ | {"TOOLKIT_CACHE": str(cwd / "cache")}
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == code, result.stderr
    return result.stdout if code == 0 else result.stderr


@pytest.fixture
def home(make_folder, tmp_path):
    """Thirty noise pictures, one of them broken and one a placeholder, in a folder that must not change."""
    make_folder(tmp_path / "data", {"cats": 14, "dogs": 14})
    (tmp_path / "data/cats/bad.jpg").write_text("no")
    Image.new("RGB", (20, 20), "white").save(tmp_path / "data/dogs/blank.gif")
    return tmp_path


def test_findings_in_text_and_as_json(home):
    before = sorted(path.name for path in (home / "data").rglob("*"))
    text = run("check", "data", cwd=home)
    assert "data: 28 readable pictures in 2 classes" in text
    assert "unreadable: cats/bad.jpg: not a picture" in text
    assert "left out: dogs/blank.gif: a placeholder: 100 %" in text
    report = json.loads(run("check", "data", "--json", "--model", "lenet5", cwd=home))
    assert report["n"] == 28
    assert len(report["odd_sizes"]) == 28  # LeNet-5 takes 32 × 32
    assert report["split"]["train"] == {"cats": 8, "dogs": 8}
    assert sorted(path.name for path in (home / "data").rglob("*")) == before


def test_list_written_is_honoured_and_reported_by_training(home, caplog):
    refused = run("train", "data", "--model", "lenet5", "--out", "run", "--smoke", cwd=home, code=2)
    assert "cats/bad.jpg" in refused
    report = json.loads(run("check", "data", "--quarantine", "--json", cwd=home))
    assert report["quarantine_file"] == "data/quarantine.txt"
    listed = [line.split("\t")[0] for line in (home / "data/quarantine.txt").read_text().splitlines() if line[0] != "#"]
    assert listed == ["cats/bad.jpg", "dogs/blank.gif"]
    with caplog.at_level("WARNING"):
        folder = scan(home / "data", skip_bad=False)
    assert "left out cats/bad.jpg: not a picture" in caplog.text
    assert "left out dogs/blank.gif: a placeholder" in caplog.text
    used = {path for paths in split_folder(folder).as_dict(folder.root).values() for path in paths}
    assert len(used) == 28
    assert not {"cats/bad.jpg", "dogs/blank.gif"} & used


def test_list_elsewhere(home):
    run("check", "data", "--quarantine", "mine.txt", cwd=home)
    assert "dogs/blank.gif" in (home / "mine.txt").read_text()
    assert not (home / "data/quarantine.txt").exists()


@pytest.mark.slow
def test_contact_sheets(home):
    run("check", "data", "--augment-preview", "all.png", cwd=home)
    run("check", "data", "--augment-preview", "one.png", "--augment", "mirror:1", "--model", "lenet5", cwd=home)
    with Image.open(home / "all.png") as everything, Image.open(home / "one.png") as one:
        assert everything.height > 14 * 112
        mirrored = np.asarray(one).astype(int)
    left = mirrored.shape[1] - 8 * 116  # of the first of eight tiles, after the label
    original, version = mirrored[4:116, left : left + 112], mirrored[4:116, left + 116 : left + 228]
    assert abs(original[:, ::-1] - version).mean() < 0.3 * abs(original - version).mean()
    assert "did you mean 'mirror'" in run(
        "check", "data", "--augment-preview", "x.png", "--augment", "miror", cwd=home, code=2
    )
    assert "ends in .png" in run("check", "data", "--augment-preview", "x.txt", cwd=home, code=2)


@pytest.mark.skipif(not HYMENOPTERA.is_dir(), reason="TOOLKIT_DATA names no folder with hymenoptera")
def test_placeholder_among_the_ants_is_found(tmp_path):
    report = json.loads(run("check", HYMENOPTERA, "--json", cwd=tmp_path))
    assert [row["path"] for row in report["quarantined"]] == ["train/ants/imageNotFound.gif"]
    assert report["corrupt"] == []


def test_contact_sheet_does_not_become_a_picture_of_the_data(home):
    refused = run("check", "data", "--augment-preview", "data/cats/sheet.png", cwd=home, code=2)
    assert "would be taken for one; name another place" in refused
    assert not (home / "data/cats/sheet.png").exists()


def test_what_is_left_out_is_counted_by_reason(home, make_folder):
    make_folder(home / "data", {"cats/@eaDir/000.png": 3, "docs": 0})
    (home / "data/docs/notes").write_text("mine")
    Image.new("RGB", (9, 9), "blue").save(home / "data/cover.png")
    text = run("check", "data", cwd=home)
    left_out = "3 of another program or the system (cats/@eaDir/000.png/000.png …), 1 in no class folder (cover.png)"
    assert f"- left out: {left_out}, 1 not a picture (docs/notes)" in text
    rows = json.loads(run("check", "data", "--json", cwd=home))["ignored"]
    assert {"path": "cover.png", "reason": "in no class folder"} in rows
    assert len(rows) == 5


def test_folders_are_read_as_their_owner_says(make_folder, tmp_path):
    make_folder(tmp_path / "data", {"one/Cat": 3, "one/dog": 3, "two/cat": 2, "two/dog": 2})
    asked = run("check", "data", cwd=tmp_path, code=2)
    assert "one and two both hold folders of pictures named cat, dog: which are classes? say which, such as" in asked
    report = json.loads(
        run("check", "data", "--json", "--split-folders", "train=one,val=two", "--join-classes", cwd=tmp_path)
    )
    assert report["splits"] == {"train": 6, "val": 4}
    assert report["classes"] == {"Cat": 5, "dog": 5}
    assert "expected train=FOLDER" in run("check", "data", "--split-folders", "one", cwd=tmp_path, code=2)


@pytest.mark.slow
def test_names_that_are_not_utf8_are_written_out_and_back(make_folder, tmp_path):
    root = make_folder(tmp_path / "data", {"a": 10, "b": 10})
    name = os.fsdecode(b"caf\xe9\n.png")
    (root / "a" / name).write_text("no")
    os.rename(root / "b", root / os.fsdecode(b"K\xe4fer"))
    text = run("check", "data", "--quarantine", cwd=tmp_path)
    assert "unreadable: a/caf\\xe9\\n.png: not a picture" in text
    assert "Käfer" in text
    report = json.loads(run("check", "data", "--json", cwd=tmp_path))
    assert [row["path"] for row in report["quarantined"]] == [f"a/{name}"]
