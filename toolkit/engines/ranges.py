"""Ranges of a float LiteRT file's tensors, learned from pictures and written into it, for a quantizer to read.

TensorFlow's calibrator does the same on one thread with kernels that are not optimised, sixteen times slower for
GoogLeNet. Here every tensor becomes an output, which LiteRT's fast kernels then have to compute.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from toolkit.errors import UserError
from toolkit.machine import num_threads
from toolkit.progress import track


def with_ranges(content: bytes, batches: Sequence[np.ndarray]) -> bytes:
    """Write into a float LiteRT file the least and the largest value that each tensor takes.

    Args:
        content: the file.
        batches: (n, height, width, channels), normalised.

    Raises:
        UserError: a tensor takes values that are no numbers.
    """
    from tensorflow.lite.python.schema_py_generated import QuantizationParametersT
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(content)
    graph = model.subgraphs[0]
    _own_constants(model)
    computed = {int(index) for operator in graph.operators for index in operator.outputs}
    indices = [
        index
        for index in sorted(computed | set(graph.inputs.tolist()))
        if flatbuffer_utils.type_to_name(graph.tensors[index].type) == "FLOAT32"
    ]
    lowest, highest = _ranges(_answering(model, indices), indices, batches)
    for index, low, high in zip(indices, lowest, highest, strict=True):
        tensor = graph.tensors[index]
        if not np.isfinite((low, high)).all():
            raise UserError(f"{tensor.name.decode()} answers {low}…{high} for the calibration pictures, not numbers")
        tensor.quantization = tensor.quantization or QuantizationParametersT()
        tensor.quantization.min, tensor.quantization.max = np.array([low]), np.array([high])
    return _packed(model)


def _own_constants(model: Any) -> None:
    """Give every operator constants of its own.

    The converter stores equal ones once; a bias that two convolutions share would be quantized with the scale of one.
    """
    graph = model.subgraphs[0]
    used: set[int] = set()
    for operator in graph.operators:
        inputs = [int(index) for index in operator.inputs]
        for place, index in enumerate(inputs):
            if index < 0:  # an operator that does without
                continue
            tensor = graph.tensors[index]
            if tensor.buffer in used:
                inputs[place] = len(graph.tensors)
                graph.tensors.append(copy.copy(tensor))
                graph.tensors[-1].buffer = len(model.buffers)
                model.buffers.append(copy.copy(model.buffers[tensor.buffer]))
            elif model.buffers[tensor.buffer].data is not None:
                used.add(tensor.buffer)
        operator.inputs = np.array(inputs, np.int32)


def _answering(model: Any, indices: list[int]) -> bytes:
    """Copy a file such that it answers the tensors of these indices."""
    model = copy.copy(model)
    model.signatureDefs = []
    model.subgraphs = [copy.copy(model.subgraphs[0])]
    model.subgraphs[0].outputs = np.array(indices, np.int32)
    return _packed(model)


def _packed(model: Any) -> bytes:
    """Write a file as TensorFlow does, in a buffer that need not grow: growing holds three copies of all weights."""
    import flatbuffers

    weights = sum(buffer.data.nbytes for buffer in model.buffers if isinstance(buffer.data, np.ndarray))
    builder = flatbuffers.Builder(weights + (1 << 20))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(memoryview(builder.Bytes)[builder.Head() :])


def _ranges(content: bytes, indices: list[int], batches: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=num_threads())
    place = interpreter.get_input_details()[0]["index"]
    # One picture at a time: all its tensors are in memory at once.
    interpreter.resize_tensor_input(place, (1, *batches[0].shape[1:]))
    interpreter.allocate_tensors()
    # The interpreter's own memory, looked at without a copy.
    lowest, highest = np.full(len(indices), np.inf, np.float32), np.full(len(indices), -np.inf, np.float32)
    for picture in track([picture for batch in batches for picture in batch], "learning ranges for integers"):
        interpreter.set_tensor(place, picture[None].astype(np.float32, copy=False))
        interpreter.invoke()
        for number, index in enumerate(indices):
            values = interpreter.tensor(index)()
            lowest[number] = np.minimum(lowest[number], values.min())
            highest[number] = np.maximum(highest[number], values.max())
            del values  # a view of memory that the interpreter needs for itself
    return lowest, highest
