"""Residual networks (He, Zhang, Ren and Sun 2016) and their plain twins (figure 3, middle): those for ImageNet.

Read downwards: the tables of networks, what their variants differ in, the blocks, the builders. The networks for CIFAR,
in ``resnet_cifar``, are made of the same blocks. A further depth is a row of a table.

Convolutions pad as torch and keras.applications do, explicitly where they stride: Keras' ``same`` pads a strided
convolution on the other side and trained weights would then answer differently.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from toolkit.errors import UserError
from toolkit.lazy import keras, layers, lazy_module
from toolkit.models import parts
from toolkit.spec import IMAGENET, BuildOptions, ModelInfo, Preprocessing

if TYPE_CHECKING:
    from toolkit import layers as custom
else:
    custom = lazy_module("toolkit.layers")

PAPER = "He, Zhang, Ren and Sun, Deep residual learning for image recognition, CVPR 2016"


@dataclass(frozen=True)
class Row:
    """One network: its kind of block, blocks per stage, and the counts that tests recompute."""

    title: str
    block: str
    depths: tuple[int, ...]
    num_params: int
    macs: int


BASIC_ROWS = {
    "resnet18": Row("ResNet-18", "basic", (2, 2, 2, 2), 11_689_512, 1_814_073_344),
    "resnet34": Row("ResNet-34", "basic", (3, 4, 6, 3), 21_797_672, 3_663_761_408),
}
BOTTLENECK_ROWS = {
    "resnet50": Row("ResNet-50", "bottleneck", (3, 4, 6, 3), 25_557_032, 4_089_184_256),
    "resnet101": Row("ResNet-101", "bottleneck", (3, 4, 23, 3), 44_549_160, 7_801_405_440),
    "resnet152": Row("ResNet-152", "bottleneck", (3, 8, 36, 3), 60_192_808, 11_513_626_624),
}
PLAIN_ROWS = {
    "plain18": Row("Plain-18", "basic", (2, 2, 2, 2), 11_515_688, 1_794_805_760),
    "plain34": Row("Plain-34", "basic", (3, 4, 6, 3), 21_623_848, 3_644_493_824),
}


@dataclass(frozen=True)
class Style:
    """A variant of a network; every block is handed the same one."""

    version: str = "v1"  # "v1" strides on the first 1×1 of a bottleneck, "v1.5" on its 3×3
    shortcut: str = "B"  # "A" or "B" of section 3.3 where shapes change, or "none" for a plain network
    use_bias: bool = False  # convolutions carry biases
    epsilon: float = 1e-5  # of batch normalisation
    zero_init_residual: bool = False  # start every block as the identity
    survival: float = 1.0  # probability that the last block survives a training step; 1 is no stochastic depth
    batch_norm: bool = True  # without it convolutions carry biases


@dataclass(frozen=True)
class Family:
    """The properties that the networks for one data set have in common."""

    stem: Callable[[Any, int, Style], Any]
    widths: tuple[int, ...]
    min_size: int
    num_classes: int
    preprocessing: Preprocessing
    recipe: str


def conv_bn(x: Any, filters: int, kernel: int, *, stride: int = 1, name: str, style: Style, gamma: str = "ones") -> Any:
    """Convolution and, unless left out, batch normalisation; ``name`` holds ``{}`` for ``pad``, ``conv`` and ``bn``."""
    if stride > 1 and kernel > 1:
        x = layers.ZeroPadding2D(kernel // 2, name=name.format("pad"))(x)
    x = layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding="valid" if stride > 1 else "same",
        use_bias=style.use_bias or not style.batch_norm,
        # He et al., ICCV 2015, backward form: standard deviation sqrt(2 / fan-out).
        kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_out", "uniform"),
        name=name.format("conv"),
    )(x)
    if not style.batch_norm:
        return x
    return layers.BatchNormalization(
        momentum=0.9, epsilon=style.epsilon, gamma_initializer=gamma, name=name.format("bn")
    )(x)


def basic_branch(x: Any, width: int, stride: int, *, name: str, style: Style) -> Any:
    """Two 3×3 convolutions (figure 5, left)."""
    x = conv_bn(x, width, 3, stride=stride, name=f"{name}_{{}}1", style=style)
    x = layers.ReLU(name=f"{name}_relu1")(x)
    return conv_bn(x, width, 3, name=f"{name}_{{}}2", style=style, gamma=last_gamma(style))


def bottleneck_branch(x: Any, width: int, stride: int, *, name: str, style: Style) -> Any:
    """1×1 down, 3×3, 1×1 up to four times the width (figure 5, right)."""
    first, middle = (stride, 1) if style.version == "v1" else (1, stride)
    x = conv_bn(x, width, 1, stride=first, name=f"{name}_{{}}1", style=style)
    x = layers.ReLU(name=f"{name}_relu1")(x)
    x = conv_bn(x, width, 3, stride=middle, name=f"{name}_{{}}2", style=style)
    x = layers.ReLU(name=f"{name}_relu2")(x)
    return conv_bn(x, 4 * width, 1, name=f"{name}_{{}}3", style=style, gamma=last_gamma(style))


BRANCHES = {"basic": basic_branch, "bottleneck": bottleneck_branch}


def last_gamma(style: Style) -> str:
    """Initial scale of a branch's last normalisation: with zeros every block starts as the identity (Goyal 2017)."""
    return "zeros" if style.zero_init_residual else "ones"


def shortcut(x: Any, filters: int, stride: int, *, name: str, style: Style) -> Any:
    """The identity where shapes agree; otherwise option A (zero channels) or B (1×1 projection) of section 3.3."""
    if stride == 1 and x.shape[-1] == filters:
        return x
    if style.shortcut == "A":
        return custom.PadChannels(filters, stride, name=f"{name}_shortcut")(x)
    return conv_bn(x, filters, 1, stride=stride, name=f"{name}_shortcut_{{}}", style=style)


def block(x: Any, row: Row, width: int, stride: int, *, name: str, style: Style, survival: float) -> Any:
    """One block: its branch, added to the shortcut unless the network is plain, and rectified."""
    y = BRANCHES[row.block](x, width, stride, name=name, style=style)
    if style.shortcut != "none":
        if survival < 1:
            y = custom.StochasticDepth(survival, name=f"{name}_drop")(y)
        same = shortcut(x, y.shape[-1], stride, name=name, style=style)
        y = layers.Add(name=f"{name}_add")([same, y])
    return layers.ReLU(name=f"{name}_out")(y)


def stages(x: Any, row: Row, widths: tuple[int, ...], style: Style) -> Any:
    """All blocks; the first of every stage but the first halves the feature map.

    Survival falls linearly with depth from 1 at the input to ``style.survival`` at the last block.
    """
    number, total = 0, sum(row.depths)
    for stage, (depth, width) in enumerate(zip(row.depths, widths, strict=True), start=1):
        for index in range(1, depth + 1):
            number += 1
            stride = 2 if index == 1 and stage > 1 else 1
            survival = 1 - number / total * (1 - style.survival)
            x = block(x, row, width, stride, name=f"stage{stage}_block{index}", style=style, survival=survival)
    return x


def network(row: Row, family: Family, style: Style, options: BuildOptions) -> "keras.Model":
    """Stem, stages, global average pooling and logits; or the backbone, pooled or bare."""
    inputs = layers.Input(options.input_shape, name="input")
    x = stages(family.stem(inputs, family.widths[0], style), row, family.widths, style)
    if options.include_top:
        x = parts.logits(parts.pooled(x, "avg"), options.num_classes)
    else:
        x = parts.pooled(x, options.pooling)
    return keras.Model(inputs, x, name=options.name)


def stem(x: Any, width: int, style: Style) -> Any:
    """7×7 convolution and 3×3 maximum, each halving the picture."""
    x = conv_bn(x, width, 7, stride=2, name="stem_{}", style=style)
    x = layers.ReLU(name="stem_relu")(x)
    # Padding with zeros cannot win the maximum wrongly: nothing is negative after the ReLU.
    x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    return layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)


def build_resnet(
    row: Row,
    family: Family,
    options: BuildOptions,
    *,
    width: float = 1.0,
    version: str = "v1.5",
    use_bias: bool = False,
    epsilon: float = 1e-5,
    zero_init_residual: bool = False,
) -> "keras.Model":
    """The residual networks of table 1, output stride 32.

    ``width`` multiplies the channels of every layer, up to 4 times (Zagoruyko and Komodakis, BMVC 2016, have such a
    factor); the other keywords are those of ``Style``.
    """
    parts.one_of("version", version, ["v1", "v1.5"])
    if not isinstance(width, int | float) or not 0 < width <= 4:
        raise UserError(f"width must be a number in (0, 4], got {width!r}; the paper has 1")
    # The first is rounded, and the others follow it: a file of weights tells all of them by it.
    first, *_ = family.widths
    stem_width = max(1, round(width * first))
    family = replace(family, widths=tuple(channels * stem_width // first for channels in family.widths))
    return network(row, family, Style(version, "B", use_bias, epsilon, zero_init_residual), options)


def build_plain(
    row: Row,
    family: Family,
    options: BuildOptions,
    *,
    use_bias: bool = False,
    epsilon: float = 1e-5,
    batch_norm: bool = True,
) -> "keras.Model":
    """The same layers without shortcuts, for either data set; the keywords are those of ``Style``."""
    style = Style(shortcut="none", use_bias=use_bias, epsilon=epsilon, batch_norm=batch_norm)
    return network(row, family, style, options)


DEVIATIONS = (
    "batch normalisation with epsilon 1e-5 and running averages of momentum 0.9: the paper names neither",
    "initial weights have the variance of He et al. (2 / fan-out) but are uniform, not Gaussian: faster to draw",
    parts.LOGITS,
)
V1_5 = "strides on the 3×3 of a bottleneck (v1.5, as torchvision); version='v1' is the paper's"
OPTION_B = (
    "1×1 projections where shapes change, option B, as public checkpoints have; table 3 lists options A and C as well"
)
TWIN = "the residual twin without shortcuts: as figure 3 (middle), whose head is the residual network's too"


def networks(
    rows: dict[str, Row], family: Family, build: Callable[..., Any], *deviations: str, paper: str = PAPER
) -> tuple[ModelInfo, ...]:
    """Describe a table of networks that one builder builds."""
    return tuple(
        ModelInfo(
            name=name,
            title=row.title,
            paper=paper,
            year=2016,
            min_size=family.min_size,
            num_classes=family.num_classes,
            num_params=row.num_params,
            macs=row.macs,
            stages=("stem", *(f"stage{number}" for number, _ in enumerate(row.depths, start=1)), "head"),
            preprocessing=family.preprocessing,
            recipe=family.recipe,
            build=partial(build, row, family),
            deviations=(*deviations, *DEVIATIONS),
        )
        for name, row in rows.items()
    )


FAMILY = Family(stem, (64, 128, 256, 512), 32, num_classes=1000, preprocessing=IMAGENET, recipe="resnet_imagenet")
NETWORKS = (
    *networks(BASIC_ROWS, FAMILY, build_resnet, OPTION_B),
    *networks(BOTTLENECK_ROWS, FAMILY, build_resnet, V1_5),
    *networks(PLAIN_ROWS, FAMILY, build_plain, TWIN),
)
