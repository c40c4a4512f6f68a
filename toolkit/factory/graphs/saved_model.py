"""SavedModels: a signature from pictures to answers, converted to LiteRT by TensorFlow and read as such.

A SavedModel is a program. Before TensorFlow loads it, its graph is looked through: only operations that classifiers are
made of may be in what the signature runs, and nothing that runs while it is loaded.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.bundle import GRAPH
from toolkit.errors import UserError, first_line
from toolkit.factory.graphs.building.graph import MAX_HELD
from toolkit.factory.graphs.graph_file import GraphFile, in_batches, picture_sides
from toolkit.factory.graphs.litert_file import read_litert
from toolkit.files import plain_path
from toolkit.lazy import lazy_module

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy_module("numpy")

_DEFAULT = "serving_default"
_INIT = "__saved_model_init_op"
#: Operations that may be in a signature: none reads or writes a file, or runs code.
_ALLOWED = {
    # calls, constants, variables
    *("Const", "Identity", "IdentityN", "NoOp", "PartitionedCall", "Placeholder", "PlaceholderWithDefault"),
    *("ReadVariableOp", "StatefulPartitionedCall", "StopGradient", "VarHandleOp", "_Arg", "_Retval"),
    # shapes
    *("BroadcastTo", "Cast", "ConcatV2", "ExpandDims", "Fill", "GatherV2", "MirrorPad", "Pack", "Pad", "PadV2", "Prod"),
    *("Rank", "Reshape", "ReverseV2", "Shape", "Slice", "Split", "SplitV", "Squeeze", "StridedSlice", "Tile"),
    *("Transpose", "Unpack"),
    # numbers
    *("Abs", "Add", "AddN", "AddV2", "Div", "Elu", "Erf", "Exp", "FloorDiv", "LeakyRelu", "Log", "LogSoftmax", "Max"),
    *("Maximum", "Mean", "Minimum", "Mul", "Neg", "Pow", "RealDiv", "Reciprocal", "Relu", "Relu6", "Rsqrt", "Selu"),
    *("Sigmoid", "Softmax", "Softplus", "Softsign", "Sqrt", "Square", "SquaredDifference", "Sub", "Sum", "Tanh"),
    # maps
    *("AvgPool", "BatchMatMul", "BatchMatMulV2", "BiasAdd", "Conv2D", "DepthwiseConv2dNative", "FusedBatchNorm"),
    *("FusedBatchNormV2", "FusedBatchNormV3", "LRN", "MatMul", "MaxPool", "MaxPoolV2"),
    *("FakeQuantWithMinMaxArgs", "FakeQuantWithMinMaxVars", "FakeQuantWithMinMaxVarsPerChannel"),
}


def open_saved_model(path: Path, size: tuple[int, int] | None) -> GraphFile:
    """Build the network of a SavedModel in Keras.

    Args:
        path: its folder.
        size: height and width, for a network that takes any; None where they are not known.

    Raises:
        UserError: it is damaged, has no signature from pictures to answers, or an operation that is not allowed or has
            no rule; the message says what to do.
    """
    graph = _graph(path)
    name, key, answer = _signature(path, graph)
    _require_harmless(path, graph, name)
    import tensorflow as tf

    try:
        with plain_path(path) as place:
            loaded = tf.saved_model.load(str(place))
        signature = loaded.signatures[name]
        spec = _spec(path, signature.structured_input_signature[1][key], size)
        function = tf.function(lambda pictures: signature(**{key: pictures})[answer], input_signature=[spec])
        concrete = function.get_concrete_function()
        content = tf.lite.TFLiteConverter.from_concrete_functions([concrete], loaded).convert()
    except UserError:
        raise
    except Exception as error:  # TensorFlow has many for what is damaged
        reason = first_line(error)[:200]
        raise UserError(f"{path}: TensorFlow cannot load and convert it ({reason}); save it again") from None
    found = read_litert(path, content, path.resolve().name)
    names, answers = found.names | _names(graph), _running(loaded, concrete)
    return replace(found, names=names, answers=answers, runtime="TensorFlow")


def _graph(path: Path) -> Any:
    """The file of the graph, without anything being loaded."""
    from tensorflow.core.protobuf import saved_model_pb2

    document = saved_model_pb2.SavedModel()
    try:
        document.ParseFromString((path / GRAPH).read_bytes())
    except OSError as error:
        raise UserError(f"{path}: saved_model.pb cannot be read ({error.strerror})") from None
    except Exception:  # Protobuf's own
        raise UserError(f"{path}: saved_model.pb is cut off or damaged; save or download it again") from None
    graphs = [graph for graph in document.meta_graphs if "serve" in graph.meta_info_def.tags]
    if not graphs:
        raise UserError(f"{path}: saved_model.pb holds no graph for serving; save or download it again")
    if not graphs[0].object_graph_def.nodes:
        raise UserError(f"{path}: was saved by TensorFlow 1; save it again with TensorFlow 2, or convert it to LiteRT")
    return graphs[0]


def _signature(path: Path, graph: Any) -> tuple[str, str, str]:
    """Names of the signature, its input and its answer."""
    from tensorflow.core.framework import types_pb2

    known = {name: each for name, each in graph.signature_def.items() if name != _INIT}
    name = _DEFAULT if _DEFAULT in known or len(known) != 1 else next(iter(known))
    if name not in known:
        listed = ", ".join(sorted(known)) or "none"
        raise UserError(
            f"{path}: has no signature {_DEFAULT!r} (it has: {listed}); save it with one: model.export(FOLDER)"
        )
    signature = known[name]
    for what, ends in (("input", signature.inputs), ("output", signature.outputs)):
        if len(ends) != 1:
            raise UserError(
                f"{path}: signature {name!r} has {len(ends)} {what}s ({', '.join(sorted(ends)) or 'none'}), and a "
                "classifier takes one picture and answers one vector; save it with one of each"
            )
    ((key, given),), (answer,) = signature.inputs.items(), signature.outputs
    if given.dtype not in (types_pb2.DT_FLOAT, types_pb2.DT_HALF, types_pb2.DT_UINT8):
        kind = types_pb2.DataType.Name(given.dtype).removeprefix("DT_").lower()
        raise UserError(
            f"{path}: signature {name!r} takes {kind}, and pictures are float32 or uint8; "
            "save the network without what decodes pictures"
        )
    return name, key, answer


def _require_harmless(path: Path, graph: Any, signature: str) -> None:
    """Refuse a SavedModel that does anything else than reckon: operations run as TensorFlow says, not as a file may."""
    objects = graph.object_graph_def.nodes
    if any(each.WhichOneof("kind") == "resource" or each.saveable_objects for each in objects):
        raise UserError(
            f"{path}: holds a table or another resource, which is set up by operations while it is loaded; save the "
            "network without it"
        )
    # What TensorFlow calls is the function in the tree of objects, whatever the list of signatures says.
    found = [
        child
        for table in _children(objects, objects[0], "signatures")
        for child in _children(objects, table, signature)
    ]
    pending = [each.bare_concrete_function.concrete_function_name for each in found]
    functions: dict[str, list[Any]] = {}
    for function in graph.graph_def.library.function:
        functions.setdefault(function.signature.name, []).extend(function.node_def)
    if not pending or not functions.keys() >= set(pending):
        raise UserError(f"{path}: lacks the function of its signature {signature!r}; save or download it again")
    called: set[str] = set()
    numbers = 0
    while pending:
        name = pending.pop()
        if name in called:
            continue
        called.add(name)
        for node in functions.get(name, ()):
            if node.op not in _ALLOWED:
                raise UserError(
                    f"{path}: its signature runs the operation {node.op} ({node.name!r}), which is not among those of "
                    "classifiers, and nothing else is run; save the network without it"
                )
            if node.op == "Const":
                numbers += math.prod(abs(dim.size) for dim in node.attr["value"].tensor.tensor_shape.dim)
            if numbers > MAX_HELD:
                raise UserError(
                    f"{path}: its signature holds constants of {numbers:,} numbers, more than there is memory for; "
                    "save the network without them"
                )
            for attribute in node.attr.values():
                pending += [attribute.func.name, *(each.name for each in attribute.list.func)]


def _children(objects: Any, parent: Any, name: str) -> list[Any]:
    """Find what stands under a name in an object of the file."""
    numbers = [child.node_id for child in parent.children if child.local_name == name]
    return [objects[number] for number in numbers if 0 <= number < len(objects)]


def _names(graph: Any) -> frozenset[str]:
    """Parts of the names in the graph."""
    nodes = [*graph.graph_def.node, *(node for each in graph.graph_def.library.function for node in each.node_def)]
    return frozenset(part for node in nodes for part in node.name.split("/"))


def _spec(path: Path, given: Any, size: tuple[int, int] | None) -> Any:
    """The signature's input for one picture, or as many as it always takes."""
    import tensorflow as tf

    shape = given.shape.as_list() if given.shape.rank is not None else []
    listed = "×".join(str(each or "?") for each in shape) or "any shape"
    if len(shape) != 4 or shape[3] not in (1, 3):
        raise UserError(f"{path}: takes {listed}, and pictures are batch×height×width×channels, 1 or 3 of these")
    batch, height, width, channels = shape
    height, width = picture_sides(path, listed, (height, width), size)
    return tf.TensorSpec([batch or 1, height, width, channels], given.dtype, name="pictures")


def _running(loaded: Any, concrete: Any) -> Callable[["np.ndarray"], "np.ndarray"]:
    """The function that asks TensorFlow what the signature answers."""

    def answers(inputs: "np.ndarray", kept: Any = loaded) -> "np.ndarray":  # its variables live as long as it does
        import tensorflow as tf

        spec = concrete.inputs[0]
        return in_batches(lambda part: concrete(tf.cast(part, spec.dtype)).numpy(), inputs, spec.shape[0])

    return answers
