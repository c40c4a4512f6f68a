import dataclasses

import keras
import numpy as np
import pytest

from toolkit.training.callbacks import (
    NotFiniteError,
    Progress,
    SaveProgress,
    StopAtNotFinite,
    TellProgress,
    is_over,
)
from toolkit.training.config import OptimizerConfig, RunConfig, TrainConfig
from toolkit.training.optimizers import build_optimizer
from toolkit.training.run_dir import Position, RunDirectory

CONFIG = TrainConfig(run=RunConfig(epochs=4, batch_size=2, checkpoint_every_steps=2))


def test_run_is_over_after_its_epochs_or_its_patience():
    history = [{"val_loss": loss} for loss in (0.5, 0.3, 0.4, 0.35)]
    assert [is_over(CONFIG, history[:n]) for n in range(5)] == [False] * 4 + [True]
    patient = dataclasses.replace(CONFIG, run=RunConfig(epochs=9, early_stopping=2))
    assert [is_over(patient, history[:n]) for n in range(5)] == [False] * 4 + [True]
    accurate = dataclasses.replace(patient, optimizer=OptimizerConfig(monitor="val_accuracy"))
    assert not is_over(accurate, [{"val_accuracy": share} for share in (0.1, 0.2, 0.3)])


def test_loss_that_is_no_number_is_found_at_a_checkpoint_and_after_validation():
    callback = StopAtNotFinite(Position(1, 3), every=5)
    callback.on_epoch_begin(1)
    callback.on_train_batch_end(0, {"loss": np.nan})  # not looked at, as that waits for the device
    with pytest.raises(NotFiniteError) as error:
        callback.on_train_batch_end(1, {"loss": np.nan})
    assert error.value.position == Position(1, 5)
    with pytest.raises(NotFiniteError):
        callback.on_epoch_end(1, {"loss": 0.5, "val_loss": np.inf})


def test_in_a_fit_of_keras_alone(told):
    """Beside its own callbacks, with what Keras tells in the place of a run."""
    inputs, targets = np.ones((8, 1), np.float32), np.zeros((8, 1), np.float32)
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    ours = [TellProgress(), StopAtNotFinite(), keras.callbacks.TerminateOnNaN()]
    history = model.fit(inputs, targets, 2, epochs=2, validation_data=(inputs, targets), callbacks=ours, verbose=0)
    assert len(history.history["loss"]) == 2
    steps = [("epoch 1/2", 4), ("validating", None), ("epoch 2/2", 4), ("validating", None)]
    assert told.begun == [("compiling the training step", None), *steps]
    with pytest.raises(NotFiniteError, match=r"loss (nan|inf) in epoch 1, by step 4"):
        model.fit(inputs * np.inf, targets, 2, callbacks=[TellProgress(), StopAtNotFinite()], verbose=0)


def test_metrics_of_an_epoch_are_the_mean_over_its_examples(tmp_path):
    """Seven examples in batches of two: segments of four and of three, whose metrics Keras starts anew."""
    run = RunDirectory(tmp_path / "run")
    run.begin({"config.json": "{}"}, resume=False)
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    seen = []
    progress = Progress(Position(), [], [])
    config = dataclasses.replace(CONFIG, optimizer=OptimizerConfig(schedule="constant"))  # the rate is the optimizer's
    callback = SaveProgress(run, config, progress, num_examples=7, gradient_norms=None, on_epoch=seen.append)
    callback.set_model(model)
    callback.on_epoch_begin(0)
    for step in range(4):
        callback.on_train_batch_end(step, {"loss": 1.0 if step < 2 else 0.3})
    assert run.positions() == [Position(0, 2)]
    callback.on_epoch_end(0, {"loss": 0.3, "val_loss": 0.2, "accuracy": 0.5})
    assert run.positions() == [Position(0, 2), Position(1)]
    assert progress.history == run.history()
    row = run.history()[0]
    assert row == pytest.approx(
        {"epoch": 1, "loss": (4 * 1.0 + 3 * 0.3) / 7, "val_loss": 0.2, "accuracy": 0.5, "lr": 0.5}
    )
    assert seen == [{"epochs": 4} | row]


@pytest.mark.parametrize(
    ("schedule", "rates"), [("step", [0.1, 0.1, 0.01, 0.001]), ("inverse_time", [0.1, 0.05, 0.1 / 3, 0.025])]
)
def test_the_rate_of_an_epoch_is_noted_and_not_the_next_ones(tmp_path, schedule, rates):
    optimizer = OptimizerConfig(name="sgd", schedule=schedule, lr=0.1)
    config = dataclasses.replace(CONFIG, optimizer=optimizer)
    run = RunDirectory(tmp_path / "run")
    run.begin({"config.json": "{}"}, resume=False)
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    model.compile(build_optimizer(config.optimizer, config.run, steps_per_epoch=4), "mse")
    save = SaveProgress(run, config, Progress(Position(), [], []), num_examples=7, gradient_norms=None, on_epoch=None)
    batches = np.ones((7, 1), np.float32)
    seen: list[float] = []
    rate = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda *_, **__: seen.append(float(model.optimizer.learning_rate))
    )
    model.fit(batches, batches, 2, epochs=4, callbacks=[rate, save], verbose=0)
    assert [row["lr"] for row in run.history()] == pytest.approx(rates)
    assert seen[3::4] == pytest.approx(rates)


def test_progress_of_an_epoch_counts_on_from_where_the_run_goes_on(told, monkeypatch):
    from toolkit.training import callbacks

    monkeypatch.setattr(callbacks, "_SECONDS_BETWEEN_TELLING", 0)
    with callbacks.TellProgress(Position(1, 2), 3, (4, 2)) as telling:
        telling.on_train_begin()
        telling.on_epoch_begin(1)
        for batch in range(2):
            telling.on_train_batch_end(batch)
        telling.on_test_begin()
        telling.on_test_batch_end(0)
        telling.on_test_end()
        telling.on_epoch_end(1)
        telling.on_epoch_begin(2)
        telling.on_train_batch_end(0)
    assert told == [("epoch 2/3", 3, 4), ("epoch 2/3", 4, 4), ("validating", 1, 2), ("epoch 3/3", 1, 4)]
