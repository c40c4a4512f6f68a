"""GoogLeNet (Szegedy et al., CVPR 2015), layer for layer as the two sets of weights that people load.

``googlenet`` answers as Caffe's ``bvlc_googlenet`` does, ``googlenet_bn`` as torchvision's ``googlenet``. Read
downwards: the two networks, the paper's table 1, the blocks, the builder. Stages are numbered as the paper's modules:
stages 1 and 2 are its first convolutions, and what Caffe calls ``inception_4a/3x3_reduce`` is ``stage4_a_reduce3``.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from toolkit.errors import UserError
from toolkit.lazy import keras, layers, lazy_module
from toolkit.models import parts
from toolkit.spec import BuildOptions, ModelInfo, Preprocessing

if TYPE_CHECKING:
    from toolkit import layers as custom
else:
    custom = lazy_module("toolkit.layers")


@dataclass(frozen=True)
class Row:
    """One network: what tells it from the other, and the counts that tests recompute, without auxiliary heads."""

    title: str
    batch_norm: bool  # and no biases; otherwise biases and two local response normalisations
    wide_kernel: int  # where table 1 has 5×5
    last_pool: int  # side of the pooling window behind stage 4
    dropout: float  # in front of the logits
    num_params: int
    macs: int


ROWS = {
    "googlenet": Row("GoogLeNet", False, 5, 3, 0.4, 6_998_552, 1_582_671_872),
    "googlenet_bn": Row("GoogLeNet with batch normalisation", True, 3, 2, 0.2, 6_624_904, 1_498_376_192),
}
# Table 1, per module: 1×1, 3×3 reduce, 3×3, 5×5 reduce, 5×5, pool proj.
MODULES = {
    3: {"a": (64, 96, 128, 16, 32, 32), "b": (128, 128, 192, 32, 96, 64)},
    4: {
        "a": (192, 96, 208, 16, 48, 64),
        "b": (160, 112, 224, 24, 64, 64),
        "c": (128, 128, 256, 24, 64, 64),
        "d": (112, 144, 288, 32, 64, 64),
        "e": (256, 160, 320, 32, 128, 128),
    },
    5: {"a": (256, 160, 320, 32, 128, 128), "b": (384, 192, 384, 48, 128, 128)},
}
# The modules that the auxiliary heads look at.
AUX_HEADS = {"stage4_a": "aux1", "stage4_d": "aux2"}


def weights(row: Row) -> Any:
    """Initial kernels: He's normal where batch normalisation follows, otherwise what Caffe calls ``xavier``."""
    if row.batch_norm:
        return keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal")
    return keras.initializers.VarianceScaling(1.0, "fan_in", "uniform")


def biases(row: Row) -> Any:
    """Initial biases: a little above zero in Caffe's files, so that every ReLU starts open."""
    return keras.initializers.Constant(0.0 if row.batch_norm else 0.2)


def conv(x: Any, filters: int, kernel: int, *, stride: int = 1, name: str, row: Row) -> Any:
    """Convolution, batch normalisation where the row has it, ReLU."""
    if stride > 1:
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
    x = layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding="valid" if stride > 1 else "same",
        use_bias=not row.batch_norm,
        kernel_initializer=weights(row),
        bias_initializer=biases(row),
        name=name,
    )(x)
    if row.batch_norm:
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-3, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def inception(x: Any, widths: tuple[int, ...], *, name: str, row: Row) -> Any:
    """Four branches side by side (figure 2b): 1×1; 1×1 and 3×3; 1×1 and 5×5; pooling and 1×1."""
    one, reduce3, three, reduce5, five, proj = widths
    branch1 = conv(x, one, 1, name=f"{name}_conv1", row=row)
    branch3 = conv(x, reduce3, 1, name=f"{name}_reduce3", row=row)
    branch3 = conv(branch3, three, 3, name=f"{name}_conv3", row=row)
    branch5 = conv(x, reduce5, 1, name=f"{name}_reduce5", row=row)
    branch5 = conv(branch5, five, row.wide_kernel, name=f"{name}_conv5", row=row)
    branch_pool = layers.MaxPooling2D(3, strides=1, padding="same", name=f"{name}_pool")(x)
    branch_pool = conv(branch_pool, proj, 1, name=f"{name}_proj", row=row)
    return layers.Concatenate(name=f"{name}_concat")([branch1, branch3, branch5, branch_pool])


def aux_head(x: Any, num_classes: int, *, name: str, row: Row) -> Any:
    """An auxiliary classifier (section 5): average pooling to 4×4, 1×1 convolution, two dense layers."""
    if row.batch_norm:
        x = layers.AdaptiveAveragePooling2D(4, name=f"{name}_pool")(x)
    else:
        if min(x.shape[1:3]) < 5:
            raise UserError("the auxiliary heads need pictures of at least 79×79; build without aux_heads, or enlarge")
        x = layers.AveragePooling2D(5, strides=3, name=f"{name}_pool")(x)
    x = conv(x, 128, 1, name=f"{name}_conv", row=row)
    x = layers.Flatten(name=f"{name}_flatten")(x)  # 2048
    x = layers.Dense(
        1024, activation="relu", kernel_initializer=weights(row), bias_initializer=biases(row), name=f"{name}_fc"
    )(x)
    x = layers.Dropout(0.7, name=f"{name}_dropout")(x)
    return layers.Dense(num_classes, dtype="float32", kernel_initializer=weights(row), name=f"{name}_logits")(x)


def build_googlenet(row: Row, options: BuildOptions, *, aux_heads: bool = False) -> "keras.Model":
    """The network of table 1; the shapes beside the code are for its 224×224×3.

    Args:
        row: which network.
        aux_heads: also answer the two auxiliary heads' logits, ``{"logits": …, "aux1": …, "aux2": …}``. Their layers'
            names start with ``aux1_`` and ``aux2_``. The recipe ``googlenet`` trains them, and training takes them off.
    """
    if aux_heads and not options.include_top:
        raise UserError("aux_heads=True is for a network that classifies: leave it out, or give include_top=True")
    inputs = layers.Input(options.input_shape, name="input")
    outputs = {}
    x = conv(inputs, 64, 7, stride=2, name="stage1_conv", row=row)  # 112×112×64
    x = parts.max_pool_ceil(x, 3, name="stage1_pool")  # 56×56×64
    if not row.batch_norm:
        x = custom.LocalResponseNormalization(5, 1e-4, 1.0, name="stage1_norm")(x)
    x = conv(x, 64, 1, name="stage2_reduce", row=row)
    x = conv(x, 192, 3, name="stage2_conv", row=row)  # 56×56×192
    if not row.batch_norm:
        x = custom.LocalResponseNormalization(5, 1e-4, 1.0, name="stage2_norm")(x)
    x = parts.max_pool_ceil(x, 3, name="stage2_pool")  # 28×28×192
    for stage, modules in MODULES.items():  # 28×28×480, 14×14×832, 7×7×1024
        for letter, widths in modules.items():
            module = f"stage{stage}_{letter}"
            x = inception(x, widths, name=module, row=row)
            if aux_heads and module in AUX_HEADS:
                outputs[AUX_HEADS[module]] = aux_head(x, options.num_classes, name=AUX_HEADS[module], row=row)
        if stage < 5:
            x = parts.max_pool_ceil(x, row.last_pool if stage == 4 else 3, name=f"stage{stage}_pool")
    if not options.include_top:
        return keras.Model(inputs, parts.pooled(x, options.pooling), name=options.name)
    x = layers.Dropout(row.dropout, name="head_dropout")(parts.pooled(x, "avg"))
    logits = parts.logits(x, options.num_classes, start={"kernel_initializer": weights(row)})
    return keras.Model(inputs, {"logits": logits, **outputs} if outputs else logits, name=options.name)


PAPER = "Szegedy et al., Going deeper with convolutions, CVPR 2015"
DEVIATIONS = (
    "auxiliary heads only where asked for with aux_heads=True; their places are those of the paper",
    "the last pooling is global; the paper's window of 7×7 is the same at 224×224",
    parts.LOGITS,
)
CAFFE = (
    "local response normalisation with size 5, alpha 1e-4 and bias 1, as bvlc_googlenet: the paper prints no constants",
    "weights start uniform with variance 1 / fan-in and biases at 0.2, as bvlc_googlenet: the paper does not say",
    "at other sizes than 224×224 the auxiliary heads pool whole windows of 5×5 only, and their dense layer grows",
)
TORCHVISION = (
    "3×3 where table 1 has 5×5, a known slip of torchvision that its weights depend on",
    "batch normalisation (epsilon 1e-3, running averages of momentum 0.9) after each convolution, none has a bias; "
    "no local response normalisation",
    "2×2 pooling between stages 4 and 5 where the paper has 3×3, and dropout of 0.2 where it has 0.4",
    "auxiliary heads pool to 4×4 with windows of 4×4 that overlap by up to one; the paper's are 5×5 with stride 3",
    "weights start as He's normal; torchvision's narrower one leaves a fresh network's logits near 1e-13 until running "
    "averages have formed, and the paper does not say",
    "inputs lie in -1…1: torchvision normalises with ImageNet's mean and deviation, and then back to this inside the "
    "network (transform_input), because the weights come from TensorFlow",
)
PROJECTS = {
    "googlenet": (
        Preprocessing((224, 224), crop_fraction=0.875, channel_order="bgr", scale=1.0, mean=(104.0, 117.0, 123.0)),
        CAFFE,
    ),
    "googlenet_bn": (
        Preprocessing((224, 224), crop_fraction=0.875, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        TORCHVISION,
    ),
}

NETWORKS = tuple(
    ModelInfo(
        name=name,
        title=ROWS[name].title,
        paper=PAPER,
        year=2015,
        min_size=32,
        num_classes=1000,
        num_params=ROWS[name].num_params,
        macs=ROWS[name].macs,
        stages=("stage1", "stage2", "stage3", "stage4", "stage5", "head"),
        preprocessing=preprocessing,
        recipe="googlenet",
        build=partial(build_googlenet, ROWS[name]),
        deviations=(*deviations, *DEVIATIONS),
    )
    for name, (preprocessing, deviations) in PROJECTS.items()
)
