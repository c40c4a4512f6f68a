"""The blocks of a network in a few words each, neighbours that are alike counted as one.

Blocks follow from layer names: ``stage2_block3_conv1`` and ``stage2_block3_bn1`` belong to ``stage2_block3``, and
``stem_pool_pad`` to ``stem_pool``. A layer whose name does not share its first two parts with others is a block.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.lazy import keras
from toolkit.network import sources


@dataclass
class Box:
    """A block as drawn."""

    name: str  # the block's; of folded ones, the last's
    inputs: tuple[str, ...]  # names of the blocks drawn that feed it; of folded ones, the first
    stage: str  # what its layers' names start with
    lines: tuple[str, ...]  # what it computes; of a module with branches, a line per branch
    kind: str  # "convolution", "pooling", "dense" or "other"
    shape: tuple[int | None, ...]  # of its output, without the batch
    shortcut: str | None = None  # what its input passes through on the way to the sum: "" for nothing
    joined: bool = False  # its lines are branches side by side, concatenated
    survivals: tuple[float, float] | None = None  # of stochastic depth, the first and the last of those folded
    repeats: int = 1  # blocks folded into this box

    def note(self) -> str:
        """The smaller print below the lines."""
        if self.survivals:
            first, last = (f"{value:.2f}" for value in self.survivals)
            return f"kept with p = {first}" + (f" … {last}" if last != first else "")
        return "side by side, concatenated" if self.joined else ""

    def likeness(self) -> tuple[Any, ...]:
        """Boxes of equal likeness differ in nothing that is drawn."""
        return self.stage, self.lines, self.kind, self.shape, self.shortcut, self.joined, self.survivals is None


def boxes(model: "keras.Model") -> list[Box]:
    """List the blocks of a flat functional model in its own order, folded."""
    feeding = sources(model)
    blocks: dict[str, list[Any]] = {}
    for layer in model.layers:
        blocks.setdefault(_block(layer.name), []).append(layer)
    drawn: list[Box] = []
    stands_for: dict[str, list[str]] = {}
    for name, layers in blocks.items():
        outside = [source for layer in layers for x in feeding[layer.name] if (source := _block(x.name)) != name]
        inputs = list(dict.fromkeys(shown for source in outside for shown in stands_for.get(source, [])))
        box = _box(name, inputs, layers, feeding)
        # A block that is not worth a line, such as an activation, passes on what feeds it.
        stands_for[name] = [name] if box.lines else inputs
        drawn += [box] if box.lines else []
    if len(drawn) > 1 and drawn[0].lines == ("input",):
        drawn[0].stage = drawn[1].stage  # no stage of its own for a name
    return _fold(drawn)


def _block(layer_name: str) -> str:
    return "_".join(layer_name.split("_")[:2])


def _box(name: str, inputs: list[str], layers: list["keras.Layer"], feeding: dict[str, list["keras.Layer"]]) -> Box:
    bypass = [layer for layer in layers if "shortcut" in layer.name]
    rest = [layer for layer in layers if layer not in bypass]
    survivals = [layer.survival for layer in layers if hasattr(layer, "survival")]
    joined = _is_join(rest)
    return Box(
        name=name,
        inputs=tuple(inputs),
        stage=layers[0].name.split("_")[0],
        lines=_branches(rest, feeding) if joined else tuple(text for layer in rest if (text := _words(layer))),
        kind=_kind(rest),
        shape=tuple(layers[-1].output.shape[1:]),
        shortcut=_shortcut(layers, bypass, feeding),
        joined=joined,
        survivals=(survivals[0], survivals[0]) if survivals else None,
    )


def _is_join(layers: list["keras.Layer"]) -> bool:
    return len(layers) > 1 and any(type(layer).__name__ == "Concatenate" for layer in layers)


def _branches(layers: list["keras.Layer"], feeding: dict[str, list["keras.Layer"]]) -> tuple[str, ...]:
    """A line for each input of the block's concatenation."""
    inside = {layer.name for layer in layers}
    join = next(layer for layer in layers if type(layer).__name__ == "Concatenate")
    return tuple(" → ".join(_branch(end, inside, feeding)) for end in feeding[join.name])


def _branch(end: "keras.Layer", inside: set[str], feeding: dict[str, list["keras.Layer"]]) -> list[str]:
    """The words for one branch, from the block's input to its concatenation."""
    words: list[str] = []
    while end.name in inside:
        words = [text for text in [_words(end)] if text] + words
        if len(feeding[end.name]) != 1:
            break
        end = feeding[end.name][0]
    return words or ["input"]


def _shortcut(
    layers: list["keras.Layer"], bypass: list["keras.Layer"], feeding: dict[str, list["keras.Layer"]]
) -> str | None:
    inside = {layer.name for layer in layers}
    adds = [layer for layer in layers if type(layer).__name__ == "Add"]
    if adds and bypass:
        return ", ".join(text for layer in bypass if (text := _words(layer)))
    return "" if any(source.name not in inside for add in adds for source in feeding[add.name]) else None


def _words(layer: "keras.Layer") -> str:
    """One layer in a few words; nothing for normalisation, activations and padding."""
    kind = type(layer).__name__
    if kind in ("Conv2D", "SeparableConv2D", "DepthwiseConv2D"):
        groups = getattr(layer, "groups", 1)
        width = f"×{layer.depth_multiplier}" if kind == "DepthwiseConv2D" else layer.filters
        name = {"Conv2D": "conv", "SeparableConv2D": "separable conv", "DepthwiseConv2D": "depthwise conv"}[kind]
        gate = " (gate)" if layer.name.endswith("_gate") else ""
        in_groups = f" in {groups} groups" if groups > 1 else ""
        return f"{_sides(layer.kernel_size)} {name}{gate}, {width}{_stride(layer.strides)}{in_groups}"
    if kind == "Dense":
        return f"dense{' (gate)' if layer.name.endswith('_gate') else ''}, {layer.units}"
    if kind in ("MaxPooling2D", "AveragePooling2D"):
        return f"{_sides(layer.pool_size)} {'max' if kind[0] == 'M' else 'average'} pool{_stride(layer.strides)}"
    if kind == "Dropout":
        return f"dropout {layer.rate:g}"
    if hasattr(layer, "words"):  # a custom layer
        return layer.words
    return _PLAIN_WORDS.get(kind, "" if kind in _SILENT else kind)


_PLAIN_WORDS = {
    "InputLayer": "input",
    "GlobalAveragePooling2D": "global average pool",
    "GlobalMaxPooling2D": "global max pool",
    "Flatten": "flatten",
    "Concatenate": "concatenate",
}
_SILENT = {
    *("BatchNormalization", "ReLU", "Activation", "ZeroPadding2D"),
    *("Add", "Multiply", "Subtract", "Rescaling"),
}


def _sides(sides: Sequence[int]) -> str:
    return "×".join(map(str, sides))


def _stride(strides: Sequence[int]) -> str:
    if max(strides) == 1:
        return ""
    return f", /{strides[0]}" if strides[0] == strides[1] else f", /{_sides(strides)}"


def _kind(layers: list["keras.Layer"]) -> str:
    kinds = [type(layer).__name__ for layer in layers]
    for word, kind in (("Conv2D", "convolution"), ("Dense", "dense"), ("Pooling", "pooling")):
        if any(word in name for name in kinds):
            return kind
    return "other"


def _fold(drawn: Iterable[Box]) -> list[Box]:
    folded: list[Box] = []
    for box in drawn:
        if folded and folded[-1].likeness() == box.likeness() and box.inputs == (folded[-1].name,):
            folded[-1].repeats += 1
            folded[-1].name = box.name
            if box.survivals and folded[-1].survivals:
                folded[-1].survivals = (folded[-1].survivals[0], box.survivals[1])
        else:
            folded.append(box)
    return folded
