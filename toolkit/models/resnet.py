"""Residual networks (He, Zhang, Ren and Sun 2016) for ImageNet (section 4.1) and CIFAR (section 4.2).

Read downwards: the two data sets, the table of networks, the blocks, the builders, the registration. A further depth
is a row of the table. Convolutions pad as torch and keras.applications do, explicitly where they stride: Keras'
``same`` pads a strided convolution on the other side and trained weights would then answer differently.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

from toolkit.lazy import lazy_module
from toolkit.models import parts
from toolkit.registry import register
from toolkit.spec import ModelInfo, Preprocessing

keras = lazy_module("keras")
layers = lazy_module("keras.layers")
custom = lazy_module("toolkit.layers")

CIFAR = Preprocessing(size=(32, 32), resize="stretch", mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
IMAGENET = Preprocessing(size=(224, 224), crop_fraction=0.875, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Row:
    """One network: its kind of block, blocks per stage, and the counts that tests recompute."""

    title: str
    block: str
    depths: tuple[int, ...]
    num_params: int
    macs: int


IMAGENET_ROWS = {
    "resnet50": Row("ResNet-50", "bottleneck", (3, 4, 6, 3), 25_557_032, 4_089_184_256),
}
CIFAR_ROWS = {
    "resnet20": Row("ResNet-20", "basic", (3, 3, 3), 269_722, 40_551_040),
}
IMAGENET_WIDTHS = (64, 128, 256, 512)
CIFAR_WIDTHS = (16, 32, 64)


@dataclass(frozen=True)
class Style:
    """What variants of one network differ in; every block is handed the same one."""

    version: str
    shortcut: str
    use_bias: bool
    epsilon: float
    zero_init_residual: bool


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
        kernel_initializer=keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
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


def stages(x: Any, row: Row, widths: tuple[int, ...], style: Style) -> Any:
    """All residual blocks; the first block of every stage but the first halves the feature map."""
    for stage, (depth, width) in enumerate(zip(row.depths, widths, strict=True), start=1):
        for block in range(1, depth + 1):
            stride = 2 if block == 1 and stage > 1 else 1
            name = f"stage{stage}_block{block}"
            branch = BRANCHES[row.block](x, width, stride, name=name, style=style)
            same = shortcut(x, branch.shape[-1], stride, name=name, style=style)
            x = layers.Add(name=f"{name}_add")([same, branch])
            x = layers.ReLU(name=f"{name}_out")(x)
    return x


def head(x: Any, *, include_top: bool, num_classes: int, pooling: str | None) -> Any:
    """Global average pooling and logits, or the bare backbone."""
    if not include_top:
        return parts.pooled(x, pooling)
    return parts.logits(parts.pooled(x, "avg"), num_classes)


def build_imagenet(
    row: Row,
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    include_top: bool = True,
    pooling: str | None = None,
    name: str,
    version: str = "v1.5",
    use_bias: bool = False,
    epsilon: float = 1e-5,
    zero_init_residual: bool = False,
) -> Any:
    """The ImageNet networks of table 1.

    Args:
        row: which network.
        input_shape: ``(height, width, channels)``, at least 32×32.
        num_classes: number of logits.
        include_top: with pooling and logits, or only the backbone (output stride 32).
        pooling: what pools a backbone's feature map: None, ``"avg"`` or ``"max"``.
        name: name of the model.
        version: ``"v1.5"`` strides on the 3×3 of a bottleneck (torchvision), ``"v1"`` on the first 1×1 (the paper,
            keras.applications); networks of basic blocks are the same in both.
        use_bias: whether convolutions carry biases, as those of keras.applications do.
        epsilon: of batch normalisation; keras.applications has 1.001e-5.
        zero_init_residual: start every block as the identity.
    """
    parts.one_of("version", version, ["v1", "v1.5"])
    style = Style(version, "B", use_bias, epsilon, zero_init_residual)
    inputs = parts.image_input(name, input_shape, min_size=32)
    x = conv_bn(inputs, 64, 7, stride=2, name="stem_{}", style=style)
    x = layers.ReLU(name="stem_relu")(x)
    # Padding with zeros cannot win the maximum wrongly: nothing is negative after the ReLU.
    x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)
    x = stages(x, row, IMAGENET_WIDTHS, style)
    outputs = head(x, include_top=include_top, num_classes=num_classes, pooling=pooling)
    return keras.Model(inputs, outputs, name=name)


def build_cifar(
    row: Row,
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    include_top: bool = True,
    pooling: str | None = None,
    name: str,
    shortcut: str = "A",
    use_bias: bool = False,
    epsilon: float = 1e-5,
    zero_init_residual: bool = False,
) -> Any:
    """The CIFAR networks: a 3×3 stem and three stages of basic blocks, output stride 4.

    Arguments are those of ``build_imagenet`` (pictures from 8×8), but for ``shortcut``: ``"A"``, zero channels and no
    parameters, as in the paper, or ``"B"``, 1×1 projections.
    """
    parts.one_of("shortcut", shortcut, ["A", "B"])
    style = Style("v1", shortcut, use_bias, epsilon, zero_init_residual)
    inputs = parts.image_input(name, input_shape, min_size=8)
    x = conv_bn(inputs, CIFAR_WIDTHS[0], 3, name="stem_{}", style=style)
    x = layers.ReLU(name="stem_relu")(x)
    x = stages(x, row, CIFAR_WIDTHS, style)
    outputs = head(x, include_top=include_top, num_classes=num_classes, pooling=pooling)
    return keras.Model(inputs, outputs, name=name)


PAPER = "He, Zhang, Ren and Sun, Deep residual learning for image recognition, CVPR 2016"
DEVIATIONS = (
    "batch normalisation with epsilon 1e-5 and running averages of momentum 0.9: the paper names neither",
    "the last layer gives logits; softmax belongs to the loss and to export",
)
V1_5 = "strides on the 3×3 of a bottleneck (v1.5, as torchvision); version='v1' is the paper's"
OPTION_A = "option A pads half of the zero channels on each side, as public checkpoints do: the paper does not say"
FAMILIES = (
    (IMAGENET_ROWS, build_imagenet, IMAGENET, 32, 1000, "resnet_imagenet", V1_5),
    (CIFAR_ROWS, build_cifar, CIFAR, 8, 10, "resnet_cifar", OPTION_A),
)

for _rows, _build, _preprocessing, _min_size, _num_classes, _recipe, _deviation in FAMILIES:
    for _name, _row in _rows.items():
        register(
            ModelInfo(
                name=_name,
                title=_row.title,
                paper=PAPER,
                year=2016,
                input_shape=_preprocessing.input_shape,
                min_size=_min_size,
                num_classes=_num_classes,
                num_params=_row.num_params,
                macs=_row.macs,
                stages=("stem", *(f"stage{number}" for number, _ in enumerate(_row.depths, start=1)), "head"),
                preprocessing=_preprocessing,
                recipe=_recipe,
                build=partial(_build, _row),
                deviations=(_deviation, *DEVIATIONS),
            )
        )
