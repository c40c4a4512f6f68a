"""The names that a pickle of tensors may use, and what each stands for: records of where values lie, never a call."""

import math
from dataclasses import dataclass
from typing import Any

from toolkit.errors import UserError

_MAX_RANK = 32


@dataclass(frozen=True)
class Storage:
    """A run of values in the file: ``count`` of a dtype, from value ``start`` of the storage called ``key``."""

    key: str
    dtype: str
    count: int
    start: int = 0


@dataclass(frozen=True)
class Tensor:
    """A tensor as a view of a storage; offset and strides in values, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True)
class Global:
    """A name the pickle may use. Nothing is imported for it."""

    name: str


class Inert:
    """A stand-in for things that are neither tensors nor containers, such as a score or the arguments of a run."""


INERT = Inert()
_FLOATS = {"Half": "float16", "BFloat16": "bfloat16", "Float": "float32", "Double": "float64"}
_OTHERS = {"Char": "int8", "Short": "int16", "Int": "int32", "Long": "int64", "Byte": "uint8", "Bool": "bool"}
_DTYPES = _FLOATS | _OTHERS
STORAGES = {f"{module}.{name}Storage": dtype for module in ("torch", "torch.cuda") for name, dtype in _DTYPES.items()}
_REBUILD = {"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"}
_PARAMETER = {"torch._utils._rebuild_parameter", "torch.nn.parameter.Parameter"}
_DICTIONARY = {"collections.OrderedDict"}
# Common beside the weights. They are neither imported nor called: whatever is made of them is INERT.
_BESIDE = {
    *("_codecs.encode", "argparse.Namespace", "collections.Counter", "torch.Size", "torch.device"),
    *("numpy._core.multiarray.scalar", "numpy.core.multiarray.scalar", "numpy.dtype"),
}
_ALLOWED = STORAGES.keys() | _REBUILD | _PARAMETER | _DICTIONARY | _BESIDE


def allowed_global(name: str) -> Global:
    """A name on the allow-list, ``"module.name"``; refuses any other."""
    if name not in _ALLOWED:
        raise UserError(
            f"its pickle names {name[:100]!r}, which is no tensor and no plain container: refused, nothing of it was "
            "run; if it is a whole model or a checkpoint of your own, save its state_dict() alone"
        )
    return Global(name)


def made_of(function: Any, arguments: Any) -> Any:
    """The record that a call in the pickle stands for."""
    name = function.name
    if not isinstance(arguments, tuple) or len(arguments) > 8:
        raise TypeError("a call has a few arguments")
    if name in _REBUILD:
        storage, offset, shape, strides, *rest = arguments
        if rest[2:] and rest[2]:
            raise UserError("holds a tensor that is a negated or conjugated view; save its clone()")
        return _tensor(storage, offset, shape, strides)
    if name in _PARAMETER:
        if not isinstance(arguments[0], Tensor):
            raise TypeError("a parameter is made of a tensor")
        return arguments[0]
    if name in _DICTIONARY:
        return _ordered_dict(*arguments)
    if name in _BESIDE:
        return INERT
    raise TypeError(f"{name} is not called")


def _ordered_dict(pairs: Any = None) -> dict[Any, Any]:
    """Empty, or as Python 2 wrote it with a list of its pairs."""
    if pairs is None:
        return {}
    if not isinstance(pairs, list):
        raise TypeError("a dictionary is made of a list of pairs")
    filled = fill({}, pairs)
    pairs.clear()  # so that a long list is not copied as often as a file repeats its name
    return filled


def fill(target: dict[Any, Any], pairs: Any) -> dict[Any, Any]:
    """Add pairs to a dictionary, those whose keys name something."""
    for key, value in pairs:
        # Hashing a tuple that nests itself a hundredfold would take for ever.
        if isinstance(key, str | int | float):
            target[key] = value
    return target


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> Tensor:
    """A tensor that lies within its storage."""
    if not isinstance(storage, Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise TypeError("a tensor is made of a storage, a shape and strides")
    if len(shape) != len(strides) or len(shape) > _MAX_RANK or not all(map(is_count, (offset, *shape, *strides))):
        raise UserError(f"holds a tensor of {len(shape)} sizes and {len(strides)} strides that cannot be: refused")
    size = math.prod(shape)
    last = offset + sum((side - 1) * stride for side, stride in zip(shape, strides, strict=True))
    # More values than the storage has could only be the same ones many times over.
    if size and (last >= storage.count or size > storage.count):
        raise UserError(
            f"holds a tensor that reaches value {last + 1:,} of a storage of {storage.count:,}, "
            f"or repeats some to have {size:,}: refused"
        )
    return Tensor(storage, offset, shape, strides)


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62
