"""A run that is killed, wherever, goes on to what the unbroken run would have reached."""

import dataclasses
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from toolkit.spec import Preprocessing
from toolkit.training.config import DataConfig, OptimizerConfig, RunConfig, TrainConfig, config_as_json

PREPROCESSING = Preprocessing((8, 8), channel_order="grey", mean=(0.5,), std=(0.5,))
# Everything that has a state: dropout's seeds, batch statistics, moments, averaged weights, a plateau, the best epoch.
EVENTFUL = TrainConfig(
    data=DataConfig(augment="shift_flip"),
    optimizer=OptimizerConfig(
        name="adam", lr=3e-3, l2=1e-3, ema_epochs=1, schedule="plateau", patience=1, decay=0.7, clip_norm=1.0
    ),
    run=RunConfig(epochs=5, batch_size=8, checkpoint_every_steps=3, early_stopping=4),
)


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


def train_to_the_end(pictures: Path, out: Path, config: TrainConfig) -> None:
    """Begin or go on, and finish, as one process does."""
    import keras

    from toolkit.data import scan_folder, split_folder
    from toolkit.training.loop import train
    from toolkit.training.run_dir import RunDirectory

    run = RunDirectory(out)
    run.begin({"config.json": config_as_json(config)}, resume=True)
    if run.model_file.exists():
        return
    keras.utils.set_random_seed(config.run.seed)
    inputs = keras.layers.Input((8, 8, 1))
    x = keras.layers.BatchNormalization(name="stage1_bn")(keras.layers.Flatten(name="stage1_flatten")(inputs))
    x = keras.layers.Dropout(0.3, name="stage1_drop")(keras.layers.Dense(8, activation="relu", name="stage1_fc")(x))
    model = keras.Model(inputs, keras.layers.Dense(2, name="head_logits")(x))
    run.finish(train(model, split_folder(scan_folder(pictures)), PREPROCESSING, config, run))


def outcome(run: Path) -> tuple[list[np.ndarray], str, str]:
    import keras

    weights = keras.saving.load_model(run / "model.keras", compile=False).get_weights()
    return weights, (run / "metrics.jsonl").read_text(), (run / "gradient_norms.jsonl").read_text()


def require_equal(found: tuple, expected: tuple) -> None:
    for ours, theirs in zip(found[0], expected[0], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert found[1:] == expected[1:]


@pytest.mark.parametrize("num_kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_run_killed_at_random_moments_ends_in_the_same_weights(pictures, tmp_path, num_kills, monkeypatch):
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path / "cache"))
    context = multiprocessing.get_context("forkserver")  # a child starts with its imports done
    context.set_forkserver_preload(["tensorflow", "toolkit.training.loop", "toolkit.data.feed.pipeline"])

    def start(out: Path) -> multiprocessing.process.BaseProcess:
        process = context.Process(target=train_to_the_end, args=(pictures, out, EVENTFUL))
        process.start()
        return process

    begun = time.monotonic()
    unbroken = start(tmp_path / "unbroken")
    unbroken.join()
    assert unbroken.exitcode == 0
    duration = time.monotonic() - begun
    expected = outcome(tmp_path / "unbroken")

    moments = random.Random(0)
    kills = finished = 0
    while kills < num_kills or not finished:
        out = tmp_path / f"broken-{finished}"
        process = start(out)
        if kills < num_kills:
            process.join(moments.uniform(0, duration))
        else:
            process.join()
        if process.is_alive():
            process.kill()
            process.join()
            kills += 1
            continue
        assert process.exitcode == 0
        require_equal(outcome(out), expected)
        finished += 1


@pytest.mark.parametrize("steps", [4, pytest.param(9, marks=pytest.mark.slow)])
def test_run_goes_on_from_within_an_epoch(pictures, tmp_path, steps):
    """72 pictures in batches of 8 are 9 steps: the checkpoints of an epoch are after steps 3 and 6."""
    from toolkit.training.callbacks import SaveProgress
    from toolkit.training.run_dir import Position, RunDirectory

    class KilledError(Exception):
        pass

    def kill_after(callback: SaveProgress, batch: int, logs: dict | None = None) -> None:
        original(callback, batch, logs)
        if callback._position == Position(2, steps):
            raise KilledError

    expected_dir, broken = tmp_path / "unbroken", tmp_path / "broken"
    train_to_the_end(pictures, expected_dir, EVENTFUL)
    original = SaveProgress.on_train_batch_end
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SaveProgress, "on_train_batch_end", kill_after)
        with pytest.raises(KilledError):
            train_to_the_end(pictures, broken, EVENTFUL)
    assert RunDirectory(broken).positions()[-1] == Position(2, steps // 3 * 3 if steps < 9 else 6)
    train_to_the_end(pictures, broken, EVENTFUL)
    require_equal(outcome(broken), outcome(expected_dir))


def test_early_stopping_keeps_the_best_epoch(pictures, tmp_path):
    config = dataclasses.replace(
        EVENTFUL,
        optimizer=OptimizerConfig(name="sgd", lr=0.3, schedule="constant"),
        run=RunConfig(epochs=30, batch_size=8, early_stopping=2),
    )
    train_to_the_end(pictures, tmp_path / "run", config)
    losses = [json.loads(line)["val_loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    best = losses.index(min(losses))
    assert len(losses) == best + 3 < 30

    from toolkit.data import scan_folder, split_folder
    from toolkit.data.feed.pipeline import evaluation_batches
    from toolkit.network import load_network
    from toolkit.training.losses import SparseCrossEntropy

    model = load_network(tmp_path / "run" / "model.keras")
    validation = evaluation_batches(split_folder(scan_folder(pictures)).val, PREPROCESSING, batch_size=8)
    model.compile(loss=SparseCrossEntropy())
    assert model.evaluate(validation, verbose=0) == pytest.approx(losses[best], rel=1e-5)


def command(pictures: Path, out: Path, *extra: str) -> list[str]:
    settings = ["--set", "run.epochs=5", "--set", "run.batch_size=16", "--set", "run.dtype_policy=mixed_bfloat16"]
    main = [sys.executable, "-m", "toolkit", "train", str(pictures), "--model", "lenet5", "--out", str(out)]
    return [*main, *settings, *extra]


@pytest.mark.slow
def test_command_that_was_killed_resumes_to_the_same_weights(pictures, tmp_path):
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    subprocess.run(command(pictures, unbroken), check=True, capture_output=True)

    process = subprocess.Popen(command(pictures, broken), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        metrics = broken / "metrics.jsonl"
        if metrics.exists() and metrics.read_text().count("\n") >= 2:
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.002)
    assert process.wait(timeout=60) == -signal.SIGKILL
    assert not (broken / "model.keras").exists()
    resumed = subprocess.run(command(pictures, broken, "--resume"), check=True, capture_output=True, text=True)

    assert "resuming after epoch" in resumed.stderr
    require_equal(outcome(broken), outcome(unbroken))
    assert [json.loads(line)["epoch"] for line in outcome(broken)[1].splitlines()] == [1, 2, 3, 4, 5]
    assert (broken / "report.html").stat().st_size > 10_000


def test_resuming_with_another_setting_names_it(pictures, tmp_path):
    from toolkit.errors import UserError
    from toolkit.training.run_dir import RunDirectory

    run = RunDirectory(tmp_path / "run")
    run.begin({"config.json": config_as_json(EVENTFUL)}, resume=False)
    other = dataclasses.replace(EVENTFUL, run=dataclasses.replace(EVENTFUL.run, batch_size=16))
    with pytest.raises(UserError, match=r"run\.batch_size was 8 and would be 16"):
        run.begin({"config.json": config_as_json(other)}, resume=True)
