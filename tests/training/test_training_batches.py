"""Batches divided among devices: nothing is lost, and nothing counts twice."""

import numpy as np
import pytest

from toolkit.data import scan_folder, split_folder
from toolkit.spec import Preprocessing
from toolkit.training.batches import own_part, padded, steps_per_epoch, training_data, validation_data
from toolkit.training.config import DataConfig, RunConfig, TrainConfig
from toolkit.training.devices import Shard
from toolkit.training.run_dir import Position

CONFIG = TrainConfig(data=DataConfig(class_weights=True), run=RunConfig(batch_size=8))
TWO = Shard(num_devices=2)


@pytest.fixture(scope="module")
def split(pictures):
    return split_folder(scan_folder(pictures))


def test_processes_share_a_batch_in_order():
    inputs, labels, weights = padded(Shard(num_devices=4), np.arange(10), np.arange(10))
    parts = [own_part(Shard(index, 2, 4), inputs, labels, weights) for index in range(2)]
    np.testing.assert_array_equal(np.concatenate([part[0] for part in parts]), [*range(10), 0, 1])
    np.testing.assert_array_equal(np.concatenate([part[2] for part in parts]), [1] * 10 + [0, 0])


def test_what_fills_the_last_batch_up_weighs_nothing_in_the_mean(split):
    """11 pictures in batches of 8 and 3, which two devices fill up to 4; Keras divides by 12."""
    batches = list(validation_data(split.val, Preprocessing((8, 8)), CONFIG, outputs=["logits"], shard=TWO))
    assert [len(inputs) for inputs, _, _ in batches] == [8, 4]
    weights = np.concatenate([np.asarray(weights) for _, _, weights in batches])
    assert weights.sum() == pytest.approx(12)
    assert weights[-1] == 0
    assert len(set(weights[:-1].tolist())) == 1


@pytest.mark.parametrize("outputs", [["logits"], ["logits", "aux"]])
def test_training_batches_weigh_all_classes_alike_and_label_every_output(split, outputs):
    options = {"num_classes": 2, "outputs": outputs, "shard": TWO, "start": Position()}
    batches = training_data(split.train, Preprocessing((8, 8)), CONFIG, **options)
    steps = steps_per_epoch(split.train, 8, TWO)
    by_class = np.zeros(2)
    for _, labels, weights in batches.take(steps):
        assert isinstance(labels, dict) == (len(outputs) > 1)
        one = labels["aux"] if isinstance(labels, dict) else labels
        by_class += np.bincount(np.asarray(one), np.asarray(weights), minlength=2)
    assert by_class[0] == pytest.approx(by_class[1])
