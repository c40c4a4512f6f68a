"""Several devices, and several hosts, reach what one device reaches with the same batches."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from toolkit.errors import UserError
from toolkit.training.devices import Shard
from toolkit.training.hosts import Hosts

WORKER = Path(__file__).with_name("parallel_worker.py")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, make_folder) -> Path:
    """28 to train on, in batches of 8, 8, 8 and 4, unevenly divided among the classes; 11 to validate on."""
    return make_folder(tmp_path_factory.mktemp("pictures"), {"train/a": 20, "train/b": 8, "val/a": 6, "val/b": 5})


def environment(backend: str, **extra: str) -> dict[str, str]:
    return {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3", **extra}


def start(pictures: Path, directory: Path, name: str, *hosts: str, run: str = "", **env: str) -> subprocess.Popen:
    paths = [str(path) for path in (WORKER, pictures, directory / "runs" / (run or name), directory / name)]
    command = [sys.executable, *paths, *hosts]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def weights(process: subprocess.Popen, directory: Path, name: str) -> dict[str, np.ndarray]:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return dict(np.load(directory / f"{name}.npz"))


def free_address() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


def require_close(found: dict, expected: dict) -> None:
    for name in expected.keys() - {"devices"}:
        np.testing.assert_allclose(found[name], expected[name], rtol=2e-4, atol=2e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_devices_equal_one(pictures, tmp_path, backend):
    if backend == "jax":
        pytest.importorskip("jax")
    two = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "TWO_DEVICES": "1"}
    one = weights(start(pictures, tmp_path, "one", **environment(backend)), tmp_path, "one")
    both = weights(start(pictures, tmp_path, "two", **environment(backend, **two)), tmp_path, "two")
    assert (one["devices"], both["devices"]) == (1, 2)
    require_close(both, one)


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


def test_batch_that_does_not_divide_is_refused():
    with pytest.raises(UserError, match=r"batch_size=9 .* multiple of 2, such as 10"):
        Shard(num_devices=2).require_divisible(9)


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
