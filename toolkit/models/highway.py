"""Highway networks (Srivastava, Greff and Schmidhuber, NIPS 2015): gates decide how much a layer changes.

Each layer answers y = H(x)·T(x) + x·(1 - T(x)), its *transform gate* T a sigmoid whose bias starts negative, so that a
fresh network mostly carries its input through. ``highway_mlp`` is section 3.1's for MNIST; the convolutional ones are
section 3.3's for CIFAR-10, the 19 layers as in the network definition that the authors published beside the paper.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from toolkit.errors import UserError
from toolkit.lazy import keras, layers
from toolkit.models import parts
from toolkit.spec import BuildOptions, ModelInfo, Preprocessing


@dataclass(frozen=True)
class Row:
    """One convolutional network: per stage its width and the kernels of its highway layers, and the counts."""

    title: str
    widths: tuple[int, ...]
    kernels: tuple[tuple[int, ...], ...]
    num_params: int
    macs: int


ALTERNATING = (1, 3, 1, 3, 1, 3, 1, 3, 1)
CNN_ROWS = {
    "highway_cnn19": Row("Highway-19", (32, 80, 128), ((3,) * 4, (3,) * 5, (3,) * 5), 2_256_838, 330_826_728),
    "highway_cnn32": Row("Highway-32", (32, 64, 96), (ALTERNATING,) * 3, 1_264_502, 230_089_704),
}
MLP_WIDTH = 50


def weighted(x: Any, width: int, kernel: int | None, *, gate_bias: float | None = None, name: str) -> Any:
    """A convolution with ReLU, or a transform gate where ``gate_bias`` says what its biases start from.

    Dense where ``kernel`` is None. Weights start uniform with variance 1 / fan-in.
    """
    start: dict[str, Any] = {"kernel_initializer": keras.initializers.VarianceScaling(1.0, "fan_in", "uniform")}
    if gate_bias is not None:
        start["bias_initializer"] = keras.initializers.Constant(gate_bias)
    start["activation"] = "relu" if gate_bias is None else "sigmoid"
    if kernel is None:
        return layers.Dense(width, name=name, **start)(x)
    return layers.Conv2D(width, kernel, padding="same", name=name, **start)(x)


def highway(x: Any, kernel: int | None, *, gate_bias: float, name: str) -> Any:
    """A highway layer as wide as its input: x + T·(H - x), which is H·T + x·(1 - T) in fewer operations."""
    transform = weighted(x, x.shape[-1], kernel, name=f"{name}_transform")
    gate = weighted(x, x.shape[-1], kernel, gate_bias=gate_bias, name=f"{name}_gate")
    change = layers.Subtract(name=f"{name}_difference")([transform, x])
    change = layers.Multiply(name=f"{name}_gated")([gate, change])
    return layers.Add(name=f"{name}_out")([x, change])


def build_mlp(options: BuildOptions, *, depth: int = 10, gate_bias: float = -2.0) -> "keras.Model":
    """Section 3.1: one plain dense layer, then highway layers of the same 50 units, then logits.

    Args:
        depth: layers in front of the logits, the plain one included; the paper trains 10, 20, 50 and 100.
        gate_bias: where the transform gates' biases start.
    """
    if depth < 2:
        raise UserError(f"{options.name} needs depth of at least 2, one plain layer and one highway layer; got {depth}")
    x = layers.Input(options.input_shape, name="input")
    inputs, x = x, layers.Flatten(name="stem_flatten")(x)
    x = weighted(x, MLP_WIDTH, None, name="stem_fc")
    for block in range(1, depth):
        x = highway(x, None, gate_bias=gate_bias, name=f"stage1_block{block}")
    if not options.include_top:
        x = layers.Reshape((1, 1, MLP_WIDTH), name="stage1_map")(x)
        return keras.Model(inputs, parts.pooled(x, options.pooling), name=options.name)
    return keras.Model(inputs, parts.logits(x, options.num_classes), name=options.name)


def build_cnn(row: Row, options: BuildOptions, *, gate_bias: float = -2.0, dropout: float = 0.2) -> "keras.Model":
    """Section 3.3: three stages of one plain convolution, which sets the width, and highway layers.

    Args:
        row: which network.
        gate_bias: where the transform gates' biases start.
        dropout: rate at the input, between stages and in front of the logits.
    """
    inputs = layers.Input(options.input_shape, name="input")
    x = layers.Dropout(dropout, name="stage1_dropout")(inputs)
    for stage, (width, kernels) in enumerate(zip(row.widths, row.kernels, strict=True), start=1):
        if stage > 1:
            x = layers.MaxPooling2D(2, name=f"stage{stage}_pool")(x)
            x = layers.Dropout(dropout, name=f"stage{stage}_dropout")(x)
        x = weighted(x, width, 3, name=f"stage{stage}_conv")
        for block, kernel in enumerate(kernels, start=1):
            x = highway(x, kernel, gate_bias=gate_bias, name=f"stage{stage}_block{block}")
    if not options.include_top:
        return keras.Model(inputs, parts.pooled(x, options.pooling), name=options.name)
    x = parts.pooled(weighted(x, 100, 1, name="head_conv"), "avg")
    x = layers.Dropout(dropout, name="head_dropout")(x)
    return keras.Model(inputs, parts.logits(x, options.num_classes), name=options.name)


PAPER = "Srivastava, Greff and Schmidhuber, Training very deep networks, NIPS 2015"
DEVIATIONS = (
    "written x + T·(H - x), which equals H·T + x·(1 - T)",
    "weights start uniform with variance 1 / fan-in, as the authors' Caffe files: the paper does not say",
    "the last layer gives logits, from Glorot uniform weights; softmax belongs to the loss and to export",
)
MLP_DEVIATIONS = (
    "10 layers in front of the logits, the least of the paper's 10, 20, 50 and 100 (variant depth)",
    "ReLU; the paper's random search chose between ReLU and tanh per network",
    "gates start at -2 (variant gate_bias); the paper's random search drew from -1…-10",
)
CNN_DEVIATIONS = (
    "widths, pooling, dropout of 0.2 and the 1×1 convolution to 100 maps follow the authors' published definition",
    "the first convolution starts as all others do; the authors' starts from a Gaussian",
    "inputs are normalised per channel; the authors' have global contrast normalisation",
)
CNN32_DEVIATION = (
    "the paper gives this network's depth, its alternation of 3×3 and 1×1 and about 1.25 million parameters, and no "
    "more: widths 32, 64 and 96, nine highway layers a stage from 1×1 to 1×1, and all else as with 19 layers"
)

NETWORKS = (
    ModelInfo(
        name="highway_mlp",
        title="Highway MLP",
        paper=PAPER,
        year=2015,
        min_size=1,
        num_classes=10,
        num_params=85_660,
        macs=84_700,
        stages=("stem", "stage1", "head"),
        preprocessing=Preprocessing(size=(28, 28), resize="stretch", channel_order="grey", mean=(0.0,), std=(1.0,)),
        recipe="lenet",
        build=build_mlp,
        deviations=(*MLP_DEVIATIONS, *DEVIATIONS),
    ),
    *(
        ModelInfo(
            name=name,
            title=row.title,
            paper=PAPER,
            year=2015,
            min_size=8,
            num_classes=10,
            num_params=row.num_params,
            macs=row.macs,
            stages=("stage1", "stage2", "stage3", "head"),
            preprocessing=parts.CIFAR10,
            recipe="highway",
            build=partial(build_cnn, row),
            deviations=(*((CNN32_DEVIATION,) if name == "highway_cnn32" else ()), *CNN_DEVIATIONS, *DEVIATIONS),
        )
        for name, row in CNN_ROWS.items()
    ),
)
