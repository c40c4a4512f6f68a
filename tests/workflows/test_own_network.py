"""A network of one's own, from the file that Keras saved, to a fine-tuned bundle."""

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.bundle import KERAS_FILE, read_manifest
from toolkit.data.feed.arrays import load_pixels
from toolkit.engines import open_engine
from toolkit.errors import UserError
from toolkit.network import load_network
from toolkit.spec import IMAGENET
from toolkit.workflows import ExportOptions
from toolkit.workflows.finetune import FolderOptions, finetune_folder


@pytest.fixture(scope="module")
def own(tmp_path_factory, digits):
    """A folder of three classes and a file of a nested network, with augmentation, scaling and another classifier."""
    home = tmp_path_factory.mktemp("own")
    (home / "three").mkdir()
    for digit in "247":
        (home / "three" / digit).symlink_to(digits / digit)
    keras.utils.set_random_seed(0)
    inner = keras.Sequential(
        [keras.Input((32, 32, 3)), layers.Conv2D(32, 5, strides=2, activation="relu")], name="backbone"
    )
    start = [keras.Input((32, 32, 3)), layers.RandomRotation(0.1), layers.Rescaling(1 / 255, name="to_one")]
    end = [layers.MaxPooling2D(4), layers.Flatten(), layers.Dropout(0.2), layers.Dense(9, activation="softmax")]
    keras.Sequential([*start, inner, *end], name="mine").save(home / "own.keras")
    return home


def finetuned(home, **options):
    return finetune_folder(
        home / "three",
        str(home / "own.keras"),
        weights="imagenet",
        export=ExportOptions(home / "saved_models" / "own", formats=("savedmodel", "litert")),
        options=FolderOptions(cache_dir=home / "cache", **options),
    )


def test_it_becomes_a_bundle_like_a_registered_one(own, digits):
    result = finetuned(own)
    assert result["metrics"]["top1"] > 0.9
    version = own / "saved_models" / "own" / "1"
    preprocessing = read_manifest(version).preprocessing
    np.testing.assert_allclose(preprocessing.affine(), [(1 / 255,) * 3, (0,) * 3], atol=1e-8)
    network = load_network(version / KERAS_FILE)
    assert not any(isinstance(layer, keras.Model | layers.Rescaling) for layer in network.layers)
    pixels = load_pixels([str(path) for path in sorted((digits / "2").iterdir())[:20]], preprocessing)
    answers = open_engine("litert", version, preprocessing).probabilities(pixels)
    assert (answers.argmax(axis=1) == 0).mean() > 0.8


def test_a_preprocessing_that_scales_once_more_is_refused(own):
    with pytest.raises(UserError, match=r"scales its input itself \(to_one\)"):
        finetuned(own, preprocessing=IMAGENET)


def test_weights_for_a_network_that_brings_its_own_are_refused(own):
    with pytest.raises(UserError, match=r"own\.keras brings its own weights; leave --weights out"):
        finetune_folder(
            own / "three",
            str(own / "own.keras"),
            weights="other.weights.h5",
            export=ExportOptions(own / "saved_models" / "no"),
            options=FolderOptions(cache_dir=own / "cache"),
        )
