"""What every reader gives back."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class TensorFile:
    """The named arrays of one weights file.

    Attributes:
        path: where the file lies.
        format: one of ``toolkit.weights.readers.FORMATS``.
        tensors: arrays by name, in the file's order. Keras and Caffe files number a layer's arrays,
            ``"conv1/0"``, ``"conv1/1"``; torch and safetensors files name them, ``"conv1.weight"``. Read-only views
            of the mapped file wherever its bytes can serve as they lie: do not shorten the file while they are in use.
        metadata: text that came with the arrays: all of a safetensors header's, and the root attribute ``"toolkit"``
            of an HDF5 file.
        layers: settings of each layer in a ``.keras`` file's configuration, input to output, lists as tuples: they
            tell networks apart whose arrays are alike, such as ResNet v1 and v1.5. Empty for other formats.
    """

    path: Path
    format: str
    tensors: "dict[str, np.ndarray]"
    metadata: dict[str, str] = field(default_factory=dict)
    layers: dict[str, dict[str, Any]] = field(default_factory=dict)
