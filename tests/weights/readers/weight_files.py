"""Writers of weights files for these tests: torch's two formats without torch, Caffe's through Google's own encoder."""

import pickle
import struct
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from io import BytesIO
from typing import ClassVar

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

STORAGES = {"f4": "FloatStorage", "f8": "DoubleStorage", "f2": "HalfStorage", "i8": "LongStorage", "i4": "IntStorage"}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


@dataclass(frozen=True)
class Name:
    """A global as the pickle names it; there need be no such thing."""

    module: str
    name: str

    def __call__(self):
        raise AssertionError("only to be named")


@dataclass
class Storage:
    """A storage outside the pickle. ``count`` is what the file claims."""

    key: str
    kind: str
    count: int


class TorchPickler(pickle._Pickler):
    """Pickles arrays the way torch pickles tensors: views of one array become views of one storage."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def __init__(self, stream, protocol, legacy):
        super().__init__(stream, protocol)
        self.storages = []
        self.rest = (None,) if legacy else ()  # where a part of a storage would be described

    def save_name(self, name):
        self.write(pickle.GLOBAL + f"{name.module}\n{name.name}\n".encode())
        self.memoize(name)

    dispatch[Name] = save_name

    def persistent_id(self, thing):
        if isinstance(thing, Storage):
            return ("storage", Name("torch", thing.kind), thing.key, "cpu", thing.count, *self.rest)
        return None

    def reducer_override(self, thing):
        if not isinstance(thing, np.ndarray):
            return NotImplemented
        root = thing
        while isinstance(root.base, np.ndarray):
            root = root.base
        keys = [str(index) for index, known in enumerate(self.storages) if known is root]
        if not keys:
            self.storages.append(root)
            keys = [str(len(self.storages) - 1)]
        storage = Storage(keys[0], STORAGES[thing.dtype.str[1:]], root.size)
        offset = (thing.ctypes.data - root.ctypes.data) // thing.itemsize
        strides = tuple(stride // thing.itemsize for stride in thing.strides)
        return tensor(storage, offset, thing.shape, strides)


def tensor(storage, offset, shape, strides):
    """A tensor as it is pickled."""
    return Name("torch._utils", "_rebuild_tensor_v2"), (storage, offset, shape, strides, False, OrderedDict())


class Claim:
    """A tensor that claims whatever it is told to."""

    def __init__(self, *claims):
        self.claims = claims

    def __reduce__(self):
        return tensor(*self.claims)


def torch_pickle(thing, protocol=2, *, legacy=False):
    """The bytes of a torch pickle, and the arrays of its storages."""
    stream = BytesIO()
    pickler = TorchPickler(stream, protocol, legacy)
    pickler.dump(thing)
    return stream.getvalue(), pickler.storages


def write_torch_zip(path, thing, *, protocol=2, order="little", compression=zipfile.ZIP_STORED):
    content, storages = thing if isinstance(thing, tuple) else torch_pickle(thing, protocol)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("net/data.pkl", content)
        archive.writestr("net/byteorder", order)
        for key, values in enumerate(storages):
            archive.writestr(f"net/data/{key}", values.tobytes())
        archive.writestr("net/version", "3\n")
    return path


def write_torch_legacy(path, thing, *, protocol=2):
    content, storages = thing if isinstance(thing, tuple) else torch_pickle(thing, protocol, legacy=True)
    with path.open("wb") as file:
        for part in (LEGACY_MAGIC, 1001, {"protocol_version": 1001, "little_endian": True}):
            pickle.dump(part, file, protocol)
        file.write(content)
        pickle.dump([str(key) for key in range(len(storages))], file, protocol)
        for values in storages:
            file.write(struct.pack("<q", values.size) + values.tobytes())
    return path


# Field numbers and types of caffe.proto, of the fields that matter here: (name, number, type, repeated and packed).
_FIELDS = {
    "BlobShape": [("dim", 1, "INT64", True)],
    "BlobProto": [
        *((side, number, "INT32", None) for number, side in enumerate(("num", "channels", "height", "width"), 1)),
        ("data", 5, "FLOAT", True),
        ("diff", 6, "FLOAT", True),
        ("shape", 7, "BlobShape", None),
        ("double_data", 8, "DOUBLE", True),
    ],
    "UnpackedBlob": [("num", 1, "INT32", None), ("data", 5, "FLOAT", False), ("width", 4, "INT32", None)],
    "V0LayerParameter": [
        ("name", 1, "STRING", None),
        ("num_output", 3, "UINT32", None),
        ("blobs", 50, "BlobProto", False),
    ],
    "V1LayerParameter": [
        ("layer", 1, "V0LayerParameter", None),
        ("bottom", 2, "STRING", False),
        ("name", 4, "STRING", None),
        ("type", 5, "INT32", None),
        ("blobs", 6, "BlobProto", False),
    ],
    "LayerParameter": [
        ("name", 1, "STRING", None),
        ("type", 2, "STRING", None),
        ("bottom", 3, "STRING", False),
        ("phase", 10, "INT32", None),
        ("blobs", 7, "BlobProto", False),
        ("loss_weight", 5, "FLOAT", False),
    ],
    "NetParameter": [
        ("name", 1, "STRING", None),
        ("layers", 2, "V1LayerParameter", False),
        ("input", 3, "STRING", False),
        ("input_dim", 4, "INT32", False),
        ("force_backward", 5, "BOOL", None),
        ("layer", 100, "LayerParameter", False),
    ],
}


def caffe_messages():
    """Classes of Caffe's messages by name, made by Google's protocol buffer library."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    for message, fields in _FIELDS.items():
        described = file.message_type.add(name=message)
        for name, number, kind, packed in fields:
            field = described.field.add(name=name, number=number)
            field.label = kinds.LABEL_OPTIONAL if packed is None else kinds.LABEL_REPEATED
            if kind in _FIELDS:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".caffe.{kind}"
            else:
                field.type = getattr(kinds, f"TYPE_{kind}")
                field.options.packed = bool(packed)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"caffe.{name}")) for name in _FIELDS}
