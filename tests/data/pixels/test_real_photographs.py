"""Real photographs, where ``TOOLKIT_DATA`` names the folder that holds them."""

import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from toolkit.data import scan_folder, split_folder
from toolkit.data.pixels import decode, graph
from toolkit.spec import Preprocessing

FOLDER = Path(os.environ.get("TOOLKIT_DATA", "nowhere")) / "hymenoptera"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="TOOLKIT_DATA names no folder with hymenoptera")


def test_host_and_graph_agree_on_photographs():
    preprocessing = Preprocessing(size=(224, 224), crop_fraction=0.875)
    in_graph = tf.function(lambda data: graph.decode_pixels(data, preprocessing))
    changed = []
    for path in sorted(FOLDER.glob("train/*/*.jpg"))[::8]:
        data = path.read_bytes()
        difference = np.abs(
            decode.decode_pixels(data, preprocessing).astype(int) - in_graph(tf.constant(data)).numpy().astype(int)
        )
        assert difference.max() <= 1
        changed.append(np.mean(difference > 0))
    assert len(changed) > 25
    assert np.mean(changed) < 1e-3


def test_given_splits_are_kept():
    folder = scan_folder(FOLDER)
    assert folder.class_names == ("ants", "bees")
    split = split_folder(folder)
    assert len(split.train) == folder.splits.count("train") > 240
    assert len(split.val) == folder.splits.count("val") == 153
    assert split.held_out == ("val", split.val)
