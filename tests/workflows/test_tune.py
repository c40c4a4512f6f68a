"""A search of real runs by the command line."""

import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from toolkit.errors import UserError
from toolkit.training.config import config_from_json
from toolkit.training.search.space import parse_setting
from toolkit.training.search.study import plan_values

# With seed 1, the first trial draws the rate that cannot work, the second the one that can.
REAL = (
    *("--model", "softmax_regression", "--seed", "1", "--trials", "2"),
    *("--set", "run.epochs=1", "--set", "run.gradient_norms=false"),
    *("--set", "optimizer.name=sgd", "--set", "optimizer.warmup_epochs=0"),
    *("--search", "optimizer.lr=choice:0.05,1e38", "--search", "optimizer.momentum=log1m:0.5:0.99"),
)


def command(*arguments: object) -> None:
    from toolkit.cli import commands
    from toolkit.cli.parser import build_parser

    parsed = build_parser().parse_args([str(argument) for argument in arguments])
    getattr(commands, parsed.handler)(parsed)


@pytest.fixture(scope="module")
def searched(few) -> Path:
    out = few.parent / "search"
    command("tune", few, "--out", out, *REAL)
    return out


def test_trials_are_ordinary_runs_and_the_best_config_is_ready(searched, few):
    result = json.loads((searched / "tune.json").read_text())
    by_number = {row["trial"]: row for row in result["trials"]}
    rates = {number: row["settings"]["optimizer.lr"] for number, row in by_number.items()}
    planned = plan_values([parse_setting("optimizer.lr=choice:0.05,1e38")], seed=1, total=2)
    assert [rates[n] for n in range(2)] == [values["optimizer.lr"] for values in planned]
    for number, row in by_number.items():
        run = searched / f"trial-{number:04d}"
        assert row["run"] == str(run)
        config = config_from_json((run / "config.json").read_text())
        assert config.optimizer.lr == row["settings"]["optimizer.lr"]
        assert config.optimizer.momentum == row["settings"]["optimizer.momentum"]
        if rates[number] == 0.05:
            history = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            assert (row["state"], row["value"]) == ("complete", history[-1]["val_accuracy"])
            assert (run / "model.keras").exists()
            assert (run / "report.html").exists()
        else:
            assert row["state"] == "failed"
            assert "loss became" in row["error"]
    assert {row["state"] for row in result["trials"]} == {"complete", "failed"}

    best = result["best"]
    assert best["value"] == max(row["value"] for row in result["trials"] if row["value"] is not None)
    run_config = config_from_json(Path(best["run"], "config.json").read_text())
    assert config_from_json(Path(best["config"]).read_text()) == run_config
    words = shlex.split(best["command"])
    assert words[:5] == ["toolkit", "train", str(few), "--model", "softmax_regression"]
    assert f"optimizer.momentum={best['settings']['optimizer.momentum']}" in words
    assert best["held_out"]["subset"] == "test"
    assert Path(result["plot"]).read_bytes().startswith(b"\x89PNG")


def test_a_finished_search_is_told_again_and_not_trained_again(searched, few, capsys):
    before = (searched / "tune.json").read_text()
    models = {path: path.stat().st_mtime_ns for path in searched.glob("trial-*/model.keras")}
    command("tune", few, "--out", searched, *REAL, "--resume", "--json")
    assert json.loads(capsys.readouterr().out) == json.loads(before)
    command("tune", few, "--out", searched, *REAL, "--resume")
    shown = capsys.readouterr().out
    assert "complete" in shown
    assert "failed: the training loss became" in shown
    assert shown.splitlines()[-1] == json.loads(before)["best"]["command"]
    assert {path: path.stat().st_mtime_ns for path in searched.glob("trial-*/model.keras")} == models


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ((), "holds a search already; pass --resume"),
        (("--resume", "--seed", "4"), "begun with seed 1 and would go on with 4"),
        (("--resume", "--set", "run.seed=1"), "begun with set"),
        (("--resume", "--metric", "val_loss"), 'begun with metric "val_accuracy"'),
    ],
    ids=["again", "seed", "set", "metric"],
)
def test_another_search_does_not_mix_with_this_one(searched, few, extra, message):
    with pytest.raises(UserError, match=message):
        command("tune", few, "--out", searched, *REAL, *extra)


def test_two_processes_do_not_lead_one_search(searched, few):
    from filelock import FileLock

    with FileLock(searched / ".lock"), pytest.raises(UserError, match="another process is at this search"):
        command("tune", few, "--out", searched, *REAL, "--resume")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--search", "optimizer.lr=log:1e-1:1e-4"), "below the second"),
        (("--search", "optimizer.lr=log:1e-4:1e-1", "--metric", "val_acuracy"), "did you mean 'val_accuracy'"),
        (("--search", "data.split_seed=int:0:9"), "different pictures"),
        (("--search", "optimizer.l2=log:1e-5:1e-1", "--metric", "val_loss"), "changes what the loss means"),
        (("--search", "optimizer.lr=log:1e-4:1e-1", "--seed", "-1"), "seed from 0 on"),
        # Each value is allowed, but not both at once; seen in some trial before any is trained.
        (("--search", "data.balanced=choice:false,true", "--set", "data.class_weights=true"), "set one of them"),
    ],
    ids=["range", "metric", "split", "loss", "seed", "together"],
)
def test_bad_input_writes_nothing(few, tmp_path, extra, message):
    with pytest.raises(UserError, match=message):
        command("tune", few, "--model", "lenet5", "--out", tmp_path / "search", *extra)
    assert not list(tmp_path.iterdir())


def test_without_optuna_there_is_one_clear_line(few, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install 'toolkit\[tune\]'"):
        command("tune", few, "--out", tmp_path / "search", *REAL)
    assert not list(tmp_path.iterdir())


def test_search_of_another_version_is_refused(searched, few, tmp_path):
    old = shutil.copytree(searched, tmp_path / "old")
    begun = json.loads((old / "search.json").read_text())
    del begun["format"]
    (old / "search.json").write_text(json.dumps(begun))
    with pytest.raises(UserError, match=r"begun by another version.*name another --out"):
        command("tune", few, "--out", old, *REAL, "--resume")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are found in /proc")
def test_no_trial_outlives_a_killed_search(few, tmp_path):
    endless = ["--set", "run.epochs=100000", "--search", "optimizer.lr=log:1e-4:1e-2"]
    arguments = ["tune", str(few), "--model", "softmax_regression", "--out", str(tmp_path / "search"), *endless]
    search = subprocess.Popen([sys.executable, "-m", "toolkit", *arguments])
    metrics = tmp_path / "search" / "trial-0000" / "metrics.jsonl"
    while not metrics.exists():
        assert search.poll() is None
        time.sleep(0.05)
    children = Path(f"/proc/{search.pid}/task/{search.pid}/children").read_text().split()
    search.kill()
    search.wait()
    assert children
    deadline = time.monotonic() + 20
    while any(Path("/proc", child).exists() for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    size = metrics.stat().st_size
    time.sleep(0.5)
    assert metrics.stat().st_size == size


@pytest.mark.slow
def test_search_killed_again_and_again_ends_as_the_unbroken_one(few, tmp_path):
    arguments = [
        *("tune", str(few), "--model", "lenet5", "--trials", "4", "--resume"),
        *("--set", "run.epochs=3", "--search", "optimizer.lr=log:1e-4:1e-2"),
    ]

    def start(out: Path) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-m", "toolkit", *arguments, "--out", str(out)])

    begun = time.monotonic()
    assert start(tmp_path / "unbroken").wait() == 0
    duration = time.monotonic() - begun
    moments = np.random.default_rng(0)
    for _ in range(5):
        process = start(tmp_path / "killed")
        try:
            process.wait(moments.uniform(0.2, 0.6) * duration)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    assert start(tmp_path / "killed").wait() == 0

    found, expected = (json.loads((tmp_path / name / "tune.json").read_text()) for name in ("killed", "unbroken"))
    for ours, theirs in zip(found["trials"], expected["trials"], strict=True):
        assert ours | {"run": ""} == theirs | {"run": ""}
        assert Path(ours["run"], "metrics.jsonl").read_text() == Path(theirs["run"], "metrics.jsonl").read_text()
