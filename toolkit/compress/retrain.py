"""Methods that train on: quantization-aware training, pruning, k-means clustering of the weights."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from toolkit.compress.bridge import from_tf_keras, load_twin
from toolkit.compress.examples import Examples
from toolkit.compress.job import Retraining, finished_job
from toolkit.compress.litert import compact, require_integer, require_layers
from toolkit.errors import UserError, unknown_name
from toolkit.lazy import keras
from toolkit.network import as_classifier
from toolkit.spec import Preprocessing

Preserve = Literal["none", "sparsity", "clusters", "both"]
Pattern = Literal["any", "2:4", "block"]
Schedule = Literal["polynomial", "constant"]
PATTERNS: tuple[Pattern, ...] = get_args(Pattern)


@dataclass(frozen=True)
class Pruning:
    """Settings of magnitude pruning: which weights become zero, and when.

    Attributes:
        sparsity: share of zeros in each pruned kernel, in (0, 1).
        pattern: ``"any"`` weights; ``"2:4"``, two of four neighbours along the input channels, a sparsity of 0.5;
            ``"block"``, whole blocks, in dense kernels only.
        schedule: ``"polynomial"`` rises to ``sparsity`` over three quarters of the steps, ``"constant"`` starts there.
        block: height and width of a block.
        skip: names of layers to leave alone.
    """

    sparsity: float = 0.5
    pattern: Pattern = "any"
    schedule: Schedule = "polynomial"
    block: tuple[int, int] = (1, 4)
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _one_of("pattern", self.pattern, PATTERNS)
        _one_of("schedule", self.schedule, get_args(Schedule))
        if not 0 < self.sparsity < 1:
            raise UserError(f"sparsity must lie between 0 and 1, got {self.sparsity}")
        if self.pattern == "2:4" and self.sparsity != 0.5:
            raise UserError(f"two zeros in four are a sparsity of 0.5, got {self.sparsity}")


@dataclass(frozen=True)
class Clustering:
    """Settings of k-means clustering: how many values a kernel's weights share.

    Attributes:
        num_clusters: different values per kernel, at least 2.
        preserve_sparsity: zeros of an earlier ``prune`` stay zero.
        per_channel: ``num_clusters`` for each output channel of a convolution; best before quantization-aware training.
        skip: names of layers to leave alone.
    """

    num_clusters: int = 16
    preserve_sparsity: bool = False
    per_channel: bool = False
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.num_clusters < 2:
            raise UserError(f"num_clusters must be at least 2, got {self.num_clusters}")


def quantize_aware_train(
    model: "keras.Model",
    *,
    preprocessing: Preprocessing,
    train: Examples,
    validation: Examples | None = None,
    preserve: Preserve = "none",
    keep_float: Collection[str] = (),
    retraining: Retraining | None = None,
) -> bytes:
    """Train a network on while it computes as in int8, and write the int8 file.

    Starts from the trained weights, with ranges taken from training pictures; statistics of batch normalisation stay as
    they are and are folded into the convolutions before them (Jacob et al., CVPR 2018, section 3.2). Runs TensorFlow
    Model Optimization in a process of its own.

    Args:
        model: a classifier of stock layers (see ``to_tf_keras``); not changed. A softmax at its end is left out.
        preprocessing: what it was trained with.
        train: training pictures with labels.
        validation: where given, the epoch that is best on it is kept, the start included.
        preserve: what must survive of an earlier ``prune`` or ``cluster``: its zeros, its clusters, or both.
        keep_float: names of layers to leave in float.
        retraining: epochs, learning rate and so on.

    Returns:
        A LiteRT file like that of ``quantize(model, "int8")``: normalised float32 input of any batch size, float32
        logits out, int8 between them.

    Raises:
        UserError: a layer that cannot be rebuilt or quantized, or examples that do not fit.
    """
    _one_of("preserve", preserve, get_args(Preserve))
    model = as_classifier(model)
    require_layers(model, keep_float)
    options = {"preserve": preserve, "keep_float": list(keep_float)}
    retraining = retraining or Retraining()
    with finished_job("qat", model, options, preprocessing, train, validation, retraining) as directory:
        content = (directory / "result.tflite").read_bytes()
    require_integer(content, model, keep_float)
    return compact(content, [layer.name for layer in model.layers])


def prune(
    model: "keras.Model",
    pruning: Pruning | None = None,
    *,
    preprocessing: Preprocessing,
    train: Examples,
    validation: Examples | None = None,
    retraining: Retraining | None = None,
) -> "keras.Model":
    """Prune a network: train it on while its smallest weights become zero (Zhu and Gupta 2017).

    Zeros save bytes only once the file is compressed (gzip), and time only where a runtime has sparse kernels.

    Args:
        model: not changed; it and what is not listed here are as for ``quantize_aware_train``.
        pruning: how many zeros, and where.
        validation: measured after every epoch, for ``retraining.progress``.
        retraining: at least 1 epoch.

    Returns:
        A float32 copy of ``model`` with the zeros, flat and of logits.

    Raises:
        UserError: a layer that cannot be rebuilt, no kernel to prune, or examples that do not fit.
    """
    pruning, retraining = pruning or Pruning(), retraining or Retraining()
    model = as_classifier(model)
    require_layers(model, pruning.skip)
    if retraining.epochs < 1:
        raise UserError("pruning happens while training: give at least one epoch")
    with finished_job("prune", model, asdict(pruning), preprocessing, train, validation, retraining) as directory:
        return from_tf_keras(load_twin(directory / "result.h5"), model)


def cluster(
    model: "keras.Model",
    clustering: Clustering | None = None,
    *,
    preprocessing: Preprocessing,
    train: Examples,
    validation: Examples | None = None,
    retraining: Retraining | None = None,
) -> "keras.Model":
    """Cluster each kernel's weights by k-means and train on the values they share (Han, Mao and Dally, ICLR 2016).

    Args:
        model: not changed; it and what is not listed here are as for ``quantize_aware_train``.
        clustering: how many values.
        validation: measured after every epoch, for ``retraining.progress``.

    Returns:
        A float32 copy of ``model`` with the shared values, flat and of logits.

    Raises:
        UserError: a layer that cannot be rebuilt, or examples that do not fit.
    """
    clustering, retraining = clustering or Clustering(), retraining or Retraining()
    model = as_classifier(model)
    require_layers(model, clustering.skip)
    with finished_job("cluster", model, asdict(clustering), preprocessing, train, validation, retraining) as directory:
        return from_tf_keras(load_twin(directory / "result.h5"), model)


def _one_of(keyword: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(unknown_name(keyword, str(value), list(allowed)))
