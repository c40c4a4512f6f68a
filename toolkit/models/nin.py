"""Network in Network (Lin, Chen and Yan 2014): 1×1 convolutions behind every convolution, and no dense layer.

The layouts are those of Caffe's model zoo. Its last 1×1 convolution gives one map for each class, and the ReLU behind
it stands before the global average: the average of the maps is not a dense layer on averaged features. So the
classifier's weights lie in ``head_conv``, and ``head_logits`` only averages.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from toolkit.errors import UserError
from toolkit.lazy import keras, layers
from toolkit.models import parts
from toolkit.spec import BuildOptions, ModelInfo, Preprocessing


@dataclass(frozen=True)
class Block:
    """An mlpconv layer: widths and kernel of its convolutions, their spread, and the pooling and dropout behind it."""

    widths: tuple[int, ...]
    kernel: int
    stride: int = 1
    pool: str = ""
    dropout: bool = False
    stddev: float = 0.05  # of the first convolution's initial weights; the 1×1 ones have 0.05 throughout


@dataclass(frozen=True)
class Row:
    """One network: its mlpconv layers, and the counts that tests recompute."""

    title: str
    blocks: tuple[Block, ...]
    head_stddev: float
    preprocessing: Preprocessing
    min_size: int
    num_classes: int
    num_params: int
    macs: int


ROWS = {
    "nin": Row(
        "Network in Network",
        (
            Block((96, 96, 96), 11, stride=4, pool="max", stddev=0.01),
            Block((256, 256, 256), 5, pool="max"),
            Block((384, 384, 384), 3, pool="max", dropout=True, stddev=0.01),
            Block((1024, 1024), 3),
        ),
        0.01,
        parts.IMAGENET_MEAN,
        min_size=39,
        num_classes=1000,
        num_params=7_595_176,
        macs=1_100_188_800,
    ),
    "nin_cifar": Row(
        "Network in Network for CIFAR",
        (
            Block((192, 160, 96), 5, pool="max", dropout=True),
            Block((192, 192, 192), 5, pool="average", dropout=True),
            Block((192, 192), 3),
        ),
        0.05,
        parts.CIFAR10,
        min_size=8,
        num_classes=10,
        num_params=966_986,
        macs=222_486_528,
    ),
}


def normal(stddev: float) -> dict[str, Any]:
    """Initial weights from N(0, stddev)."""
    return {"kernel_initializer": keras.initializers.RandomNormal(stddev=stddev)}


def class_maps(x: Any, num_classes: int, *, stddev: float) -> Any:
    """The classifier: a map for each class, in float32 as all logits."""
    return layers.Conv2D(
        num_classes,
        1,
        activation="relu",
        # From zero, the ReLU would shut about half of the maps for good before the first step.
        bias_initializer="ones",
        dtype="float32",
        name="head_conv",
        **normal(stddev),
    )(x)


def mlpconv(x: Any, block: Block, *, stage: str) -> Any:
    """A convolution and its 1×1 convolutions, which Caffe's layers call cccp, with what follows them."""
    first, *rest = block.widths
    x = parts.conv_relu(x, first, block.kernel, stride=block.stride, start=normal(block.stddev), name=f"{stage}_conv1")
    for number, width in enumerate(rest, start=2):
        x = parts.conv_relu(x, width, 1, start=normal(0.05), name=f"{stage}_conv{number}")
    if block.pool == "max":
        x = parts.max_pool_ceil(x, name=f"{stage}_pool")
    elif block.pool == "average":
        x = average_pool_ceil(x, name=f"{stage}_pool")
    return layers.Dropout(0.5, name=f"{stage}_drop")(x) if block.dropout else x


def average_pool_ceil(x: Any, *, name: str) -> Any:
    """3×3/2 average pooling that keeps a last, partial window and averages over its pixels only, as Caffe's does.

    Raises:
        UserError: only one side of the map ends in a partial window, for which Keras has no padding.
    """
    height, width = (side % 2 for side in x.shape[1:3])
    if height != width:
        raise UserError(
            f"{name} cannot average maps of {x.shape[1]}×{x.shape[2]}, one side odd and one even; "
            f"give a square input_shape, or sides that differ by a multiple of four"
        )
    # On an even side "same" adds one pixel at the end and does not count it.
    return layers.AveragePooling2D(3, strides=2, padding="valid" if height else "same", name=name)(x)


def build_nin(row: Row, options: BuildOptions) -> "keras.Model":
    """The mlpconv layers of the row; the last layer of its last one gives the class maps."""
    x = inputs = layers.Input(options.input_shape, name="input")
    for stage, block in enumerate(row.blocks, start=1):
        x = mlpconv(x, block, stage=f"stage{stage}")
    if not options.include_top:
        return keras.Model(inputs, parts.pooled(x, options.pooling), name=options.name)
    x = class_maps(x, options.num_classes, stddev=row.head_stddev)
    outputs = layers.GlobalAveragePooling2D(dtype="float32", name="head_logits")(x)
    return keras.Model(inputs, outputs, name=options.name)


LAYOUTS = {
    "nin": "widths, pooling, dropout and initial spread are Caffe's model zoo's: the paper prints no ImageNet network",
    "nin_cifar": "widths, pooling, dropout and initial spread are those of Caffe's model zoo, which the paper omits",
}
DEVIATIONS = (
    "the biases of the class maps start from one, so that no class starts shut behind the ReLU; the published ones "
    "start from zero",
    "no local contrast normalisation or whitening of pictures",
    "the last layer gives logits, which the ReLU before it keeps from being negative; softmax belongs to the loss and "
    "to export",
)

NETWORKS = tuple(
    ModelInfo(
        name=name,
        title=row.title,
        paper="Lin, Chen and Yan, Network in network, ICLR 2014",
        year=2014,
        min_size=row.min_size,
        num_classes=row.num_classes,
        num_params=row.num_params,
        macs=row.macs,
        stages=(*(f"stage{number}" for number, _ in enumerate(row.blocks, start=1)), "head"),
        preprocessing=row.preprocessing,
        recipe="nin",
        build=partial(build_nin, row),
        deviations=(LAYOUTS[name], *DEVIATIONS),
    )
    for name, row in ROWS.items()
)
