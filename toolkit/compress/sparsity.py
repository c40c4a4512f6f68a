"""Pruning and clustering with TensorFlow Model Optimization. Runs in the worker only: it imports that package."""

import functools
from typing import Any

#: Kernels with fewer values than this are left alone: there is nothing to win.
MIN_WEIGHTS = 256


def pruned(
    model: Any, *, total_steps: int, sparsity: float, pattern: str, schedule: str, block: list[int], skip: list[str]
) -> tuple[Any, Any]:
    """A copy of a tf_keras network that loses its smallest weights while it trains, and the callback that this needs.

    Args:
        model: not changed.
        total_steps: training steps; the last quarter trains at full sparsity.
        sparsity: share of zeros in the end.
        pattern: ``"any"``; ``"2:4"``, two zeros in four neighbours along the input channels; or ``"block"``, whole
            blocks of dense kernels.
        schedule: ``"polynomial"`` rises to ``sparsity``, ``"constant"`` starts there.
        block: height and width for ``"block"``.
        skip: names of layers to leave alone.
    """
    import tensorflow_model_optimization as tfmot
    import tf_keras

    api = tfmot.sparsity.keras
    patterns: dict[str, dict[str, Any]] = {
        "any": {},
        "2:4": {"sparsity_m_by_n": (2, 4)},
        "block": {"block_size": tuple(block), "block_pooling_type": "AVG"},
    }
    # A mask follows the schedule every `frequency` steps, and has to at least a few times.
    frequency = max(1, min(100, total_steps // 20))
    end = max(1, 3 * total_steps // 4)
    schedules = {
        "polynomial": lambda: api.PolynomialDecay(0.0, sparsity, 0, end, frequency=frequency),
        "constant": lambda: api.ConstantSparsity(sparsity, 0, frequency=frequency),
    }
    kinds = (tf_keras.layers.Dense,) if pattern == "block" else (tf_keras.layers.Dense, tf_keras.layers.Conv2D)

    def wrap(layer: Any) -> Any:
        if layer.name in skip or not _is_kernel(layer, kinds):
            return layer.__class__.from_config(layer.get_config())
        copy = layer.__class__.from_config(layer.get_config())
        return api.prune_low_magnitude(copy, pruning_schedule=schedules[schedule](), **patterns[pattern])

    return _cloned(model, wrap), api.UpdatePruningStep()


def prunable(network: Any) -> list[str]:
    """Names of the layers that a pruned network prunes."""
    return [layer.layer.name for layer in network.layers if type(layer).__name__ == "PruneLowMagnitude"]


def strip_pruning(network: Any) -> Any:
    """The plain network with its zeros."""
    import tensorflow_model_optimization as tfmot

    return tfmot.sparsity.keras.strip_pruning(network)


def clustered(model: Any, *, num_clusters: int, preserve_sparsity: bool, per_channel: bool, skip: list[str]) -> Any:
    """A copy of a tf_keras network whose kernels have at most ``num_clusters`` different values each.

    Args:
        model: not changed.
        num_clusters: values per kernel, or per output channel of a convolution with ``per_channel``.
        preserve_sparsity: keep zeros at zero, as one of the values.
        per_channel: cluster each output channel on its own, as int8 scales are.
        skip: names of layers to leave alone.
    """
    import tensorflow_model_optimization as tfmot
    import tf_keras

    kinds = (tf_keras.layers.Dense, tf_keras.layers.Conv2D)
    wrapped = functools.partial(
        tfmot.clustering.keras.cluster_weights,
        number_of_clusters=num_clusters,
        cluster_centroids_init=tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS,
        preserve_sparsity=preserve_sparsity,
        cluster_per_channel=per_channel,
    )
    # Centroids are found in the weights when a layer is wrapped, so it has to have them by then.
    return tf_keras.models.clone_model(
        _cloned(model, lambda layer: layer.__class__.from_config(layer.get_config())),
        clone_function=lambda layer: wrapped(layer) if layer.name not in skip and _is_kernel(layer, kinds) else layer,
    )


def strip_clustering(network: Any) -> Any:
    """The plain network with its repeated values."""
    import tensorflow_model_optimization as tfmot

    return tfmot.clustering.keras.strip_clustering(network)


def _cloned(model: Any, clone: Any) -> Any:
    import tf_keras

    copy = tf_keras.models.clone_model(model, clone_function=clone)
    for layer, original in zip(copy.layers, model.layers, strict=True):
        getattr(layer, "layer", layer).set_weights(original.get_weights())
    return copy


def _is_kernel(layer: Any, kinds: tuple[type, ...]) -> bool:
    import tf_keras

    takes_part = isinstance(layer, kinds) and not isinstance(layer, tf_keras.layers.Conv2DTranspose)
    return takes_part and layer.trainable and layer.kernel.shape.num_elements() >= MIN_WEIGHTS
