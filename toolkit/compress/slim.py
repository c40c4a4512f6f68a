"""An int8 LiteRT file without the bytes that nobody reads.

Of a small network's int8 file a sixth is none of its weights: names of fused operations, joined to hundreds of letters,
and for each per-channel tensor a vector of zeros, eight bytes a channel. Names become those of the layers, and equal
vectors are stored once, which the format allows.
"""

from collections.abc import Sequence
from typing import Any


def slimmed(content: bytes, layer_names: Sequence[str]) -> bytes:
    """The same file, smaller.

    Args:
        content: a LiteRT file.
        layer_names: of the network it was made of, in its order. A tensor gets the name of the layer whose output it
            is, a constant that of the layer it belongs to, with ``/1``, ``/2`` … where a layer has several. The file's
            inputs and outputs keep their names.
    """
    from tensorflow.lite.tools import flatbuffer_utils

    from toolkit.engines.convert import layers_named_in

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
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
