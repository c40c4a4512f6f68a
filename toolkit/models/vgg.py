"""VGG networks (Simonyan and Zisserman 2015): stacks of 3×3 convolutions, plain and batch-normalised.

Layers come in the order of keras.applications and torchvision, so weights of either carry over one after the other.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from toolkit.lazy import keras, layers
from toolkit.models import parts
from toolkit.spec import IMAGENET, BuildOptions, ModelInfo


@dataclass(frozen=True)
class Row:
    """One network: convolutions per stage (table 1), and the counts that tests recompute."""

    title: str
    depths: tuple[int, ...]
    batch_norm: bool
    num_params: int
    macs: int


ROWS = {
    "vgg11": Row("VGG-11 (A)", (1, 1, 2, 2, 2), False, 132_863_336, 7_609_090_048),
    "vgg13": Row("VGG-13 (B)", (2, 2, 2, 2, 2), False, 133_047_848, 11_308_466_176),
    "vgg16": Row("VGG-16 (D)", (2, 2, 3, 3, 3), False, 138_357_544, 15_470_264_320),
    "vgg19": Row("VGG-19 (E)", (2, 2, 4, 4, 4), False, 143_667_240, 19_632_062_464),
    "vgg11_bn": Row("VGG-11 with batch normalisation", (1, 1, 2, 2, 2), True, 132_868_840, 7_609_090_048),
    "vgg13_bn": Row("VGG-13 with batch normalisation", (2, 2, 2, 2, 2), True, 133_053_736, 11_308_466_176),
    "vgg16_bn": Row("VGG-16 with batch normalisation", (2, 2, 3, 3, 3), True, 138_365_992, 15_470_264_320),
    "vgg19_bn": Row("VGG-19 with batch normalisation", (2, 2, 4, 4, 4), True, 143_678_248, 19_632_062_464),
}
WIDTHS = (64, 128, 256, 512, 512)


def conv(x: Any, filters: int, *, batch_norm: bool, name: str) -> Any:
    """A 3×3 convolution with ReLU; ``name`` holds ``{}`` where ``conv``, ``bn`` and ``relu`` go."""
    # He et al., ICCV 2015: from the paper's N(0, 0.01) the deeper networks do not start to learn.
    # The bias is idle before a batch normalisation, but torchvision's weights have it.
    x = layers.Conv2D(filters, 3, padding="same", name=name.format("conv"), **parts.HE)(x)
    if batch_norm:
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name.format("bn"))(x)
    return layers.ReLU(name=name.format("relu"))(x)


def build_vgg(row: Row, options: BuildOptions) -> "keras.Model":
    """Five stages of 3×3 convolutions, each halved by pooling, then three dense layers; at least 32×32."""
    x = inputs = layers.Input(options.input_shape, name="input")
    for stage, (depth, width) in enumerate(zip(row.depths, WIDTHS, strict=True), start=1):
        for number in range(1, depth + 1):
            x = conv(x, width, batch_norm=row.batch_norm, name=f"stage{stage}_{{}}{number}")
        x = layers.MaxPooling2D(2, name=f"stage{stage}_pool")(x)
    if not options.include_top:
        return keras.Model(inputs, parts.pooled(x, options.pooling), name=options.name)
    x = parts.two_hidden_layers(x, start=parts.HE)
    return keras.Model(inputs, parts.logits(x, options.num_classes), name=options.name)


PAPER = "Simonyan and Zisserman, Very deep convolutional networks for large-scale image recognition, ICLR 2015"
BATCH_NORM = (
    "batch normalisation after every convolution, with epsilon 1e-5 and running averages of momentum 0.9, as "
    "torchvision: the paper has none"
)
DEVIATIONS = (
    "He normal initialisation; the paper starts its deep networks from a trained shallow one",
    "the first dense layer takes the maps as they come, 7×7 from 224×224; torchvision averages those of other sizes "
    "to 7×7, so its weights fit pictures of 224 to 255 pixels",
    "normalised by mean and standard deviation of each channel; the paper subtracts the mean only",
    parts.LOGITS,
)

NETWORKS = tuple(
    ModelInfo(
        name=name,
        title=row.title,
        paper=PAPER,
        year=2015,
        min_size=32,
        num_classes=1000,
        num_params=row.num_params,
        macs=row.macs,
        stages=("stage1", "stage2", "stage3", "stage4", "stage5", "head"),
        preprocessing=IMAGENET,
        recipe="vgg",
        build=partial(build_vgg, row),
        deviations=(*((BATCH_NORM,) if row.batch_norm else ()), *DEVIATIONS),
    )
    for name, row in ROWS.items()
)
