"""The real server in a process of its own, on a loopback port."""

import re
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from toolkit.errors import UserError
from toolkit.inference import Predictor
from toolkit.serving import serve

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


def test_addresses_that_cannot_be_listened_on(models_dir):
    with pytest.raises(UserError, match="port must be from 0 to 65535, got 70000"):
        serve(models_dir, port=70000)
    with pytest.raises(UserError, match=r"cannot listen on 203\.0\.113\.1 port 8501"):
        serve(models_dir, host="203.0.113.1")
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(UserError, match="is in use"):
        serve(models_dir, port=other.getsockname()[1])


def wait_for_url(process, log) -> str:
    for _ in range(600):
        found = re.search(r"(http://127\.0\.0\.1:\d+)/v1/models/digits:predict", log.read_text())
        if found:
            return found[1]
        with pytest.raises(subprocess.TimeoutExpired):  # it must still run
            process.wait(0.1)
    raise AssertionError(log.read_text())


def ask_until_ready(base) -> bool:
    transport = httpx.HTTPTransport(retries=8)
    with httpx.Client(transport=transport) as client:
        return client.get(f"{base}/healthz").status_code == 200
