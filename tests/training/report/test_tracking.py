"""Runs in experiment trackers, read back by the trackers' own readers."""

import pytest

import toolkit
from toolkit.errors import UserError
from toolkit.training.report.tracking import TRACKERS, require_trackers


@pytest.fixture
def photos(make_folder, tmp_path, monkeypatch):
    """Pictures of two classes, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return make_folder(tmp_path / "photos", {"train/ant": 9, "train/bee": 9, "val/ant": 3, "val/bee": 3})


def train(photos, tracker, epochs, **options):
    settings = {"run.epochs": epochs, "run.batch_size": 6, "run.gradient_norms": "false"}
    options = {"model": "softmax_regression", "out": "runs/one", "track": [tracker]} | options
    return toolkit.train(photos, set=settings, **options)


def test_tensorboard_reads_every_epoch(photos, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator
    from tensorboard.util import tensor_util

    seen = []

    class Callback(toolkit.lazy.keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append((epoch, logs["loss"]))

    run = train(photos, "tensorboard", 2, callbacks=[Callback()])
    reader = EventAccumulator(str(tmp_path / "runs" / "one" / "tensorboard" / "train"), {TENSORS: 0}).Reload()
    read = {event.step: float(tensor_util.make_ndarray(event.tensor_proto)) for event in reader.Tensors("epoch_loss")}
    assert read == pytest.approx(dict(seen))
    assert [epoch for epoch, _ in seen] == [0, 1]
    assert "callbacks" not in (tmp_path / "runs" / "one" / "run.toml").read_text()
    assert run["metrics"]["n"] == 6


def test_mlflow_reads_a_run_that_was_resumed_as_one(photos, tmp_path):
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    train(photos, "mlflow", 1)
    resumed = train(photos, "mlflow", 3, resume=True, track=())
    client = MlflowClient((tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("toolkit")
    [run] = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("one", "FINISHED")
    assert run.data.params["run.batch_size"] == "6"
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "val_accuracy")] == [1, 2, 3]
    assert run.data.metrics["val_top1"] == pytest.approx(resumed["metrics"]["top1"])
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["report.html"]


def test_mlflows_autolog_notes_a_run(photos, tmp_path, caplog):
    """It would describe the pictures by going through all batches, which have no end."""
    mlflow = pytest.importorskip("mlflow")
    mlflow.set_tracking_uri((tmp_path / "store").as_uri())
    mlflow.tensorflow.autolog(log_models=False, silent=True)
    try:
        train(photos, "mlflow", 2, track=())
    finally:
        mlflow.tensorflow.autolog(disable=True, silent=True)
    [run] = mlflow.search_runs(output_format="list")
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "val_loss")
    mlflow.set_tracking_uri(None)
    assert len(history) == 2


def test_wandb_keeps_a_run_on_this_machine(photos, tmp_path):
    pytest.importorskip("wandb")
    train(photos, "wandb", 1)
    assert list((tmp_path / "runs" / "one" / "wandb").glob("offline-run-*/*.wandb"))


def test_tracker_that_is_not_installed_is_said_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setitem(TRACKERS, "mlflow", ("no_such_module", "pip install mlflow-skinny"))
    with pytest.raises(UserError, match="needs no_such_module, which is not installed: pip install mlflow-skinny"):
        require_trackers(["mlflow"])
    with pytest.raises(UserError, match="did you mean 'mlflow'"):
        toolkit.train(tmp_path, model="lenet5", out=tmp_path / "run", track="mlfow")
    assert not (tmp_path / "run").exists()
