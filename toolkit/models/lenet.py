"""LeNet-5 (LeCun, Bottou, Bengio and Haffner 1998), the network that read bank cheques, and its sibling for colour."""

from dataclasses import dataclass
from functools import partial

from toolkit.lazy import keras, layers
from toolkit.models import parts
from toolkit.spec import BuildOptions, ModelInfo, Preprocessing

GREY = Preprocessing(size=(32, 32), resize="stretch", channel_order="grey", mean=(0.5,), std=(0.5,))
COLOUR = Preprocessing(size=(32, 32), resize="stretch", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))

SINCE_1998 = (
    "C3 sees all six maps of S2; the paper's table I connects each map to three, four or six of them",
    "S2 and S4 average; the paper's add a trainable coefficient and bias per map and a squashing function",
    "C5 is a dense layer on the flattened maps: the paper's 5×5 convolution, at 32×32, is the same thing",
    "the output is a dense layer of logits; the paper's are Euclidean radial basis functions on fixed codes",
    "plain tanh; the paper scales it to 1.7159·tanh(2/3·x)",
    "Glorot uniform initialisation; the paper draws from ±2.4/fan-in",
    "inputs lie in -1…1; the paper's in -0.1 (white) … 1.175 (black)",
)
IN_COLOUR = (
    "the paper's network is for grey pictures; this one, from lecture notes, has 8 instead of 6 first maps and pools "
    "by maximum",
    "ReLU and Glorot uniform initialisation: the notes name neither",
    parts.LOGITS,
)


@dataclass(frozen=True)
class Row:
    """One network: maps of its two convolutions, what follows them, and the counts that tests recompute."""

    title: str
    maps: tuple[int, int]
    pooling: str
    activation: str
    preprocessing: Preprocessing
    num_params: int
    macs: int
    deviations: tuple[str, ...]


ROWS = {
    "lenet5": Row("LeNet-5", (6, 16), "average", "tanh", GREY, 61_706, 416_520, SINCE_1998),
    "lenet5_rgb": Row("LeNet-5 for colour", (8, 16), "max", "relu", COLOUR, 62_958, 849_320, IN_COLOUR),
}


def build_lenet5(row: Row, options: BuildOptions) -> "keras.Model":
    """Two rounds of 5×5 convolution and pooling, then three dense layers.

    Any input of at least 16×16 will do; the shapes beside the code are LeNet-5's for the paper's 32×32×1.
    """
    pool = {"average": layers.AveragePooling2D, "max": layers.MaxPooling2D}[row.pooling]
    first, second = row.maps
    inputs = layers.Input(options.input_shape, name="input")
    x = layers.Conv2D(first, 5, activation=row.activation, name="stage1_conv")(inputs)  # C1: 28×28×6
    x = pool(2, name="stage1_pool")(x)  # S2: 14×14×6
    x = layers.Conv2D(second, 5, activation=row.activation, name="stage2_conv")(x)  # C3: 10×10×16
    x = pool(2, name="stage2_pool")(x)  # S4: 5×5×16
    if not options.include_top:
        return keras.Model(inputs, parts.pooled(x, options.pooling), name=options.name)
    x = layers.Flatten(name="head_flatten")(x)  # 400
    x = layers.Dense(120, activation=row.activation, name="head_fc1")(x)  # C5
    x = layers.Dense(84, activation=row.activation, name="head_fc2")(x)  # F6
    return keras.Model(inputs, parts.logits(x, options.num_classes), name=options.name)


NETWORKS = tuple(
    ModelInfo(
        name=name,
        title=row.title,
        paper=(
            "LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, "
            "Proceedings of the IEEE 86(11), 1998"
        ),
        year=1998,
        min_size=16,
        num_classes=10,
        num_params=row.num_params,
        macs=row.macs,
        stages=("stage1", "stage2", "head"),
        preprocessing=row.preprocessing,
        recipe="lenet",
        build=partial(build_lenet5, row),
        deviations=row.deviations,
    )
    for name, row in ROWS.items()
)
