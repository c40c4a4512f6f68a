"""Options and phases of training unfrozen stages; the training itself is tested with the whole of fine-tuning."""

import keras
import pytest
import tensorflow as tf

from toolkit.data import scan_folder, split_folder
from toolkit.errors import UserError
from toolkit.spec import Preprocessing
from toolkit.transfer import UnfrozenOptions
from toolkit.transfer.features import Pictures
from toolkit.transfer.unfrozen.training import StageTraining, _phases


def test_gradual_phases_share_the_epochs():
    assert _phases([4, 3, 2], 5) == [(4, 1), (3, 2), (2, 2)]
    assert _phases([4, 3, 2], 2) == [(3, 1), (2, 1)]


@pytest.mark.parametrize("options", [{"epochs": 0}, {"learning_rate": 0.0}, {"stage_decay": 1.5}])
def test_impossible_unfrozen_options(options):
    with pytest.raises(UserError, match="epochs and batch size must be at least 1"):
        UnfrozenOptions(**options)


@pytest.mark.parametrize("train_batch_norm", [True, False])
def test_batch_normalisation_that_trains_is_fused(make_folder, tmp_path, monkeypatch, train_batch_norm):
    fused = []
    original = tf.raw_ops.FusedBatchNormV3
    monkeypatch.setattr(tf.raw_ops, "FusedBatchNormV3", lambda **given: fused.append(given) or original(**given))
    folder = make_folder(tmp_path / "pictures", {"train/a": 4, "train/b": 4, "val/a": 1, "val/b": 1})
    inputs = keras.layers.Input((8, 8, 3))
    x = keras.layers.BatchNormalization(name="stage1_bn")(keras.layers.Conv2D(4, 3, name="stage1_conv")(inputs))
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    model = keras.Model(inputs, keras.layers.Dense(2, name="head_logits")(x))
    pictures = Pictures(split_folder(scan_folder(folder)), Preprocessing((8, 8)), tmp_path / "cache")
    before = model.get_layer("stage1_bn").moving_mean.numpy()
    options = UnfrozenOptions(batch_size=4, train_batch_norm=train_batch_norm)
    StageTraining(model, pictures, "stage1", options).train(1)
    assert bool(fused) == train_batch_norm
    assert (model.get_layer("stage1_bn").moving_mean.numpy() != before).any() == train_batch_norm
