"""Callbacks of Keras in our training, among them the one that goes on with a training by itself."""

import json

import keras
import numpy as np
import pytest

import toolkit
from toolkit.network import load_network


@pytest.fixture
def photos(make_folder, tmp_path):
    """Pictures of two classes: three steps an epoch."""
    return make_folder(tmp_path / "photos", {"train/ant": 9, "train/bee": 9, "val/ant": 3, "val/bee": 3})


def train(photos, out, epochs=3, **options):
    settings = {
        "run.epochs": epochs,
        "run.batch_size": 6,
        "run.checkpoint_every_steps": 2,
        "run.gradient_norms": "false",
    }
    return toolkit.train(photos, model="softmax_regression", out=out, set=settings, **options)


def weights(run):
    return load_network(run / "model.keras").get_weights()


class Killed(Exception):
    """In the place of a signal."""


class KillAt(keras.callbacks.Callback):
    """Ends a training within its second epoch, after this many of its steps."""

    def __init__(self, steps):
        super().__init__()
        self.steps, self.epoch = steps, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch + 1) == (1, self.steps):
            raise Killed


def test_checkpoints_and_scalars_of_keras(photos, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    theirs = [
        keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", monitor="val_accuracy", save_best_only=True),
        keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.weights.h5", save_weights_only=True),
        keras.callbacks.TensorBoard(tmp_path / "logs", write_graph=False),
    ]
    train(photos, tmp_path / "run", epochs=2, callbacks=theirs)
    history = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    best, last = load_network(tmp_path / "best.keras"), load_network(tmp_path / "run" / "model.keras")
    assert theirs[0].best == pytest.approx(max(row["val_accuracy"] for row in history))
    assert [array.shape for array in best.get_weights()] == [array.shape for array in last.get_weights()]
    again = toolkit.create_model("softmax_regression", num_classes=2)
    again.load_weights(tmp_path / "2.weights.h5")
    for own, kept in zip(last.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(own, kept)
    reader = EventAccumulator(str(tmp_path / "logs" / "validation"), {TENSORS: 0}).Reload()
    read = [float(make_ndarray(event.tensor_proto)) for event in reader.Tensors("epoch_loss")]
    assert read == pytest.approx([row["val_loss"] for row in history])


def test_metrics_logger_of_weights_and_biases(photos, tmp_path, monkeypatch):
    """Without a network: what it has logged is told by the run itself."""
    wandb = pytest.importorskip("wandb")
    from wandb.integration.keras import WandbMetricsLogger

    monkeypatch.setenv("WANDB_MODE", "offline")
    with wandb.init(project="photos", dir=tmp_path) as run:
        train(photos, tmp_path / "run", epochs=2, callbacks=[WandbMetricsLogger()])
        told = dict(run.summary)
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert told["epoch/epoch"] == 1
    assert told["epoch/val_loss"] == pytest.approx(last["val_loss"], rel=1e-5)


@pytest.mark.parametrize("save_freq", ["epoch", pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_run_that_keras_backs_up_too_comes_to_the_same_weights(photos, tmp_path, save_freq):
    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup", save_freq=save_freq)

    train(photos, tmp_path / "whole")
    with pytest.raises(Killed):
        train(photos, tmp_path / "run", callbacks=[backup(), KillAt(3)])
    assert (tmp_path / "backup").is_dir()
    train(photos, tmp_path / "run", resume=True, callbacks=[backup()])
    for own, unbroken in zip(weights(tmp_path / "run"), weights(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(own, unbroken)
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count("\n") == 3
    assert not (tmp_path / "backup").exists()
