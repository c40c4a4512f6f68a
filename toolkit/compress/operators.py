"""What a LiteRT file computes in: its operators, counted by the type of the numbers they work on."""

from collections import Counter
from collections.abc import Collection, Iterator
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
    """Count the operators of a LiteRT file.

    Args:
        file: a path, or the file's content.

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
    by_type: Counter[str] = Counter()
    for counts in by_name.values():
        by_type.update(counts)
    return OperatorReport(
        dict(sorted(by_type.items())), {name: dict(by_name[name]) for name in sorted(by_name)}, tuple(float_outputs)
    )


def require_integer(content: bytes, model: "keras.Model", keep_float: Collection[str] = ()) -> tuple[str, ...]:
    """Refuse a file meant to be integer throughout that has float operators in layers where none were allowed.

    Args:
        content: the LiteRT file.
        model: what it was made of.
        keep_float: names of layers that may stay in float, beside those whose class says ``keep_float``.

    Returns:
        The layers that did stay in float.

    Raises:
        UserError: names the layers that stayed in float without leave.
    """
    from toolkit.engines.convert import layers_named_in

    allowed = {*keep_float, *(layer.name for layer in model.layers if getattr(layer, "keep_float", False))}
    names = [layer.name for layer in model.layers]
    kept: dict[str, None] = {}
    silent: dict[str, None] = {}
    for output in operator_report(content).float_outputs:
        named = layers_named_in(output, names) or [output]
        permitted = [name for name in named if name in allowed]
        (kept if permitted else silent)[(permitted or named)[0]] = None
    if silent:
        raise UserError(
            f"{model.name}: {len(silent)} layers stayed in float in the int8 file: {', '.join([*silent][:5])}"
            f"{' …' if len(silent) > 5 else ''}; name them in keep_float to allow it"
        )
    return tuple(kept)


def require_layers(model: "keras.Model", names: Collection[str]) -> None:
    """Refuse names that no layer of the model has, suggesting the nearest."""
    known = [layer.name for layer in model.layers]
    for name in names:
        if name not in known:
            raise UserError(unknown_name("layer", name, known, listing=f"{model.name} has no such layer"))


def _operators(content: bytes) -> Iterator[tuple[str, str, str]]:
    """Name, kind and first output's name of every operator."""
    from tensorflow.lite.python import schema_py_generated as schema

    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    types = {code: name.lower() for name, code in vars(schema.TensorType).items() if isinstance(code, int)}
    model = schema.Model.GetRootAs(content, 0)
    for graph in (model.Subgraphs(index) for index in range(model.SubgraphsLength())):
        for operator in (graph.Operators(index) for index in range(graph.OperatorsLength())):
            code = model.OperatorCodes(operator.OpcodeIndex())
            name = names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
            if name == "CUSTOM":
                name = code.CustomCode().decode()
            inputs = [graph.Tensors(index) for index in operator.InputsAsNumpy().tolist() if index >= 0]
            output = graph.Tensors(operator.Outputs(0))
            yield name, _kind(name, inputs, output, model, types), output.Name().decode()


def _kind(name: str, inputs: list[Any], output: Any, model: Any, types: dict[int, str]) -> str:
    if name in _CONVERSIONS:
        return "convert"
    kind = types[output.Type()]
    constants = [tensor for tensor in inputs if model.Buffers(tensor.Buffer()).DataLength() > 0]
    if kind == "float32" and any(types[tensor.Type()] == "int8" for tensor in constants):
        return "hybrid"
    return kind
