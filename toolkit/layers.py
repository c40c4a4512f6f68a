"""The layers that Keras lacks, each with its rules for the runtimes it is carried to.

A custom layer is a registered class, so that a saved model loads wherever its module has been imported. Whatever else
the package does with networks asks the layer (``CustomLayer``): nothing outside knows one by name.
"""

from typing import Any, Protocol

import numpy as np

from toolkit.lazy import keras

#: Padding in front, extent and stride, each (down, across).
Window = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


class OnnxGraph(Protocol):
    """An ONNX graph that rules write to, by tensors' names; ``toolkit.engines.onnx_graph`` has it."""

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Append an operation of one output, whose name comes back."""

    def constant(self, name: str, values: Any, dtype: Any = np.float32) -> str:
        """Store a tensor, whose full name comes back."""


class CustomLayer(keras.layers.Layer):
    """Base of custom layers: the rules by which they are counted, drawn and converted.

    Three rules have no default, and a network with a layer that lacks one is refused where it would be needed:

    - ``in_onnx(graph: OnnxGraph, *inputs: str) -> str`` writes the layer's inference, its inputs and its output
      channels first, and answers the output's name.
    - ``in_tensorflow(inputs)`` computes the layer's inference by TensorFlow's own operations: Keras' would do only
      where TensorFlow is the backend. The layer's twin in tf_keras calls it, and has no weights.
    - ``multiply_adds() -> int`` counts those for one picture; a layer without weights that has no such rule counts 0.

    Attributes:
        keep_float: its inside has no int8 form and stays in float in an int8 file.
        keeps_range: what it answers lies in the range of what it is given, so that quantization-aware training needs no
            range for its output.
    """

    keep_float = False
    keeps_range = False

    @property
    def inference_factor(self) -> float | None:
        """Constant that the layer multiplies by at inference, if that is all it does then.

        Such a layer needs no twin: gamma and beta of the batch normalisation before it take the constant in.
        """
        return None

    @property
    def window(self) -> Window | None:
        """Window that the layer moves over a picture; None for a layer that works pixel by pixel."""
        return None

    @property
    def words(self) -> str:
        """Description in a drawing of the network; empty for a layer that is not worth a line."""
        return type(self).__name__

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape


@keras.saving.register_keras_serializable(package="toolkit")
class PadChannels(CustomLayer):
    """Shortcut without parameters: take every ``stride``-th pixel, then pad with zero channels up to ``filters``.

    Option A of He et al. (CVPR 2016, section 3.3) for shortcuts between stages. The paper does not say where the
    zeros go; here half of them stand on each side (the odd one after), as in the public CIFAR checkpoints.

    In LiteRT it is ``STRIDED_SLICE`` and ``PAD``, both builtin, float and int8.

    Args:
        filters: number of output channels, at least that of the input.
        stride: spacing of the pixels kept, in both directions.

    Input ``(N, H, W, C)``, output ``(N, ceil(H / stride), ceil(W / stride), filters)`` of the same dtype.

    >>> PadChannels(32, 2).compute_output_shape((None, 7, 8, 16))
    (None, 4, 4, 32)
    """

    keeps_range = True  # zeros and every ``stride``-th pixel

    def __init__(self, filters: int, stride: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if filters < 1 or stride < 1:
            raise ValueError(f"filters and stride must be positive, got filters={filters}, stride={stride}")
        self.filters = filters
        self.stride = stride

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self._padding(input_shape[-1])
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        if self.stride > 1 and training:
            # The mean of one pixel is the same, without the gradient of a slice, which TensorFlow is slow at.
            inputs = keras.ops.average_pool(inputs, 1, strides=self.stride, data_format="channels_last")
        elif self.stride > 1:
            inputs = inputs[:, :: self.stride, :: self.stride, :]
        return keras.ops.pad(inputs, ((0, 0), (0, 0), (0, 0), self._padding(inputs.shape[-1])))

    def in_onnx(self, graph: OnnxGraph, *inputs: str) -> str:
        (x,) = inputs
        if self.stride > 1:
            ends = {"starts": [0, 0], "ends": [np.iinfo(np.int64).max] * 2, "axes": [2, 3], "steps": [self.stride] * 2}
            x = graph.add("Slice", x, *(graph.constant(name, values, np.int64) for name, values in ends.items()))
        before, after = self._padding(self.input.shape[-1])
        return graph.add("Pad", x, graph.constant("pads", [0, before, 0, 0, 0, after, 0, 0], np.int64))

    def in_tensorflow(self, inputs: Any) -> Any:
        import tensorflow as tf

        if self.stride > 1:
            inputs = inputs[:, :: self.stride, :: self.stride, :]
        return tf.pad(inputs, ((0, 0), (0, 0), (0, 0), self._padding(inputs.shape[-1])))

    @property
    def window(self) -> Window:
        return (0, 0), (1, 1), (self.stride, self.stride)

    @property
    def words(self) -> str:
        return f"zero channels, {self.filters}" + (f", /{self.stride}" if self.stride > 1 else "")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        batch, height, width, _ = input_shape
        return batch, self._kept(height), self._kept(width), self.filters

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filters": self.filters, "stride": self.stride}

    def _kept(self, size: int | None) -> int | None:
        return None if size is None else -(-size // self.stride)

    def _padding(self, channels: int | None) -> tuple[int, int]:
        if channels is None or channels > self.filters:
            raise ValueError(
                f"layer {self.name!r} pads to {self.filters} channels and got {channels}: filters must be at least that"
            )
        missing = self.filters - channels
        return missing // 2, missing - missing // 2


@keras.saving.register_keras_serializable(package="toolkit")
class LocalResponseNormalization(CustomLayer):
    """Divide each activation by a power of the squares around it, across channels.

    ``y = x / (bias + alpha / size · Σ x²) ** 0.75``, the sum over ``size`` neighbouring channels, fewer at the ends.
    Krizhevsky, Sutskever and Hinton (NIPS 2012, section 3.3) print ``alpha`` without the division by ``size``; Caffe
    and torch divide, and so does this layer: the paper's 1e-4 is ``alpha=5e-4`` here.

    Written with operations every runtime has: a 1×1 convolution of the squares with a band of ones gives the sums,
    and ``d ** -0.75`` is ``rsqrt(d) · sqrt(rsqrt(d))``. It equals TensorFlow's own, which no other runtime has.

    In LiteRT it is ``MUL``, ``CONV_2D``, ``RSQRT`` and ``SQRT``, all builtin. In an int8 file they stay in float: the
    divisor runs from 1 to hundreds with a median near 2, and one int8 step of that range is about 1.

    Args:
        size: channels in the sum, odd.
        alpha: weight of the mean square.
        bias: what keeps the divisor from zero; 2 in the paper, 1 in Caffe's models.

    Input and output ``(N, H, W, C)`` of the same dtype; computed in float32 or wider: half precision loses the sum.

    >>> layer = LocalResponseNormalization(size=3, alpha=3.0, bias=1.0)
    >>> [round(float(y), 4) for y in layer(keras.ops.ones((1, 1, 1, 3)))[0, 0, 0]]
    [0.4387, 0.3536, 0.4387]
    """

    keep_float = True
    words = "local response norm"

    def __init__(self, size: int = 5, alpha: float = 1e-4, bias: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if size < 1 or size % 2 == 0:
            raise ValueError(f"size must be odd and positive, got {size}")
        self.size = size
        self.alpha = alpha
        self.bias = bias

    def build(self, input_shape: tuple[Any, ...]) -> None:
        channels = np.arange(input_shape[-1])
        band = np.abs(channels[:, None] - channels[None, :]) <= self.size // 2
        self._band = band.astype(np.float32)[None, None]
        self.built = True

    def call(self, inputs: Any) -> Any:
        x = keras.ops.cast(inputs, "float64" if inputs.dtype == "float64" else "float32")
        sums = keras.ops.conv(
            x * x,
            keras.ops.convert_to_tensor(self._band, x.dtype),
            strides=1,
            padding="valid",
            data_format="channels_last",
        )
        root = keras.ops.rsqrt(self.bias + (self.alpha / self.size) * sums)
        return keras.ops.cast(x * (root * keras.ops.sqrt(root)), inputs.dtype)

    def in_onnx(self, graph: OnnxGraph, *inputs: str) -> str:
        return graph.add("LRN", *inputs, alpha=self.alpha, beta=0.75, bias=self.bias, size=self.size)

    def in_tensorflow(self, inputs: Any) -> Any:
        import tensorflow as tf

        channels = tf.range(inputs.shape[-1])
        band = tf.abs(channels[:, None] - channels[None, :]) <= self.size // 2
        sums = tf.nn.conv2d(inputs * inputs, tf.cast(band, inputs.dtype)[None, None], strides=1, padding="VALID")
        root = tf.math.rsqrt(self.bias + (self.alpha / self.size) * sums)
        return inputs * (root * tf.sqrt(root))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size, "alpha": self.alpha, "bias": self.bias}


@keras.saving.register_keras_serializable(package="toolkit")
class StochasticDepth(CustomLayer):
    """Drop a residual branch for a whole mini-batch while training; scale it by its survival probability otherwise.

    Huang, Sun, Liu, Sedra and Weinberger (ECCV 2016), equations 2 and 5: one draw for all pictures of a mini-batch, not
    one for each as in later "drop path" layers, and no rescaling while training.

    In LiteRT it is ``MUL``, builtin, float and int8.

    Args:
        survival: probability that the branch is kept, in (0, 1].
        seed: for the draws; a random one where None.

    Input and output are of the same shape and dtype.

    >>> float(StochasticDepth(0.75)(keras.ops.ones((1,)))[0])
    0.75
    """

    words = ""

    def __init__(self, survival: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 < survival <= 1:
            raise ValueError(f"survival must be in (0, 1], got {survival}")
        self.survival = survival
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        if not training:
            return inputs * keras.ops.cast(self.survival, inputs.dtype)
        kept = keras.random.uniform((), dtype="float32", seed=self.seed_generator) < self.survival
        return inputs * keras.ops.cast(kept, inputs.dtype)

    def in_onnx(self, graph: OnnxGraph, *inputs: str) -> str:
        return graph.add("Mul", *inputs, graph.constant("survival", self.survival))

    @property
    def inference_factor(self) -> float:
        return self.survival

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "survival": self.survival, "seed": self.seed}


@keras.saving.register_keras_serializable(package="toolkit")
class UnitLength(CustomLayer):
    """Divide each vector by its length, its L2 norm.

    Keras' ``UnitNormalization`` with rules for the other runtimes. In LiteRT it is ``MUL``, ``SUM``, ``MAXIMUM`` and
    ``RSQRT``, all builtin; ``L2_NORMALIZATION``, whose int8 form always counts in steps of 1/128, would keep three bits
    of the entries of a vector of 1,024. In an int8 file they stay in float.

    Input and output ``(N, C)`` of the same dtype; computed in float32 or wider. A vector of zeros stays one.

    >>> [round(float(y), 4) for y in UnitLength()(keras.ops.convert_to_tensor([[3.0, 4.0]]))[0]]
    [0.6, 0.8]
    """

    keep_float = True
    words = "unit length"
    smallest = 1e-12  # of the squared length

    def call(self, inputs: Any) -> Any:
        x = keras.ops.cast(inputs, "float64" if inputs.dtype == "float64" else "float32")
        squares = keras.ops.sum(x * x, axis=-1, keepdims=True)
        return keras.ops.cast(x * keras.ops.rsqrt(keras.ops.maximum(squares, self.smallest)), inputs.dtype)

    def in_onnx(self, graph: OnnxGraph, *inputs: str) -> str:
        squares = graph.add("ReduceSum", graph.add("Mul", *inputs, *inputs), graph.constant("axes", [-1], np.int64))
        length = graph.add("Sqrt", graph.add("Max", squares, graph.constant("smallest", self.smallest)))
        return graph.add("Div", *inputs, length)

    def in_tensorflow(self, inputs: Any) -> Any:
        import tensorflow as tf

        squares = tf.reduce_sum(inputs * inputs, axis=-1, keepdims=True)
        return inputs * tf.math.rsqrt(tf.maximum(squares, self.smallest))


@keras.saving.register_keras_serializable(package="toolkit")
class Least(CustomLayer):
    """The least entry of each vector, less the squares of those of a second one. In an int8 file it stays in float.

    Input ``(N, C)``, or a list of that and ``(N, K)``, output ``(N, 1)`` of the same dtype.

    >>> float(Least()(keras.ops.convert_to_tensor([[3.0, 4.0]]))[0, 0])
    3.0
    >>> float(Least()([keras.ops.convert_to_tensor([[3.0, 4.0]]), keras.ops.convert_to_tensor([[0.5]])])[0, 0])
    2.75
    """

    keep_float = True
    words = ""

    def call(self, inputs: Any) -> Any:
        first, *others = inputs if isinstance(inputs, list | tuple) else [inputs]
        least = keras.ops.min(first, axis=-1, keepdims=True)
        for other in others:
            least = least - keras.ops.sum(keras.ops.square(other), axis=-1, keepdims=True)
        return least

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        first = input_shape[0] if isinstance(input_shape[0], list | tuple) else input_shape
        return (*first[:-1], 1)

    def in_onnx(self, graph: OnnxGraph, *inputs: str) -> str:
        first, *others = inputs
        least = graph.add("ReduceMin", first, axes=[-1], keepdims=1)
        for other in others:
            axes = graph.constant("axes", [-1], np.int64)
            least = graph.add("Sub", least, graph.add("ReduceSum", graph.add("Mul", other, other), axes))
        return least

    def in_tensorflow(self, inputs: Any) -> Any:
        import tensorflow as tf

        first, *others = inputs if isinstance(inputs, list | tuple) else [inputs]
        least = tf.reduce_min(first, axis=-1, keepdims=True)
        for other in others:
            least = least - tf.reduce_sum(tf.square(other), axis=-1, keepdims=True)
        return least


@keras.saving.register_keras_serializable(package="toolkit")
class Elementwise(CustomLayer):
    """A function of each number by itself that no stock layer computes, as networks from others' files hold some.

    In LiteRT it is the operator of that name, builtin, where there is one. In an int8 file it stays in float.

    Args:
        function: one of ``Elementwise.FUNCTIONS``: by this name in ``keras.ops``, in ``tf.math``, and, with a capital
            letter, in ONNX.

    Input and output are of the same shape and dtype.

    >>> Elementwise("sqrt")(keras.ops.convert_to_tensor([9.0, 4.0])).numpy().tolist()
    [3.0, 2.0]
    """

    FUNCTIONS = ("abs", "ceil", "cos", "erf", "exp", "floor", "log", "reciprocal", "sin", "sqrt")
    keep_float = True

    def __init__(self, function: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if function not in self.FUNCTIONS:
            raise ValueError(f"function must be one of {', '.join(self.FUNCTIONS)}, got {function!r}")
        self.function = function

    @property
    def words(self) -> str:
        return self.function

    def call(self, inputs: Any) -> Any:
        return getattr(keras.ops, self.function)(inputs)

    def in_onnx(self, graph: OnnxGraph, *inputs: str) -> str:
        return graph.add(self.function.capitalize(), *inputs)

    def in_tensorflow(self, inputs: Any) -> Any:
        import tensorflow as tf

        return getattr(tf.math, self.function)(inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "function": self.function}
