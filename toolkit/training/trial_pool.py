"""Trials in processes of their own: what kills one costs that trial only, and none outlives the search."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, Literal, TypeVar

from toolkit.errors import UserError

Row = dict[str, Any]
Report = Callable[[Row], None]
Task = TypeVar("Task")

# Of a process with nothing left to do.
_SECONDS_TO_LEAVE = 10


class TrialPrunedError(Exception):
    """Raised in a trial by its ``report``: the search has seen enough of it."""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        state: ``failed`` also stands for a process that died.
        value: of a complete trial.
        error: of a failed trial, one line.
        traceback: of a trial that failed in a way nobody foresaw.
    """

    state: Literal["complete", "pruned", "failed"]
    value: float | None = None
    error: str = ""
    traceback: str = ""


def run_trials(
    tasks: Iterator[Task],
    run: Callable[[Task, Report], float],
    *,
    num_workers: int,
    on_epoch: Callable[[Task, Row], bool],
    on_end: Callable[[Task, Outcome], None],
) -> None:
    """Run every task, as many at a time as there are workers.

    Args:
        tasks: taken one by one, each when a worker is free for it; picklable.
        run: called in a worker with a task and a function to report epochs to, gives the trial's value; a function of
            a module, for the worker imports it.
        num_workers: processes. One trains trial after trial; a new one takes its place if it dies.
        on_epoch: called here with what a trial reports; whether it is to stop.
        on_end: called here at each trial's end.
    """
    workers = [_Worker(run, environment) for environment in worker_environments(num_workers)]
    try:
        for worker in workers:
            worker.start(next(tasks, None))
        while busy := [worker for worker in workers if worker.task is not None]:
            ready = wait([worker.connection for worker in busy if worker.connection])
            for worker in busy:
                if worker.connection in ready:
                    _listen(worker, on_epoch, on_end)
                    if worker.task is None:
                        worker.start(next(tasks, None))
    finally:
        for worker in workers:
            worker.stop()


def worker_environments(num_workers: int) -> list[dict[str, str]]:
    """What each worker's environment adds so that they share the machine: a GPU each, or the processor's cores.

    One worker has the whole machine.
    """
    if num_workers == 1:
        return [{}]
    gpus = _gpus()
    if not gpus:
        cores = str(max(1, (os.cpu_count() or 1) // num_workers))
        return [{} if "TF_NUM_INTRAOP_THREADS" in os.environ else {"TF_NUM_INTRAOP_THREADS": cores}] * num_workers
    # Where several share a GPU, none may take all its memory at once, as TensorFlow and JAX would.
    share = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    return [share | {"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} for index in range(num_workers)]


def _gpus() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    program = shutil.which("nvidia-smi")
    if not program:
        return []
    found = subprocess.run([program, "--query-gpu=uuid", "--format=csv,noheader"], capture_output=True, text=True)
    return found.stdout.split() if found.returncode == 0 else []


class _Worker(Generic[Task]):
    """A process, started when it is first needed, and the task it is at."""

    def __init__(self, run: Callable[[Task, Report], float], environment: dict[str, str]) -> None:
        self._run = run
        self._environment = environment
        self._process: Any = None
        self.connection: Connection | None = None
        self.task: Task | None = None

    def start(self, task: Task | None) -> None:
        self.task = task
        if task is None:
            return
        if self.connection is None:
            # Spawned, not forked: a framework's threads would not survive a fork.
            context = multiprocessing.get_context("spawn")
            self.connection, theirs = context.Pipe()
            arguments = (theirs, self._run, self._environment)
            self._process = context.Process(target=_work, args=arguments, name="toolkit-trial")
            self._process.start()
            theirs.close()  # so that the connection ends when the process does
        self.connection.send(task)

    def bury(self) -> str:
        """After the connection broke: how the process ended, in words, and nothing of it is left."""
        assert self.connection is not None
        self.connection.close()
        self.connection = None
        self._process.join(_SECONDS_TO_LEAVE)
        status = self._process.exitcode
        if status is not None and status < 0:
            return f"its process was ended by {signal.Signals(-status).name}, as it is where memory runs out"
        return f"its process ended with status {status}"

    def stop(self) -> None:
        if self.connection is None:
            return
        self.connection.close()
        if self.task is None:
            self._process.join(_SECONDS_TO_LEAVE)
        self._process.kill()  # a run survives that at any moment
        self._process.join()
        self.connection = None


def _listen(
    worker: _Worker[Task],
    on_epoch: Callable[[Task, Row], bool],
    on_end: Callable[[Task, Outcome], None],
) -> None:
    """Take one message from a worker that has sent one, or has died."""
    assert worker.connection is not None
    assert worker.task is not None
    try:
        message = worker.connection.recv()
    except (EOFError, OSError):
        message = Outcome("failed", error=worker.bury())
    if isinstance(message, Outcome):
        task, worker.task = worker.task, None
        on_end(task, message)
        return
    answer = on_epoch(worker.task, message)
    with suppress(OSError):  # it has died since: the next look at it finds out
        worker.connection.send(answer)


def _work(connection: Connection, run: Callable[[Any, Report], float], environment: dict[str, str]) -> None:
    """A worker's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the search decides
    os.environ.update(environment)
    threading.Thread(target=_follow_parent, daemon=True).start()

    def report(row: Row) -> None:
        connection.send(row)
        if connection.recv():
            raise TrialPrunedError

    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(_outcome(lambda: run(task, report)))  # noqa: B023  (called at once)


def _outcome(trial: Callable[[], float]) -> Outcome:
    try:
        return Outcome("complete", trial())
    except TrialPrunedError:
        return Outcome("pruned")
    except UserError as error:
        return Outcome("failed", error=str(error))
    except Exception as error:
        first_line = str(error).strip().partition("\n")[0]
        return Outcome("failed", error=f"{type(error).__name__}: {first_line}", traceback=traceback.format_exc())


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
