"""What residual networks and their plain twins are made of (He, Zhang, Ren and Sun 2016): blocks, stages, the head.

The networks themselves are rows in ``resnet`` (ImageNet) and ``resnet_cifar``. Convolutions pad as torch and
keras.applications do, explicitly where they stride: Keras' ``same`` pads a strided convolution on the other side and
trained weights would then answer differently.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from toolkit.lazy import keras, layers, lazy_module
from toolkit.models import parts
from toolkit.spec import ModelInfo, Preprocessing

custom = lazy_module("toolkit.layers")

PAPER = "He, Zhang, Ren and Sun, Deep residual learning for image recognition, CVPR 2016"
DEVIATIONS = (
    "batch normalisation with epsilon 1e-5 and running averages of momentum 0.9: the paper names neither",
    "initial weights have the variance of He et al. (2 / fan-out) but are uniform, not Gaussian: faster to draw",
    "the last layer gives logits; softmax belongs to the loss and to export",
)


@dataclass(frozen=True)
class Row:
    """One network: its kind of block, blocks per stage, and the counts that tests recompute."""

    title: str
    block: str
    depths: tuple[int, ...]
    num_params: int
    macs: int


@dataclass(frozen=True)
class Style:
    """What variants of one network differ in; every block is handed the same one.

    Attributes:
        version: ``"v1"`` strides on the first 1×1 of a bottleneck, ``"v1.5"`` on its 3×3.
        shortcut: ``"A"`` or ``"B"`` of section 3.3 where shapes change, or ``"none"`` for a plain network.
        use_bias: whether convolutions carry biases.
        epsilon: of batch normalisation.
        zero_init_residual: start every block as the identity.
        survival: probability that the last block survives a training step; 1 is no stochastic depth.
    """

    version: str = "v1"
    shortcut: str = "B"
    use_bias: bool = False
    epsilon: float = 1e-5
    zero_init_residual: bool = False
    survival: float = 1.0


@dataclass(frozen=True)
class Family:
    """What the networks for one data set have in common."""

    stem: Callable[[Any, Style], Any]
    widths: tuple[int, ...]
    min_size: int
    num_classes: int
    preprocessing: Preprocessing
    recipe: str


def conv_bn(x: Any, filters: int, kernel: int, *, stride: int = 1, name: str, style: Style, gamma: str = "ones") -> Any:
    """Convolution and batch normalisation; ``name`` holds ``{}`` where ``pad``, ``conv`` and ``bn`` go."""
    if stride > 1 and kernel > 1:
        x = layers.ZeroPadding2D(kernel // 2, name=name.format("pad"))(x)
    x = layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding="valid" if stride > 1 else "same",
        use_bias=style.use_bias,
        # He et al., ICCV 2015, backward form: standard deviation sqrt(2 / fan-out).
        kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_out", "uniform"),
        name=name.format("conv"),
    )(x)
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


def network(
    row: Row,
    family: Family,
    style: Style,
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    include_top: bool,
    pooling: str | None,
    name: str,
) -> Any:
    """Stem, stages, global average pooling and logits; or the backbone, pooled or bare."""
    inputs = parts.image_input(name, input_shape, min_size=family.min_size)
    x = stages(family.stem(inputs, style), row, family.widths, style)
    x = parts.logits(parts.pooled(x, "avg"), num_classes) if include_top else parts.pooled(x, pooling)
    return keras.Model(inputs, x, name=name)


def networks(
    rows: dict[str, Row], family: Family, build: Callable[..., Any], *, paper: str, deviations: tuple[str, ...]
) -> tuple[ModelInfo, ...]:
    """Describe a table of networks that one builder builds."""
    return tuple(
        ModelInfo(
            name=name,
            title=row.title,
            paper=paper,
            year=2016,
            input_shape=family.preprocessing.input_shape,
            min_size=family.min_size,
            num_classes=family.num_classes,
            num_params=row.num_params,
            macs=row.macs,
            stages=("stem", *(f"stage{number}" for number, _ in enumerate(row.depths, start=1)), "head"),
            preprocessing=family.preprocessing,
            recipe=family.recipe,
            build=partial(build, row),
            deviations=(*deviations, *DEVIATIONS),
        )
        for name, row in rows.items()
    )
