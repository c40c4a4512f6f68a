"""Several processes behind one port: started, watched, started anew when one dies, ended together.

Each listens on a socket of its own (SO_REUSEPORT), and the kernel shares the connections out; when one dies, those to
come go to the others. They are forked from a process that has imported what they need and started no thread, so that
a new one only has its networks to load.
"""

import logging
import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

from toolkit.errors import UserError
from toolkit.lazy import without_companions
from toolkit.machine import bind_address
from toolkit.serving.operation.logs import LogForm, current_form
from toolkit.serving.operation.metrics import SHARED_DIR
from toolkit.serving.options import ServerOptions

log = logging.getLogger(__name__)

#: Two in a row that live shorter than this died of something that the next one may die of too: that one has to wait.
SHORT_LIFE = 5.0

_PRELOADED = ["toolkit.serving.server", "toolkit.inference.predictor", "toolkit.serving.operation.preloaded"]
_CANNOT_START = 3

#: Answers on a bound socket until told to end: called with the place of the bundles, the host, the socket, the options.
Work = Callable[[tuple[str, str], str, socket.socket, ServerOptions], None]


def run_workers(work: Work, place: tuple[str, str], host: str, port: int, options: ServerOptions) -> None:
    """Run ``options.workers`` processes until SIGINT or SIGTERM.

    Args:
        work: what each does; a function of a module, so that the processes find it.
        place: the directory of the bundles, and the engine.
        host: the address to listen on.
        port: free when it was last looked at, and no longer bound.
        options: the server's.

    Raises:
        UserError: processes cannot share a port here, or it cannot be listened on.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise UserError("this system cannot share a port among processes; leave --workers out")
    with (
        tempfile.TemporaryDirectory(prefix="toolkit-metrics-") as shared_dir,
        _environment(SHARED_DIR, shared_dir),
        bind_address(host, port, shared=True),  # never listens: keeps the port while none of the processes has it
    ):
        _Workers(work, place, host, port, options).run()


class _Workers:
    def __init__(self, work: Work, place: tuple[str, str], host: str, port: int, options: ServerOptions) -> None:
        self._arguments = (current_form(), work, place, host, port, options)
        self._options = options
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)
        self._running: dict[int, Any] = {}  # by sentinel: index, process, time of its start
        self._died_young: set[int] = set()  # by index: the one before
        self._replaced: set[int] = set()  # by index: there was one before
        self._is_ending = threading.Event()

    def run(self) -> None:
        with on_signals(self._is_ending.set):
            for index in range(self._options.workers):
                self._start(index)
            while not self._is_ending.is_set():
                ended = wait(list(self._running), timeout=0.2)
                for sentinel in [sentinel for sentinel in self._running if sentinel in ended]:
                    self._replace(sentinel)
            self._end()

    def _start(self, index: int) -> None:
        process = self._context.Process(target=_be_worker, args=(index, *self._arguments), name=f"worker {index}")
        process.start()
        self._running[process.sentinel] = index, process, time.monotonic()

    def _replace(self, sentinel: int) -> None:
        from prometheus_client.multiprocess import mark_process_dead

        index, process, start = self._running.pop(sentinel)
        process.join()
        mark_process_dead(process.pid)
        if self._is_ending.is_set():
            return
        # Later on it is a file that somebody is changing, say: no reason to end the processes that answer.
        if process.exitcode == _CANNOT_START and index not in self._replaced:
            self._end()
            raise UserError("a process of the server could not start; the line above says why")
        self._replaced.add(index)
        log.error("%s ended with status %s; starting it anew", process.name, process.exitcode)
        if time.monotonic() - start >= SHORT_LIFE:
            self._died_young.discard(index)
        elif index in self._died_young:
            self._is_ending.wait(1)
        else:
            self._died_young.add(index)
        self._start(index)

    def _end(self) -> None:
        processes = [process for _, process, _ in self._running.values()]
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + self._options.grace + 5
        for process in processes:
            process.join(max(0.1, deadline - time.monotonic()))
            if process.exitcode is None:
                log.error("%s does not end; it is killed", process.name)
                process.kill()
                process.join()


def _be_worker(
    index: int, log_form: LogForm, work: Work, place: tuple[str, str], host: str, port: int, options: ServerOptions
) -> None:
    log_form.take()
    _end_with_parent()
    if hasattr(os, "sched_setaffinity"):  # each its share, for every engine starts a thread for each it may use
        processors = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, processors[index :: options.workers] or [processors[index % len(processors)]])
    try:
        with bind_address(host, port, shared=True) as listener, without_companions():
            work(place, host, listener, options)
    except UserError as error:
        logging.getLogger("toolkit").error("%s", error)
        os._exit(_CANNOT_START)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="watch parent", daemon=True).start()


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


@contextmanager
def on_signals(act: Callable[[], None]) -> Iterator[None]:
    """Do something at SIGINT and SIGTERM until the context ends; in another thread than the first, nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, lambda *_: act()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
