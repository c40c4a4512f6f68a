"""The small residual networks for CIFAR (He, Zhang, Ren and Sun 2016, section 4.2), their plain twins, and networks of
stochastic depth (Huang, Sun, Liu, Sedra and Weinberger, ECCV 2016).

A network of n blocks a stage has 6n + 2 weighted layers. The blocks are in ``resnet``.
"""

from dataclasses import replace
from typing import Any

from toolkit.errors import UserError
from toolkit.lazy import keras, layers
from toolkit.models import parts
from toolkit.models.resnet import Family, Row, Style, build_plain, conv_bn, network, networks
from toolkit.spec import BuildOptions

ROWS = {
    "resnet20": Row("ResNet-20", "basic", (3, 3, 3), 269_722, 40_551_040),
    "resnet32": Row("ResNet-32", "basic", (5, 5, 5), 464_154, 68_862_592),
    "resnet44": Row("ResNet-44", "basic", (7, 7, 7), 658_586, 97_174_144),
    "resnet56": Row("ResNet-56", "basic", (9, 9, 9), 853_018, 125_485_696),
    "resnet110": Row("ResNet-110", "basic", (18, 18, 18), 1_727_962, 252_887_680),
}
# Option A has no parameters and no multiply-adds, so twins have the counts of the residual network.
PLAIN_ROWS = {
    name.replace("resnet", "plain"): replace(row, title=row.title.replace("ResNet", "Plain"))
    for name, row in ROWS.items()
}
STOCHASTIC_ROWS = {
    f"{name}_sd": replace(ROWS[name], title=f"{ROWS[name].title} with stochastic depth")
    for name in ("resnet56", "resnet110")
}


def stem(x: Any, width: int, style: Style) -> Any:
    """One 3×3 convolution at full size."""
    x = conv_bn(x, width, 3, name="stem_{}", style=style)
    return layers.ReLU(name="stem_relu")(x)


def build_resnet(
    row: Row,
    family: Family,
    options: BuildOptions,
    *,
    shortcut: str = "A",
    use_bias: bool = False,
    epsilon: float = 1e-5,
    zero_init_residual: bool = False,
) -> "keras.Model":
    """A 3×3 stem and three stages of basic blocks, output stride 4.

    The keywords are those of ``Style``; where shapes change, the paper's shortcut is ``"A"``, zero channels and no
    parameters, and ``"B"`` is 1×1 projections.
    """
    parts.one_of("shortcut", shortcut, ["A", "B"])
    return network(row, family, Style("v1", shortcut, use_bias, epsilon, zero_init_residual), options)


def build_stochastic(
    row: Row, family: Family, options: BuildOptions, *, shortcut: str = "A", survival: float = 0.5
) -> "keras.Model":
    """The residual network whose blocks are dropped at random while it trains.

    ``survival`` is the probability in (0, 1] that the last block survives a mini-batch; that of the others rises
    linearly to 1 towards the input (Huang et al., section 3).
    """
    parts.one_of("shortcut", shortcut, ["A", "B"])
    if not 0 < survival <= 1:
        raise UserError(f"survival must be in (0, 1], got {survival}; the paper has 0.5")
    return network(row, family, Style(shortcut=shortcut, survival=survival), options)


HUANG = "Huang, Sun, Liu, Sedra and Weinberger, Deep networks with stochastic depth, ECCV 2016"
OPTION_A = "option A pads half of the zero channels on each side, as public checkpoints do: the paper does not say"
TWIN = "the residual twin without shortcuts, head and normalisation included"
DROPPED = (
    "a dropped block is multiplied by zero: it is computed all the same, which saves no time, and its running averages "
    "move; the paper skips it"
)

FAMILY = Family(stem, (16, 32, 64), 8, num_classes=10, preprocessing=parts.CIFAR10, recipe="resnet_cifar")
STOCHASTIC_FAMILY = replace(FAMILY, recipe="stochastic_depth")
NETWORKS = (
    *networks(ROWS, FAMILY, build_resnet, OPTION_A),
    *networks(PLAIN_ROWS, FAMILY, build_plain, TWIN),
    *networks(STOCHASTIC_ROWS, STOCHASTIC_FAMILY, build_stochastic, DROPPED, OPTION_A, paper=HUANG),
)
