"""Published weights on real photographs, where the development data is at hand."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest

import toolkit
from toolkit.data.feed.arrays import load_pixels
from toolkit.data.pixels.decode import normalize
from toolkit.factory import preprocessing_of

DATA = Path(os.environ.get("TOOLKIT_DATA", "nowhere"))
FOLDER = DATA / "hymenoptera"
WEIGHTS = DATA / "googlenet_bvlc" / "googlenet_bvlc.caffemodel"
ANT, BEE = 310, 309

pytestmark = pytest.mark.skipif(not WEIGHTS.is_file(), reason="needs TOOLKIT_DATA with the BVLC GoogLeNet weights")


@pytest.fixture(scope="module")
def probabilities():
    model = toolkit.create_model("googlenet", weights=WEIGHTS)
    preprocessing = preprocessing_of(model)
    assert (preprocessing.channel_order, preprocessing.mean) == ("bgr", (104.0, 117.0, 123.0))
    answers = {}
    for name in ("ants", "bees"):
        root = next(path for path in FOLDER.rglob(f"val/{name}") if path.is_dir())
        pictures = normalize(load_pixels(sorted(root.glob("*.jpg")), preprocessing), preprocessing)
        answers[name] = keras.ops.convert_to_numpy(keras.ops.softmax(model.predict(pictures, batch_size=16, verbose=0)))
    return answers


def test_most_ants_are_called_ant(probabilities):
    top1 = probabilities["ants"].argmax(axis=1)
    assert np.mean(top1 == ANT) > 0.6
    assert np.mean([ANT in row.argsort()[-5:] for row in probabilities["ants"]]) > 0.85


def test_most_bees_are_called_bee(probabilities):
    top1 = probabilities["bees"].argmax(axis=1)
    assert np.mean(top1 == BEE) > 0.7
    assert np.mean([BEE in row.argsort()[-5:] for row in probabilities["bees"]]) > 0.9
