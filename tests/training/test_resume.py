"""A killed run goes on to what the unbroken run would have reached."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EPOCHS = 5


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Two classes that differ in where the bright half is, with noise, so that training has something to do."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name, side in (("left", slice(0, 8)), ("right", slice(8, 16))):
        (root / name).mkdir()
        for index in range(60):
            image = rng.integers(0, 120, (16, 16), dtype=np.uint8)
            image[:, side] += rng.integers(0, 100, dtype=np.uint8)
            Image.fromarray(image).save(root / name / f"{index}.png")
    return root


def command(pictures: Path, out: Path, *extra: str) -> list[str]:
    settings = ["--set", f"run.epochs={EPOCHS}", "--set", "run.batch_size=16", *extra]
    return [sys.executable, "-m", "toolkit", "train", str(pictures), "--model", "lenet5", "--out", str(out), *settings]


def weights(run: Path) -> list[np.ndarray]:
    import keras

    return keras.saving.load_model(run / "model.keras", compile=False).get_weights()


def kill_after(process: subprocess.Popen, metrics: Path, epochs: int) -> None:
    """SIGKILL as soon as ``epochs`` epochs are noted, wherever the next one is."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if metrics.exists() and metrics.read_text().count("\n") >= epochs:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    process.wait(timeout=60)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_killed_run_resumes_to_the_same_weights(pictures, tmp_path, policy):
    extra = ["--set", f"run.dtype_policy={policy}"]
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    subprocess.run(command(pictures, unbroken, *extra), check=True, capture_output=True)

    process = subprocess.Popen(
        command(pictures, broken, *extra), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ
    )
    kill_after(process, broken / "metrics.jsonl", epochs=2)
    assert process.returncode == -signal.SIGKILL
    assert not (broken / "model.keras").exists()
    resumed = subprocess.run(command(pictures, broken, "--resume", *extra), check=True, capture_output=True, text=True)

    assert "resuming after epoch" in resumed.stderr
    for expected, found in zip(weights(unbroken), weights(broken), strict=True):
        np.testing.assert_array_equal(found, expected)
    histories = [
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (unbroken, broken)
    ]
    assert [row["epoch"] for row in histories[1]] == list(range(1, EPOCHS + 1))
    assert histories[0] == histories[1]
