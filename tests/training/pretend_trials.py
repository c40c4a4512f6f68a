"""Trials that only pretend to train, for test_tune.py: workers import this file, so it imports little.

python pretend_trials.py FUNCTION DIRECTORY TOTAL JOBS
"""

import os
import signal
import sys
import time
from pathlib import Path

from toolkit.errors import UserError
from toolkit.training.config import TrainConfig
from toolkit.training.search_space import Setting, parse_search
from toolkit.training.trial_pool import Report
from toolkit.training.tune import SearchStore, Trial, search

SPECS = ("optimizer.lr=log:1e-4:1e-1", "run.batch_size=choice:16,32,64", "optimizer.momentum=log1m:0.5:0.99")


def settings() -> tuple[Setting, ...]:
    return parse_search(SPECS, TrainConfig())


def open_store(directory: Path, metric: str = "val_accuracy", seed: int = 0) -> SearchStore:
    return SearchStore(directory / "search.db", settings(), metric=metric, seed=seed)


def rising(trial: Trial, report: Report) -> float:
    """Accuracy by epoch, better at low rates. Where PRETEND_HANG names a directory, the third trial and later ones
    leave their process's number there, and hang."""
    value = 1 / (1 + trial.values["optimizer.lr"])
    for epoch in range(1, 4):
        if "PRETEND_HANG" in os.environ and trial.number > 1 and epoch == 2:
            Path(os.environ["PRETEND_HANG"], str(os.getpid())).touch()
            time.sleep(3600)
        report({"epoch": epoch, "val_accuracy": value * epoch / 3, "last": epoch == 3})
    return value


def falling(trial: Trial, report: Report) -> float:
    """Loss by epoch, better at low rates."""
    value = trial.values["optimizer.lr"]
    for epoch in range(1, 4):
        report({"epoch": epoch, "val_loss": value / epoch, "last": epoch == 3})
    return value / 3


def failing(trial: Trial, report: Report) -> float:
    """In three ways, and well before and after."""
    if trial.number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if trial.number == 2:
        raise UserError("the loss is no number")
    if trial.number == 3:
        raise ZeroDivisionError("nobody thought of it\nat all")
    return 0.5


if __name__ == "__main__":
    name, path, total, jobs = sys.argv[1:]
    sys.path.insert(0, str(Path(__file__).parent))
    import pretend_trials  # by this name the workers find its functions

    search(open_store(Path(path)), getattr(pretend_trials, name), total=int(total), jobs=int(jobs))
