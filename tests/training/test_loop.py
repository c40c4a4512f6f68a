import keras
import numpy as np
import pytest
from PIL import Image

from toolkit import create_model, model_info
from toolkit.data import scan_folder, split_folder
from toolkit.engines.convert import as_float32, to_litert
from toolkit.spec import UserError
from toolkit.training.config import OptimizerConfig, RunConfig, TrainConfig
from toolkit.training.loop import compile_model, train
from toolkit.training.losses import SparseCrossEntropy
from toolkit.training.optimizers import build_schedule
from toolkit.training.run_dir import RunDirectory

PREPROCESSING = model_info("lenet5").preprocessing


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    root = tmp_path_factory.mktemp("stripes")
    rng = np.random.default_rng(0)
    for name, axis in (("rows", 0), ("columns", 1)):
        (root / name).mkdir()
        for index in range(40):
            stripes = np.zeros((32, 32), np.uint8)
            np.moveaxis(stripes, axis, 0)[rng.integers(0, 4) :: 4] = 200
            image = np.clip(stripes + rng.integers(0, 50, (32, 32)), 0, 255)
            Image.fromarray(image.astype(np.uint8)).save(root / name / f"{index}.png")
    return split_folder(scan_folder(root))


def begun(path) -> RunDirectory:
    run = RunDirectory(path)
    run.begin({"config.json": "{}"}, resume=False)
    return run


def config(**run) -> TrainConfig:
    settings = {"epochs": 6, "batch_size": 16} | run
    return TrainConfig(optimizer=OptimizerConfig(lr=2e-3), run=RunConfig(**settings))


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_every_policy_learns_gives_float32_logits_and_exports_float32(split, tmp_path, policy):
    """Must hold: mixed precision trains, answers float32 and leaves no trace in what is exported."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    try:
        model = create_model("lenet5", num_classes=2)
        train(model, split, PREPROCESSING, config(epochs=25), begun(tmp_path / "run"))
    finally:
        keras.config.set_dtype_policy("float32")
    history = RunDirectory(tmp_path / "run").history()
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert history[-1]["val_accuracy"] == 1.0
    inputs = np.random.default_rng(0).normal(size=(4, 32, 32, 1)).astype("float32")
    logits = model(inputs)
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    exported = as_float32(model)
    assert all(layer.compute_dtype == "float32" for layer in exported.layers[1:])
    tolerance = 1e-5 if policy == "float32" else 0.2
    np.testing.assert_allclose(exported(inputs), logits, atol=tolerance)
    assert len(to_litert(model)) > 4 * 61_000  # float32 weights, four bytes each


def test_run_that_diverges_says_so_and_keeps_the_last_good_state(split, tmp_path):
    model = create_model("lenet5", num_classes=2)
    model.layers[-1].set_weights([np.full((84, 2), np.nan, np.float32), np.zeros(2, np.float32)])
    with pytest.raises(UserError, match=r"loss became nan in epoch 1.*optimizer\.lr"):
        train(model, split, PREPROCESSING, config(), begun(tmp_path / "run"))
    assert RunDirectory(tmp_path / "run").history() == []


def test_only_two_checkpoints_are_kept(split, tmp_path):
    train(create_model("lenet5", num_classes=2), split, PREPROCESSING, config(epochs=4), begun(tmp_path / "run"))
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["epoch-0003.weights.h5", "epoch-0004.weights.h5"]


def test_metrics_of_an_unfinished_epoch_are_dropped_on_restore(split, tmp_path):
    run = begun(tmp_path / "run")
    model = create_model("lenet5", num_classes=2)
    train(model, split, PREPROCESSING, config(epochs=2), run)
    with run.metrics_file.open("a") as file:
        file.write('{"epoch": 3, "lo')
    assert run.restore(model) == 2
    assert [row["epoch"] for row in run.history()] == [1, 2]


def test_weight_decay_spares_biases():
    model = create_model("lenet5", num_classes=2)
    decayed = TrainConfig(optimizer=OptimizerConfig(name="sgd", lr=0.1, momentum=0.0, weight_decay=0.5))
    compile_model(model, decayed, steps_per_epoch=1)
    for variable in model.trainable_variables:
        variable.assign(keras.ops.ones_like(variable))
    zeros = [keras.ops.zeros_like(variable) for variable in model.trainable_variables]
    model.optimizer.apply(zeros, model.trainable_variables)
    for variable in model.trainable_variables:
        expected = 1.0 if len(variable.shape) < 2 else 0.95
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-5)


def test_label_smoothing_is_the_papers_formula():
    logits = np.array([[2.0, -1.0, 0.5]], np.float32)
    log_probabilities = logits - np.log(np.exp(logits).sum())
    targets = np.array([0.1 / 3, 0.1 / 3, 0.9 + 0.1 / 3])
    loss = SparseCrossEntropy(label_smoothing=0.1)(np.array([2]), logits)
    assert float(loss) == pytest.approx(-(targets * log_probabilities).sum(), rel=1e-5)


def rates(schedule, steps: int) -> list[float]:
    return [float(schedule(step)) for step in range(steps)]


def test_cosine_warms_up_peaks_and_falls_to_zero():
    schedule = build_schedule(OptimizerConfig(lr=0.4, warmup_epochs=1), total_steps=50, steps_per_epoch=10)
    found = rates(schedule, 51)
    assert found[10] == pytest.approx(0.4)
    assert found[:11] == sorted(found[:11])
    assert found[30] == pytest.approx(0.2, rel=1e-3)
    assert found[50] == pytest.approx(0, abs=1e-6)


def test_step_divides_by_ten_at_half_and_three_quarters():
    schedule = build_schedule(OptimizerConfig(lr=0.1, schedule="step"), total_steps=100, steps_per_epoch=10)
    found = rates(schedule, 100)
    assert found[0] == found[50] == pytest.approx(0.1)
    assert found[51] == found[75] == pytest.approx(0.01)
    assert found[76] == pytest.approx(0.001)
