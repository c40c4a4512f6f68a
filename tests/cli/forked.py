"""Commands in processes forked from one that has imported TensorFlow: importing takes longer than most commands."""

import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
# A prediction took 3.6 s where inference and OpenVINO were imported in the forked process, and 0.15 s with these.
_CONTEXT.set_forkserver_preload(
    [
        *("tensorflow", "keras", "openvino", "matplotlib.figure", "sklearn.linear_model"),
        *("toolkit.cli.commands", "toolkit.inference", "toolkit.data.feed.pipeline", "toolkit.export.saved_model"),
        *("toolkit.training.loop", "toolkit.transfer.finetune", "toolkit.workflows"),
    ]
)
_SECONDS = 300


def run_command(
    *arguments: object,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    full_at: int = resource.RLIM_INFINITY,
    stdout: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run ``toolkit ARGUMENTS`` in ``cwd``, with ``environment`` added to this process's own.

    No file gets more than ``full_at`` bytes, as on a full disk. ``stdout`` may be a device.
    """
    argv = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory() as scratch:
        streams = [Path(scratch) / name for name in ("stdout", "stderr")]
        (Path(scratch) / "stdin").write_bytes(stdin)
        own = {**os.environ, **(environment or {})}
        given = (f"{scratch}/stdin", stdout or str(streams[0]), str(streams[1]))
        streams[0].touch()
        process = _CONTEXT.Process(target=_main, args=(argv, str(cwd), own, full_at, *given))
        process.start()
        process.join(_SECONDS)
        if process.is_alive():
            process.kill()
            raise subprocess.TimeoutExpired(argv, _SECONDS)
        return subprocess.CompletedProcess(argv, process.exitcode or 0, *(path.read_text() for path in streams))


def _main(argv: list[str], cwd: str, environment: dict[str, str], full_at: int, stdin: str, *streams: str) -> None:
    from toolkit.cli import main

    resource.setrlimit(resource.RLIMIT_FSIZE, (full_at, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    sys.stdin = open(stdin)  # noqa: SIM115
    for number, path in enumerate(streams, start=1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.exit(main(argv))
