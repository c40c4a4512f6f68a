"""LeNet-5 (LeCun, Bottou, Bengio and Haffner 1998), the network that read bank cheques."""

from typing import Any

from toolkit.lazy import lazy_module
from toolkit.models import parts
from toolkit.registry import register
from toolkit.spec import ModelInfo, Preprocessing

keras = lazy_module("keras")
layers = lazy_module("keras.layers")


def build_lenet5(
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    include_top: bool = True,
    pooling: str | None = None,
    name: str,
) -> Any:
    """Two rounds of 5×5 convolution, tanh and averaging, then three dense layers.

    Any input of at least 16×16 will do; the shapes beside the code are for the paper's 32×32×1.
    """
    inputs = parts.image_input(name, input_shape, min_size=16)
    x = layers.Conv2D(6, 5, activation="tanh", name="stage1_conv")(inputs)  # C1: 28×28×6
    x = layers.AveragePooling2D(2, name="stage1_pool")(x)  # S2: 14×14×6
    x = layers.Conv2D(16, 5, activation="tanh", name="stage2_conv")(x)  # C3: 10×10×16
    x = layers.AveragePooling2D(2, name="stage2_pool")(x)  # S4: 5×5×16
    if not include_top:
        return keras.Model(inputs, parts.pooled(x, pooling), name=name)
    x = layers.Flatten(name="head_flatten")(x)  # 400
    x = layers.Dense(120, activation="tanh", name="head_fc1")(x)  # C5
    x = layers.Dense(84, activation="tanh", name="head_fc2")(x)  # F6
    return keras.Model(inputs, parts.logits(x, num_classes), name=name)


register(
    ModelInfo(
        name="lenet5",
        title="LeNet-5",
        paper=(
            "LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, "
            "Proceedings of the IEEE 86(11), 1998"
        ),
        year=1998,
        input_shape=(32, 32, 1),
        min_size=16,
        num_classes=10,
        num_params=61_706,
        macs=416_520,
        stages=("stage1", "stage2", "head"),
        preprocessing=Preprocessing(
            size=(32, 32), resize="stretch", channel_order="grey", scale=1 / 255, mean=(0.5,), std=(0.5,)
        ),
        recipe="lenet",
        build=build_lenet5,
        deviations=(
            "C3 sees all six maps of S2; the paper's table I connects each map to three, four or six of them",
            "S2 and S4 average; the paper's add a trainable coefficient and bias per map and a squashing function",
            "C5 is a dense layer on the flattened maps: the paper's 5×5 convolution, at 32×32, is the same thing",
            "the output is a dense layer of logits; the paper's are Euclidean radial basis functions on fixed codes",
            "plain tanh; the paper scales it to 1.7159·tanh(2/3·x)",
            "Glorot uniform initialisation; the paper draws from ±2.4/fan-in",
            "inputs lie in -1…1; the paper's in -0.1 (white) … 1.175 (black)",
        ),
    )
)
