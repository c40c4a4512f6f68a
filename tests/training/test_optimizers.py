import math

import keras
import numpy as np
import pytest

from toolkit.training.config import OptimizerConfig, RunConfig, TrainConfig
from toolkit.training.loop import compile_model
from toolkit.training.optimizers import build_schedule, epoch_rate

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


# A run of 8 epochs of 10 steps; the rate of the first step of the epoch with this index, over the peak.
EPOCHS, STEPS = 8, 10


EXPECTED = {
    "cosine": lambda epoch: (1 + math.cos(math.pi * epoch / EPOCHS)) / 2,
    "step": lambda epoch: 0.1 ** ((epoch >= 4) + (epoch >= 6)),
    "staircase": lambda epoch: 0.1 ** (epoch // 3),
    "manual": lambda epoch: 1.0 if epoch < 2 else 0.5 if epoch < 5 else 0.05,
    "exponential": lambda epoch: 0.95**epoch,
    "inverse_time": lambda epoch: 1 / (1 + epoch),
    "inverse_sqrt_epoch": lambda epoch: 1 / math.sqrt(1 + epoch),
    "inverse_sqrt_step": lambda epoch: 1 / math.sqrt(1 + epoch * STEPS),
}


def rate_config(name: str, **settings) -> OptimizerConfig:
    extra = {"staircase": {"every": 3}, "manual": {"milestones": (2, 5), "rates": (0.2, 0.02)}}
    return OptimizerConfig(schedule=name, lr=0.4, **extra.get(name, {}) | settings)


def schedule(name: str, **settings):
    return build_schedule(rate_config(name, **settings), total_steps=EPOCHS * STEPS, steps_per_epoch=STEPS)


@pytest.mark.parametrize("name", EXPECTED)
def test_rate_follows_its_formula(name):
    found = [float(schedule(name)(epoch * STEPS)) for epoch in range(EPOCHS)]
    assert found == pytest.approx([0.4 * EXPECTED[name](epoch) for epoch in range(EPOCHS)], rel=1e-5)


@pytest.mark.parametrize("name", ["step", "staircase", "manual", "exponential", "inverse_time", "inverse_sqrt_epoch"])
def test_rate_by_epoch_changes_between_epochs_only(name):
    rates = [float(schedule(name)(step)) for step in range(EPOCHS * STEPS)]
    changes = [step for step in range(1, len(rates)) if rates[step] != rates[step - 1]]
    assert changes
    assert all(step % STEPS == 0 for step in changes)


@pytest.mark.parametrize("name", ["constant", *EXPECTED])
def test_warm_up_rises_to_the_peak_and_the_schedule_starts_there(name):
    warmed = schedule(name, warmup_epochs=2)
    rises = [float(warmed(step)) for step in range(2 * STEPS)]
    assert rises == pytest.approx([0.4 * (step + 1) / 20 for step in range(20)])
    if name not in ("step", "manual"):  # whose milestones are those of the run
        assert float(warmed(2 * STEPS)) == pytest.approx(0.4)


def test_milestones_count_from_the_run_s_beginning_under_warm_up():
    found = [float(schedule("step", warmup_epochs=2)(step)) for step in (20, 39, 40, 59, 60)]
    assert found == pytest.approx([0.4, 0.4, 0.04, 0.04, 0.004])


def test_cosine_ends_at_its_floor():
    assert float(schedule("cosine", min_share=0.1)(EPOCHS * STEPS)) == pytest.approx(0.04)
    assert float(schedule("cosine", warmup_epochs=1)(EPOCHS * STEPS)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["constant", *EXPECTED])
def test_schedule_survives_serialisation(name):
    first = schedule(name, warmup_epochs=0.5)
    again = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(first))
    assert [float(again(step)) for step in range(40)] == [float(first(step)) for step in range(40)]


@pytest.mark.parametrize(("monitor", "mode"), [("val_loss", "min"), ("val_accuracy", "max")])
def test_plateau_is_that_of_keras(monitor, mode):
    """The rate recomputed from the history alone equals what Keras' stateful callback sets."""
    values = np.random.default_rng(0).normal(1.0, 0.05, 60).cumsum() / np.arange(1, 61)
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.4), "mse")
    theirs = keras.callbacks.ReduceLROnPlateau(monitor, factor=0.1, patience=3, mode=mode, min_lr=0.0004)
    theirs.set_model(model)
    theirs.on_train_begin()
    ours = OptimizerConfig(lr=0.4, schedule="plateau", patience=3, monitor=monitor, min_share=1e-3)
    history = []
    for epoch, value in enumerate(values):
        assert epoch_rate(ours, history) == pytest.approx(float(model.optimizer.learning_rate), rel=1e-5)
        theirs.on_epoch_end(epoch, {monitor: value})
        history.append({monitor: float(value)})
    assert epoch_rate(ours, history) == pytest.approx(0.4e-3)


def test_plateau_warms_up_by_epoch():
    warmed = OptimizerConfig(lr=0.4, schedule="plateau", warmup_epochs=3)
    history = [{"val_loss": 1.0 / (epoch + 1)} for epoch in range(4)]
    assert [epoch_rate(warmed, history[:n]) for n in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])
