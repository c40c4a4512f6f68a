"""Batches of whole epochs, in an order that the seed and the epoch decide, and learning rates."""

import time
from itertools import islice

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from toolkit.spec import Preprocessing
from toolkit.transfer.fitting import Annealing, FeatureBatches, PictureBatches, StageRates, stage_factors

LABELS = [0, 1, 2, 0, 1, 2, 0]
#: Two views of seven pictures; every value tells which view of which picture it belongs to.
FEATURES = (10 * np.arange(2)[:, None] + np.arange(7)).astype(np.float16)[..., None]


def read(batches, first_epoch, num_batches):
    data = batches.from_epoch(first_epoch)
    stream = data.as_numpy_iterator() if isinstance(data, tf.data.Dataset) else data
    return list(islice(stream, num_batches))


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_training_epochs_are_whole_in_random_views_and_go_on_where_asked(backend, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    batches = FeatureBatches(FEATURES, LABELS, 3, 0)
    assert len(batches) == 3
    stream = read(batches, 0, 30)
    assert [len(labels) for _, labels in stream] == [3, 3, 1] * 10
    epochs = [np.concatenate([x[:, 0] for x, _ in stream[start : start + 3]]) for start in range(0, 30, 3)]
    for epoch in epochs:
        assert sorted(epoch % 10) == list(range(7))
    assert {value // 10 for epoch in epochs for value in epoch} == {0, 1}
    assert len({tuple(epoch) for epoch in epochs}) == 10
    for inputs, labels in stream:
        assert inputs.dtype == FEATURES.dtype
        np.testing.assert_array_equal(labels, [LABELS[int(value) % 10] for value in inputs[:, 0]])
    for ours, expected in zip(read(batches, 2, 3), stream[6:9], strict=True):
        np.testing.assert_array_equal(ours[0], expected[0])


def test_validation_is_plain_and_in_order_in_every_epoch():
    for inputs, labels in read(FeatureBatches(FEATURES, LABELS, 7, None), 0, 2):
        np.testing.assert_array_equal(inputs[:, 0], range(7))
        np.testing.assert_array_equal(labels, LABELS)


def test_class_weights_come_with_the_pictures_of_the_class():
    for _, labels, weights in read(FeatureBatches(FEATURES, LABELS, 3, 0, {0: 0.5, 1: 1.0, 2: 2.0}), 0, 3):
        np.testing.assert_array_equal(weights, 0.5 * 2.0**labels)


def test_pictures_keep_their_labels_and_change_from_epoch_to_epoch(tmp_path):
    preprocessing = Preprocessing((8, 8), mean=(0.0,) * 3, std=(1.0,) * 3)
    values = np.random.default_rng(0).integers(0, 40, (7, 12, 12, 3)) + 30 * np.arange(7)[:, None, None, None]
    for index, pixels in enumerate(values):
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{index}.png")
    paths = [str(tmp_path / f"{index}.png") for index in range(7)]
    first, second = read(PictureBatches(paths, preprocessing, range(7), 7, 0), 0, 2)
    for inputs, labels in (first, second):
        order = np.argsort(inputs.mean(axis=(1, 2, 3)))
        np.testing.assert_array_equal(labels[order], range(7))
    assert not np.array_equal(first[0][np.argsort(first[1])], second[0][np.argsort(second[1])])


def test_no_generator_is_read(monkeypatch):
    """It would slow every later step of the process, see ``computed_batches``."""
    monkeypatch.setattr(tf.data.Dataset, "from_generator", None)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    batches = FeatureBatches(FEATURES, LABELS, 3, 0)
    history = model.fit(batches.from_epoch(0), steps_per_epoch=3, epochs=2, verbose=0)
    assert len(history.history["loss"]) == 2


def test_several_features_are_several_inputs():
    batches = FeatureBatches((FEATURES, FEATURES[..., None] + 1), LABELS, 3, None)
    ((first, second), labels), *_ = read(batches, 0, 1)
    np.testing.assert_array_equal(first[:, 0], range(3))
    np.testing.assert_array_equal(second[:, 0, 0], np.arange(3) + 1)
    np.testing.assert_array_equal(labels, LABELS[:3])


def test_learning_rate_rises_and_falls_to_zero_by_steps():
    annealing = Annealing(1.0, 100)
    rates = []
    for _ in range(100):
        rates.append(annealing.rate(time.monotonic()))
        annealing._step += 1
    assert rates[0] == pytest.approx(0.05)
    assert 0.9 < max(rates) <= 1
    assert rates[50] == pytest.approx(0.5, abs=0.02)
    assert rates[-1] < 1e-3


def test_learning_rate_falls_in_time_for_a_deadline_that_the_steps_would_miss():
    now = time.monotonic()
    annealing = Annealing(1.0, 10**6, now + 100)
    rates = [annealing.rate(now + seconds) for seconds in (5, 50, 99.9, 200)]
    assert rates == pytest.approx([0.5, 0.5, 0, 0], abs=0.01)


def test_training_ends_at_its_deadline():
    inputs = keras.Input((1,))
    model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    ended = []
    counted = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: ended.append(batch))
    batches = FeatureBatches(FEATURES, LABELS, 3, 0).from_epoch(0)
    annealing = Annealing(1.0, 10**6, time.monotonic())
    model.fit(batches, steps_per_epoch=10**6, epochs=2, verbose=0, callbacks=[annealing, counted])
    assert ended == [0]


def test_each_stage_learns_at_its_own_rate():
    inputs = keras.Input((1,))
    x = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", name="stage1_fc")(inputs)
    x = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", name="stage2_fc")(x)
    model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", name="head_fc")(x))
    factors = stage_factors(("stage1", "stage2", "head"), 0.1)
    model.compile(StageRates(factors, learning_rate=1e-2), "mse")
    model.train_on_batch(np.ones((1, 1)), np.zeros((1, 1)))
    # Every gradient is 2.
    steps = [1 - float(keras.ops.convert_to_numpy(variable)[0, 0]) for variable in model.trainable_variables]
    assert steps == pytest.approx([2e-4, 2e-3, 2e-2], rel=1e-2)
    assert StageRates.from_config(model.optimizer.get_config()).factors == factors
