"""Trials as processes of the command line: what kills one costs that trial only, and none outlives the search."""

import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.machine import num_threads
from toolkit.progress import step
from toolkit.training.config import TrainConfig
from toolkit.training.run_dir import RunDirectory
from toolkit.training.search.study import next_trial

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

# The search holds the other end of the trial's standard input, and never writes.
_TOOLKIT = "import sys; from toolkit.machine import end_with_parent; end_with_parent()\n"
_TOOLKIT += "from toolkit.cli import main; sys.exit(main())"
_ERROR, _TRACEBACK = "toolkit: error: ", "Traceback (most recent call last):\n"
_SECONDS_BETWEEN_LOOKS = 0.2


@dataclass(frozen=True)
class TrialRun:
    """The command of the process that trains a trial, the run it notes its epochs in, and what that is judged by."""

    command: Sequence[str]
    run: RunDirectory
    config: TrainConfig
    metric: str

    def value(self) -> float:
        """Return the metric of the network that the finished run ended with."""
        from toolkit.training.optimizers import best_epoch

        history = self.run.history()
        last = best_epoch(self.config.optimizer, history) if self.config.run.early_stopping else len(history)
        return history[last - 1][self.metric]


def toolkit_command(*arguments: str) -> list[str]:
    """Make the command of a ``toolkit`` process that ends with the one that started it, even if that is killed."""
    return [sys.executable, "-c", _TOOLKIT, *arguments]


def run_trials(
    study: "optuna.Study",
    prepare: Callable[["optuna.Trial"], TrialRun],
    *,
    total: int,
    jobs: int = 1,
    on_end: Callable[["FrozenTrial"], None] = lambda trial: None,
) -> None:
    """Run trials until there are ``total``, earlier ones among them and unfinished ones first, ``jobs`` at a time.

    ``prepare`` draws what a trial tries, and tells how it is trained.
    """
    free: list[dict[str, str]] = shares_of_machine(jobs)
    running: dict[int, _Process] = {}
    try:
        while True:
            while free and (trial := next_trial(study, total, running)):
                running[trial.number] = _Process(trial, prepare(trial), free.pop(0))
            if not running:
                return
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            for number, process in list(running.items()):
                if ended := process.report(study):
                    process.stop()
                    free.append(running.pop(number).share)
                    on_end(ended)
    finally:
        for process in running.values():
            process.stop()


def shares_of_machine(jobs: int) -> list[dict[str, str]]:
    """Divide the machine: what each of several trials' environments adds, a GPU each or the processor's cores.

    One alone has the whole machine.
    """
    if jobs == 1:
        return [{}]
    gpus = _gpus()
    if not gpus:
        cores = str(max(1, num_threads() // jobs))
        return [{} if "TF_NUM_INTRAOP_THREADS" in os.environ else {"TF_NUM_INTRAOP_THREADS": cores}] * jobs
    # Where several share a GPU, none may take all its memory at once, as TensorFlow and JAX would.
    shared = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return [shared | {"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} for index in range(jobs)]


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    program = shutil.which("nvidia-smi")
    if not program:
        return []
    found = subprocess.run([program, "--query-gpu=uuid", "--format=csv,noheader"], capture_output=True, text=True)
    return found.stdout.split() if found.returncode == 0 else []


class _Process:
    """A trial's process; what it prints is in a file beside the run's directory."""

    def __init__(self, trial: "optuna.Trial", plan: TrialRun, share: dict[str, str]) -> None:
        self.share = share
        self._trial = trial
        self._plan = plan
        self._num_epochs = 0
        self._step = ExitStack()
        self._told = self._step.enter_context(step(f"trial {trial.number}: epochs", plan.config.run.epochs))
        self._log = Path(f"{plan.run.path}.log")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                plan.command,
                env=os.environ | share,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                process_group=0,  # Ctrl-C is the search's to answer
            )

    def report(self, study: "optuna.Study") -> "FrozenTrial | None":
        """Report the epochs since the last call; return the trial once it has ended, or is to be stopped."""
        from optuna.trial import TrialState

        status = self._process.poll()  # before its epochs are read, so that of an ended one all are
        for row in self._plan.run.history()[self._num_epochs :]:
            self._num_epochs += 1
            self._told(self._num_epochs)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of an epoch done again after a kill, the first report counts
                self._trial.report(row[self._plan.metric], row["epoch"])
            # One at a time, however many came since: so it does not matter how often one looks.
            if row["epoch"] < self._plan.config.run.epochs and self._trial.should_prune():
                return study.tell(self._trial, state=TrialState.PRUNED)
        if status is None:
            return None
        if status == 0:
            return study.tell(self._trial, self._plan.value())
        error, traceback = _failure(status, self._log.read_text(encoding="utf-8", errors="replace"))
        self._trial.set_user_attr("error", error)
        self._trial.set_user_attr("traceback", traceback)
        return study.tell(self._trial, state=TrialState.FAIL)

    def stop(self) -> None:
        """Kill it if it still runs, which a run survives at any moment."""
        self._step.close()
        self._process.kill()
        self._process.communicate()


def _failure(status: int, log: str) -> tuple[str, str]:
    """Tell why a process failed, in one line, with the traceback of what nobody foresaw."""
    if status < 0:
        return f"its process was ended by {signal.Signals(-status).name}, as it is where memory runs out", ""
    *_, last = ["", *log.splitlines()]
    if last.startswith(_ERROR):
        return last.removeprefix(_ERROR), ""
    _, start, trace = log.rpartition(_TRACEBACK)
    if start:
        return next(line for line in trace.splitlines() if not line.startswith(" ")), start + trace
    return f"its process ended with status {status}", ""
