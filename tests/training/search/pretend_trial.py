"""A trial that only pretends to train, and a search over such trials, for test_trials.py.

python pretend_trial.py KIND NUMBER RATE RUN
python pretend_trial.py search DIRECTORY TOTAL JOBS
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from toolkit.machine import end_with_parent

SPECS = ("optimizer.lr=log:1e-4:1e-1", "run.batch_size=choice:16,32,64", "optimizer.momentum=log1m:0.5:0.99")
EPOCHS = 3


def metrics(kind: str, rate: float) -> list[float]:
    """Accuracy by epoch, or loss where it is ``falling``; better at low rates."""
    epochs = range(1, EPOCHS + 1)
    return [rate / e for e in epochs] if kind == "falling" else [e / EPOCHS / (1 + rate) for e in epochs]


def train(kind: str, number: int, rate: float, run: Path) -> None:
    """Note the metrics. Where PRETEND_HANG names a directory, the third trial and later ones leave their process's
    number there after the first epoch, and hang. ``failing`` fails in three ways, and does well before and after."""
    if kind == "failing":
        fail(number)
    run.mkdir(exist_ok=True)
    with (run / "metrics.jsonl").open("w") as file:
        for epoch, value in enumerate(metrics(kind, rate), start=1):
            if "PRETEND_HANG" in os.environ and number > 1 and epoch == 2:
                time.sleep(1)  # so that the search has seen the first epoch
                Path(os.environ["PRETEND_HANG"], str(os.getpid())).touch()
                time.sleep(3600)
            print(json.dumps({"epoch": epoch, "val_loss" if kind == "falling" else "val_accuracy": value}), file=file)
            file.flush()


def fail(number: int) -> None:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 2:
        print("epoch 1/3\ntoolkit: error: the loss is no number", file=sys.stderr)
        sys.exit(2)
    if number == 3:
        raise ZeroDivisionError("nobody thought of it\nat all")


def search(kind: str, directory: Path, *, total: int, jobs: int = 1, prune: bool = False, seed: int = 0) -> list:
    """Trials as Optuna has them, by number."""
    from toolkit.training.config import RunConfig, TrainConfig
    from toolkit.training.run_dir import RunDirectory
    from toolkit.training.search.space import parse_search
    from toolkit.training.search.study import open_study
    from toolkit.training.search.trials import TrialRun, run_trials

    metric = "val_loss" if kind == "falling" else "val_accuracy"
    settings = parse_search(SPECS, TrainConfig())
    study = open_study(directory / "search.db", metric=metric, seed=seed, prune=prune)

    def prepare(trial):
        rate, _, _ = (setting.suggest(trial) for setting in settings)
        run = directory / f"trial-{trial.number}"
        command = [sys.executable, __file__, kind, str(trial.number), str(rate), str(run)]
        return TrialRun(command, RunDirectory(run), TrainConfig(run=RunConfig(epochs=EPOCHS)), metric)

    run_trials(study, prepare, total=total, jobs=jobs)
    return study.trials


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    if name == "search":
        search("rising", Path(arguments[0]), total=int(arguments[1]), jobs=int(arguments[2]))
    else:
        end_with_parent()
        train(name, int(arguments[0]), float(arguments[1]), Path(arguments[2]))
