"""A data set in other people's loops: ``tf.data``, NumPy batches and PyTorch give the same pictures."""

import importlib.util
import pickle

import numpy as np
import pytest

from toolkit import model_info
from toolkit.data import pipeline, scan_folder
from toolkit.errors import UserError

PREPROCESSING = model_info("lenet5").preprocessing


@pytest.fixture(scope="module")
def photos(make_folder, tmp_path_factory):
    return scan_folder(make_folder(tmp_path_factory.mktemp("photos") / "photos", {"ant": 13, "bee": 12}))


@pytest.mark.parametrize("augment", ["none", "mirror,resized_crop:0.25/1", "mixup:0.2"])
def test_two_epochs_are_the_same_in_tensorflow_and_numpy(photos, augment):
    train = pipeline(photos, preprocessing=PREPROCESSING, batch_size=4, augment=augment, seed=3)
    assert (len(train), len(train.pictures)) == (4, 15)
    batches = train.as_tf()
    assert batches.cardinality() == 4
    through_tf = [(inputs.numpy(), labels.numpy()) for _ in range(2) for inputs, labels in batches]
    through_numpy = list(train.as_numpy(epochs=2))
    assert len(through_tf) == len(through_numpy) == 8
    for one, other in zip(through_tf, through_numpy, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    first, second = (np.concatenate([own[1] for own in through_numpy[part]]) for part in (slice(4), slice(4, 8)))
    assert sorted(first.tolist()) == sorted(second.tolist()) or augment.startswith("mixup")
    assert not np.array_equal(through_numpy[0][0], through_numpy[4][0])  # the second epoch is another


def test_pictures_that_measure_come_once_and_in_order(photos):
    val = pipeline(photos, "val", preprocessing=PREPROCESSING, batch_size=2, augment="mirror")
    for _ in range(2):
        labels = np.concatenate([labels.numpy() for _, labels in val.as_tf()])
        np.testing.assert_array_equal(labels, val.pictures.labels)
    inputs = np.concatenate([inputs for inputs, _ in val.as_numpy()])
    through_tf = np.concatenate([inputs.numpy() for inputs, _ in val.as_tf()])
    np.testing.assert_allclose(inputs, through_tf, atol=1e-5)
    assert len(list(val.as_numpy(epochs=2))) == 2 * len(val)
    assert "in order" in repr(val)


@pytest.mark.slow  # importing it
def test_torch_loads_the_same_pictures(photos):
    torch = pytest.importorskip("torch")
    val = pipeline(photos, "val", preprocessing=PREPROCESSING, batch_size=2)
    dataset = val.as_torch()
    assert isinstance(dataset, torch.utils.data.Dataset)
    loader = torch.utils.data.DataLoader(dataset, batch_size=2)
    found = [(inputs.numpy().transpose(0, 2, 3, 1), labels.numpy()) for inputs, labels in loader]
    for (inputs, labels), (expected, same) in zip(found, val.as_numpy(), strict=True):
        np.testing.assert_array_equal(inputs, expected)
        np.testing.assert_array_equal(labels, same)


@pytest.mark.slow
def test_torch_augments_by_the_epoch(photos):
    torch = pytest.importorskip("torch")
    dataset = pipeline(photos, preprocessing=PREPROCESSING, augment="resized_crop:0.25/1").as_torch()
    first, again = dataset[2][0], dataset[2][0]
    dataset.set_epoch(1)
    assert torch.equal(first, again)
    assert not torch.equal(first, dataset[2][0])
    assert torch.equal(pickle.loads(pickle.dumps(dataset))[2][0], dataset[2][0])  # as spawned workers get it
    assert first.dtype == torch.float32
    with pytest.raises(IndexError):
        dataset[len(dataset)]
    with pytest.raises(UserError, match="mixes the pictures"):
        pipeline(photos, preprocessing=PREPROCESSING, augment="mixup:0.2").as_torch()


def test_torch_that_is_not_there_is_said(photos, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install torch"):
        pipeline(photos, preprocessing=PREPROCESSING).as_torch()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subset": "tran"}, "did you mean 'train'"),
        ({"batch_size": 0}, "at least 1"),
        ({"augment": "miror"}, "mirror"),
    ],
)
def test_mistakes_are_told_before_anything_is_read(photos, options, message):
    with pytest.raises(UserError, match=message):
        pipeline(photos, preprocessing=PREPROCESSING, **options)


def test_damaged_pictures_are_refused_or_left_out(make_folder, tmp_path):
    root = make_folder(tmp_path / "photos", {"ant": 6, "bee": 6})
    (root / "ant" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(UserError, match="bad"):
        pipeline(root, preprocessing=PREPROCESSING)
    assert len(list(pipeline(root, preprocessing=PREPROCESSING, skip_bad=True).as_numpy())) == 1
