"""Commands that measure bundles and choose their engine."""

import json
import resource
import shutil
import subprocess
import sys
from argparse import Namespace

import pytest
from forked import run_command as run

from toolkit.bundle import EXAMPLES, read_manifest
from toolkit.cli import commands
from toolkit.cli.output import print_metrics


@pytest.fixture
def home(bundle, tmp_path):
    """A folder with ``saved_models/digits/1`` and ``/2`` and a few pictures."""
    for version in "12":
        shutil.copytree(bundle, tmp_path / "saved_models" / "digits" / version)
    for name, picture in zip("012", sorted((bundle / EXAMPLES).iterdir()), strict=True):
        (tmp_path / "few" / name).mkdir(parents=True)
        shutil.copy(picture, tmp_path / "few" / name)
    return tmp_path


def done(result):
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


@pytest.mark.slow
def test_recommended_engine_is_set_listed_and_answers(home):
    told = done(run("bundles", "recommend", "saved_models/digits", "openvino-int8", cwd=home))
    assert told == "saved_models/digits/2: `--engine recommended` answers with openvino-int8 from now on\n"
    listed = done(run("bundles", "list", cwd=home)).splitlines()
    columns = "bundle state labels network classes top-1 % pictures measured MB written recommended engines"
    assert listed[0].split() == columns.split()
    assert listed[3].split()[:4] == ["saved_models/digits/2", "whole", "lenet5", "10"]
    rows = json.loads(done(run("bundles", "list", "saved_models", "--json", cwd=home)))
    assert [row["bundle"] for row in rows] == ["saved_models/digits/1", "saved_models/digits/2"]
    assert rows[1]["recommended"] == "openvino-int8"
    report = json.loads(
        done(run("evaluate", "saved_models/digits", "few", "--engine", "recommended", "--json", cwd=home))
    )
    assert (report["engine"], report["n"], report["subset"]) == ("openvino-int8", 3, "all")


def test_version_that_cannot_be_read_does_not_hide_the_others(home):
    (home / "saved_models/digits/1/assets.extra/manifest.json").write_text("{")
    told = done(run("bundles", "list", cwd=home))
    assert "saved_models/digits/2" in told
    assert "saved_models/digits/1/assets.extra/manifest.json: damaged manifest" in told.splitlines()[-1]


def listed(home):
    rows = json.loads(done(run("bundles", "list", "--json", cwd=home)))
    return {row["version"]: (row["state"], *row["labels"]) for row in rows}


def test_versions_are_promoted_rolled_back_and_pruned(home):
    digits = "saved_models/digits"
    assert done(run("bundles", "promote", digits, "--label", "canary", cwd=home)) == f"{digits}/2: canary from now on\n"
    assert done(run("bundles", "promote", f"{digits}/1", cwd=home)) == f"{digits}/1: stable from now on\n"
    assert done(run("bundles", "promote", f"{digits}/1", cwd=home)) == f"{digits}/1: is stable already\n"
    told = done(run("bundles", "promote", digits, cwd=home))
    assert told == f"{digits}/2: stable from now on, in place of 1\n"
    assert listed(home) == {1: ("whole",), 2: ("whole", "canary", "stable")}
    assert done(run("bundles", "rollback", digits, cwd=home)) == f"{digits}/1: stable again, in place of 2\n"
    told = done(run("bundles", "share", digits, "0.125", cwd=home))
    assert (
        told
        == f"{digits}: of the requests that name no version, canary (version 2) 12.5 %, stable (version 1) 87.5 %\n"
    )
    told = done(run("bundles", "share", digits, "--end", cwd=home))
    assert told == f"{digits}: the highest version answers requests that name none\n"
    told = done(run("bundles", "rollback", digits, "--label", "canary", "--remove", cwd=home))
    assert told == f"{digits}/2: canary no more\n"
    told = done(run("bundles", "prune", digits, "--keep", "1", cwd=home))
    assert told == f"{digits}/1: stays, for a label's sake\n{digits}: nothing to remove\n"
    done(run("bundles", "rollback", digits, "--remove", cwd=home))
    told = done(run("bundles", "prune", digits, "--keep", "1", "--dry-run", cwd=home))
    assert told == f"{digits}/1: would be removed\n"
    assert done(run("bundles", "prune", digits, "--keep", "1", cwd=home)) == f"{digits}/1: removed\n"
    assert listed(home) == {2: ("whole",)}


def test_damaged_version_is_neither_verified_nor_promoted(home):
    version = "saved_models/digits/2"
    told = done(run("bundles", "verify", version, cwd=home))
    assert told.startswith(f"{version}: ")
    assert "litert-int8" in told
    (home / version / "assets.extra" / "model.int8.tflite").write_bytes(b"damaged")
    for action in ("verify", "promote"):
        result = run("bundles", action, version, cwd=home)
        assert result.returncode == 2
        assert result.stderr.startswith(f"toolkit: error: {version}/assets.extra/model.int8.tflite: checksum differs")
        assert len(result.stderr.splitlines()) == 1
    (home / version / "assets.extra" / "model.int8.tflite").unlink()
    assert listed(home) == {1: ("whole",), 2: ("incomplete",)}
    (home / "saved_models" / "digits" / "version_labels.json").write_text("{")
    rows = json.loads(done(run("bundles", "list", "--json", cwd=home)))
    assert "version_labels.json: damaged" in rows[0]["error"]
    (home / "saved_models" / "digits" / "version_labels.json").write_text('{"stable": [7]}')
    told = done(run("bundles", "list", cwd=home)).splitlines()
    assert told[-2] == "saved_models/digits: stable means version 7, which is not there any more"


def test_engine_without_a_file_is_refused_in_one_line(home):
    result = run("bundles", "recommend", "saved_models/digits/1", "litert-float16", "--force", cwd=home)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("toolkit: error: saved_models/digits/1: has no assets.extra/model.float16.tflite")
    assert len(result.stderr.splitlines()) == 1


def test_evaluate_says_what_it_measured_on(home, capsys):
    options = {"others": [], "engine": "litert", "crops": 1, "scales": [], "skip_bad": False, "json": False}
    bundle = home / "saved_models" / "digits"
    commands.evaluate(Namespace(bundle=bundle, data=home / "few", subset=None, **options))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("(3 pictures)")
    assert lines[1] == "measured on all 3 pictures; it is not known which pictures taught the bundle"


def test_the_same_network_twice_is_said_once(home):
    result = run("evaluate", "saved_models/digits/1", "few", "--with", "saved_models/digits/2", "--json", cwd=home)
    assert result.returncode == 0
    assert result.stderr == (
        "saved_models/digits/2: has the same network as saved_models/digits/1 (equal weights), whose answers count "
        "twice in an average; leave one of them out\n"
    )
    result = run("ensemble", "saved_models/digits/1", "saved_models/digits/2", "--out", "both", cwd=home)
    assert result.returncode == 2
    assert result.stderr.startswith("toolkit: error: saved_models/digits/2: has the same network as")
    assert not (home / "both").exists()


def test_top5_of_five_classes_is_not_shown(capsys):
    figures = {"subset": "test", "top1": 0.5, "top5": 1.0, "n": 1200}
    print_metrics(figures | {"num_classes": 5})
    print_metrics(figures | {"num_classes": 6})
    assert capsys.readouterr().out.splitlines() == [
        "test accuracy: top-1 50.00 % (1,200 pictures)",
        "test accuracy: top-1 50.00 %, top-5 100.00 % (1,200 pictures)",
    ]


HASTY = """
import sys
from toolkit.cli import main
for line in sys.argv[1:]:
    assert main([*line.split("|"), "--verbose"]) == 2, line  # which leaves the streams where they are
heavy = {"tensorflow", "keras", "openvino", "ai_edge_litert", "sklearn", "scipy", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""


def test_what_is_wrong_is_said_before_anything_heavy_is_imported(home):
    bundle, few = home / "saved_models" / "digits", home / "few"
    wrong = [
        f"evaluate|{home / 'NOWHERE'}|{few}",
        f"evaluate|{bundle}|{home / 'NOWHERE'}",
        f"evaluate|{bundle}|{few}|--engine|litrt",
        f"evaluate|{bundle}|{few}|--subset|tset",
        f"evaluate|{bundle}|{few}|--crops|7",
        f"evaluate|{bundle}|{few}|--with|{home / 'NOWHERE'}",
        f"benchmark|{home / 'NOWHERE'}",
        f"export|{home / 'NOWHERE'}|--tf-serving|{home / 'new'}",
        f"export|{bundle}|--tf-serving|{few}",
        f"verify|{home / 'NOWHERE'}|x.png",
        f"verify|{bundle}|{home / 'NOWHERE.png'}",
        f"ensemble|{home / 'NOWHERE'}|--out|{home / 'both'}",
        f"ensemble|{bundle / '1'}|{bundle / '2'}|--out|{home / 'both'}",
        f"ensemble|{bundle}|--crops|7|--out|{home / 'both'}",
        f"ensemble|{bundle}|--data|{home / 'NOWHERE'}|--out|{home / 'both'}",
        f"bundles|list|{home / 'NOWHERE'}",
        f"bundles|recommend|{bundle}|litrt",
        f"bundles|verify|{home / 'NOWHERE'}",
        f"bundles|promote|{bundle / '7'}",
        f"bundles|promote|{bundle}|--label|7",
        f"bundles|rollback|{bundle}",
        f"bundles|rollback|{bundle / '1'}",
        f"bundles|prune|{bundle / '1'}",
    ]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run([sys.executable, "-c", HASTY, *wrong], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert result.returncode == 0, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == len(wrong)
    assert all(line.startswith("toolkit: error: ") for line in lines)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2  # all of them together
    assert read_manifest(bundle / "1")
