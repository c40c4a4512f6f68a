"""Lessons: started, followed and stopped, a few at once and the others in line."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from toolkit.demo.teaching.limits import Limits
from toolkit.demo.teaching.worker import BUNDLES, NAME, REPORT
from toolkit.errors import UserError

log = logging.getLogger(__name__)

#: Arguments of Python that run a lesson; its folder follows.
WORKER = ("-m", "toolkit.demo.teaching.worker")

Phase = Literal["waiting", "working", "done", "failed", "stopped"]

_UNFORESEEN = "the lesson broke off; fewer pictures or a smaller network may help, and the server's log says more"


@dataclass(frozen=True)
class Backbone:
    """Base of a lesson: the network of a ``bundle``, or a registered ``network`` with a file of ``weights``."""

    bundle: Path | None = None
    network: str = ""
    weights: Path | None = None


@dataclass(frozen=True)
class Order:
    """A ``table`` of pictures that is to be taught, on top of a backbone."""

    table: Path
    backbone: Backbone
    report: bool = True


@dataclass
class Told:
    """A step of a lesson, as far as it has come."""

    label: str
    total: int | None
    done: int = 0
    began: float = field(default_factory=time.monotonic)
    seconds: float | None = None  # that it took, once it is over


class Lesson:
    """A lesson in a process of its own, which can be stopped at any moment.

    Attributes:
        phase: how it stands.
        problem: why it failed, for the visitor.
        judged: what ``toolkit.demo.teaching.worker.judged`` says, as soon as it is known.
        said: sentences for people, as they came.
        folder: where the network is written.
    """

    def __init__(self, order: Order, folder: Path, limits: Limits) -> None:
        self.phase: Phase = "waiting"
        self.problem = ""
        self.judged: dict[str, Any] | None = None
        self.said: list[str] = []
        self._order = order
        self.folder = folder
        self._limits = limits
        self._steps: dict[int, Told] = {}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._began = 0.0
        self._ended = 0.0
        self._is_gone = threading.Event()

    @property
    def is_over(self) -> bool:
        """Nothing happens any more."""
        return self.phase in ("done", "failed", "stopped")

    @property
    def bundle(self) -> Path:
        """The network's version directory, once the lesson is done."""
        return self.bundles / NAME / "1"

    @property
    def bundles(self) -> Path:
        """The folder that the network's bundle is in."""
        return self.folder / BUNDLES

    @property
    def report(self) -> Path:
        """The report, once the lesson is done and if one was ordered."""
        return self.folder / REPORT

    @property
    def seconds(self) -> float:
        """Seconds that it took, or takes so far; 0 while it waits."""
        return (self._ended or time.monotonic()) - self._began if self._began else 0.0

    @property
    def steps(self) -> list[Told]:
        """Steps in the order in which they began."""
        with self._lock:
            return list(self._steps.values())

    def begin(self, then: Callable[["Lesson"], None]) -> None:
        """Start the process, and call ``then`` when it is over."""
        with self._lock:
            process = None
            if self.phase == "waiting":
                self.phase = "working"
                self._began = time.monotonic()
                process = self._process = self._start()
        if process is None:  # stopped just before its turn
            then(self)
        else:
            threading.Thread(target=self._follow, args=(process, then), daemon=True).start()

    def stop(self, problem: str = "") -> None:
        """End the lesson now, whatever it does; with a ``problem`` it failed."""
        with self._lock:
            if not self.is_over:
                self.phase, self.problem = ("failed" if problem else "stopped"), problem
            if self._process is not None and self._process.poll() is None:
                _kill(self._process)

    def wait(self, seconds: float) -> bool:
        """Wait until nothing of the process is left, and tell if that is so."""
        return self._process is None or self._is_gone.wait(seconds)

    def _start(self) -> "subprocess.Popen[str]":
        self.folder.mkdir(mode=0o700)
        scratch = self.folder / "tmp"
        scratch.mkdir()
        (self.folder / "lesson.json").write_text(json.dumps(asdict(self._order), default=str))
        environment = {
            **os.environ,
            "KERAS_BACKEND": "tensorflow",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            # Nothing of a visitor's may stay in the caches of whoever runs the page.
            "TOOLKIT_CACHE": str(self.folder / "cache"),
            "TMPDIR": str(scratch),
            # The process must find this very package, wherever it was imported from.
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]),
        }
        command = [sys.executable, *WORKER, str(self.folder)]
        with (self.folder / "worker.log").open("w") as log_file:
            return subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log_file,
                env=environment,
                text=True,
                start_new_session=True,  # so that what it starts is ended with it
            )

    def _follow(self, process: "subprocess.Popen[str]", then: Callable[["Lesson"], None]) -> None:
        limit = self._limits.seconds
        timer = threading.Timer(limit, self.stop, [f"not done after {limit:.0f} seconds; take fewer pictures"])
        timer.daemon = True
        timer.start()
        try:
            assert process.stdout is not None
            assert process.stdin is not None
            for line in process.stdout:
                if line.endswith("\n"):  # a killed process may leave half of one
                    self._take(json.loads(line))
            status = process.wait()
            process.stdin.close()
            process.stdout.close()
            is_done = not status and not self.problem and self.phase == "working"
            if is_done:
                for name in ("features", "cache", "tmp"):
                    shutil.rmtree(self.folder / name, ignore_errors=True)
            elif self.phase == "working" and not self.problem:
                log.error("a lesson ended with status %d: %s", status, _last_words(self.folder / "worker.log"))
                self.problem = _UNFORESEEN
            if not is_done:
                shutil.rmtree(self.folder, ignore_errors=True)
            with self._lock:
                if self.phase == "working":
                    self.phase = "done" if is_done else "failed"
        finally:
            self._ended = time.monotonic()
            if not self.is_over:  # what is above went wrong itself
                self.stop(_UNFORESEEN)
            timer.cancel()
            self._is_gone.set()
            then(self)

    def _take(self, told: dict[str, Any]) -> None:
        event = told.pop("event")
        with self._lock:
            if event == "begin":
                self._steps[told["number"]] = Told(told["label"], told["total"])
            elif event == "update":
                step = self._steps[told["number"]]
                step.done, step.total = told["done"], told["total"] or step.total
            elif event == "end":
                step = self._steps[told["number"]]
                step.seconds = time.monotonic() - step.began
            elif event == "said":
                self.said.append(told["text"])
            elif event == "judged":
                self.judged = told
            elif event == "failed":
                self.problem = told["message"]


class Line:
    """Lessons under way, and those that wait for their turn. Safe for several threads."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._at_work: list[Lesson] = []
        self._waiting: list[Lesson] = []

    def join(self, lesson: Lesson) -> None:
        """Let a lesson begin, or wait until it may.

        Raises:
            UserError: too many wait.
        """
        with self._lock:
            if len(self._at_work) < self._limits.at_once:
                self._at_work.append(lesson)
            elif len(self._waiting) < self._limits.waiting:
                self._waiting.append(lesson)
                return
            else:
                raise UserError(f"{len(self._waiting)} others wait for a lesson; try again in a few minutes")
        self._begin(lesson)

    def ahead_of(self, lesson: Lesson) -> int:
        """Count the lessons that end or begin before this one begins; 0 where it does not wait."""
        with self._lock:
            if lesson not in self._waiting:
                return 0
            return len(self._at_work) + self._waiting.index(lesson)

    def leave(self, lesson: Lesson) -> None:
        """Stop a lesson, and let the next one begin."""
        with self._lock:
            if lesson in self._waiting:
                self._waiting.remove(lesson)
        lesson.stop()

    def _begin(self, lesson: Lesson) -> None:
        try:
            lesson.begin(self._next)
        except OSError as error:
            log.error("a lesson cannot begin: %s", error)
            lesson.stop("there is no room for another lesson on this server; try again later")
            self._next(lesson)

    def _next(self, lesson: Lesson) -> None:
        with self._lock:
            if lesson in self._at_work:
                self._at_work.remove(lesson)
            if not self._waiting or len(self._at_work) >= self._limits.at_once:
                return
            following = self._waiting.pop(0)
            self._at_work.append(following)
        self._begin(following)


def _kill(process: "subprocess.Popen[str]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _last_words(file: Path) -> str:
    try:
        lines = [line for line in file.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    return lines[-1] if lines else ""
