"""Several hosts reach what one reaches with the same batches."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from parallel_worker import environment, require_close, start, weights

from toolkit.errors import UserError
from toolkit.training.hosts import Hosts


def free_address() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.slow
def test_two_hosts_end_with_identical_weights_equal_to_one(pictures, tmp_path):
    pytest.importorskip("jax")
    address = free_address()
    alone = start(pictures, tmp_path, "alone", **environment("jax"))
    hosts = [
        start(pictures, tmp_path, f"host{i}", address, "2", str(i), run="run", **environment("jax")) for i in (0, 1)
    ]
    first, second = (weights(process, tmp_path, f"host{i}") for i, process in enumerate(hosts))
    for name in first.keys() - {"metrics"}:
        np.testing.assert_array_equal(first[name], second[name])
    require_close(first, weights(alone, tmp_path, "alone"))


def train_command(pictures: Path, run: Path, address: str, host: int) -> list[str]:
    settings = ["--set", "run.epochs=100000", "--set", "run.batch_size=8"]
    together = ["--coordinator", address, "--num-hosts", "2", "--host-id", str(host)]
    main = [sys.executable, "-m", "toolkit", "train", str(pictures), "--model", "softmax_regression"]
    return [*main, "--out", str(run), *settings, *together]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_death_of_a_host_ends_the_other_with_one_line(pictures, tmp_path, victim):
    pytest.importorskip("jax")
    address, run = free_address(), tmp_path / "run"
    env = {name: value for name, value in environment("jax").items() if name != "KERAS_BACKEND"}
    logs = [tmp_path / f"{host}.log" for host in (0, 1)]
    hosts = []
    for host, log in enumerate(logs):
        with log.open("w") as file:
            command = train_command(pictures, run, address, host)
            hosts.append(subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=file))
    try:
        deadline = time.monotonic() + 200
        metrics = run / "metrics.jsonl"
        while time.monotonic() < deadline and not (metrics.exists() and metrics.read_text().count("\n") >= 2):
            assert [process.poll() for process in hosts] == [None, None], [log.read_text() for log in logs]
            time.sleep(0.05)
        hosts[victim].send_signal(signal.SIGKILL)
        survivor = 1 - victim
        assert hosts[survivor].wait(timeout=60) == 1
    finally:
        for process in hosts:
            process.kill()
    # Progress, and then one line: whom it happened to, why, and what to do.
    *progress, error = logs[survivor].read_text().splitlines()
    assert all(line.startswith(("epoch", "host", "training on")) for line in progress), progress
    assert error.startswith(f"toolkit: error: host {survivor} of 2 stopped, because another host died")
    assert "--resume" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("somewhere", 2, 0), "expected HOST:PORT"),
        (("somewhere:port", 2, 0), "expected HOST:PORT"),
        (("somewhere:1234", 2, 2), "ids run from 0 to 1"),
    ],
)
def test_impossible_hosts_are_one_clear_line(arguments, message):
    with pytest.raises(UserError, match=message):
        Hosts(*arguments)
