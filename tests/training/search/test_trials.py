"""A search tries the same points whoever runs it and however often it is killed, with trials that pretend to train."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pretend_trial as pretend
import pytest

from toolkit.training.config import TrainConfig
from toolkit.training.search import trials
from toolkit.training.search.space import parse_search
from toolkit.training.search.study import open_study, plan_values


def summary(trial) -> tuple:
    return trial.number, trial.state.name, trial.value, trial.params, trial.intermediate_values


def require_ended(pids: list[int]) -> None:
    deadline = time.monotonic() + 20
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")  # a dead process nobody waited for is still listed
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


@pytest.mark.slow
def test_serial_parallel_and_killed_searches_try_the_same(tmp_path, monkeypatch):
    serial, parallel, killed, pids = (tmp_path / name for name in ("serial", "parallel", "killed", "pids"))
    for directory in (serial, parallel, killed, pids):
        directory.mkdir()
    expected = [summary(trial) for trial in pretend.search("rising", serial, total=4)]
    assert [summary(trial) for trial in pretend.search("rising", parallel, total=4, jobs=2)] == expected

    monkeypatch.setenv("PRETEND_HANG", str(pids))
    process = subprocess.Popen([sys.executable, pretend.__file__, "search", killed, "4", "2"])
    while len(list(pids.iterdir())) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    require_ended([int(path.name) for path in pids.iterdir()])  # else they would write where the next ones do
    left = open_study(killed / "search.db", metric="val_accuracy", seed=0).trials
    assert [(t.state.name, t.last_step) for t in left] == [("COMPLETE", 3)] * 2 + [("RUNNING", 1)] * 2
    monkeypatch.delenv("PRETEND_HANG")
    assert [summary(trial) for trial in pretend.search("rising", killed, total=4)] == expected
    assert [summary(trial) for trial in pretend.search("rising", killed, total=5)][:4] == expected

    settings = parse_search(pretend.SPECS, TrainConfig())
    planned = plan_values(settings, seed=0, total=4)
    finished = open_study(killed / "search.db", metric="val_accuracy", seed=0).trials
    assert [{setting.key: setting.suggest(trial) for setting in settings} for trial in finished[:4]] == planned
    assert len(finished) == 5


def test_failed_trials_are_noted_and_the_search_goes_on(tmp_path):
    found = pretend.search("failing", tmp_path, total=5)
    assert [trial.state.name for trial in found] == ["COMPLETE", "FAIL", "FAIL", "FAIL", "COMPLETE"]
    errors = [trial.user_attrs.get("error") for trial in found]
    assert "SIGKILL" in errors[1]
    assert errors[2:4] == ["the loss is no number", "ZeroDivisionError: nobody thought of it"]
    assert "in fail\n" in found[3].user_attrs["traceback"]


@pytest.mark.parametrize("kind", ["rising", "falling"])
def test_pruning_stops_what_is_worse_than_the_median(tmp_path, kind):
    """By the rule itself: of at least five complete trials, from the second epoch on, never in the last."""
    found = pretend.search(kind, tmp_path, total=10, prune=True, seed=1)
    sign, complete, expected = (1 if kind == "rising" else -1), [], []
    for trial in found:
        rows = [sign * value for value in pretend.metrics(kind, float(f"{trial.params['optimizer.lr']:.6g}"))]
        worse = len(complete) >= 5 and max(rows[:2]) < np.median([other[1] for other in complete])
        expected.append(("PRUNED", 2) if worse else ("COMPLETE", 3))
        if not worse:
            complete.append(rows)
    assert [(trial.state.name, trial.last_step) for trial in found] == expected
    assert ("PRUNED", 2) in expected
    assert ("COMPLETE", 3) in expected[5:]


def test_trials_share_the_machine(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert trials.shares_of_machine(1) == [{}]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in trials.shares_of_machine(3)] == ["2", "5", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(trials, "num_threads", lambda: 8)
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    assert trials.shares_of_machine(3) == [{"TF_NUM_INTRAOP_THREADS": "2"}] * 3
