"""LiteRT files taken apart: their operators by the type of number they compute in, and the bytes nobody reads.

Of a small network's int8 file a sixth is none of its weights: names of fused operations, joined to hundreds of letters,
and for each per-channel tensor a vector of zeros, eight bytes a channel. Names become those of the layers, and equal
vectors are stored once, which the format allows.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import UserError, unknown_name
from toolkit.lazy import keras

#: Between number types; a quantized file begins and ends with one of each.
_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE", "CAST")


@dataclass(frozen=True)
class OperatorReport:
    """Operators of a file.

    Attributes:
        by_type: how many work in ``"float32"``, ``"int8"``, ``"int16"`` or are ``"hybrid"`` (float activations, int8
            weights), how many ``"convert"`` between those, and how many handle shapes (``"int32"`` and the like).
        by_name: the same, by the operator's name: ``{"CONV_2D": {"int8": 19}}``.
        float_outputs: names of the tensors that float and hybrid operators write; a layer's name is part of them.
    """

    by_type: dict[str, int]
    by_name: dict[str, dict[str, int]]
    float_outputs: tuple[str, ...]


def operator_report(file: str | Path | bytes) -> OperatorReport:
    """Count the operators of a LiteRT file, given its path or its content.

    Raises:
        UserError: not a LiteRT file.
    """
    content = file if isinstance(file, bytes) else Path(file).read_bytes()
    if content[4:8] != b"TFL3":
        raise UserError(f"{'the content' if isinstance(file, bytes) else file} is not a LiteRT file (.tflite)")
    by_name: dict[str, Counter[str]] = {}
    float_outputs: list[str] = []
    for name, kind, output in _operators(content):
        by_name.setdefault(name, Counter())[kind] += 1
        if kind in ("float32", "float16", "hybrid"):
            float_outputs.append(output)
    by_type = sum(by_name.values(), Counter[str]())
    return OperatorReport(
        dict(sorted(by_type.items())), {name: dict(by_name[name]) for name in sorted(by_name)}, tuple(float_outputs)
    )


def require_integer(content: bytes, model: "keras.Model", keep_float: Collection[str] = ()) -> tuple[str, ...]:
    """Refuse a file meant to be integer throughout that has float operators in layers where none were allowed.

    Returns:
        The layers that stayed in float: of those named in ``keep_float``, and ``layers_in_float(model)``.

    Raises:
        UnquantizableError: names the layers that stayed in float without leave.
    """
    from toolkit.engines.convert import UnquantizableError, layers_in_float, layers_named_in

    allowed = {*require_layers(model, keep_float), *layers_in_float(model)}
    names = [layer.name for layer in model.layers]
    kept: dict[str, None] = {}
    silent: dict[str, None] = {}
    for output in operator_report(content).float_outputs:
        named = layers_named_in(output, names) or [output]
        permitted = [name for name in named if name in allowed]
        (kept if permitted else silent)[(permitted or named)[0]] = None
    if silent:
        kinds = {type(layer).__name__: None for layer in model.layers if layer.name in silent}
        raise UnquantizableError(
            f"{model.name}: {len(silent)} layers stayed in float in the int8 file: {', '.join([*silent][:5])}"
            f"{' …' if len(silent) > 5 else ''}; to allow it, name them in keep_float (compress --keep-float), "
            f"or all of their kind at once: {', '.join(kinds)}"
        )
    return tuple(kept)


def require_layers(model: "keras.Model", names: Collection[str]) -> tuple[str, ...]:
    """Find the layers that are meant by their names, or by the name of their class for all of a kind.

    Raises:
        UserError: the model has no such layer; the message suggests the nearest.
    """
    known = {layer.name: type(layer).__name__ for layer in model.layers}
    for name in names:
        if name not in known and name not in known.values():
            raise UserError(unknown_name("layer", name, [*known], listing=f"{model.name} has no such layer"))
    return tuple(layer for layer, kind in known.items() if layer in names or kind in names)


def compact(content: bytes, layer_names: Sequence[str]) -> bytes:
    """Shorten the names in a LiteRT file and store equal vectors once.

    ``layer_names`` are those of the network it was made of, in its order. A tensor gets the name of the layer whose
    output it is, a constant that of the layer it belongs to, with ``/1``, ``/2`` … where a layer has several. The
    file's inputs and outputs keep their names.
    """
    from tensorflow.lite.tools import flatbuffer_utils

    from toolkit.engines.convert import layers_named_in

    model = flatbuffer_utils.read_model_from_bytearray(content)
    for graph in model.subgraphs:
        fixed = {*graph.inputs.tolist(), *graph.outputs.tolist()}
        seen: dict[str, int] = {}
        for index, tensor in enumerate(graph.tensors):
            if index in fixed:
                continue
            constant = model.buffers[tensor.buffer].data is not None
            named = layers_named_in(tensor.name.decode(), layer_names)
            # Convolution, normalisation and rectifier become one operation, which answers for the last of them.
            name = named[0 if constant else -1] if named else "constant" if constant else "quantized"
            number = seen.setdefault(name, 0)
            seen[name] += 1
            tensor.name = f"{name}/{number}" if number else name
    builder = _sharing_builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def _operators(content: bytes) -> Iterator[tuple[str, str, str]]:
    """Yield name, kind and first output's name of every operator."""
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(content)
    for graph in model.subgraphs:
        for operator in graph.operators:
            name = flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex)
            if name == "CUSTOM":
                name = model.operatorCodes[operator.opcodeIndex].customCode.decode()
            inputs = [graph.tensors[index] for index in operator.inputs if index >= 0]
            constants = [tensor for tensor in inputs if model.buffers[tensor.buffer].data is not None]
            output = graph.tensors[operator.outputs[0]]
            yield name, _kind(name, output, constants), output.name.decode()


def _kind(name: str, output: Any, constants: list[Any]) -> str:
    from tensorflow.lite.tools.flatbuffer_utils import type_to_name

    if name in _CONVERSIONS:
        return "convert"
    is_float = type_to_name(output.type) == "FLOAT32"
    if is_float and any(type_to_name(tensor.type) == "INT8" for tensor in constants):
        return "hybrid"
    return type_to_name(output.type).lower()


def _sharing_builder() -> Any:
    import flatbuffers
    import numpy as np

    class SharingBuilder(flatbuffers.Builder):
        """Stores equal vectors once, and tensor data where the schema wants it, at multiples of 16 bytes."""

        def __init__(self) -> None:
            super().__init__(1 << 20)
            self._written: dict[tuple[str, bytes], int] = {}

        def CreateNumpyVector(self, x: np.ndarray) -> int:  # the library's name
            key = (x.dtype.str, x.tobytes())
            if key not in self._written:
                if x.dtype == np.uint8:
                    self.Prep(16, x.size)
                self._written[key] = super().CreateNumpyVector(x)
            return self._written[key]

    return SharingBuilder()
