"""The real server in a process of its own, on a loopback port."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest

from toolkit.errors import UserError
from toolkit.inference import Predictor
from toolkit.serving import serve
from toolkit.serving.options import WORKER_QUEUE

START = "import sys, toolkit.serving; toolkit.serving.serve(sys.argv[1], port=0, engine='litert')"


def test_boot_answer_many_at_once_and_end_on_sigterm(models_dir, images, b64, tmp_path):
    shutil.copytree(models_dir / "digits", models_dir / "broken")
    for file in (models_dir / "broken" / "1" / "assets.extra").glob("*.tflite"):
        file.write_bytes(b"damaged")
    log = tmp_path / "log.txt"
    with log.open("w") as stderr:
        process = subprocess.Popen([sys.executable, "-c", START, str(models_dir)], stderr=stderr)
    try:
        base = wait_for_url(process, log)
        assert ask_until_ready(base)
        expected = Predictor.load(models_dir / "digits", "litert").probabilities(images)

        def ask(index):
            body = {"instances": [b64(images[index % len(images)])]}
            answer = httpx.post(f"{base}/v1/models/digits:predict", json=body, timeout=30).json()
            np.testing.assert_allclose(
                answer["predictions"][0]["probabilities"], expected[index % len(images)], atol=1e-6
            )
            return True

        with ThreadPoolExecutor(24) as pool:
            assert all(pool.map(ask, range(72)))

        broken = httpx.get(f"{base}/v1/models/broken").json()["model_version_status"][0]
        assert broken["state"] == "END"
        assert "checksum" in broken["status"]["error_message"]

        port = int(base.rpartition(":")[2])
        with pytest.raises(UserError, match=f"port {port} on 127.0.0.1 is in use"):
            serve(models_dir, port=port)

        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text()
    assert "checksum" in log.read_text()


WORKERS = """
import sys
from toolkit.serving import ServerOptions, serve

if __name__ == "__main__":
    serve(sys.argv[1], port=0, engine="openvino", options=ServerOptions(workers=2, log_format="json"))
"""


def test_a_killed_worker_is_back_within_two_seconds_and_the_other_answers_meanwhile(models_dir, images, tmp_path):
    script, log = tmp_path / "start.py", tmp_path / "log.txt"
    script.write_text(WORKERS)
    with log.open("w") as stderr:
        process = subprocess.Popen([sys.executable, str(script), str(models_dir)], stderr=stderr)
    try:
        base = wait_for_url(process, log, count=2)

        def ask() -> str:
            with httpx.Client() as client:  # a connection of its own, which either may take
                answer = client.post(f"{base}/predict/digits", content=images[0], timeout=10)
            assert answer.status_code == 200, answer.text
            return answer.headers["x-request-id"]

        assert len({ask() for _ in range(8)}) == 8
        [worker, *_] = workers = workers_of(process.pid)
        assert len(workers) == 2
        os.kill(worker, signal.SIGKILL)
        start = time.monotonic()
        while len(re.findall("digits version 1 on", log.read_text())) < 3:
            ask()
            assert time.monotonic() - start < 20
        [new] = set(workers_of(process.pid)) - set(workers)
        assert processor_seconds(new) < 1  # so that on an idle machine it is back within two
        assert "libtensorflow" not in Path(f"/proc/{new}/maps").read_text()
        assert "ended with status -9; starting it anew" in log.read_text()
        pages = [httpx.get(f"{base}/metrics").text for _ in range(4)]  # of either, they tell of both
        assert all(float(re.search(r"toolkit_pictures_total{.*} (\S+)", page)[1]) >= 8 for page in pages)
        deadline = time.monotonic() + 30
        while (figure(base, "loaded_versions"), figure(base, "queue_places")) != (2, 2 * WORKER_QUEUE):
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    assert {line["level"] for line in lines} == {"info", "error"}
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)


def figure(base: str, name: str) -> float:
    return float(re.search(rf"^toolkit_{name}{{.*}} (\S+)$", httpx.get(f"{base}/metrics").text, re.MULTILINE)[1])


def workers_of(pid: int) -> list[int]:
    """The processes that listen, which a process forks that the server starts for it."""
    children = {int(stat.parent.name): int(stat.read_text().rpartition(")")[2].split()[1]) for stat in stats()}
    return [child for child, parent in children.items() if children.get(parent) == pid]


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def stats() -> list[Path]:
    return [path for path in Path("/proc").glob("[0-9]*/stat") if path.exists()]


def test_addresses_that_cannot_be_listened_on(models_dir):
    with pytest.raises(UserError, match="port must be from 0 to 65535, got 70000"):
        serve(models_dir, port=70000)
    with pytest.raises(UserError, match=r"cannot listen on 203\.0\.113\.1 port 8501"):
        serve(models_dir, host="203.0.113.1")
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(UserError, match="is in use"):
        serve(models_dir, port=other.getsockname()[1])


def wait_for_url(process, log, count: int = 1) -> str:
    for _ in range(600):
        found = re.findall(r"(http://127\.0\.0\.1:\d+)/v1/models/digits:predict", log.read_text())
        if len(found) == count:
            return found[0]
        with pytest.raises(subprocess.TimeoutExpired):  # it must still run
            process.wait(0.1)
    raise AssertionError(log.read_text())


def ask_until_ready(base) -> bool:
    transport = httpx.HTTPTransport(retries=8)
    with httpx.Client(transport=transport) as client:
        return client.get(f"{base}/healthz").status_code == 200
