"""Caffe's files, against Google's own encoder and against a published network."""

import os
from pathlib import Path

import numpy as np
import pytest
from weight_files import caffe_messages

from toolkit.errors import UserError
from toolkit.weights.readers import read_tensors

MESSAGES = caffe_messages()
KERNEL = np.random.default_rng(0).standard_normal((4, 3, 5, 5)).astype("f4")
MATRIX = np.arange(6, dtype="f4").reshape(1, 1, 2, 3)


def _blob(values, *, legacy=False, field="data"):
    sides = dict(zip(("num", "channels", "height", "width"), values.shape, strict=False)) if legacy else {}
    shape = None if legacy else MESSAGES["BlobShape"](dim=values.shape)
    return MESSAGES["BlobProto"](shape=shape, **sides, **{field: values.ravel().tolist()}, diff=[0.5] * 7)


def _write(path, **layers):
    path.write_bytes(MESSAGES["NetParameter"](name="net", **layers).SerializeToString())
    return path


def test_layers_as_caffe_writes_them_now(tmp_path):
    conv = {"name": "conv1/7x7", "type": "Convolution", "bottom": ["data"], "phase": 1, "loss_weight": [1.0]}
    third = np.array([1 / 3])
    layers = [
        MESSAGES["LayerParameter"](name="data", type="Input"),
        MESSAGES["LayerParameter"](**conv, blobs=[_blob(KERNEL), _blob(np.ones(4))]),
        MESSAGES["LayerParameter"](name="scale", blobs=[_blob(np.array(2.5)), _blob(third, field="double_data")]),
    ]
    path = _write(tmp_path / "renamed.bin", layer=layers)
    file = read_tensors(path)
    assert file.format == "caffemodel"
    assert list(file.tensors) == ["conv1/7x7/0", "conv1/7x7/1", "scale/0", "scale/1"]
    np.testing.assert_array_equal(file.tensors["conv1/7x7/0"], KERNEL)
    assert file.tensors["conv1/7x7/1"].tolist() == [1, 1, 1, 1]
    assert file.tensors["scale/0"].shape == ()
    assert file.tensors["scale/1"].tolist() == [1 / 3]


def test_layers_of_both_earlier_generations(tmp_path):
    blobs = [_blob(KERNEL, legacy=True), _blob(MATRIX, legacy=True)]
    oldest = MESSAGES["V0LayerParameter"](name="conv0", num_output=4, blobs=blobs)
    layers = [
        MESSAGES["V1LayerParameter"](name="fc", type=14, bottom=["data"], blobs=blobs),
        MESSAGES["V1LayerParameter"](layer=oldest, bottom=["data"]),
    ]
    tensors = read_tensors(_write(tmp_path / "old.caffemodel", layers=layers)).tensors
    assert list(tensors) == ["fc/0", "fc/1", "conv0/0", "conv0/1"]
    for layer in ("fc", "conv0"):
        np.testing.assert_array_equal(tensors[f"{layer}/0"], KERNEL)
        np.testing.assert_array_equal(tensors[f"{layer}/1"], MATRIX)


def _write_blob(path, blob):
    """A network of one layer with one array, given as bytes."""
    layer = MESSAGES["LayerParameter"](name="fc").SerializeToString() + b"\x3a" + bytes([len(blob)]) + blob
    path.write_bytes(b"\x0a\x03net\xa2\x06" + bytes([len(layer)]) + layer)
    return path


def test_floats_with_a_tag_each_and_in_pieces(tmp_path):
    unpacked = MESSAGES["UnpackedBlob"](num=7, data=[1, 2, 3, 4]).SerializeToString()
    packed = MESSAGES["BlobProto"](data=[5, 6, 7], channels=1, height=1, width=1).SerializeToString()
    path = _write_blob(tmp_path / "net.caffemodel", unpacked + packed)
    assert read_tensors(path).tensors["fc/0"].tolist() == [[[[value]]] for value in range(1, 8)]


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (MESSAGES["BlobProto"](shape={"dim": [2, 3]}, data=[1] * 5), r"claims shape \(2, 3\) and holds 5 values"),
        (MESSAGES["BlobProto"](shape={"dim": [1 << 40, 1 << 40]}, data=[1]), "claims shape"),
        (MESSAGES["BlobProto"](shape={"dim": [-1, -1]}, data=[1]), "claims shape"),
        (MESSAGES["BlobProto"](num=1, channels=1, height=2, data=[1]), r"claims shape \(1, 1, 2, 0\)"),
        (MESSAGES["BlobProto"](shape={"dim": [1] * 33}, data=[1]), "claims shape"),
        (b"\x2a\x03abc", "3 bytes where <f4 numbers should be"),
        (b"\x2a\xff\xff\xff\xff\x0fabc", "cut short or damaged: a field claims"),
        (b"\x28\x01", "something else than numbers"),
        (b"\x2b", "wire type 3"),
        (b"\x2a" + b"\xff" * 12, "within a number"),
    ],
)
def test_arrays_that_claim_what_they_do_not_hold(tmp_path, blob, message):
    content = blob if isinstance(blob, bytes) else blob.SerializeToString()
    with pytest.raises(UserError, match=message):
        read_tensors(_write_blob(tmp_path / "evil.caffemodel", content))


def test_a_network_without_weights_and_names_twice(tmp_path):
    layers = [MESSAGES["LayerParameter"](name="conv1")]
    with pytest.raises(UserError, match="no layer with weights"):
        read_tensors(_write(tmp_path / "net.caffemodel", layer=layers))
    layers = [MESSAGES["LayerParameter"](name="conv1", blobs=[_blob(MATRIX)])] * 2
    with pytest.raises(UserError, match="two layers named 'conv1'"):
        read_tensors(_write(tmp_path / "net.caffemodel", layer=layers))


@pytest.mark.skipif("TOOLKIT_DATA" not in os.environ, reason="needs the published GoogLeNet in $TOOLKIT_DATA")
def test_the_published_googlenet():
    path = Path(os.environ["TOOLKIT_DATA"]) / "googlenet_bvlc" / "googlenet_bvlc.caffemodel"
    tensors = read_tensors(path).tensors
    assert len(tensors) == 2 * 58  # 57 convolutions and the classifier
    assert sum(array.size for array in tensors.values()) == 6_998_552
    assert tensors["conv1/7x7_s2/0"].shape == (64, 3, 7, 7)
    assert tensors["loss3/classifier/0"].shape == (1, 1, 1000, 1024)
    assert all(np.isfinite(array).all() for array in tensors.values())
    assert abs(tensors["conv1/7x7_s2/0"].mean()) < 0.001 < 0.1 < tensors["conv1/7x7_s2/0"].std() < 0.3
    assert not any(array.flags.owndata for array in tensors.values())
