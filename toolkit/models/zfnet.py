"""ZFNet (Zeiler and Fergus 2014), AlexNet after its authors had looked at what its first layers see (figure 3)."""

from typing import TYPE_CHECKING, Any

from toolkit.lazy import keras, layers, lazy_module
from toolkit.models import parts
from toolkit.spec import IMAGENET, BuildOptions, ModelInfo

if TYPE_CHECKING:
    from toolkit import layers as custom
else:
    custom = lazy_module("toolkit.layers")


def norm(x: Any, *, name: str) -> Any:
    """Contrast normalisation across feature maps, with AlexNet's constants."""
    return custom.LocalResponseNormalization(5, 5e-4, 2.0, name=name)(x)


def build_zfnet(options: BuildOptions) -> "keras.Model":
    """Five convolutions and three dense layers; at least 47×47, the shapes beside the code are for 224×224."""
    inputs = layers.Input(options.input_shape, name="input")
    x = layers.ZeroPadding2D(1, name="stage1_pad")(inputs)
    x = parts.conv_relu(x, 96, 7, stride=2, start=parts.HE, name="stage1_conv")  # 110×110×96
    x = parts.max_pool_ceil(x, name="stage1_pool")  # 55×55×96
    x = norm(x, name="stage1_norm")
    x = parts.conv_relu(x, 256, 5, stride=2, start=parts.HE, name="stage2_conv")  # 26×26×256
    x = parts.max_pool_ceil(x, name="stage2_pool")  # 13×13×256
    x = norm(x, name="stage2_norm")
    x = parts.conv_relu(x, 384, 3, start=parts.HE, name="stage3_conv")
    x = parts.conv_relu(x, 384, 3, start=parts.HE, name="stage4_conv")
    x = parts.conv_relu(x, 256, 3, start=parts.HE, name="stage5_conv")
    x = parts.max_pool_ceil(x, name="stage5_pool")  # 6×6×256
    if not options.include_top:
        return keras.Model(inputs, parts.pooled(x, options.pooling), name=options.name)
    x = parts.two_hidden_layers(x, start=parts.HE)
    return keras.Model(inputs, parts.logits(x, options.num_classes), name=options.name)


NETWORKS = (
    ModelInfo(
        name="zfnet",
        title="ZFNet",
        paper="Zeiler and Fergus, Visualizing and understanding convolutional networks, ECCV 2014",
        year=2014,
        min_size=47,
        num_classes=1000,
        num_params=62_357_608,
        macs=1_168_032_896,
        stages=("stage1", "stage2", "stage3", "stage4", "stage5", "head"),
        preprocessing=IMAGENET,
        recipe="zfnet",
        build=build_zfnet,
        deviations=(
            "contrast normalisation is AlexNet's local response normalisation: the paper gives no formula",
            "a pixel of padding before the first convolution and a last, partial window in the poolings: what figure "
            "3's sizes 110, 55, 26, 13 and 6 need and the paper does not mention",
            "He normal initialisation: the paper's 0.01 for every weight would, taken at its word, leave all filters "
            "alike",
            "no renormalisation of first-layer filters whose root mean square exceeds 0.1",
            "normalised by channel statistics; the paper subtracts the mean picture",
            parts.LOGITS,
        ),
    ),
)
