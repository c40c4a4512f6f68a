"""Changes that a method made, read from what it wrote: zeros and shared values in kernels, parameters that moved.

Also, for a method that trains nothing, all that its file follows from, by which one that is there already is known.
"""

import hashlib
import importlib.metadata
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.compress.examples import evenly
from toolkit.compress.quantize import NUM_CALIBRATION
from toolkit.data.feed.split import Subset
from toolkit.errors import UserError
from toolkit.lazy import keras
from toolkit.spec import Preprocessing

#: Operators whose second input is a kernel, output channels first.
_WITH_KERNEL = ("CONV_2D", "FULLY_CONNECTED")
#: Share of weights by which the zeros of all kernels together may miss what was asked: a kernel's own share is a
#: fraction of whole weights, and two of four neighbours may be one of three at an edge.
_TOLERANCE = 0.01
# What batch normalisation learns from looking, and a layer's random state.
_NO_PARAMETERS = ("moving_mean", "moving_variance", "seed_generator_state")


@dataclass(frozen=True)
class Changes:
    """Changes in a network, measured on the file that answers.

    Attributes:
        zeros: share of the kernels' weights that are zero.
        values: different values in a kernel, in the worst of them. In int8, where each output channel has a scale, and
            where a normalisation was folded in, which gives it one: in an output channel.
        parameters: weights in all, without statistics.
        trained: how many of them training moved.
        kept_epoch: whose weights were kept: 0 where training made nothing better; None where nothing chose.
    """

    zeros: float
    values: int | None = None
    parameters: int | None = None
    trained: int | None = None
    kept_epoch: int | None = None

    def __str__(self) -> str:
        parts = [f"{100 * self.zeros:.1f} % of the kernels' weights are zero"]
        if self.values is not None:
            parts.append(f"at most {self.values} different values in a kernel")
        if self.trained is not None:
            parts.append(f"training moved {self.trained:,} of {self.parameters:,} parameters")
        if self.kept_epoch is not None:
            parts.append("kept: " + (f"epoch {self.kept_epoch}" if self.kept_epoch else "the start, better than any"))
        return "; ".join(parts)


def kernels_in(content: bytes, layers: Collection[str]) -> dict[str, np.ndarray]:
    """Read the kernels of convolutions and dense layers from a LiteRT file, as stored, output channels first.

    Args:
        content: of the file.
        layers: names of the network's layers with a kernel, in its order. Constants of others, such as the band of
            ones that a local response normalisation computes with, are left out.

    Returns:
        The kernels by layer.
    """
    from tensorflow.lite.tools import flatbuffer_utils

    from toolkit.engines.convert import layers_named_in

    model = flatbuffer_utils.read_model_from_bytearray(content)
    names = list(layers)
    kernels: dict[str, np.ndarray] = {}
    for graph in model.subgraphs:
        # A half-precision constant is widened by an operator of its own.
        widened = {operator.outputs[0]: operator.inputs[0] for operator in graph.operators if len(operator.inputs) == 1}
        for operator in graph.operators:
            if flatbuffer_utils.opcode_to_name(model, operator.opcodeIndex) not in _WITH_KERNEL:
                continue
            tensor = graph.tensors[widened.get(operator.inputs[1], operator.inputs[1])]
            data = model.buffers[tensor.buffer].data
            named = layers_named_in(tensor.name.decode(), names)
            if data is not None and named:
                kind = np.dtype(flatbuffer_utils.type_to_name(tensor.type).lower())
                kernels[named[0]] = np.asarray(data, np.uint8).view(kind).reshape(tensor.shape)
    return kernels


def with_kernel(model: "keras.Model") -> list[str]:
    """Name the layers of a network that have a kernel, in its order."""
    return [layer.name for layer in model.layers if hasattr(layer, "kernel")]


def kernels_of(model: "keras.Model", layers: Collection[str]) -> dict[str, np.ndarray]:
    """Take the kernels of ``layers``, by layer, output channels last."""
    return {name: np.asarray(model.get_layer(name).kernel) for name in layers}


def share_of_zeros(kernels: Collection[np.ndarray]) -> float:
    """Compute the share of weights that are zero; 0 where there are none.

    >>> share_of_zeros([np.array([0.0, 1.0]), np.array([2.0, 0.0])])
    0.5
    """
    total = sum(kernel.size for kernel in kernels)
    return 1 - int(sum(np.count_nonzero(kernel) for kernel in kernels)) / total if total else 0.0


def most_values(kernels: Mapping[str, np.ndarray], *, by_channel: bool) -> int:
    """Count the different values in the kernel that has most, or in one of its output channels, which come first."""
    if by_channel:
        return max(len(np.unique(channel)) for kernel in kernels.values() for channel in kernel)
    return max(len(np.unique(kernel)) for kernel in kernels.values())


def num_parameters(model: "keras.Model") -> int:
    """Count the parameters of a network that training can move, whether or not they are frozen now."""
    return sum(math.prod(weight.shape) for weight in model.weights if weight.name not in _NO_PARAMETERS)


def moved_parameters(model: "keras.Model", start: "keras.Model") -> int:
    """Count the parameters of those weights that differ between two networks of one structure."""
    pairs = zip(model.weights, start.weights, strict=True)
    return sum(
        math.prod(weight.shape)
        for weight, before in pairs
        if weight.name not in _NO_PARAMETERS and not np.array_equal(np.asarray(weight), np.asarray(before))
    )


def require_zeros(kernels: Mapping[str, np.ndarray], sparsity: float) -> None:
    """Refuse kernels, by layer, that have fewer zeros than pruning was asked for.

    Raises:
        UserError: in all of them together, or none at all in one.
    """
    share = share_of_zeros(kernels.values())
    whole = [name for name, kernel in kernels.items() if np.all(kernel)]
    if whole or share < sparsity - _TOLERANCE:
        untouched = f"; none in {_listed(whole)}" if whole else ""
        raise UserError(
            f"pruning was to make {100 * sparsity:.1f} % of the weights zero, and made {100 * share:.1f} %{untouched}; "
            "train longer (--epochs)"
        )


def require_values(kernels: Mapping[str, np.ndarray], num_clusters: int, *, by_channel: bool) -> None:
    """Refuse kernels, by layer, that have more different values than clustering was asked for."""
    counts = {name: most_values({name: kernel}, by_channel=by_channel) for name, kernel in kernels.items()}
    beyond = [name for name, count in counts.items() if count > num_clusters]
    if beyond:
        raise UserError(
            f"clustering was to leave {num_clusters} different values in a kernel, and left {max(counts.values())} in "
            f"{_listed(beyond)}"
        )


def require_trained(facts: Any, parameters: int) -> None:
    """Refuse a training that left kernels as they were."""
    if facts.untouched:
        raise UserError(
            f"training moved {facts.trained:,} of {parameters:,} parameters and left the kernels of "
            f"{_listed(facts.untouched)} as they were; raise --learning-rate, or train longer (--epochs)"
        )


def recipe_digest(
    network: str, method: str, preprocessing: Preprocessing, train: Subset, *, keep_float: Collection[str] = ()
) -> str:
    """Digest all that a file quantized after training follows from: equal digests, equal files.

    Args:
        network: digest of the network's weights.
        method: of ``toolkit.compress.quantize``.
        preprocessing: what it was trained with.
        train: training pictures, of which those that calibrate are digested.
        keep_float: layers left in float.
    """
    packages = {package: importlib.metadata.version(package) for package in ("toolkit", "tensorflow")}
    facts = [network, method, preprocessing.as_dict(), sorted(keep_float), packages]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    if method in ("int8", "int16x8"):
        for index in evenly(len(train), NUM_CALIBRATION):
            digest.update(hashlib.sha256(Path(train.paths[index]).read_bytes()).digest())
    return digest.hexdigest()


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 5} more layers" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
