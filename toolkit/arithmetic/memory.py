"""Activation memory: the values that are alive while each layer runs.

Layers run in the model's order. An output lives from its layer to the last one that reads it; the model's outputs live
to the end. A layer without a window or a kernel, whose output is as large as an input that nothing reads later, writes
over it, as runtimes do with activations, normalisation, sums and reshapes. A lower bound for runtimes that keep more.
"""

from toolkit.arithmetic.sizes import size
from toolkit.lazy import keras
from toolkit.network import sources


def live_values(model: "keras.Model") -> dict[str, int]:
    """Count the values alive while each layer runs on one picture, its inputs and output included, by its name."""
    feeding = sources(model)
    position = {layer.name: index for index, layer in enumerate(model.layers)}
    last_use = dict(position)
    for reader, layers in feeding.items():
        for layer in layers:
            last_use[layer.name] = max(last_use[layer.name], position[reader])
    outputs = {id(tensor) for tensor in model.outputs}
    kept = {layer.name for layer in model.layers if id(layer.output) in outputs}

    alive: dict[str, int] = {}
    counts = {}
    for layer in model.layers:
        own = size(layer.output.shape[1:])
        dying = [x.name for x in feeding[layer.name] if x.name not in kept and last_use[x.name] == position[layer.name]]
        in_place = _element_wise(layer) and own in {alive[name] for name in dying}
        counts[layer.name] = sum(alive.values()) + (0 if in_place else own)
        for name in set(dying):
            del alive[name]
        alive[layer.name] = own
    return counts


def _element_wise(layer: "keras.Layer") -> bool:
    windowed = any(hasattr(layer, attribute) for attribute in ("kernel", "kernel_size", "pool_size"))
    return not windowed and getattr(layer, "window", None) is None
