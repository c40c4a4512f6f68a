"""torch's checkpoints: read as torch reads them, in both formats, and nothing in them is run."""

import argparse
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest
from weight_files import Claim, Name, Storage, torch_pickle, write_torch_legacy, write_torch_zip

from toolkit.errors import UserError
from toolkit.weights.readers import plain_pickle, read_tensors

WRITERS = (write_torch_zip, write_torch_legacy)


def _weights():
    """A state_dict with all that makes tensors hard: views, shared storages, no values, one value, other types."""
    rng = np.random.default_rng(0)
    base = np.arange(60, dtype="f4").reshape(3, 4, 5)
    weights = OrderedDict(
        {
            "conv.weight": base,
            "conv.transposed": base.transpose(2, 0, 1),
            "conv.strided": base[1:, ::2, 1:4],
            "fc.scalar": np.array(3.5, "f4"),
            "fc.empty": np.zeros((0, 4), "f4"),
            "fc.double": rng.standard_normal(3),
            "fc.half": rng.standard_normal((4, 3)).astype("f2"),
            "fc.long": np.arange(5),
            "bn.num_batches_tracked": np.array(7),
        }
    )
    weights._metadata = OrderedDict({"": {"version": 1}})  # as Module.state_dict() has it
    return weights


def _check(path, weights):
    file = read_tensors(path)
    assert file.format == "torch"
    assert list(file.tensors) == [name for name in weights if not name.endswith("tracked")]
    for name, array in file.tensors.items():
        expected = weights[name].astype("f4") if weights[name].dtype == "f2" else weights[name]
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected, err_msg=name)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("write", WRITERS)
def test_tensors_come_as_they_were(tmp_path, write, protocol):
    _check(write(tmp_path / "net.pth", _weights(), protocol=protocol), _weights())


def test_big_endian_values_are_turned(tmp_path):
    content, storages = torch_pickle({"w": np.arange(6, dtype="f4"), "n": np.arange(3)})
    path = write_torch_zip(tmp_path / "net.pth", (content, [values.byteswap() for values in storages]), order="big")
    tensors = read_tensors(path).tensors
    assert tensors["w"].tolist() == [0, 1, 2, 3, 4, 5]
    assert tensors["n"].tolist() == [0, 1, 2]
    assert tensors["w"].dtype.isnative


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("protocol", [2, 4])
def test_files_of_torch_itself(tmp_path, legacy, protocol):
    torch = pytest.importorskip("torch")
    arrays = _weights()
    tensors = OrderedDict((name, torch.from_numpy(array)) for name, array in arrays.items())
    base = tensors["conv.weight"]
    tensors["parameter"] = torch.nn.Parameter(base.flatten()[7:11])
    tensors["brain"] = (base[0] / 3).bfloat16()
    arrays |= {"parameter": np.arange(7, 11, dtype="f4"), "brain": tensors["brain"].float().numpy()}
    path = tmp_path / "net.pth"
    torch.save(tensors, path, _use_new_zipfile_serialization=not legacy, pickle_protocol=protocol)
    _check(path, arrays)


@pytest.mark.parametrize("write", WRITERS)
def test_torch_reads_what_these_tests_write(tmp_path, write):
    torch = pytest.importorskip("torch")
    loaded = torch.load(write(tmp_path / "net.pth", _weights()), weights_only=True)
    for name, array in _weights().items():
        np.testing.assert_array_equal(loaded[name], array)


@pytest.mark.parametrize("write", WRITERS)
def test_weights_are_found_in_a_checkpoint(tmp_path, write):
    weights = {"conv1.weight": np.arange(6, dtype="f4").reshape(2, 3), "bn1.bias": np.ones(2, "f4")}
    checkpoint = {
        "epoch": 90,
        "best_prec1": np.float64(0.76),
        "args": argparse.Namespace(lr=0.1, milestones=[30, 60]),
        "milestones": Counter([30, 60]),
        "optimizer": {"state": {0: {"momentum_buffer": np.zeros((2, 3), "f4")}}, "param_groups": [{"params": [0]}]},
        "state_dict_ema": {name: 0 * array for name, array in weights.items()},
        "state_dict": OrderedDict({f"module.model.{name}": array for name, array in weights.items()}),
    }
    _check(write(tmp_path / "checkpoint.pth.tar", checkpoint), weights)


def test_weights_of_python_2_and_of_early_torch(tmp_path):
    """Names as bytes, a dictionary made of pairs, a parameter made as an object, a tensor of a part of a storage."""
    storage = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x04"
    tensor = b"ctorch._utils\n_rebuild_tensor\n(" + storage + b"tQK\x00K\x02K\x02\x86K\x02K\x01\x86tR"
    part = b"ctorch._utils\n_rebuild_tensor\n(" + storage + b"U\x01pK\x01K\x03\x87tQK\x01K\x02\x85K\x01\x85tR"
    parameter = b"ctorch.nn.parameter\nParameter\n" + tensor + b"\x85\x81(\x89\x89Ntb"
    pairs = b"](](U\x01w" + parameter + b"e](U\x01v" + part + b"ee"
    content = b"\x80\x02ccollections\nOrderedDict\n" + pairs + b"\x85R."
    path = write_torch_legacy(tmp_path / "old.pth", (content, [np.arange(4, dtype="f4")]))
    tensors = read_tensors(path).tensors
    assert {name: array.tolist() for name, array in tensors.items()} == {"w": [[0, 1], [2, 3]], "v": [2, 3]}


class _Command:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def _write_bare(path, thing, *, protocol):
    path.write_bytes(thing[0])
    return path


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("write", [*WRITERS, _write_bare])
def test_a_command_in_a_pickle_is_refused_and_not_run(tmp_path, write, protocol):
    marker = tmp_path / "was_run"
    command = _Command(marker)
    assert pickle.loads(pickle.dumps(command)) == 0
    assert marker.exists()  # that is what an unpickler would do
    marker.unlink()
    thing = torch_pickle({"state_dict": {"w": np.ones(3, "f4")}, "extra": command}, protocol)
    path = write(tmp_path / "evil.pth", thing, protocol=protocol)
    with pytest.raises(UserError, match=r"evil\.pth: its pickle names '(posix|nt)\.system'.*nothing of it was run"):
        read_tensors(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("instructions", "message"),
    [
        (b"\x80\x02(S'true'\nios\nsystem\n.", "uses the instruction STRING"),
        (b"\x80\x02(U\x04trueios\nsystem\n.", "uses the instruction INST"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", r"names 'os\.system'"),
        (b"\x80\x02\x82\x01.", "uses the instruction EXT1"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor\n)R.", "pickle is damaged"),
        (b"\x80\x02t.", "pickle is damaged"),
        (b"\x80\x02" + b"N" * 2000 + b".", "more than 1,000 instructions"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f....", "uses the instruction LONG4|cut short"),
        (b"\x80\x04B" + struct.pack("<I", (1 << 32) - 1) + b"....", "cut short, damaged or larger"),
        (b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"....", "cut short, damaged or larger"),
    ],
)
def test_instructions_a_checkpoint_has_no_use_for(tmp_path, monkeypatch, instructions, message):
    monkeypatch.setattr(plain_pickle, "MAX_INSTRUCTIONS", 1000)
    path = tmp_path / "evil.pth"
    path.write_bytes(instructions)
    with pytest.raises(UserError, match=message):
        read_tensors(path)


def test_containers_nested_in_themselves_cost_nothing(tmp_path):
    levels = []
    for _ in range(60):
        levels = [levels] * 10  # written out, 10⁶⁰ items
    cycle = {"w": np.ones(2, "f4")}
    cycle["state_dict"] = cycle
    assert list(read_tensors(write_torch_zip(tmp_path / "net.pth", {"bomb": levels, "state_dict": cycle})).tensors) == [
        "w"
    ]
    # A tuple of twice the one below, sixty levels of it, is a dictionary's key that would be hashed for years.
    doubling = b"".join(bytes([ord("q"), level, ord("h"), level, 0x86]) for level in range(60))
    path = write_torch_zip(tmp_path / "net.pth", (b"\x80\x02})" + doubling + b"Ns.", []))
    with pytest.raises(UserError, match="holds no weights by name"):
        read_tensors(path)
    # A long list made into a dictionary again and again.
    pairs = b"](" + b"(K\x01Nt" * 10_000 + b"eq\x00"
    again = b"ccollections\nOrderedDict\nh\x00\x85R" * 10_000
    path = write_torch_zip(tmp_path / "net.pth", (b"\x80\x02" + pairs + again + b".", []))
    with pytest.raises(UserError, match="holds no weights by name"):
        read_tensors(path)


FLOATS = Storage("0", "FloatStorage", 12)


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize(
    ("storage", "offset", "shape", "strides"),
    [
        (FLOATS, 1, (3, 4), (4, 1)),
        (FLOATS, 1 << 61, (1,), (1,)),
        (FLOATS, -1, (3, 4), (4, 1)),
        (FLOATS, 11, (2, 2), (-4, -1)),
        (FLOATS, 0, (2,), (1 << 60,)),
        (FLOATS, 0, (1 << 40, 1 << 40), (0, 0)),
        (FLOATS, 0, (12,), (1, 1)),
        (FLOATS, 0, ("12",), (1,)),
        (FLOATS, 0, [12], (1,)),
        (Storage("0", "FloatStorage", 13), 0, (13,), (1,)),
        (Storage("0", "FloatStorage", 1 << 60), 0, (1,), (1,)),
        (Storage("0", "DoubleStorage", 12), 0, (12,), (1,)),
        (Storage("../../../../etc/hostname", "ByteStorage", 1), 0, (1,), (1,)),
        (Storage("0", "UntypedStorage", 12), 0, (12,), (1,)),
    ],
)
def test_tensors_that_reach_outside_the_file(tmp_path, write, storage, offset, shape, strides):
    content, _ = torch_pickle({"w": Claim(storage, offset, shape, strides)})
    path = write(tmp_path / "evil.pth", (content, [np.zeros(12, "f4")]))
    with pytest.raises(UserError):
        read_tensors(path)


def test_many_names_for_one_storage_of_halves(tmp_path):
    half = np.zeros(400_000, "f2")
    assert len(read_tensors(write_torch_zip(tmp_path / "a.pth", {"a": half, "b": half})).tensors) == 2
    path = write_torch_zip(tmp_path / "b.pth", {f"w{index}": half for index in range(100)})
    with pytest.raises(UserError, match=r"names 160,000,000 bytes of arrays, over 4 times what the file holds"):
        read_tensors(path)


def test_compressed_entries_are_refused(tmp_path):
    path = write_torch_zip(tmp_path / "net.pth", {"w": np.zeros(1 << 16, "f4")}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="is compressed or encrypted within the archive"):
        read_tensors(path)


def test_a_changed_value_is_noticed_by_the_archives_checksum(tmp_path):
    path = write_torch_zip(tmp_path / "net.pth", {"w": np.full(100, 7, "f4")})
    content = path.read_bytes()
    path.write_bytes(content.replace(np.full(100, 7, "f4").tobytes(), np.full(100, 8, "f4").tobytes()))
    with pytest.raises(UserError, match="'net/data/0' in the archive is damaged"):
        read_tensors(path)


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (np.ones(3, "f4"), "holds no weights by name"),
        ({"epoch": 3}, "holds no weights by name"),
        (Name("torchvision.models.resnet", "ResNet"), "names 'torchvision.models.resnet.ResNet'.*save its state_dict"),
    ],
)
def test_what_holds_no_state_dict(tmp_path, thing, message):
    for write in WRITERS:
        with pytest.raises(UserError, match=message):
            read_tensors(write(tmp_path / "net.pth", thing))


@pytest.mark.parametrize("write", WRITERS)
def test_values_are_not_copied(tmp_path, write):
    path = write(tmp_path / "net.pth", {f"w{index}": np.zeros((1 << 20,), "f4") for index in range(16)})
    read_tensors(path)  # imports what it needs
    tracemalloc.start()
    try:
        tensors = read_tensors(path).tensors
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(array.nbytes for array in tensors.values()) == 64 << 20
    assert peak < 20 << 20  # of which 16 MiB are where the legacy format may have its pickles
    assert not any(array.flags.writeable for array in tensors.values())
