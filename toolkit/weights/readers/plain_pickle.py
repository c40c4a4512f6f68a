"""A pickle read as data: tensors, numbers, text and plain containers of them, and nothing else.

Python's own unpickler imports and calls whatever a file names. This reader knows the few instructions that
``torch.save`` writes for a checkpoint, and the names in an allow-list. It first reads all instructions and refuses
the file if one of them is unknown; then it follows them, calling nothing: a tensor becomes a record of where its
values lie. Memory and time are bounded by the number of instructions, whatever a file nests in itself.
"""

import io
import pickletools
from typing import Any

from toolkit.errors import UserError
from toolkit.weights.readers.pickle_names import INERT, STORAGES, Storage, allowed_global, fill, is_count, made_of

#: Far beyond any checkpoint's pickle, which holds no values of tensors.
MAX_PICKLE_BYTES = 16 << 20
MAX_INSTRUCTIONS = 1_000_000

_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINSTRING", "SHORT_BINSTRING"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "BINBYTES": INERT, "SHORT_BINBYTES": INERT}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_INSTRUCTIONS = {
    *_VALUES,
    *_CONSTANTS,
    *_TUPLES,
    *("PROTO", "FRAME", "STOP", "MARK", "TUPLE", "EMPTY_DICT", "EMPTY_LIST"),
    *("SETITEM", "SETITEMS", "APPEND", "APPENDS"),
    *("BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "BINPERSID"),
}


def read_pickle(stream: io.BytesIO) -> tuple[Any, dict[str, Storage]]:
    """The object at the stream's position, and every storage it names by key; the stream moves past it.

    Raises:
        UserError: it holds something else than tensors and plain containers, or is damaged.
    """
    instructions = _scan(stream)
    machine = _Machine()
    try:
        for name, argument in instructions:
            machine.follow(name, argument)
        return machine.stack.pop(), machine.storages
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"its pickle is damaged ({type(error).__name__}); download or save it again") from error


def _scan(stream: io.BytesIO) -> list[tuple[str, Any]]:
    """All instructions up to the end of the pickle, each of them allowed, before any is followed."""
    instructions = []
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name not in _INSTRUCTIONS:
                raise UserError(
                    f"its pickle uses the instruction {opcode.name}, which no tensor needs: "
                    "refused, nothing of it was run; save a state_dict() with torch.save"
                )
            if opcode.name == "GLOBAL":
                allowed_global(str(argument).replace(" ", ".", 1))
            instructions.append((opcode.name, argument))
            if len(instructions) > MAX_INSTRUCTIONS:
                raise UserError(f"its pickle has more than {MAX_INSTRUCTIONS:,} instructions: refused")
    except (ValueError, OverflowError, MemoryError) as error:
        raise UserError(f"its pickle is cut short, damaged or larger than {MAX_PICKLE_BYTES:,} bytes") from error
    return instructions


class _Machine:
    """A pickle's stack and memo. Holds records, text, numbers, lists, dictionaries and tuples only."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def follow(self, name: str, argument: Any) -> None:
        stack = self.stack
        match name:
            case "PROTO" | "FRAME" | "STOP":
                pass
            case "MARK":
                self.marks.append(len(stack))
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "TUPLE":
                stack.append(tuple(self._since_mark()))
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "APPEND":
                self._extend([stack.pop()])
            case "APPENDS":
                self._extend(self._since_mark())
            case "SETITEM":
                self._set_items(self._pop(2))
            case "SETITEMS":
                self._set_items(self._since_mark())
            case "GLOBAL":
                stack.append(allowed_global(str(argument).replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                stack.append(allowed_global(".".join(self._pop(2))))
            case "REDUCE" | "NEWOBJ":
                function, arguments = self._pop(2)
                stack.append(made_of(function, arguments))
            case "BUILD":  # what it would set on an object: hooks, versions of modules
                stack.pop()
            case "BINPERSID":
                stack.append(self._storage(stack.pop()))
            case _ if name in _VALUES:
                stack.append(argument)
            case _ if name in _TUPLES:
                stack.append(tuple(self._pop(_TUPLES[name])))
            case _:
                stack.append(_CONSTANTS[name])

    def _pop(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise IndexError("the stack is too short")
        start = len(self.stack) - count
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _since_mark(self) -> list[Any]:
        return self._pop(len(self.stack) - self.marks.pop())

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif target is not INERT:
            raise TypeError("only a list can be appended to")

    def _set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            fill(target, list(zip(items[::2], items[1::2], strict=True)))
        elif target is not INERT:
            raise TypeError("only a dictionary has items")

    def _storage(self, identity: Any) -> Storage:
        """``("storage", type, key, device, count)``, and in old files a sixth ``(key, start, count)`` of a part."""
        if not isinstance(identity, tuple) or len(identity) not in (5, 6):
            raise TypeError("a storage is named by five or six things")
        kind, storage_type, key, _, count, *rest = identity
        if kind != "storage" or not isinstance(key, str) or not is_count(count):
            raise TypeError("only a storage of values may lie outside the pickle")
        whole = Storage(key, STORAGES[storage_type.name], count)
        if self.storages.setdefault(key, whole) != whole:
            raise ValueError("a storage has one type and one size")
        if not rest or rest[0] is None:
            return whole
        _, start, part = rest[0]
        if not is_count(start) or not is_count(part) or start + part > count:
            raise ValueError("a part lies outside its storage")
        return Storage(key, whole.dtype, part, start)
