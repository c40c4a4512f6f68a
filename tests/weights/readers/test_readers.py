"""Every format: told by its content, and when damaged refused in one line, not by a crash or a hang."""

import gzip
import random
import struct
import zipfile
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file
from weight_files import caffe_messages, write_torch_legacy, write_torch_zip

from toolkit.errors import UserError
from toolkit.weights.readers import FORMATS, read_tensors

ARRAYS = {"conv1/0": np.arange(24, dtype="f4").reshape(2, 3, 4), "conv1/1": np.array([0.5, -1.5], "f4")}


def _write_weights_h5(path):
    with h5py.File(path, "w") as file:
        variables = file.create_group("layers/conv2d/vars")
        variables.attrs["name"] = "conv1"
        variables["0"], variables["1"] = ARRAYS.values()


def _write_legacy_h5(path):
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["conv1"]
        file["conv1/kernel"], file["conv1/bias"] = ARRAYS.values()
        file["conv1"].attrs["weight_names"] = ["kernel", "bias"]


def _write_keras(path):
    inner = path.with_suffix(".inner")
    _write_weights_h5(inner)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", '{"config": {"layers": [{"config": {"name": "conv1", "strides": [2, 2]}}]}}')
        archive.write(inner, "model.weights.h5")


def _write_caffemodel(path):
    messages = caffe_messages()
    blobs = [{"shape": {"dim": array.shape}, "data": array.ravel().tolist()} for array in ARRAYS.values()]
    layer = messages["LayerParameter"](name="conv1", blobs=blobs)
    path.write_bytes(messages["NetParameter"](name="net", layer=[layer]).SerializeToString())


WRITERS = {
    "keras": (".keras", _write_keras),
    "weights.h5": (".weights.h5", _write_weights_h5),
    "h5": (".h5", _write_legacy_h5),
    "safetensors": (".safetensors", lambda path: save_file(ARRAYS, path, {"toolkit": "{}"})),
    "torch": (".pth", lambda path: write_torch_zip(path, ARRAYS)),
    "caffemodel": (".caffemodel", _write_caffemodel),
    "torch, legacy": (".pth", lambda path: write_torch_legacy(path, ARRAYS)),
}
#: Starting a process for each file is slow.
HDF5 = ("keras", "weights.h5", "h5")


def _written(tmp_path, kind):
    suffix, write = WRITERS[kind]
    path = tmp_path / f"net{suffix}"
    write(path)
    return path


def _is_refused(path, format="auto"):
    """Tell if reading fails, in the only way it may."""
    message = ""
    try:
        tensors = read_tensors(path, format).tensors
    except UserError as error:
        message = str(error)
    if not message:
        assert all(array.copy().shape == array.shape for array in tensors.values())  # each value is there
        return False
    assert str(path) in message
    assert "\n" not in message
    return True


def _rewrite(path, content):
    path.unlink()  # and not in place, for arrays of the last one may still be mapped
    path.write_bytes(content)


def test_every_format_is_tried_here():
    assert {kind.split(",")[0] for kind in WRITERS} == set(FORMATS)


@pytest.mark.parametrize("kind", WRITERS)
def test_format_is_told_by_content_whatever_the_name(tmp_path, kind):
    format = kind.split(",")[0]
    path = _written(tmp_path, kind).rename(tmp_path / "download")
    for asked in ("auto", format):
        file = read_tensors(str(path), asked)
        assert (file.path, file.format) == (path, format)
        assert list(file.tensors) == list(ARRAYS)
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(file.tensors[name], array)
            assert file.tensors[name].dtype == array.dtype
    assert file.metadata == ({"toolkit": "{}"} if format == "safetensors" else {})
    for other in FORMATS:
        assert other == format or _is_refused(path, other)


@pytest.mark.parametrize("kind", WRITERS)
def test_files_cut_short_are_refused(tmp_path, kind):
    path = _written(tmp_path, kind)
    content = path.read_bytes()
    end = len(content)
    cuts = (
        [0, end // 3, end - 1] if kind in HDF5 else [0, 1, 7, 8, 9, *random.Random(0).sample(range(end), 60), end - 1]
    )
    for cut in cuts:
        _rewrite(path, content[:cut])
        assert _is_refused(path), f"cut to {cut} of {end} bytes"


@pytest.mark.parametrize("kind", WRITERS)
def test_changed_bytes_give_arrays_or_one_line(tmp_path, kind):
    _change_bytes(tmp_path, kind, times=3 if kind in HDF5 else 300)


@pytest.mark.slow
@pytest.mark.parametrize("kind", HDF5)
def test_changed_bytes_of_hdf5_give_arrays_or_one_line(tmp_path, kind):
    _change_bytes(tmp_path, kind, times=200)


def _change_bytes(tmp_path, kind, *, times):
    path = _written(tmp_path, kind)
    content = path.read_bytes()
    chance = random.Random(0)
    outcomes = []
    for _ in range(times):
        changed = bytearray(content)
        for _ in range(chance.choice((1, 1, 2, 8))):
            place = chance.randrange(len(content) - 8)
            size = struct.pack("<q", chance.choice((-1, 0, 1 << 31, 1 << 40, 1 << 62)))
            changed[place : place + 8] = chance.choice((chance.randbytes(1) + changed[place + 1 : place + 8], size))
        _rewrite(path, changed)
        outcomes.append(_is_refused(path))
    assert any(outcomes) or times < 10


HALVES = np.array([1.5, -0.25, 65504], "f2")


@pytest.mark.parametrize("dtype", ["f2", ml_dtypes.bfloat16])
def test_halves_become_float32_and_others_stay(tmp_path, dtype):
    stored = {"half": HALVES.astype(dtype), "double": np.array([1 / 3]), "count": np.arange(3), "none": np.ones((0, 2))}
    save_file(stored, tmp_path / "net.safetensors")
    tensors = read_tensors(tmp_path / "net.safetensors").tensors
    assert tensors["half"].dtype == np.float32
    np.testing.assert_array_equal(tensors["half"], HALVES.astype(dtype).astype("f4"))
    for name in ("double", "count", "none"):
        np.testing.assert_array_equal(tensors[name], stored[name])
        assert tensors[name].dtype == stored[name].dtype


def test_prefixes_in_safetensors(tmp_path):
    names = ("_orig_mod.module.fc.weight", "_orig_mod.module.bn.num_batches_tracked")
    save_file({name: np.ones(2, "f4") for name in names}, tmp_path / "net.safetensors")
    assert list(read_tensors(tmp_path / "net.safetensors").tensors) == ["fc.weight"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html><title>404</title>", "is a web page and not weights"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer.*git lfs pull"),
        (gzip.compress(b"weights", mtime=0), "is a gzip archive; unpack it"),
        (b"name" + bytes(253) + b"ustar\x0000", "is a tar archive; unpack it"),
        (b"\x08\x07\x12\x04onnx", "is no weights file; these are read: .keras, "),
        (b"PK\x03\x04", "zip archive cut short or damaged"),
        (struct.pack("<Q", 99_999_999) + b"{", "cut short or damaged"),
        (struct.pack("<Q", 1 << 40) + b"{", "is no weights file"),
        (b"just text", "is no weights file"),
    ],
)
def test_what_is_no_weights_file(tmp_path, content, message):
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_tensors(path)


def test_no_file_and_no_format(tmp_path):
    with pytest.raises(UserError, match=r"no weights file at .*nowhere\.h5"):
        read_tensors(tmp_path / "nowhere.h5")
    with pytest.raises(UserError, match="is not a file"):
        read_tensors(tmp_path)
    with pytest.raises(UserError, match="cannot read weights from 'onnx'; formats: keras, "):
        read_tensors(Path(__file__), "onnx")
