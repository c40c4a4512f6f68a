"""A search tries the same points whoever runs it and however often it is killed, each setting on its scale."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pretend_trials as pretend
import pytest
from pretend_trials import SPECS, open_store, settings
from scipy import stats

from toolkit.errors import UserError
from toolkit.training.config import OptimizerConfig, TrainConfig, apply_overrides, config_from_json
from toolkit.training.report import plots
from toolkit.training.search_space import as_overrides, parse_search, parse_setting
from toolkit.training.trial_pool import worker_environments
from toolkit.training.tune import SearchStore, Trial, search


def draws(spec: str, count: int = 2000) -> np.ndarray:
    setting = parse_setting(spec)
    return np.array([setting.draw(0, number) for number in range(count)])


# Scales


@pytest.mark.parametrize(
    ("spec", "stretched"),
    [
        ("optimizer.lr=log:1e-4:1e-1", lambda x: (np.log10(x) + 4) / 3),
        ("optimizer.momentum=log1m:0.9:0.999", lambda x: (-np.log10(1 - x) - 1) / 2),
        ("optimizer.momentum=uniform:0.5:0.75", lambda x: 4 * (x - 0.5)),
    ],
    ids=["log", "log1m", "uniform"],
)
def test_draws_are_uniform_on_their_scale(spec, stretched):
    shares = stretched(draws(spec))
    assert stats.kstest(shares, "uniform").pvalue > 0.05
    assert stats.kstest(shares**2, "uniform").pvalue < 1e-6, "the test could not tell another scale"


def test_momentum_is_as_often_between_0_9_and_0_99_as_between_0_99_and_0_999():
    below = np.mean(draws("optimizer.momentum=log1m:0.9:0.999") < 0.99)
    assert below == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("run.epochs=int:3:7", dict.fromkeys(range(3, 8), 0.2)),
        ("run.batch_size=choice:16,32,64", dict.fromkeys((16, 32, 64), 1 / 3)),
        # Each number reaches half way to its neighbours, and 4.5 / 0.5 is 9.
        ("run.epochs=logint:1:4", {n: np.log((n + 0.5) / (n - 0.5)) / np.log(9) for n in range(1, 5)}),
    ],
    ids=["int", "choice", "logint"],
)
def test_whole_numbers_and_choices_come_as_often_as_they_should(spec, expected):
    values, counts = np.unique(draws(spec), return_counts=True)
    assert values.tolist() == sorted(expected)
    assert stats.chisquare(counts, [expected[v] * counts.sum() for v in values.tolist()]).pvalue > 0.05


def test_settings_of_one_trial_and_seeds_are_independent():
    rate, momentum = draws(SPECS[0]), draws(SPECS[2])
    assert abs(stats.spearmanr(rate, momentum).statistic) < 0.05
    other = [parse_setting(SPECS[0]).draw(1, number) for number in range(2000)]
    assert abs(stats.spearmanr(rate, other).statistic) < 0.05


def test_momentum_keeps_its_digits_close_to_one():
    values = draws("optimizer.momentum=log1m:0.99:0.999999", 500)
    assert len(set(values.tolist())) == 500
    assert values.min() >= 0.99
    assert values.max() <= 0.999999


def test_values_stand_in_the_config():
    specs = [*SPECS, 'data.augment=choice:"none","mirror, shift"', "optimizer.milestones=choice:[0.5],[0.3, 0.6]"]
    settings = parse_search(specs, TrainConfig())
    values = {setting.key: setting.at(0.99) for setting in settings}
    config = apply_overrides(TrainConfig(), as_overrides(settings, values))
    assert (config.run.batch_size, config.data.augment) == (64, "mirror, shift")
    assert config.optimizer.milestones == (0.3, 0.6)
    assert config.optimizer == OptimizerConfig(
        lr=values["optimizer.lr"], momentum=values["optimizer.momentum"], milestones=(0.3, 0.6)
    )


@pytest.mark.parametrize(
    ("spec", "fragments"),
    [
        ("optimizer.lr", ["such as optimizer.lr=log:1e-4:1e-1"]),
        ("optimizer.lr=0.1", ["expected KEY=SCALE:"]),
        ("optimizer.learning_rate=log:1e-4:1e-1", ["unknown setting 'optimizer.learning_rate'"]),
        ("optimizer.momentun=uniform:0:0.9", ["did you mean 'optimizer.momentum'"]),
        ("optimizer.lr=lgo:1e-4:1e-1", ["unknown scale 'lgo'", "choice, int, log, log1m"]),
        ("optimizer.lr=log:1e-1:1e-4", ["below the second", "0.1 and 0.0001"]),
        ("optimizer.lr=log:1e-4", ["two numbers as in log:LOW:HIGH", "'1e-4'"]),
        ("optimizer.lr=log:nan:1", ["below the second"]),
        ("optimizer.l2=log:0:1", ["starts above 0"]),
        ("optimizer.lr=uniform:-1:1", ["setting optimizer.lr=-1.0", "greater than 0"]),
        ("optimizer.momentum=uniform:0.5:1", ["setting optimizer.momentum=1.0", "less than 1"]),
        ("optimizer.momentum=log1m:0.9:1", ["ends below 1, got 1"]),
        ("run.batch_size=uniform:16:64", ["valid integer", "int:… and logint:…"]),
        ("run.batch_size=int:16:64.5", ["two whole numbers", "16:64.5"]),
        ("run.batch_size=choice:16,large", ["setting run.batch_size='large'"]),
        ("run.batch_size=choice:16,16", ["a value stands there twice"]),
        ("optimizer.name=choice:sgd,adamw,lion", ["setting optimizer.name='lion'", "'adamw'"]),
        ("optimizer.name=choice:", ["expected values with commas"]),
        ("run.seed=int:0:5", ["--set has fixed run.seed already"]),
    ],
)
def test_bad_search_is_one_clear_line(spec, fragments):
    with pytest.raises(UserError) as error:
        parse_search([spec], TrainConfig(), overridden=["run.seed=3"])
    assert "\n" not in str(error.value)
    for fragment in fragments:
        assert fragment in str(error.value)


def test_a_setting_is_searched_once_and_something_is():
    with pytest.raises(UserError, match="searched already"):
        parse_search([SPECS[0], SPECS[0]], TrainConfig())
    with pytest.raises(UserError, match="nothing to search"):
        parse_search([], TrainConfig())


# Searching, with trials that only pretend to train


def numbered(store: SearchStore) -> list[Trial]:
    return sorted(store.trials(), key=lambda trial: trial.number)


def in_a_process(function: str, path: Path, total: int, jobs: int) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, pretend.__file__, function, path, str(total), str(jobs)])


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


def test_serial_parallel_and_killed_searches_try_the_same(tmp_path, monkeypatch):
    stores = {}
    for name, jobs in (("serial", 1), ("parallel", 2)):
        (tmp_path / name).mkdir()
        stores[name] = open_store(tmp_path / name)
        search(stores[name], pretend.rising, total=4, jobs=jobs)

    killed, pids = tmp_path / "killed", tmp_path / "pids"
    killed.mkdir()
    pids.mkdir()
    monkeypatch.setenv("PRETEND_HANG", str(pids))
    process = in_a_process("rising", killed, total=4, jobs=2)
    while len(list(pids.iterdir())) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    require_ended([int(path.name) for path in pids.iterdir()])  # else they would write where the next ones do
    left = open_store(killed)
    assert [(trial.state, trial.epochs) for trial in numbered(left)] == [("complete", 3)] * 2 + [("unfinished", 1)] * 2
    monkeypatch.delenv("PRETEND_HANG")
    search(left, pretend.rising, total=4)

    expected = numbered(stores["serial"])
    assert [trial.values for trial in expected] == [{s.key: s.draw(0, n) for s in settings()} for n in range(4)]
    assert all(trial.state == "complete" and trial.epochs == 3 for trial in expected)
    assert numbered(stores["parallel"]) == expected
    assert numbered(left) == expected
    search(left, pretend.rising, total=5)
    assert numbered(left)[:4] == expected
    assert len(numbered(left)) == 5
    assert left.trials()[0] == max(numbered(left), key=lambda trial: trial.value)


def test_trial_killed_while_it_was_made_gets_the_values_it_lacks(tmp_path):
    whole = open_store(tmp_path).next(1)
    (tmp_path / "partial").mkdir()
    store = open_store(tmp_path / "partial")
    trial = store._study.ask()  # killed before it was given its last values
    trial.suggest_float("optimizer.lr", 1e-4, 1e-1)
    assert open_store(tmp_path / "partial").next(1) == whole


def test_failed_trials_are_noted_and_the_search_goes_on(tmp_path):
    store = open_store(tmp_path)
    ended = []
    search(store, pretend.failing, total=5, on_end=lambda trial, outcome: ended.append(trial.number))
    assert ended == [0, 1, 2, 3, 4]
    trials = numbered(open_store(tmp_path))
    assert [trial.state for trial in trials] == ["complete", "failed", "failed", "failed", "complete"]
    assert "SIGKILL" in trials[1].error
    assert trials[2].error == "the loss is no number"
    assert trials[3].error == "ZeroDivisionError: nobody thought of it"
    assert "in failing" in trials[3].traceback
    assert [trial.number for trial in store.trials()] == [0, 4, 1, 2, 3]


@pytest.mark.parametrize("more_is_better", [True, False], ids=["accuracy", "loss"])
def test_pruning_stops_what_is_worse_than_the_median(tmp_path, more_is_better):
    """By the rule itself: of at least five complete trials, from the second epoch on, never in the last."""
    metric = "val_accuracy" if more_is_better else "val_loss"
    run = pretend.rising if more_is_better else pretend.falling
    store = open_store(tmp_path, metric, seed=1)
    search(store, run, total=10, prune=True)
    found = [(trial.state, trial.epochs) for trial in numbered(store)]

    sign, complete, expected = (1 if more_is_better else -1), [], []
    for number in range(10):
        rows: list[float] = []
        values = {setting.key: setting.draw(1, number) for setting in settings()}
        run(Trial(number, values), lambda row, rows=rows: rows.append(sign * row[metric]))
        worse = len(complete) >= 5 and max(rows[:2]) < np.median([other[1] for other in complete])
        expected.append(("pruned", 2) if worse else ("complete", 3))
        if not worse:
            complete.append(rows)
    assert found == expected
    assert ("pruned", 2) in found
    assert ("complete", 3) in found[5:]


def test_picture_has_each_setting_on_the_scale_it_was_drawn_from(tmp_path, monkeypatch):
    searched = [parse_setting(spec) for spec in (*SPECS, "run.epochs=int:1:9")]
    drawn = [{setting.key: setting.draw(0, number) for setting in searched} for number in range(4)]
    trials = [Trial(0, drawn[0], "complete", 0.9), Trial(1, drawn[1], "complete", 0.5)]
    trials += [Trial(2, drawn[2], "pruned", 0.3), Trial(3, drawn[3], "failed")]
    figures = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: figures.append(figure))
    plots.plot_search(searched, trials, tmp_path / "tune.png", metric="val_accuracy")

    rate, batch, momentum, epochs = figures[0].axes[:4]
    assert [axis.get_xscale() for axis in (rate, batch, momentum, epochs)] == ["log", "linear", "log", "linear"]
    assert momentum.xaxis_inverted(), "the value rises to the right"
    complete, pruned, failed, best = (dots.get_offsets().data.tolist() for dots in momentum.collections)
    beyond = [1 - values["optimizer.momentum"] for values in drawn]
    assert (complete, pruned) == ([[beyond[0], 0.9], [beyond[1], 0.5]], [[beyond[2], 0.3]])
    assert (failed[0][0], best) == (beyond[3], [[beyond[0], 0.9]])
    assert momentum.xaxis.get_major_formatter()(0.01, None) == "0.99"
    assert [label.get_text() for label in batch.get_xticklabels()] == ["16", "32", "64"]


def test_workers_share_the_machine(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert worker_environments(1) == [{}]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in worker_environments(3)] == ["2", "5", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)
    assert worker_environments(3) == [{"TF_NUM_INTRAOP_THREADS": "2"}] * 3


# The command, with real runs


@pytest.fixture(scope="module")
def few_digits(digits, tmp_path_factory) -> Path:
    """Twenty pictures each of three digits; caches are the module's own."""
    root = tmp_path_factory.mktemp("tune") / "digits"
    for name in ("0", "1", "2"):
        (root / name).mkdir(parents=True)
        for path in sorted((digits / name).iterdir())[:20]:
            shutil.copy(path, root / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOOLKIT_CACHE", str(root.parent / "cache"))
        yield root


# With seed 3, the first trial draws the rate that cannot work, the second the one that can.
REAL = (
    *("--model", "softmax_regression", "--seed", "3", "--trials", "2"),
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
def searched(few_digits) -> Path:
    out = few_digits.parent / "search"
    command("tune", few_digits, "--out", out, *REAL)
    return out


def test_trials_are_ordinary_runs_and_the_best_config_is_ready(searched, few_digits):
    result = json.loads((searched / "tune.json").read_text())
    by_number = {row["trial"]: row for row in result["trials"]}
    rates = {number: row["settings"]["optimizer.lr"] for number, row in by_number.items()}
    assert rates == {n: parse_setting("optimizer.lr=choice:0.05,1e38").draw(3, n) for n in range(2)}
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
    assert words[:5] == ["toolkit", "train", str(few_digits), "--model", "softmax_regression"]
    assert f"optimizer.momentum={best['settings']['optimizer.momentum']}" in words
    assert best["held_out"]["subset"] == "test"
    assert Path(result["plot"]).read_bytes().startswith(b"\x89PNG")


def test_a_finished_search_is_told_again_and_not_trained_again(searched, few_digits, capsys):
    before = (searched / "tune.json").read_text()
    models = {path: path.stat().st_mtime_ns for path in searched.glob("trial-*/model.keras")}
    command("tune", few_digits, "--out", searched, *REAL, "--resume", "--json")
    assert json.loads(capsys.readouterr().out) == json.loads(before)
    command("tune", few_digits, "--out", searched, *REAL, "--resume")
    shown = capsys.readouterr().out
    assert "complete" in shown
    assert "failed: the training loss became" in shown
    assert shown.splitlines()[-1] == json.loads(before)["best"]["command"]
    assert {path: path.stat().st_mtime_ns for path in searched.glob("trial-*/model.keras")} == models


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ((), "holds a search already; pass --resume"),
        (("--resume", "--seed", "4"), "begun with seed 3 and would go on with 4"),
        (("--resume", "--set", "run.seed=1"), "begun with set"),
        (("--resume", "--metric", "val_loss"), 'begun with metric "val_accuracy"'),
    ],
    ids=["again", "seed", "set", "metric"],
)
def test_another_search_does_not_mix_with_this_one(searched, few_digits, extra, message):
    with pytest.raises(UserError, match=message):
        command("tune", few_digits, "--out", searched, *REAL, *extra)


def test_two_processes_do_not_lead_one_search(searched, few_digits):
    from filelock import FileLock

    with FileLock(searched / ".lock"), pytest.raises(UserError, match="another process is at this search"):
        command("tune", few_digits, "--out", searched, *REAL, "--resume")


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
def test_bad_input_writes_nothing(few_digits, tmp_path, extra, message):
    with pytest.raises(UserError, match=message):
        command("tune", few_digits, "--model", "lenet5", "--out", tmp_path / "search", *extra)
    assert not list(tmp_path.iterdir())


def test_without_optuna_there_is_one_clear_line(few_digits, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install 'toolkit\[tune\]'"):
        command("tune", few_digits, "--out", tmp_path / "search", *REAL)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_search_killed_again_and_again_ends_as_the_unbroken_one(few_digits, tmp_path):
    arguments = [
        *("tune", str(few_digits), "--model", "lenet5", "--trials", "4", "--resume"),
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
