"""The experiments of ``benchmarks/papers.py``, without training them."""

import csv
import inspect
import json
import re
import runpy
from collections import Counter
from pathlib import Path

import pytest

from toolkit import list_models, model_info
from toolkit.training.config import apply_overrides
from toolkit.training.recipes import recipe

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "results"
EXPERIMENTS = runpy.run_path(str(ROOT / "benchmarks" / "experiments.py"))["EXPERIMENTS"]


@pytest.fixture(scope="module")
def papers():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        return runpy.run_path(str(ROOT / "benchmarks" / "papers.py"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_settings_are_understood_and_names_are_unique(name):
    experiment = EXPERIMENTS[name]
    names = [run.name for run in experiment.runs] + [row.name for row in experiment.together]
    assert len(names) == len(set(names))
    for run in experiment.runs:
        config = apply_overrides(recipe(model_info(run.model).recipe), [*experiment.settings, *run.settings])
        assert set(config.model.variant) <= set(keywords_of(run.model))
    assert {row.of for row in experiment.together} <= set(names)


def keywords_of(model):
    return inspect.signature(model_info(model).build).parameters


def test_degradation_changes_nothing_but_the_network():
    degradation = EXPERIMENTS["degradation"]
    resolved = [apply_overrides(recipe(model_info(run.model).recipe), degradation.settings) for run in degradation.runs]
    assert [run.settings for run in degradation.runs] == [()] * 4
    assert resolved == resolved[:1] * 4
    assert (resolved[0].optimizer.name, resolved[0].optimizer.lr, resolved[0].optimizer.l2) == ("sgd", 0.1, 1e-4)


def test_papers_errors_belong_to_runs_or_networks_and_have_a_source():
    printed = json.loads((RECORDS / "papers.json").read_text())
    for name, rows in printed["errors"].items():
        known = {run.name for run in EXPERIMENTS[name].runs} | {row.name for row in EXPERIMENTS[name].together}
        assert set(rows) <= known | set(list_models())
        assert {row["source"] for row in rows.values()} <= set(printed["sources"])


def test_pictures_are_drawn_evenly_and_once(papers, make_folder, tmp_path):
    data = make_folder(tmp_path / "data", {"train/ant": 9, "train/bee": 40, "test/ant": 8, "test/bee": 4})
    table = papers["pictures_table"](data, tmp_path, {"train": 20, "val": 0, "test": 6})
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    counts = Counter((row["split"], row["label"]) for row in rows)
    assert counts["test", "ant"] == counts["test", "bee"] == 3
    assert sum(count for (split, _), count in counts.items() if split == "train") == 20
    assert counts["train", "ant"] >= 7
    assert all(Path(row["path"]).is_file() for row in rows)
    before = table.stat().st_mtime_ns
    assert papers["pictures_table"](data, tmp_path, {"train": 20, "val": 0, "test": 6}) == table
    assert table.stat().st_mtime_ns == before


def test_records_have_a_line_for_a_list_of_figures(papers, tmp_path):
    document = {"runs": [{"loss": [1.5, 2.0], "name": "a, b"}], "none": []}
    papers["write"](document, tmp_path / "new" / "record.json")
    text = (tmp_path / "new" / "record.json").read_text()
    assert json.loads(text) == document
    assert '"loss": [1.5, 2.0]' in text


def test_a_record_notes_the_commands_that_made_it_without_the_machines_folders(papers, tmp_path, monkeypatch):
    out = ROOT / "benchmarks" / "results" / "mnist.json"
    program = str(ROOT / "benchmarks" / "papers.py")
    command = [program, "mnist", "--data", f"{tmp_path}/mnist", "--runs", "runs", f"--out={out}"]
    for more in ([], ["--seeds", "0", "1", "--only", "lenet5"], []):  # the third goes on after a kill
        monkeypatch.setattr("sys.argv", [*command, *more])
        papers["note_command"](tmp_path / "commands.txt")
    begun = "python benchmarks/papers.py mnist --data mnist --runs runs --out=benchmarks/results/mnist.json"
    assert (tmp_path / "commands.txt").read_text().splitlines() == [begun, f"{begun} --seeds 0 1 --only lenet5"]


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if (RECORDS / f"{name}.json").exists()])
def test_recorded_commands_train_the_runs_recorded(name):
    record = json.loads((RECORDS / f"{name}.json").read_text())
    trained = set()
    for command in record["command"].split(" && "):
        options = dict(re.findall(r"--(\S+) (.*?)(?= --|$)", command))
        assert command.startswith(f"python benchmarks/papers.py {name} ")
        assert {"data", "runs", "out"} <= set(options)
        names = options.get("only", " ".join(run.name for run in EXPERIMENTS[name].runs)).split()
        trained |= {(run, int(seed)) for run in names for seed in options.get("seeds", "0").split()}
    assert {(run["name"], run["seed"]) for run in record["runs"]} == trained
