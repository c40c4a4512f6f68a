import keras
import numpy as np
import pytest

from toolkit.training.config import ModelConfig, OptimizerConfig, RunConfig, TrainConfig
from toolkit.training.loop import compile_model
from toolkit.training.prepare import classifier, prepare

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(8, 5)).astype("float32")
LABELS = np.array([0, 1, 2] * 2 + [0, 1], np.int32)


def linear(config: OptimizerConfig, steps_per_epoch: int = 4) -> keras.Model:
    """Three logits of five numbers, compiled: a network whose gradient fits on one line."""
    keras.utils.set_random_seed(0)
    inputs = keras.layers.Input((5,))
    model = keras.Model(inputs, keras.layers.Dense(3, name="head_logits")(inputs))
    compile_model(model, TrainConfig(optimizer=config, run=RunConfig(epochs=1)), steps_per_epoch=steps_per_epoch)
    return model


def gradient(kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    logits = INPUTS @ kernel + bias
    error = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) - np.eye(3)[LABELS]
    return INPUTS.T @ error / len(INPUTS), error.mean(axis=0)


def test_l2_is_the_update_rule_of_the_papers():
    """v ← 0.9·v − ε·(g + λ·w), w ← w + v (Krizhevsky et al. 2012, section 5), biases without λ."""
    model = linear(OptimizerConfig(name="sgd", lr=0.1, l2=0.5, schedule="constant"))
    kernel, bias = (np.array(array, np.float64) for array in model.get_weights())
    velocities = [0.0, 0.0]
    for _ in range(4):
        model.train_on_batch(INPUTS, LABELS)
        for_kernel, for_bias = gradient(kernel, bias)
        velocities = [0.9 * velocities[0] - 0.1 * (for_kernel + 0.5 * kernel), 0.9 * velocities[1] - 0.1 * for_bias]
        kernel, bias = kernel + velocities[0], bias + velocities[1]
    np.testing.assert_allclose(model.get_weights()[0], kernel, rtol=1e-4)
    np.testing.assert_allclose(model.get_weights()[1], bias, rtol=1e-4)


def test_decoupled_decay_passes_momentum_by_and_spares_biases():
    model = linear(OptimizerConfig(name="sgd", lr=0.1, weight_decay=0.5, schedule="constant"))
    before = model.get_weights()
    model.optimizer.apply([keras.ops.zeros_like(v) for v in model.trainable_variables], model.trainable_variables)
    np.testing.assert_allclose(model.get_weights()[0], before[0] * 0.95, rtol=1e-5)
    np.testing.assert_array_equal(model.get_weights()[1], before[1])


def test_clipping_bounds_the_norm_of_all_gradients_together():
    plain, clipped = (
        linear(OptimizerConfig(name="sgd", momentum=0.0, lr=1.0, clip_norm=norm, schedule="constant"))
        for norm in (None, 0.01)
    )
    moved = []
    for model in (plain, clipped):
        before = model.get_weights()
        model.train_on_batch(INPUTS, LABELS)
        moved.append(np.concatenate([np.ravel(a - b) for a, b in zip(model.get_weights(), before, strict=True)]))
    assert np.linalg.norm(moved[1]) == pytest.approx(0.01, rel=1e-3)
    np.testing.assert_allclose(moved[1], moved[0] * 0.01 / np.linalg.norm(moved[0]), rtol=1e-3, atol=1e-7)


def test_average_of_weights_is_over_the_epochs_asked_for():
    model = linear(OptimizerConfig(name="sgd", lr=0.5, schedule="constant", ema_epochs=2), steps_per_epoch=4)
    average = None
    for _ in range(8):
        model.train_on_batch(INPUTS, LABELS)
        weights = model.get_weights()[0]
        average = weights if average is None else np.exp(-1 / 8) * average + (1 - np.exp(-1 / 8)) * weights
    model.optimizer.finalize_variable_values(model.trainable_variables)
    np.testing.assert_allclose(model.get_weights()[0], average, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "kind", "settings"),
    [
        ("sgd", "SGD", {"momentum": 0.8, "nesterov": False}),
        ("nesterov", "SGD", {"momentum": 0.8, "nesterov": True}),
        ("rmsprop", "RMSprop", {"rho": 0.7, "epsilon": 1e-5}),
        ("adam", "Adam", {"beta_1": 0.6, "beta_2": 0.7, "epsilon": 1e-5}),
        ("adamw", "Adam", {"beta_1": 0.6, "weight_decay": 0.1}),
    ],
)
def test_settings_reach_keras(name, kind, settings):
    given = {key: value for key, value in settings.items() if key != "nesterov"}
    optimizer = linear(OptimizerConfig(name=name, **given)).optimizer
    assert type(optimizer).__name__ == kind
    assert optimizer.get_config() | settings == optimizer.get_config()


def convolutional() -> keras.Model:
    inputs = keras.layers.Input((8, 8, 30))
    x = keras.layers.Dropout(0.5)(keras.layers.Conv2D(200, 3, name="stage1_conv")(inputs))
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = {"logits": keras.layers.Dense(10, name="head_logits")(x), "aux": keras.layers.Dense(10, name="aux")(x)}
    return keras.Model(inputs, outputs)


@pytest.mark.parametrize(
    ("name", "variance"),
    [("he_normal", 2 / 270), ("lecun_normal", 1 / 270), ("glorot_normal", 2 / (270 + 1800)), ("he_uniform", 2 / 270)],
)
def test_initialisers_have_the_variance_of_the_notes(name, variance):
    model = convolutional()
    biases = model.get_layer("stage1_conv").bias.numpy()
    prepare(model, ModelConfig(initializer=name), seed=1)
    assert model.get_layer("stage1_conv").kernel.numpy().var() == pytest.approx(variance, rel=0.03)
    np.testing.assert_array_equal(model.get_layer("stage1_conv").bias.numpy(), biases)
    again = convolutional()
    prepare(again, ModelConfig(initializer=name), seed=1)
    np.testing.assert_array_equal(again.layers[1].kernel.numpy(), model.layers[1].kernel.numpy())


def test_dropout_rate_replaces_the_network_s_own():
    model = convolutional()
    prepare(model, ModelConfig(dropout=0.9), seed=0)
    layer = next(layer for layer in model.layers if isinstance(layer, keras.layers.Dropout))
    dropped = layer(np.ones((100, 100), np.float32), training=True).numpy() == 0
    assert dropped.mean() == pytest.approx(0.9, abs=0.02)


def test_classifier_is_the_logits_alone_with_the_same_weights():
    model = convolutional()
    stripped = classifier(model)
    inputs = np.ones((1, 8, 8, 30), np.float32)
    np.testing.assert_array_equal(stripped(inputs), model(inputs)["logits"])
    assert "aux" not in [layer.name for layer in stripped.layers]
