"""ONNX files: read within limits, folded, and built anew in Keras. Nothing in a file is run before it is understood."""

import json
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from toolkit.errors import UserError, first_line
from toolkit.factory.graphs.building.builder import Builder
from toolkit.factory.graphs.building.values import UnreadableError, Value
from toolkit.factory.graphs.graph_file import GraphFile, as_they_are, in_batches, picture_sides
from toolkit.lazy import lazy_module
from toolkit.spec import Interpolation, Preprocessing, ResizeMode

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy_module("numpy")
onnx = lazy_module("onnx")

log = logging.getLogger("toolkit")

#: Older files describe some operators otherwise; they are from 2018.
OLDEST_OPSET = 7
_INSTALL = "pip install 'toolkit[onnx]'"
#: Operators that are reckoned out where all they are given stands in the file, as sizes of maps do.
_FOLDED = {
    *("Add", "Cast", "Ceil", "Concat", "Constant", "ConstantOfShape", "DequantizeLinear", "Div", "Equal", "Expand"),
    *(
        "Flatten",
        "Floor",
        "Gather",
        "Identity",
        "Max",
        "Min",
        "Mod",
        "Mul",
        "Neg",
        "Pow",
        "QuantizeLinear",
        "ReduceProd",
        "Reshape",
    ),
    *("Shape", "Slice", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where"),
}
#: The same, and what they answer is of the shape that their inputs have together.
_BROADCAST = {"Add", "Div", "Equal", "Expand", "Max", "Min", "Mod", "Mul", "Pow", "Sub", "Where"}
_NO_PROBABILITIES = ("ArgMax", "TopK", "NonMaxSuppression", "ZipMap")


def open_onnx(path: Path, size: tuple[int, int] | None) -> GraphFile:
    """Build the network of an ONNX file in Keras.

    Args:
        path: of opset 7 or later; weights may be in files beside it.
        size: height and width, for a network that takes any; None where they are not known.

    Raises:
        UserError: a damaged file, one that takes or answers something else than a classifier of pictures does, or an
            operator without a rule; the message says what to do.
    """
    _require_installed(path)
    document = _parsed(path)
    opset = _opset(path, document)
    constants = _constants(path, document)
    (given,) = _ends(path, document, "input", [each for each in document.graph.input if each.name not in constants])
    shape, axes, batch = _picture(path, given, size)
    builder = Builder(map_axes=(0, 2, 3, 1), batch=batch)
    try:
        values: dict[str, Any] = {**constants, given.name: builder.picture(shape, axes)}
        reader = _Reader(path, document, builder, values, opset)
        reader.run()
        network = builder.network(reader.output(), path.stem)
    except UnreadableError as error:
        raise UserError(f"{path}: {error}") from None
    takes_pixels = given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    return GraphFile(
        network,
        # Torch's people name modules as they like; Keras' layers bear the names that tell something.
        names=frozenset() if document.producer_name == "pytorch" else frozenset(reader.names()),
        answers=_session(document, given, reader.output_name, axes, batch, in_grey=builder.channels < shape[2]),
        runtime="ONNX Runtime",
        quantized=reader.quantized,
        halved=reader.halved or given.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16,
        preprocessing=_noted(document, as_they_are(shape[:2], builder.channels)) if takes_pixels else None,
    )


def read_notes(path: Path) -> dict[str, str]:
    """Read what an ONNX file says of itself, by key.

    Raises:
        UserError: a damaged file, or ONNX is not installed.
    """
    _require_installed(path)
    return _notes(_parsed(path))


def read_threshold(path: Path) -> float | None:
    """Read below which probability an answer may be refused, as ``toolkit export --onnx`` notes it; None without.

    Raises:
        UserError: a damaged file, or ONNX is not installed.
    """
    noted = read_notes(path).get("reject_below", "null")
    try:
        found = json.loads(noted)
    except (ValueError, RecursionError):
        found = noted
    if type(found) in (int, float) and 0 <= found <= 1:
        return float(found)
    if found is not None:
        log.info("%s: reject_below is left out; expected a probability, 0…1, got %.40s", path, noted)
    return None


def _notes(document: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in document.metadata_props}


def _noted(document: Any, pixels: Preprocessing) -> Preprocessing:
    """Frame pixels as a file of ``toolkit export --onnx`` notes it; a note of anybody else's is passed over."""
    noted = _notes(document).get("resize", "")
    try:
        how = json.loads(noted)
        framed = replace(pixels, resize=how["mode"], crop_fraction=how["crop_fraction"])
        framed = replace(framed, interpolation=how["interpolation"])
    except (ValueError, TypeError, KeyError):
        return pixels
    known = framed.resize in get_args(ResizeMode) and framed.interpolation in get_args(Interpolation)
    return framed if known else pixels


def _require_installed(path: Path) -> None:
    for module in ("onnx", "onnxruntime"):
        try:
            __import__(module)
        except ImportError:
            raise UserError(f"{path}: reading ONNX files needs {module}, which is not installed: {_INSTALL}") from None


def _parsed(path: Path) -> Any:
    try:
        document = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # Protobuf's own, and the system's
        if isinstance(error, OSError):
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        raise UserError(f"{path}: is no ONNX file, or is cut off; export or download it again") from None
    del document.functions[:]  # of operators that have no rule
    if not document.graph.node:
        raise UserError(f"{path}: is no ONNX file, or holds an empty graph; export or download it again")
    return document


def _opset(path: Path, document: Any) -> int:
    own = [entry.version for entry in document.opset_import if entry.domain in ("", "ai.onnx")]
    newest = onnx.defs.onnx_opset_version()
    if len(own) != 1 or not OLDEST_OPSET <= own[0] <= newest:
        told = f"opset {own[0]}" if len(own) == 1 else "no opset"
        raise UserError(f"{path}: is of {told}, and {OLDEST_OPSET} to {newest} are read; export it with opset 17")
    return int(own[0])


def _constants(path: Path, document: Any) -> dict[str, "np.ndarray"]:
    """The file's arrays by name, those in files beside it included."""
    if document.graph.sparse_initializer:
        raise UserError(f"{path}: holds sparse weights, which have no rule; export it with dense ones")
    found = {}
    for tensor in document.graph.initializer:
        try:
            _fetch(path, tensor)
            found[tensor.name] = onnx.numpy_helper.to_array(tensor)
        except UserError:
            raise
        except Exception as error:  # whatever NumPy says of sizes that do not fit
            raise UserError(f"{path}: weight {tensor.name!r} is damaged ({first_line(error)})") from None
    return found


def _fetch(path: Path, tensor: Any) -> None:
    """Put into a tensor what lies in a file beside the network's, where it does."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    folder, place = path.parent.resolve(), (path.parent / location).resolve()
    if not location or Path(location).is_absolute() or not place.is_relative_to(folder):
        raise UserError(
            f"{path}: weight {tensor.name!r} is said to lie at {location!r}, outside of the file's folder; "
            "nothing is read there"
        )
    if not place.is_file():
        raise UserError(f"{path}: its weights are in {location}, which is not beside it; put both into one folder")
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
        needed = math.prod(tensor.dims) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except (ValueError, KeyError) as error:
        raise UserError(f"{path}: weight {tensor.name!r} is damaged ({first_line(error)})") from None
    if min(offset, needed) < 0 or length not in (-1, needed) or offset + needed > place.stat().st_size:
        raise UserError(f"{path}: weight {tensor.name!r} of {list(tensor.dims)} is not whole in {location}")
    with place.open("rb") as file:
        file.seek(offset)
        tensor.raw_data = file.read(needed)
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]


def _ends(path: Path, document: Any, what: str, found: list[Any]) -> list[Any]:
    if len(found) != 1:
        names = ", ".join(each.name for each in found) or "none"
        raise UserError(
            f"{path}: has {len(found)} {what}s ({names}), and a classifier takes one picture and answers one vector; "
            "cut it: onnx.utils.extract_model(FILE, NEW_FILE, [INPUT], [OUTPUT])"
        )
    return found


def _picture(path: Path, given: Any, size: tuple[int, int] | None) -> tuple[Any, Any, int]:
    """Height, width and channels that the network takes, the file's axes of them, and its batch."""
    kinds = onnx.TensorProto
    kind = given.type.tensor_type.elem_type
    if kind not in (kinds.FLOAT, kinds.FLOAT16, kinds.DOUBLE, kinds.UINT8):
        raise UserError(f"{path}: takes {_kind_name(kind)} and not a picture's numbers (float, or uint8 pixels)")
    dims = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in given.type.tensor_type.shape.dim]
    listed = "×".join(str(dim or "?") for dim in dims) or "a number"
    if len(dims) != 4:
        raise UserError(f"{path}: takes {listed}, and pictures have four axes: batch, channels, height and width")
    first = dims[1] in (1, 3)
    if not first and dims[3] not in (1, 3):
        raise UserError(f"{path}: takes {listed}, and pictures have 1 or 3 channels, as second axis or as last")
    axes = (0, 2, 3, 1) if first else (0, 1, 2, 3)
    height, width = picture_sides(path, listed, [dims[axis] for axis in axes[1:3]], size)
    return (height, width, dims[axes[3]]), axes, dims[0] if dims[0] > 0 else 1


def _kind_name(kind: int) -> str:
    return str(onnx.TensorProto.DataType.Name(kind)).lower() if kind else "no tensor"


class _Reader:
    """A file's operators, built one after another."""

    def __init__(self, path: Path, document: Any, builder: Builder, values: dict[str, Any], opset: int) -> None:
        self._path = path
        self._graph = document.graph
        self._builder = builder
        self._values = values
        self._opset = opset
        self._weights = {tensor.name for tensor in document.graph.initializer}
        self.quantized = self.halved = False
        self.output_name = ""

    def names(self) -> Iterator[str]:
        """Parts of the names of the file's operators and tensors."""
        for node in self._graph.node:
            for name in (node.name, *node.input, *node.output):
                yield from name.split("/")

    def run(self) -> None:
        """Build what the outputs need, and leave nothing else in the graph."""
        from toolkit.factory.graphs.onnx_rules import RULES

        needed = self._needed()
        del self._graph.node[:]
        self._graph.node.extend(needed)
        for node in self._graph.node:
            for attribute in node.attribute:
                _fetch(self._path, attribute.t)
            told = f"operator {node.name or node.output[0]!r} ({node.op_type})"
            try:
                absent = [name for name in node.input if name and name not in self._values]
                if absent:
                    raise UnreadableError(
                        f"reads {absent[0]!r}, which nothing before it gives: the graph has a circle, or is cut off"
                    )
                again = [name for name in node.output if name and name in self._values]
                if again:
                    raise UnreadableError(f"gives {again[0]!r}, which is given already")
                self._values |= self._answers(node, RULES)
            except UnreadableError as error:
                raise UserError(f"{self._path}: {told} {error}") from None
            except Exception as error:  # attributes may be of any kind, and shapes of any size
                raise UserError(f"{self._path}: {told} cannot be read ({first_line(error)})") from None

    def output(self) -> Value:
        """The network's answer; of several, probabilities where another is what they are made of."""
        outputs = {each.name: self._values.get(each.name) for each in self._graph.output}
        for name, value in outputs.items():
            logits = _logits_of(value)
            made_of = [other for other, each in outputs.items() if isinstance(each, Value) and each.tensor is logits]
            if logits is not None and made_of:
                for further in outputs.keys() - {name, *made_of}:
                    log.info("%s: its answer %r is left out, the classes' alone are read", self._path, further)
                outputs = {name: value}
                break
        _ends(self._path, None, "output", [each for each in self._graph.output if each.name in outputs])
        ((self.output_name, found),) = outputs.items()
        if not isinstance(found, Value):
            raise UserError(f"{self._path}: its answer does not depend on the picture")
        return found

    def _needed(self) -> list[Any]:
        """The operators that the outputs depend on, in the file's order."""
        wanted, found = {each.name for each in self._graph.output}, []
        for node in reversed(self._graph.node):
            if wanted.intersection(node.output):
                wanted.update(filter(None, node.input))
                found.append(node)
        return found[::-1]

    def _answers(self, node: Any, rules: dict[str, Callable[..., Any]]) -> dict[str, Any]:
        from toolkit.factory.graphs.onnx_rules import Node

        inputs = [self._values[name] if name else None for name in node.input]
        domain = node.domain if node.domain not in ("", "ai.onnx") else ""
        kind = f"{domain}.{node.op_type}" if domain else node.op_type
        if kind in _FOLDED and not any(isinstance(each, Value) for each in inputs):
            return dict(zip(node.output, [self._folded(node, inputs)], strict=True))
        if kind == "Shape":
            return {node.output[0]: self._shape(node, inputs[0])}
        if kind in _NO_PROBABILITIES:
            raise UnreadableError("answers which class is likeliest, and not how likely each is; export without it")
        if kind not in rules:
            raise UnreadableError(
                "has no rule here; leave it out, or replace it by operators that have: " + ", ".join(sorted(rules))
            )
        attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
        attributes = {name: value.decode() if isinstance(value, bytes) else value for name, value in attributes.items()}
        self.quantized |= kind == "QuantizeLinear"
        casts = kind == "Cast" and isinstance(inputs[0], Value)  # weights alone may be stored so
        self.halved |= casts and attributes.get("to") == onnx.TensorProto.FLOAT16
        self._builder.wish = self._wish(node)
        asked = Node(inputs, attributes, self._opset, self._builder.batch, len(node.output))
        found = rules[kind](self._builder, asked)
        return dict(zip(node.output, found if isinstance(found, list) else [found], strict=False))

    def _shape(self, node: Any, value: Any) -> "np.ndarray":
        bounds = {each.name: each.i for each in node.attribute}
        return np.array((self._builder.batch, *value.shape[1:])[bounds.get("start", 0) : bounds.get("end")], np.int64)

    def _folded(self, node: Any, inputs: list["np.ndarray | None"]) -> "np.ndarray":
        arrays = [each for each in inputs if each is not None]
        numbers = sum(array.size for array in arrays)
        if node.op_type in _BROADCAST:
            shapes = [array.shape for array in arrays]
            if node.op_type == "Expand":
                shapes = [shapes[0], tuple(int(size) for size in arrays[1])]
            numbers = math.prod(np.broadcast_shapes(*shapes))
        elif node.op_type == "ConstantOfShape":
            numbers = math.prod(int(size) for size in arrays[0])
        elif node.op_type == "Gather":
            numbers = arrays[0].size * max(1, arrays[1].size)
        self._builder.hold(numbers)
        from onnx.reference import ReferenceEvaluator

        helper = onnx.helper
        names = [name for name in node.input if name]
        kinds = {name: helper.np_dtype_to_tensor_dtype(each.dtype) for name, each in zip(names, arrays, strict=True)}
        graph = helper.make_graph(
            [node],
            "constant",
            [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()],
            [helper.make_tensor_value_info(node.output[0], 0, None)],
        )
        # The evaluator has no older form of this one, which only took fewer kinds of numbers.
        opset = max(self._opset, 19) if node.op_type == "DequantizeLinear" else self._opset
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        (found,) = ReferenceEvaluator(model).run(None, dict(zip(names, arrays, strict=True)))
        return np.asarray(found)

    def _wish(self, node: Any) -> str:
        """A layer's name, by that of its weights or of the operator."""
        weight = node.input[1] if len(node.input) > 1 else ""
        if weight in self._weights and "::" not in weight and "." in weight:
            return weight.rpartition(".")[0]
        parts = node.name.strip("/").split("/")
        if len(parts) > 1 and parts[-1].startswith(node.op_type):
            parts = parts[:-1]
        # torch repeats a block's name in the names of what is in it.
        kept = [part for part, inner in zip(parts, [*parts[1:], ""], strict=True) if not inner.startswith(f"{part}.")]
        return "_".join(kept)


def _logits_of(value: Any) -> Any:
    """Find the value that this one is the softmax of; None where it is no softmax."""
    made_by = value.made_by if isinstance(value, Value) else None
    return made_by[1] if made_by is not None and made_by[0] == "softmax" else None


def _session(
    document: Any, given: Any, output: str, axes: tuple[int, ...], batch: int, *, in_grey: bool
) -> Callable[["np.ndarray"], "np.ndarray"]:
    """The function that asks ONNX Runtime what the operators that were understood answer."""

    def answers(inputs: "np.ndarray") -> "np.ndarray":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        content = document.SerializeToString()
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        kind = onnx.helper.tensor_dtype_to_np_dtype(given.type.tensor_type.elem_type)
        pictures = np.repeat(inputs, 3, axis=-1) if in_grey else inputs
        pictures = np.transpose(pictures, np.argsort(axes)).astype(kind)
        return in_batches(lambda part: session.run([output], {given.name: part})[0], pictures, batch)

    return answers
