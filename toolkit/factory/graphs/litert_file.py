"""LiteRT files: read, rounded weights taken for the numbers they stand for, and built anew in Keras."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import UserError, first_line
from toolkit.factory.graphs.building.builder import Builder
from toolkit.factory.graphs.building.values import UnreadableError, Value
from toolkit.factory.graphs.graph_file import MAX_SIDE, GraphFile, as_they_are, in_batches
from toolkit.lazy import lazy_module
from toolkit.spec import Preprocessing

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy_module("numpy")

_MAGIC = b"TFL3"
#: The schema's TensorType, as NumPy calls it; what else there is has no place in a classifier of pictures.
_KINDS = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8"}
#: Operators that reckon sizes where an input is one; what they answer is not needed, as each answer's shape is known.
_OF_SIZES = ("ADD", "CAST", "CONCATENATION", "GATHER", "MUL", "PACK", "REDUCE_PROD", "STRIDED_SLICE", "SUB")
_NO_PROBABILITIES = ("ARG_MAX", "ARG_MIN", "TOPK_V2")


def open_litert(path: Path) -> GraphFile:
    """Build the network of a LiteRT file in Keras.

    Raises:
        UserError: a damaged file, one that takes or answers something else than a classifier of pictures does, or an
            operator without a rule; the message says what to do.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return read_litert(path, content, path.stem)


def read_litert(path: Path, content: bytes, name: str) -> GraphFile:
    """Build the network of a LiteRT file's content; ``path`` is for messages."""
    if content[4:8] != _MAGIC:
        raise UserError(f"{path}: is no LiteRT file; convert or download it again")
    reader = _Reader(path, _parsed(path, content))
    network = reader.network(name)
    return GraphFile(
        network,
        names=frozenset(part for tensor in reader.tensors for part in re.split("[/;:]", tensor.name)),
        answers=_interpreter(content),
        runtime="LiteRT",
        quantized=reader.quantized,
        preprocessing=reader.preprocessing(),
    )


def _parsed(path: Path, content: bytes) -> Any:
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_litert.tools import flatbuffer_utils

    try:
        Interpreter(model_content=content)  # which checks that no part lies outside of the file
        return flatbuffer_utils.read_model_from_bytearray(content)
    except Exception as error:  # as the readers are for sound files
        raise UserError(f"{path}: is cut off or damaged ({first_line(error)[:120]}); download it again") from None


class _Tensor:
    """A tensor of the file: its kind, shape and constant numbers, with rounding undone."""

    def __init__(self, given: Any, buffers: Any) -> None:
        self.name = (given.name or b"").decode("utf-8", "replace")
        self.shape = tuple(int(size) for size in (given.shape if given.shape is not None else ()))
        self.kind = _KINDS.get(given.type, "")
        quantization = given.quantization
        self.scale = None if quantization is None or quantization.scale is None else np.asarray(quantization.scale)
        if self.scale is not None and not self.scale.size:
            self.scale = None
        zero = None if quantization is None else quantization.zeroPoint
        self.zero = np.zeros(1) if zero is None or not len(zero) else np.asarray(zero)
        self._axis = 0 if quantization is None else quantization.quantizedDimension
        self._data = buffers[given.buffer].data
        self._sparse = given.sparsity is not None

    @property
    def is_rounded(self) -> bool:
        return self.scale is not None and self.kind in ("int8", "uint8", "int16")

    @property
    def begins_at_zero(self) -> bool:
        """Tell whether it cannot hold what is below nought."""
        return self.is_rounded and bool((self.zero == np.iinfo(self.kind).min).all())

    def constant(self) -> "np.ndarray | None":
        """The numbers that the tensor has in the file; None where it is computed."""
        if self._data is None or not len(self._data):
            return None
        if not self.kind or self._sparse:
            raise UnreadableError(f"reads {self.name!r}, whose numbers are packed in a way that has no rule")
        array = np.frombuffer(bytes(self._data), self.kind)
        if array.size != math.prod(self.shape):
            raise UnreadableError(f"reads {self.name!r} of {self.shape}, which is not whole")
        array = array.reshape(self.shape)
        if self.scale is None or self.kind not in ("int8", "uint8", "int16", "int32", "int64"):
            return array.astype(np.float32) if self.kind == "float16" else array
        along = [1] * array.ndim
        if self.scale.size > 1:
            along[self._axis] = -1
        scale, zero = (np.reshape(each, along if each.size > 1 else ()) for each in (self.scale, self.zero))
        return ((array.astype(np.float64) - zero) * scale).astype(np.float32)


class _Reader:
    """A file's operators, built one after another."""

    def __init__(self, path: Path, file: Any) -> None:
        from ai_edge_litert.tools import flatbuffer_utils

        self._path = path
        self._graph = file.subgraphs[0]
        self._kinds = [flatbuffer_utils.opcode_to_name(file, number) for number in range(len(file.operatorCodes))]
        self._custom = [(code.customCode or b"").decode("utf-8", "replace") for code in file.operatorCodes]
        self.tensors = [_Tensor(tensor, file.buffers) for tensor in self._graph.tensors]
        self.quantized = any(tensor.is_rounded for tensor in self.tensors)
        self._input = self._only("input", self._graph.inputs)
        self._values: dict[int, Any] = {}

    def network(self, name: str) -> Any:
        """Build the network."""
        try:
            return self._built(name)
        except UnreadableError as error:
            raise UserError(f"{self._path}: {error}") from None

    def _built(self, name: str) -> Any:
        shape = self._picture()
        output = self._only("output", self._graph.outputs)
        builder = Builder(map_axes=(0, 1, 2, 3), batch=max(1, self._input.shape[0]))
        self._values[self._number("inputs")] = builder.picture(shape, (0, 1, 2, 3))
        for operator in self._graph.operators or ():
            kind = self._kinds[operator.opcodeIndex] or "?"
            known = self._custom[operator.opcodeIndex] if kind == "CUSTOM" else kind
            made = [self.tensors[number].name for number in operator.outputs] if operator.outputs is not None else []
            told = f"operator {known} of {', '.join(made)[:80]!r}"
            try:
                self._values |= self._answers(builder, operator, kind)
            except UnreadableError as error:
                raise UserError(f"{self._path}: {told} {error}") from None
            except Exception as error:  # options may be of any kind, and shapes of any size
                raise UserError(f"{self._path}: {told} cannot be read ({first_line(error)})") from None
        found = self._values.get(self._number("outputs"))
        if not isinstance(found, Value):
            raise UserError(f"{self._path}: its answer {output.name!r} does not depend on the picture")
        return builder.network(found, name)

    def preprocessing(self) -> Preprocessing | None:
        """Preprocessing that makes the network's input of pixels, where the file takes pixels."""
        given = self._input
        if given.kind not in ("uint8", "int8"):
            return None
        height, width, channels = self._picture()
        pixels = as_they_are((height, width), channels)
        if given.scale is None:
            return pixels
        # Signed bytes are pixels less 128.
        zero = float(given.zero[0]) + (128 if given.kind == "int8" else 0)
        return replace(pixels, mean=(zero,) * channels, std=(1 / float(given.scale[0]),) * channels)

    def _number(self, what: str) -> int:
        return int(getattr(self._graph, what)[0])

    def _only(self, what: str, numbers: Any) -> _Tensor:
        if numbers is None or len(numbers) != 1:
            count = 0 if numbers is None else len(numbers)
            raise UserError(
                f"{self._path}: has {count} {what}s, and a classifier takes one picture and answers one vector; "
                "convert it anew with that one alone"
            )
        return self.tensors[numbers[0]]

    def _picture(self) -> tuple[int, int, int]:
        given = self._input
        listed = "×".join(str(size) for size in given.shape) or "a number"
        if len(given.shape) != 4 or given.shape[3] not in (1, 3):
            raise UserError(
                f"{self._path}: takes {listed}, and pictures are batch×height×width×channels, 1 or 3 of these"
            )
        if given.kind not in ("float32", "float16", "uint8", "int8"):
            raise UserError(f"{self._path}: takes {given.kind or 'unknown numbers'}, and pictures are float32 or uint8")
        height, width, channels = given.shape[1:]
        if not 1 < min(height, width) <= max(height, width) <= MAX_SIDE:
            raise UserError(
                f"{self._path}: takes pictures of {height}×{width}; a side has 2 to {MAX_SIDE} pixels, so convert it "
                "for one size"
            )
        return height, width, channels

    def _answers(self, builder: Builder, operator: Any, kind: str) -> dict[int, Any]:
        from toolkit.factory.graphs.litert_rules import RULES, Operator

        given, made = ([] if each is None else [*each] for each in (operator.inputs, operator.outputs))
        inputs, outputs = [self._given(number) for number in given], [self.tensors[number] for number in made]
        reads_size = any(each is None and number >= 0 for each, number in zip(inputs, given, strict=True))
        if kind == "SHAPE" or (kind in _OF_SIZES and reads_size):
            return dict.fromkeys(made)
        if kind in ("DEQUANTIZE", "CAST") and not isinstance(inputs[0], Value):
            return {made[0]: inputs[0]}
        if kind in _NO_PROBABILITIES:
            raise UnreadableError("answers which class is likeliest, and not how likely each is; convert without it")
        if kind not in RULES:
            raise UnreadableError(
                "has no rule here; leave it out, or replace it by operators that have: " + ", ".join(sorted(RULES))
            )
        builder.wish = _layer_name(outputs[0].name)
        asked = Operator(inputs, operator.builtinOptions, [each.shape for each in outputs], outputs[0].begins_at_zero)
        found = RULES[kind](builder, asked)
        return dict(zip(made, found if isinstance(found, list) else [found], strict=False))

    def _given(self, number: int) -> Any:
        if number < 0:  # left out
            return None
        if number in self._values:
            return self._values[number]
        found = self.tensors[number].constant()
        if found is None:
            raise UnreadableError(f"reads {self.tensors[number].name!r}, which nothing before it gives")
        return found


def _layer_name(tensor: str) -> str:
    """A layer's name in that of a tensor.

    >>> _layer_name("functional_1/stem_conv_1/BiasAdd;functional_1/stem_conv_1/Conv2D"), _layer_name("dense")
    ('stem_conv_1', 'dense')
    """
    *path, last = [part for part in tensor.partition(";")[0].split("/") if part] or [""]
    return path[-1] if path else last


def _interpreter(content: bytes) -> Callable[["np.ndarray"], "np.ndarray"]:
    """The function that asks LiteRT what the file answers."""

    def answers(inputs: "np.ndarray") -> "np.ndarray":
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_content=content)
        interpreter.allocate_tensors()
        (given,), (answer,) = interpreter.get_input_details(), interpreter.get_output_details()

        def ask(pictures: "np.ndarray") -> "np.ndarray":
            interpreter.set_tensor(given["index"], _rounded(pictures, given))
            interpreter.invoke()
            return _unrounded(interpreter.get_tensor(answer["index"]), answer)

        return in_batches(ask, inputs, int(given["shape"][0]))

    return answers


def _rounded(numbers: "np.ndarray", details: Any) -> "np.ndarray":
    kind, (scale, zero) = details["dtype"], details["quantization"]
    if not np.issubdtype(kind, np.integer):
        return numbers.astype(kind)
    limits = np.iinfo(kind)
    return np.clip(np.round(numbers / (scale or 1.0) + zero), limits.min, limits.max).astype(kind)


def _unrounded(numbers: "np.ndarray", details: Any) -> "np.ndarray":
    scale, zero = details["quantization"]
    return numbers.astype(np.float32) if not scale else ((numbers.astype(np.float32) - zero) * scale).astype(np.float32)
