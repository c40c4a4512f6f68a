"""The host and the graph cut the same crops out of the same bytes."""

import functools
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from toolkit.ensemble import cut_graph
from toolkit.ensemble.crops import plan_crops
from toolkit.ensemble.cut import decode_crops
from toolkit.spec import Preprocessing

PREPROCESSINGS = {
    "crop": Preprocessing(size=(48, 64), crop_fraction=0.875),
    "stretch": Preprocessing(size=(40, 24), resize="stretch", interpolation="bicubic"),
}


def photograph(height: int, width: int) -> Image.Image:
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([127 + 100 * np.sin(x / 17 + y / 31 + phase) for phase in (0.0, 1.5, 3.0)], axis=-1)
    return Image.fromarray(np.clip(waves + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8))


@functools.cache
def pictures() -> dict[str, bytes]:
    found = {}
    for name, size, options in (
        ("jpeg", (180, 250), {"format": "JPEG"}),
        ("jpeg large", (1100, 1700), {"format": "JPEG"}),
        ("png tall", (333, 101), {"format": "PNG"}),
        ("png tiny", (1, 1), {"format": "PNG"}),
        ("png rule", (3, 20_000), {"format": "PNG"}),
        ("png spacer", (900, 3), {"format": "PNG"}),
    ):
        buffer = io.BytesIO()
        photograph(*size).save(buffer, **options)
        found[name] = buffer.getvalue()
    return found


@functools.cache
def in_graph(resize: str, crops: int, scales: tuple[int, ...]):
    preprocessing = PREPROCESSINGS[resize]
    plan = plan_crops(preprocessing, crops, scales)
    spec = [tf.TensorSpec([], tf.string)]
    return tf.function(lambda data: cut_graph.decode_crops(data, preprocessing, plan), input_signature=spec)


@pytest.mark.parametrize(
    ("resize", "crops", "scales"),
    [
        ("crop", 1, ()),
        ("crop", 10, (48, 100)),
        pytest.param("crop", 144, (60,), marks=pytest.mark.slow),
        ("crop", 50, (48,)),
        ("stretch", 10, ()),
        pytest.param("crop", 144, (), marks=pytest.mark.slow),
        pytest.param("crop", 50, (), marks=pytest.mark.slow),
        pytest.param("stretch", 144, (), marks=pytest.mark.slow),
    ],
)
def test_host_and_graph_cut_the_same_crops(resize, crops, scales):
    preprocessing = PREPROCESSINGS[resize]
    plan = plan_crops(preprocessing, crops, scales)
    for name, data in pictures().items():
        host = decode_crops(data, preprocessing, plan).astype(int)
        graph = in_graph(resize, crops, scales)(tf.constant(data)).numpy().astype(int)
        assert host.shape == graph.shape == (len(plan), *preprocessing.size, 3)
        difference = np.abs(host - graph)
        # A value that falls on a rounding boundary may go either way; nothing else may differ.
        assert difference.max() <= 1, name
        assert np.mean(difference > 0) < 0.005, name
