"""Methods that train on: quantization-aware training, pruning, k-means clustering of the weights."""

import json
import math
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

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
#: Kernels with fewer values than this are neither pruned nor clustered: there is nothing to win.
MIN_WEIGHTS = 256


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
    examples = {"preprocessing": preprocessing, "train": train, "validation": validation}
    return quantized_training(model, preserve=preserve, keep_float=keep_float, retraining=retraining, **examples)[0]


@dataclass(frozen=True)
class TrainingFacts:
    """Facts about a training that is done.

    Attributes:
        trained: parameters that it moved.
        untouched: layers whose kernel it left as it was.
        kept_epoch: whose weights were kept, counted from 1; 0 where the start was best on validation.
    """

    trained: int
    untouched: list[str]
    kept_epoch: int


def quantized_training(
    model: "keras.Model",
    *,
    preserve: Preserve,
    keep_float: Collection[str],
    retraining: Retraining | None,
    **examples: Any,
) -> tuple[bytes, TrainingFacts]:
    """Train as ``quantize_aware_train`` does, and tell beside its file what the training did."""
    _one_of("preserve", preserve, get_args(Preserve))
    model = as_classifier(model)
    keep_float = require_layers(model, keep_float)
    options = {"preserve": preserve, "keep_float": list(keep_float)}
    with finished_job("qat", model, options, retraining=retraining or Retraining(), **examples) as directory:
        content = (directory / "result.tflite").read_bytes()
        facts = TrainingFacts(**json.loads((directory / "training.json").read_text()))
    require_integer(content, model, keep_float)
    return compact(content, [layer.name for layer in model.layers]), facts


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
        validation: measured after every epoch, for the log.
        retraining: at least 1 epoch.

    Returns:
        A float32 copy of ``model`` with the zeros, flat and of logits.

    Raises:
        UserError: a layer that cannot be rebuilt, no kernel to prune, or examples that do not fit.
    """
    pruning, retraining = pruning or Pruning(), retraining or Retraining()
    model = as_classifier(model)
    if retraining.epochs < 1:
        raise UserError("pruning happens while training: give at least one epoch")
    options = _with_layers(pruning, kernels_to_change(model, pruning))
    with finished_job("prune", model, options, preprocessing, train, validation, retraining) as directory:
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
        validation: measured after every epoch, for the log.

    Returns:
        A float32 copy of ``model`` with the shared values, flat and of logits.

    Raises:
        UserError: a layer that cannot be rebuilt, or examples that do not fit.
    """
    clustering, retraining = clustering or Clustering(), retraining or Retraining()
    model = as_classifier(model)
    options = _with_layers(clustering, kernels_to_change(model, clustering))
    with finished_job("cluster", model, options, preprocessing, train, validation, retraining) as directory:
        return from_tf_keras(load_twin(directory / "result.h5"), model)


def kernels_to_change(model: "keras.Model", settings: Pruning | Clustering) -> tuple[str, ...]:
    """Name the layers whose kernels a method changes, whether or not the network's own training had frozen them.

    Dense layers and convolutions of at least ``MIN_WEIGHTS`` weights; under blocks the dense ones alone.

    Raises:
        UserError: there is none, or a layer to skip is not there.
    """
    skipped = require_layers(model, settings.skip)
    blocks = isinstance(settings, Pruning) and settings.pattern == "block"
    kinds = (keras.layers.Dense,) if blocks else (keras.layers.Dense, keras.layers.Conv2D)
    found = tuple(
        layer.name
        for layer in model.layers
        if isinstance(layer, kinds)
        and not isinstance(layer, keras.layers.Conv2DTranspose)
        and math.prod(layer.kernel.shape) >= MIN_WEIGHTS
        and layer.name not in skipped
    )
    if not found:
        kind = "dense layer" if blocks else "dense layer or convolution"
        raise UserError(f"{model.name}: nothing to change: it has no {kind} of {MIN_WEIGHTS} weights or more")
    return found


def _with_layers(settings: Pruning | Clustering, layers: tuple[str, ...]) -> dict[str, Any]:
    options = asdict(settings) | {"layers": layers}
    del options["skip"]
    return options


def _one_of(keyword: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(unknown_name(keyword, str(value), list(allowed)))
