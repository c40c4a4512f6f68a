"""Residual networks for ImageNet (He, Zhang, Ren and Sun 2016, table 1) and their plain twins (figure 3, middle).

Read downwards: the tables of networks, the stem, the builders, the table of networks; the blocks are in ``residual``. A
further depth is a row of a table.
"""

from typing import Any

from toolkit.lazy import layers
from toolkit.models import parts
from toolkit.models.residual import PAPER, Family, Row, Style, conv_bn, network, networks
from toolkit.spec import Preprocessing

IMAGENET = Preprocessing(size=(224, 224), crop_fraction=0.875, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

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


def stem(x: Any, style: Style) -> Any:
    """7×7 convolution and 3×3 maximum, each halving the picture."""
    x = conv_bn(x, 64, 7, stride=2, name="stem_{}", style=style)
    x = layers.ReLU(name="stem_relu")(x)
    # Padding with zeros cannot win the maximum wrongly: nothing is negative after the ReLU.
    x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    return layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)


FAMILY = Family(
    stem=stem,
    widths=(64, 128, 256, 512),
    min_size=32,
    num_classes=1000,
    preprocessing=IMAGENET,
    recipe="resnet_imagenet",
)


def build_resnet(
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
    """The residual networks of table 1.

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
    return network(
        row,
        FAMILY,
        style,
        input_shape=input_shape,
        num_classes=num_classes,
        include_top=include_top,
        pooling=pooling,
        name=name,
    )


def build_plain(
    row: Row,
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    include_top: bool = True,
    pooling: str | None = None,
    name: str,
    use_bias: bool = False,
    epsilon: float = 1e-5,
) -> Any:
    """The same layers without shortcuts; arguments are those of ``build_resnet``."""
    style = Style(shortcut="none", use_bias=use_bias, epsilon=epsilon)
    return network(
        row,
        FAMILY,
        style,
        input_shape=input_shape,
        num_classes=num_classes,
        include_top=include_top,
        pooling=pooling,
        name=name,
    )


V1_5 = "strides on the 3×3 of a bottleneck (v1.5, as torchvision); version='v1' is the paper's"
OPTION_B = (
    "1×1 projections where shapes change, option B, as public checkpoints have; table 3 lists options A and C as well"
)
TWIN = "the residual twin without shortcuts: as figure 3 (middle), whose head is the residual network's too"

NETWORKS = (
    *networks(BASIC_ROWS, FAMILY, build_resnet, paper=PAPER, deviations=(OPTION_B,)),
    *networks(BOTTLENECK_ROWS, FAMILY, build_resnet, paper=PAPER, deviations=(V1_5,)),
    *networks(PLAIN_ROWS, FAMILY, build_plain, paper=PAPER, deviations=(TWIN,)),
)
