"""The networks that lecture notes begin with: dense baselines, an X-or-O classifier made by hand, and an exercise.

The dense ones show what convolutions are for: on a 200×200×3 picture each of their neurons has 120,000 weights. The
classifier of X and O shows what a convolution does, with filters, pooling and votes that can be followed on paper.
"""

from typing import Any

from toolkit.errors import UserError
from toolkit.lazy import keras, layers, lazy_module
from toolkit.models import parts
from toolkit.spec import BuildOptions, ModelInfo, Preprocessing

np = lazy_module("numpy")

#: What each filter of ``xo`` looks for: a stroke down to the right, a crossing, a stroke up to the right.
XO_FILTERS = (
    ((1, -1, -1), (-1, 1, -1), (-1, -1, 1)),
    ((1, -1, 1), (-1, 1, -1), (1, -1, 1)),
    ((-1, -1, 1), (-1, 1, -1), (1, -1, -1)),
)
#: Which of the three last 2×2 maps' pixels are bright for an X and for an O; a class's votes are their average.
XO_VOTES = (
    (((1, 0), (0, 1)), ((1, 0), (0, 0)), ((0, 1), (1, 0))),
    (((0, 1), (1, 0)), ((0, 0), (0, 0)), ((1, 0), (0, 1))),
)


def build_softmax_regression(options: BuildOptions) -> "keras.Model":
    """One dense layer on the pixels of any picture; what is left of a backbone is the picture."""
    inputs = layers.Input(options.input_shape, name="input")
    if not options.include_top:
        return keras.Model(inputs, parts.pooled(inputs, options.pooling), name=options.name)
    x = layers.Flatten(name="head_flatten")(inputs)
    return keras.Model(inputs, parts.logits(x, options.num_classes), name=options.name)


def build_mlp(options: BuildOptions, *, hidden: tuple[int, ...] = (300, 100), dropout: float = 0.0) -> "keras.Model":
    """Dense layers of ``hidden`` widths on the pixels of any picture, with ``dropout`` behind each where it is not 0; a
    backbone's feature map is 1×1."""
    if not hidden or min(hidden) < 1:
        raise UserError(f"hidden must be one or more positive widths, got {hidden!r}")
    if not 0 <= dropout < 1:
        raise UserError(f"dropout must be in [0, 1), got {dropout!r}")
    inputs = layers.Input(options.input_shape, name="input")
    x = layers.Flatten(name="stage1_flatten")(inputs)
    for number, width in enumerate(hidden, start=1):
        x = layers.Dense(width, activation="relu", kernel_initializer="he_normal", name=f"stage1_fc{number}")(x)
        if dropout:
            x = layers.Dropout(dropout, name=f"stage1_dropout{number}")(x)
    if not options.include_top:
        x = layers.Reshape((1, 1, hidden[-1]), name="stage1_map")(x)
        return keras.Model(inputs, parts.pooled(x, options.pooling), name=options.name)
    return keras.Model(inputs, parts.logits(x, options.num_classes), name=options.name)


def build_exercise_cnn(options: BuildOptions, *, padding: str = "valid") -> "keras.Model":
    """Two rounds of 3×3 convolution and pooling, then two dense layers; ``padding`` is ``"valid"`` or ``"same"``."""
    parts.one_of("padding", padding, ["same", "valid"])
    inputs = layers.Input(options.input_shape, name="input")
    x = layers.Conv2D(32, 3, padding=padding, activation="relu", name="stage1_conv")(inputs)  # 126×126×32
    x = layers.MaxPooling2D(2, name="stage1_pool")(x)  # 63×63×32
    x = layers.Conv2D(32, 3, padding=padding, activation="relu", name="stage2_conv")(x)  # 61×61×32
    x = layers.MaxPooling2D(2, name="stage2_pool")(x)  # 30×30×32
    if not options.include_top:
        return keras.Model(inputs, parts.pooled(x, options.pooling), name=options.name)
    x = layers.Flatten(name="head_flatten")(x)  # 28,800
    x = layers.Dense(128, activation="relu", name="head_fc1")(x)
    return keras.Model(inputs, parts.logits(x, options.num_classes), name=options.name)


def build_xo(options: BuildOptions) -> "keras.Model":
    """Three filters, ReLU, two poolings and votes; its weights are given, and frozen.

    The input is one 9×9 picture of strokes (1) on ground (-1); logit 0 is for X, logit 1 for O.
    """
    if tuple(options.input_shape) != (9, 9, 1) or options.num_classes != 2:
        raise UserError(
            f"{options.name} is made by hand for input_shape=(9, 9, 1) and num_classes=2, "
            f"got input_shape={tuple(options.input_shape)} and num_classes={options.num_classes}"
        )
    inputs = layers.Input(options.input_shape, name="input")
    x = layers.Conv2D(3, 3, use_bias=False, name="stage1_conv")(inputs)  # 7×7×3
    x = layers.ReLU(name="stage1_relu")(x)
    # "same" adds to the right and below only, where windows are partial.
    x = layers.MaxPooling2D(2, padding="same", name="stage1_pool1")(x)  # 4×4×3
    x = layers.MaxPooling2D(2, name="stage1_pool2")(x)  # 2×2×3
    if options.include_top:
        x = layers.Flatten(name="head_flatten")(x)  # 12
        model = keras.Model(inputs, parts.logits(x, options.num_classes), name=options.name)
    else:
        model = keras.Model(inputs, parts.pooled(x, options.pooling), name=options.name)
    for layer_name, weights in xo_weights().items():
        if options.include_top or not layer_name.startswith("head"):
            layer = model.get_layer(layer_name)
            layer.set_weights(weights)
            layer.trainable = False
    return model


def xo_weights() -> dict[str, list[Any]]:
    """The given weights, by layer: a filter answers the mean of its nine products, a class that of its votes."""
    filters = np.moveaxis(np.array(XO_FILTERS, "float32"), 0, -1)[:, :, None] / 9
    votes = np.array(XO_VOTES, "float32")  # class, filter, row, column
    votes /= votes.sum(axis=(1, 2, 3), keepdims=True)
    # Flattening runs over rows, columns and filters.
    return {"stage1_conv": [filters], "head_logits": [votes.transpose(2, 3, 1, 0).reshape(12, 2), np.zeros(2)]}


DIGITS = Preprocessing(size=(28, 28), resize="stretch", channel_order="grey", mean=(0.5,), std=(0.5,))

NETWORKS = (
    ModelInfo(
        name="softmax_regression",
        title="Softmax regression",
        paper=(
            "Bridle, Probabilistic interpretation of feedforward classification network outputs, with relationships "
            "to statistical pattern recognition, Neurocomputing (NATO ASI F 68), 1990"
        ),
        year=1990,
        min_size=1,
        num_classes=10,
        num_params=7_850,
        macs=7_840,
        stages=("head",),
        preprocessing=DIGITS,
        recipe="lenet",
        build=build_softmax_regression,
        deviations=(parts.LOGITS,),
    ),
    ModelInfo(
        name="mlp",
        title="Multilayer perceptron",
        paper=(
            "LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, "
            "Proceedings of the IEEE 86(11), 1998, section III.C: 28×28-300-100-10"
        ),
        year=1998,
        min_size=1,
        num_classes=10,
        num_params=266_610,
        macs=266_200,
        stages=("stage1", "head"),
        preprocessing=DIGITS,
        recipe="lenet",
        build=build_mlp,
        deviations=("ReLU and He normal initialisation; the paper has scaled tanh and uniform weights", parts.LOGITS),
    ),
    ModelInfo(
        name="exercise_cnn",
        title="Exercise network",
        paper="no paper: an exercise in lecture notes on convolutional networks, whose case studies end with 2015",
        year=2015,
        min_size=10,
        num_classes=10,
        num_params=3_697_962,
        macs=51_697_280,
        stages=("stage1", "stage2", "head"),
        preprocessing=Preprocessing(size=(128, 128), resize="stretch"),
        recipe="modern",
        build=build_exercise_cnn,
        deviations=("the exercise leaves padding open: none, unless padding='same'", parts.LOGITS),
    ),
    ModelInfo(
        name="xo",
        title="X or O",
        paper="no paper: Rohrer, How convolutional neural networks work, 2016, as retold in lecture notes",
        year=2016,
        min_size=9,
        num_classes=2,
        num_params=0,
        macs=1_347,
        stages=("stage1", "head"),
        preprocessing=Preprocessing(size=(9, 9), resize="stretch", channel_order="grey", mean=(0.5,), std=(0.5,)),
        recipe="lenet",
        build=build_xo,
        deviations=(
            "weights are given and frozen, so that no parameter is trainable and training changes nothing",
            "the votes carry a bias of zero, as every classifier here",
            "the votes are logits: the notes compare them as they are",
        ),
    ),
)
