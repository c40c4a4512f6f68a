"""AlexNet (Krizhevsky, Sutskever and Hinton 2012), with Caffe's two layouts of it, and its single tower of 2014.

Read downwards: the layouts, which say what stands between the convolutions, the two builders, the table of networks.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.errors import UserError
from toolkit.lazy import keras, layers, lazy_module
from toolkit.models import parts
from toolkit.spec import IMAGENET, BuildOptions, ModelInfo

if TYPE_CHECKING:
    from toolkit import layers as custom
else:
    custom = lazy_module("toolkit.layers")


@dataclass(frozen=True)
class Layout:
    """Local response normalisation in the convention of ``toolkit.layers``, before or after the pooling."""

    alpha: float
    bias: float
    norm_first: bool


LAYOUTS = {
    "paper": Layout(5e-4, 2.0, norm_first=True),  # the paper's 1e-4 is not divided by its window of five
    "bvlc_alexnet": Layout(1e-4, 1.0, norm_first=True),
    "bvlc_reference_caffenet": Layout(1e-4, 1.0, norm_first=False),
}


def normal(bias: str = "zeros") -> dict[str, Any]:
    """Initializers of section 5: weights from N(0, 0.01), biases of one in some layers."""
    return {"kernel_initializer": keras.initializers.RandomNormal(stddev=0.01), "bias_initializer": bias}


def norm_and_pool(x: Any, layout: Layout, *, stage: str) -> Any:
    """Response normalisation (section 3.3) and overlapping pooling (section 3.4), in the layout's order."""
    norm = custom.LocalResponseNormalization(5, layout.alpha, layout.bias, name=f"{stage}_norm")
    if layout.norm_first:
        return parts.max_pool_ceil(norm(x), name=f"{stage}_pool")
    return norm(parts.max_pool_ceil(x, name=f"{stage}_pool"))


def pool(x: Any, *, name: str) -> Any:
    """Overlapping pooling of whole windows only, as torch's."""
    return layers.MaxPooling2D(3, strides=2, name=name)(x)


def six_by_six(x: Any, name: str) -> Any:
    """Torch's adaptive average pooling where it divides evenly: repeat pixels up to 6×6, or average down to it.

    Not by Keras' layer of that name, which cannot be exported for batches of any size.

    Raises:
        UserError: a side of the map neither divides six nor is a multiple of it.
    """
    sides = x.shape[1:3]
    if any(6 % side and side % 6 for side in sides):
        raise UserError(
            f"the head of {name} takes maps of 6×6 and cannot make them of {sides[0]}×{sides[1]}; "
            f"give an input_shape with sides of 63 to 158, 223 to 254 or 415 to 446"
        )
    repeats, windows = tuple(max(1, 6 // side) for side in sides), tuple(max(1, side // 6) for side in sides)
    if repeats != (1, 1):
        x = layers.UpSampling2D(repeats, name="head_repeat")(x)
    if windows != (1, 1):
        x = layers.AveragePooling2D(windows, name="head_pool")(x)
    return x


def build_alexnet(options: BuildOptions, *, layout: str = "paper") -> "keras.Model":
    """Figure 2; the two towers are two groups of channels, which meet in the third convolution.

    Args:
        layout: ``"paper"``, or that of Caffe's weights: ``"bvlc_alexnet"`` or ``"bvlc_reference_caffenet"``.
    """
    parts.one_of("layout", layout, list(LAYOUTS))
    inputs = layers.Input(options.input_shape, name="input")
    x = parts.conv_relu(inputs, 96, 11, stride=4, start=normal(), name="stage1_conv")  # 55×55×96
    x = norm_and_pool(x, LAYOUTS[layout], stage="stage1")  # 27×27×96
    x = parts.conv_relu(x, 256, 5, groups=2, start=normal("ones"), name="stage2_conv")
    x = norm_and_pool(x, LAYOUTS[layout], stage="stage2")  # 13×13×256
    x = parts.conv_relu(x, 384, 3, start=normal(), name="stage3_conv")
    x = parts.conv_relu(x, 384, 3, groups=2, start=normal("ones"), name="stage4_conv")
    x = parts.conv_relu(x, 256, 3, groups=2, start=normal("ones"), name="stage5_conv")
    x = parts.max_pool_ceil(x, name="stage5_pool")  # 6×6×256
    if not options.include_top:
        return keras.Model(inputs, parts.pooled(x, options.pooling), name=options.name)
    x = parts.two_hidden_layers(x, start=normal("ones"))  # with dropout, section 4.2
    return keras.Model(inputs, parts.logits(x, options.num_classes, start=normal()), name=options.name)


def build_alexnet_owt(options: BuildOptions) -> "keras.Model":
    """One tower, no groups and no normalisation; the shapes beside the code are for 224×224.

    Pictures are of 63 to 158, 223 to 254 or 415 to 446 pixels a side, those of a backbone of any from 63.
    """
    inputs = layers.Input(options.input_shape, name="input")
    x = layers.ZeroPadding2D(2, name="stage1_pad")(inputs)
    x = parts.conv_relu(x, 64, 11, stride=4, start=parts.HE, name="stage1_conv")  # 55×55×64
    x = pool(x, name="stage1_pool")  # 27×27×64
    x = parts.conv_relu(x, 192, 5, start=parts.HE, name="stage2_conv")
    x = pool(x, name="stage2_pool")  # 13×13×192
    x = parts.conv_relu(x, 384, 3, start=parts.HE, name="stage3_conv")
    x = parts.conv_relu(x, 256, 3, start=parts.HE, name="stage4_conv")
    x = parts.conv_relu(x, 256, 3, start=parts.HE, name="stage5_conv")
    x = pool(x, name="stage5_pool")  # 6×6×256
    if not options.include_top:
        return keras.Model(inputs, parts.pooled(x, options.pooling), name=options.name)
    x = parts.two_hidden_layers(six_by_six(x, options.name), start=parts.HE)
    return keras.Model(inputs, parts.logits(x, options.num_classes), name=options.name)


STAGES = ("stage1", "stage2", "stage3", "stage4", "stage5", "head")
CENTRED = "each channel's mean is subtracted; the paper subtracts the mean picture"

NETWORKS = (
    ModelInfo(
        name="alexnet",
        title="AlexNet",
        paper=(
            "Krizhevsky, Sutskever and Hinton, ImageNet classification with deep convolutional neural networks, "
            "NIPS 2012"
        ),
        year=2012,
        min_size=39,
        num_classes=1000,
        num_params=60_965_224,
        macs=724_406_816,
        stages=STAGES,
        preprocessing=parts.IMAGENET_MEAN.resized((227, 227)),
        recipe="alexnet",
        build=build_alexnet,
        deviations=(
            "pictures of 227×227: the paper's 224×224 do not give its 55×55 maps without padding it does not mention",
            "the towers on two GPUs are two groups of one convolution",
            "layout='bvlc_alexnet' has Caffe's normalisation constants (bias 1, alpha divided by the window), "
            "'bvlc_reference_caffenet' normalises after pooling; the default is the paper's",
            "at sizes other than 227×227 pooling keeps a last, partial window, as Caffe does: the paper has one size",
            CENTRED,
            parts.LOGITS,
        ),
    ),
    ModelInfo(
        name="alexnet_owt",
        title="AlexNet, one tower",
        paper="Krizhevsky, One weird trick for parallelizing convolutional neural networks, arXiv:1404.5997, 2014",
        year=2014,
        min_size=63,
        num_classes=1000,
        num_params=61_100_840,
        macs=714_188_480,
        stages=STAGES,
        preprocessing=IMAGENET,
        recipe="alexnet",
        build=build_alexnet_owt,
        deviations=(
            "torchvision's widths: its fourth convolution has 256 filters, the paper's 384",
            "other maps than 6×6 are averaged to that as in torchvision, but only where the sides divide evenly",
            "dropout follows the hidden layers, as in 2012; torchvision's precedes them, the same at inference",
            "He normal initialisation: the paper names none",
            parts.LOGITS,
        ),
    ),
)
