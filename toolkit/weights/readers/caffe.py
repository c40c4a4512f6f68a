"""Caffe's ``.caffemodel``: a protocol buffer message, read field by field without its compiler.

Of caffe.proto (github.com/BVLC/caffe) three generations of layers are read: ``layer`` (field 100 of NetParameter,
a LayerParameter), ``layers`` (field 2, a V1LayerParameter), and the V0LayerParameter in the latter's field 1.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from toolkit.errors import UserError
from toolkit.weights.readers.tensor_file import TensorFile, map_file

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# Fields of NetParameter with the wire types they come in: what tells a network from other messages.
_NET = {1: {2}, 2: {2}, 3: {2}, 4: {0, 2}, 5: {0}, 6: {2}, 7: {0}, 8: {2}, 100: {2}}
_LAYER, _V1_LAYERS = 100, 2
_SHAPE, _DATA, _DOUBLE_DATA = 7, 5, 8


class _Field(NamedTuple):
    """A field: its number, wire type, and place. ``value`` is a varint's value or the length of bytes."""

    number: int
    wire: int
    start: int
    stop: int
    value: int


class _LayerFields(NamedTuple):
    """The fields of a generation of layers for its name, its arrays and an older layer within."""

    name: int
    blobs: int
    inner: int | None = None


_V0 = _LayerFields(name=1, blobs=50)
_V1 = _LayerFields(name=4, blobs=6, inner=1)
_V2 = _LayerFields(name=1, blobs=7)


def read_caffemodel(path: Path) -> TensorFile:
    """Arrays of each layer that has some, ``"conv1/0"`` its weights and ``"conv1/1"`` its biases, in Caffe's order.

    Convolutions come as (output, input, height, width), and as old files have it an inner product may come as
    (1, 1, output, input).
    """
    data = map_file(path)
    tensors: dict[str, np.ndarray] = {}
    for field in _fields(data):
        if field.wire == _BYTES and field.number in (_LAYER, _V1_LAYERS):
            name, blobs = _layer(data[field.start : field.stop], _V2 if field.number == _LAYER else _V1)
            for index, blob in enumerate(blobs):
                if f"{name}/{index}" in tensors:
                    raise UserError(f"holds two layers named {name[:100]!r}; names must tell layers apart")
                tensors[f"{name}/{index}"] = _array(blob, f"{name[:100]!r}")
    if not tensors:
        raise UserError("holds no layer with weights: not a .caffemodel, or a network saved before training")
    return TensorFile(path, "caffemodel", tensors)


def is_caffemodel(data: memoryview) -> bool:
    """Tell a Caffe network, one message with its fields and layers among them, from other files."""
    numbers = set()
    try:
        for field in _fields(data):
            if field.wire not in _NET.get(field.number, ()):
                return False
            numbers.add(field.number)
    except UserError:
        return False
    return not numbers.isdisjoint((_LAYER, _V1_LAYERS))


def _layer(data: memoryview, fields: _LayerFields) -> tuple[str, list[memoryview]]:
    """A layer's name and its arrays, unread."""
    name, blobs = "", []
    for field in _fields(data):
        content = data[field.start : field.stop]
        if field.wire != _BYTES:
            continue
        if field.number == fields.name:
            name = bytes(content).decode()
        elif field.number == fields.blobs:
            blobs.append(content)
        elif field.number == fields.inner:
            name, blobs = _layer(content, _V0)
    return name, blobs


def _array(blob: memoryview, layer: str) -> np.ndarray:
    """A BlobProto's array; its gradients are passed over."""
    shape: tuple[int, ...] | None = None
    legacy_shape = [0, 0, 0, 0]  # number, channels, height, width
    parts = []
    position = 0
    while position < len(blob):
        field = _field(blob, position)
        position = field.stop
        if field.number in (1, 2, 3, 4) and field.wire == _VARINT:
            legacy_shape[field.number - 1] = field.value
        elif field.number == _SHAPE and field.wire == _BYTES:
            shape = _dimensions(blob[field.start : field.stop])
        elif field.number in (_DATA, _DOUBLE_DATA):
            values, position = _numbers(blob, field)
            parts.append(values)
    shape = tuple(legacy_shape) if shape is None else shape
    count = sum(part.size for part in parts)
    if len(shape) > 32 or math.prod(shape) != count:
        raise UserError(f"layer {layer} claims shape {shape[:8]} and holds {count:,} values; download it again")
    values = parts[0] if len(parts) == 1 else np.concatenate(parts or [np.zeros(0, "<f4")])
    return values.reshape(shape)


def _numbers(blob: memoryview, field: _Field) -> tuple[np.ndarray, int]:
    """Floats or doubles, packed or each with its own tag, and where the next field begins."""
    kind, wire = ("<f4", _FIXED32) if field.number == _DATA else ("<f8", _FIXED64)
    if field.wire == _BYTES:
        if field.value % np.dtype(kind).itemsize:
            raise UserError(f"holds {field.value:,} bytes where {kind} numbers should be; download it again")
        return np.frombuffer(blob[field.start : field.stop], kind), field.stop
    if field.wire != wire:
        raise UserError("holds something else than numbers in an array; download it again")
    # Numbers with a tag each come in their millions: read them as records, up to the first other tag.
    record = np.dtype([("tag", "u1"), ("value", kind)])
    first = field.start - 1
    records = np.frombuffer(blob[first : first + (len(blob) - first) // record.itemsize * record.itemsize], record)
    others = np.flatnonzero(records["tag"] != records["tag"][0])
    run = records[: others[0]] if others.size else records
    return run["value"], first + run.nbytes


def _dimensions(shape: memoryview) -> tuple[int, ...]:
    """A BlobShape's sizes, packed or not."""
    sizes = []
    for field in _fields(shape):
        if field.number == 1 and field.wire == _VARINT:
            sizes.append(field.value)
        elif field.number == 1 and field.wire == _BYTES:
            position = field.start
            while position < field.stop:
                size, position = _varint(shape, position)
                sizes.append(size)
    return tuple(sizes)


def _fields(data: memoryview) -> Iterator[_Field]:
    """The fields of a message, one after another."""
    position = 0
    while position < len(data):
        field = _field(data, position)
        yield field
        position = field.stop


def _field(data: memoryview, position: int) -> _Field:
    """The field that begins at a position and ends within the message."""
    tag, start = _varint(data, position)
    number, wire = tag >> 3, tag & 7
    value, stop = 0, start
    if wire == _VARINT:
        value, stop = _varint(data, start)
    elif wire == _BYTES:
        value, start = _varint(data, start)
        stop = start + value
    elif wire in (_FIXED32, _FIXED64):
        stop = start + (4 if wire == _FIXED32 else 8)
    else:
        raise UserError(f"is damaged or no .caffemodel: a field is of wire type {wire}; download it again")
    if stop > len(data):
        raise UserError(f"is cut short or damaged: a field claims {stop - start:,} bytes; download it again")
    return _Field(number, wire, start, stop, value)


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(data[position : position + 10]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise UserError("is cut short or damaged within a number, or no .caffemodel; download it again")
