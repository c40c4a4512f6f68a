import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from toolkit import create_model, model_info
from toolkit.data import scan_folder, split_folder
from toolkit.engines.convert import to_litert
from toolkit.errors import UserError
from toolkit.network import as_float32
from toolkit.spec import Preprocessing
from toolkit.training.config import DataConfig, ModelConfig, OptimizerConfig, RunConfig, TrainConfig
from toolkit.training.loop import prepare, train
from toolkit.training.run_dir import GRADIENT_NORMS, METRICS, Position, RunDirectory

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


def config(lr: float = 2e-3, **run) -> TrainConfig:
    return TrainConfig(optimizer=OptimizerConfig(lr=lr), run=RunConfig(**{"epochs": 6, "batch_size": 16} | run))


@pytest.mark.parametrize(
    "policy", ["mixed_bfloat16", *(pytest.param(p, marks=pytest.mark.slow) for p in ("float32", "mixed_float16"))]
)
def test_every_policy_learns_gives_float32_logits_and_exports_float32(split, tmp_path, policy):
    """Must hold: mixed precision trains, answers float32 and leaves no trace in what is exported."""
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    try:
        model = create_model("lenet5", num_classes=2)
        train(model, split, PREPROCESSING, config(lr=5e-3, epochs=15), begun(tmp_path / "run"))
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
    with pytest.raises(UserError, match=r"loss became nan in epoch 1.*layer 'head_logits'.*optimizer\.lr"):
        train(model, split, PREPROCESSING, config(), begun(tmp_path / "run"))
    assert RunDirectory(tmp_path / "run").history() == []


def test_only_two_checkpoints_are_kept(split, tmp_path):
    train(create_model("lenet5", num_classes=2), split, PREPROCESSING, config(epochs=4), begun(tmp_path / "run"))
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["epoch-0003.npz", "epoch-0004.npz"]


def test_metrics_of_an_unfinished_epoch_are_dropped_on_restore(split, tmp_path):
    run = begun(tmp_path / "run")
    model = create_model("lenet5", num_classes=2)
    train(model, split, PREPROCESSING, config(epochs=2), run)
    with (run.path / METRICS).open("a") as file:
        file.write('{"epoch": 3, "loss": 1.0}\n{"epoch": 4, "lo')
    assert run.restore(model) == (Position(2), [])
    assert [row["epoch"] for row in run.history()] == [1, 2]


def test_auxiliary_heads_train_and_are_gone_afterwards(split, tmp_path):
    """Each head's loss counts 0.3, as in the paper, and what is left gives the same logits."""
    keras.utils.set_random_seed(0)
    inputs = keras.layers.Input((8, 8, 3))
    features = keras.layers.Flatten(name="stage1_flatten")(inputs)
    x = keras.layers.Dense(4, activation="relu", name="stage1_fc")(features)
    heads = {name: keras.layers.Dense(2, name=f"{name}_logits")(features) for name in ("aux1", "aux2")}
    model = keras.Model(inputs, {"logits": keras.layers.Dense(2, name="head_logits")(x), **heads})
    before = model.get_layer("aux1_logits").kernel.numpy()
    run = begun(tmp_path / "run")
    settings = dataclasses.replace(config(epochs=1), model=ModelConfig(loss_weights={"aux1": 0.3, "aux2": 0.3}))
    trained = train(model, split, Preprocessing((8, 8)), settings, run)

    assert not np.array_equal(model.get_layer("aux1_logits").kernel.numpy(), before)
    [row] = run.history()
    total = row["logits_loss"] + 0.3 * (row["aux1_loss"] + row["aux2_loss"])
    assert row["loss"] == pytest.approx(total, rel=1e-4)
    assert 0 <= row["accuracy"] <= 1
    assert 0 <= row["val_accuracy"] <= 1
    assert [layer.name for layer in trained.layers if layer.name.startswith("aux")] == []
    pictures = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype("float32")
    np.testing.assert_array_equal(trained(pictures), model(pictures)["logits"])


def test_loss_weight_for_an_output_the_network_has_not_is_refused(split, tmp_path):
    settings = dataclasses.replace(config(), model=ModelConfig(loss_weights={"aux1": 0.3}))
    with pytest.raises(UserError, match=r"names 'aux1'; lenet5 has the outputs logits"):
        train(create_model("lenet5", num_classes=2), split, PREPROCESSING, settings, begun(tmp_path / "run"))


def test_accuracy_counts_pictures_alike_where_the_loss_counts_classes_alike(split, tmp_path):
    """Training's was the mean over the classes, beside a validation accuracy over the pictures."""
    few = [index for index, label in enumerate(split.train.labels) if label == 0][4:]
    kept = [index for index in range(len(split.train)) if index not in few]
    uneven = dataclasses.replace(split, train=split.train.picked(kept))
    always = create_model("lenet5", num_classes=2)
    always.layers[-1].set_weights([np.zeros_like(always.layers[-1].kernel), np.float32([0, 9])])
    settings = config(lr=1e-9, epochs=1, batch_size=8)
    settings = dataclasses.replace(settings, data=DataConfig(class_weights=True))
    train(always, uneven, PREPROCESSING, settings, begun(tmp_path / "run"))
    (row,) = RunDirectory(tmp_path / "run").history()
    assert row["accuracy"] == pytest.approx((len(kept) - 4) / len(kept))
    assert row["val_accuracy"] == 0.5


def test_mixed_pictures_train(split, tmp_path):
    settings = dataclasses.replace(config(epochs=1), data=DataConfig(augment="mixup", class_weights=True))
    run = begun(tmp_path / "run")
    train(create_model("softmax_regression", num_classes=2), split, small(), settings, run)
    assert np.isfinite(run.history()[0]["loss"])


def small() -> Preprocessing:
    return model_info("softmax_regression").preprocessing


def test_tensorboard_and_gradient_norms_are_written(split, tmp_path):
    pytest.importorskip("tensorboard")
    run = begun(tmp_path / "run")
    model = create_model("softmax_regression", num_classes=2)
    train(model, split, small(), config(epochs=2, tensorboard=True), run)
    assert list((run.path / "tensorboard").glob("**/events.*"))
    norms = run.rows(GRADIENT_NORMS)
    assert [row["epoch"] for row in norms] == [1, 2]
    assert list(norms[0]["norms"]) == [layer.name for layer in model.layers if layer.trainable_variables]
    assert all(norm > 0 for norm in norms[0]["norms"].values())


@pytest.mark.parametrize(
    ("name", "variance"),
    [("he_normal", 2 / 270), ("lecun_normal", 1 / 270), ("glorot_normal", 2 / (270 + 1800)), ("he_uniform", 2 / 270)],
)
def test_initialisers_have_the_variance_of_the_notes(name, variance, convolutional):
    model = convolutional()
    biases = model.get_layer("stage1_conv").bias.numpy()
    prepare(model, ModelConfig(initializer=name), seed=1)
    assert model.get_layer("stage1_conv").kernel.numpy().var() == pytest.approx(variance, rel=0.03)
    np.testing.assert_array_equal(model.get_layer("stage1_conv").bias.numpy(), biases)
    again = convolutional()
    prepare(again, ModelConfig(initializer=name), seed=1)
    np.testing.assert_array_equal(again.layers[1].kernel.numpy(), model.layers[1].kernel.numpy())


def test_dropout_rate_replaces_the_network_s_own(convolutional):
    model = convolutional()
    prepare(model, ModelConfig(dropout=0.9), seed=0)
    layer = next(layer for layer in model.layers if isinstance(layer, keras.layers.Dropout))
    dropped = layer(np.ones((100, 100), np.float32), training=True).numpy() == 0
    assert dropped.mean() == pytest.approx(0.9, abs=0.02)


def test_batch_normalisation_trains_fused_and_is_saved_as_keras_own(split, tmp_path, monkeypatch):
    fused = []
    original = tf.raw_ops.FusedBatchNormV3
    monkeypatch.setattr(tf.raw_ops, "FusedBatchNormV3", lambda **given: fused.append(given) or original(**given))
    inputs = keras.layers.Input((8, 8, 3))
    x = keras.layers.BatchNormalization(name="stage1_bn")(keras.layers.Conv2D(4, 3, name="stage1_conv")(inputs))
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="head_logits")(x))
    train(model, split, Preprocessing((8, 8)), config(epochs=1), begun(tmp_path / "run"))
    assert fused
    layer = model.get_layer("stage1_bn")
    assert vars(layer).keys() == vars(keras.models.clone_model(model).get_layer("stage1_bn")).keys()
    assert np.abs(layer.moving_mean.numpy()).max() > 0
