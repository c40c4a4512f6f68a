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


def test_recommended_engine_is_set_listed_and_answers(home):
    told = done(run("bundles", "recommend", "saved_models/digits", "openvino-int8", cwd=home))
    assert told == "saved_models/digits/2: `--engine recommended` answers with openvino-int8 from now on\n"
    listed = done(run("bundles", "list", cwd=home)).splitlines()
    columns = "bundle network classes top-1 % pictures measured recommended engines"
    assert listed[0].split() == columns.split()
    assert listed[3].split()[:3] == ["saved_models/digits/2", "lenet5", "10"]
    rows = json.loads(done(run("bundles", "list", "saved_models", "--json", cwd=home)))
    assert [row["bundle"] for row in rows] == ["saved_models/digits/1", "saved_models/digits/2"]
    assert rows[1]["recommended"] == "openvino-int8"
    picture = next((home / "few" / "0").iterdir())
    report = json.loads(
        done(run("evaluate", "saved_models/digits", "few", "--engine", "recommended", "--json", cwd=home))
    )
    assert (report["engine"], report["n"], report["subset"]) == ("openvino-int8", 3, "all")
    assert picture.exists()


def test_version_that_cannot_be_read_does_not_hide_the_others(home):
    (home / "saved_models/digits/1/assets.extra/manifest.json").write_text("{")
    told = done(run("bundles", "list", cwd=home))
    assert "saved_models/digits/2" in told
    assert "saved_models/digits/1/assets.extra/manifest.json: damaged manifest" in told.splitlines()[-1]


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
        f"verify|{home / 'NOWHERE'}|x.png",
        f"verify|{bundle}|{home / 'NOWHERE.png'}",
        f"ensemble|{home / 'NOWHERE'}|--out|{home / 'both'}",
        f"ensemble|{bundle / '1'}|{bundle / '2'}|--out|{home / 'both'}",
        f"ensemble|{bundle}|--crops|7|--out|{home / 'both'}",
        f"ensemble|{bundle}|--data|{home / 'NOWHERE'}|--out|{home / 'both'}",
        f"bundles|list|{home / 'NOWHERE'}",
        f"bundles|recommend|{bundle}|litrt",
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
