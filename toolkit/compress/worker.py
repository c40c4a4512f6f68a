"""Training under TensorFlow Model Optimization, a process of its own: ``python -m toolkit.compress.worker JOB``.

``toolkit.compress.job`` starts it, and ``toolkit.compress.bridge`` says why it stands alone. ``JOB`` is a directory
with ``job.json``, ``model.h5`` (the twin made by ``to_tf_keras``) and the examples. Progress leaves on stdout, a JSON
document a line; the result is ``result.h5`` (pruned, clustered) or ``result.tflite`` (quantization-aware trained).

The process ends when its stdin closes, so it never outlives the one that started it.
"""

import functools
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.compress.bridge import load_twin, save_twin
from toolkit.compress.examples import StoredExamples
from toolkit.errors import UserError
from toolkit.machine import end_with_parent
from toolkit.spec import Preprocessing

#: Training batches that activation ranges are first set from.
NUM_CALIBRATION_BATCHES = 16
#: Kernels with fewer values than this are left alone: there is nothing to win.
MIN_WEIGHTS = 256


def main(directory: Path) -> None:
    """Do the job in ``directory``; the process's exit status is 0 on success."""
    tell = _claim_stdout()
    end_with_parent()  # which holds the other end of standard input and never writes
    job = json.loads((directory / "job.json").read_text())
    try:
        Worker(job, directory, tell).run()
    except Exception as error:  # whatever it is, the parent prints one line of it
        traceback.print_exc()
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        tell({"event": "error", "message": reason, "users": isinstance(error, UserError)})
        raise SystemExit(1) from None


class Worker:
    """One job: its model, its examples, and the function that its progress is told to."""

    def __init__(self, job: dict[str, Any], directory: Path, tell: Callable[[dict[str, Any]], None]) -> None:
        self.method = job["method"]
        self.options = job["options"]
        self.settings = job["settings"]
        self.directory = directory
        self.tell = tell
        self.preprocessing = Preprocessing(**job["preprocessing"])
        self.job = job

    def run(self) -> None:
        import tensorflow_model_optimization  # noqa: F401  (first, so that everything after it sees tf_keras)
        import tf_keras

        tf_keras.utils.set_random_seed(self.settings["seed"])
        model = load_twin(self.directory / "model.h5")
        self.train, self.steps = self._examples("train", training=True)
        self.validation, _ = self._examples("validation", training=False)
        getattr(self, f"run_{self.method}")(model)

    def run_qat(self, model: Any) -> None:
        from toolkit.compress.fake_quantization import calibrate, convert, quantization_aware, zero_masks

        masks = zero_masks(model) if self.options["preserve"] in ("sparsity", "both") else None
        network = quantization_aware(model, preserve=self.options["preserve"], keep_float=self.options["keep_float"])
        self.tell({"event": "stage", "stage": "calibrating"})
        calibrate(network, (inputs for inputs, _ in self.train.take(NUM_CALIBRATION_BATCHES)))
        self.fit(network, keep_best=True)
        self.tell({"event": "stage", "stage": "converting"})
        (self.directory / "result.tflite").write_bytes(convert(network, masks))

    def run_prune(self, model: Any) -> None:
        from tensorflow_model_optimization.sparsity.keras import strip_pruning

        total = self.steps * self.settings["epochs"]
        network, callback = pruned(model, total_steps=total, **self.options)
        if not any(type(layer).__name__ == "PruneLowMagnitude" for layer in network.layers):
            raise UserError("the network has no layer this kind of pruning applies to")
        self.fit(network, callbacks=[callback])
        save_twin(strip_pruning(network), self.directory / "result.h5")

    def run_cluster(self, model: Any) -> None:
        from tensorflow_model_optimization.clustering.keras import strip_clustering

        network = clustered(model, **self.options)
        self.fit(network)
        save_twin(strip_clustering(network), self.directory / "result.h5")

    def fit(self, network: Any, *, callbacks: list[Any] | None = None, keep_best: bool = False) -> None:
        """Train on from the weights there are; ``keep_best`` ends with the epoch best on validation, or the start."""
        import tf_keras

        epochs = self.settings["epochs"]
        logits = not _ends_in_softmax(network)
        schedule = tf_keras.optimizers.schedules.CosineDecay(
            self.settings["learning_rate"], max(1, self.steps * epochs), alpha=0.01
        )
        network.compile(
            tf_keras.optimizers.Adam(schedule),
            tf_keras.losses.SparseCategoricalCrossentropy(from_logits=logits),
            metrics=[tf_keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        )
        best = _Best(network, self.validation) if keep_best and self.validation is not None else None
        report = tf_keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: self._epoch(epoch + 1, epochs, logs, best),
        )
        if epochs:
            network.fit(
                self.train,
                steps_per_epoch=self.steps,
                epochs=epochs,
                validation_data=self.validation,
                callbacks=[*(callbacks or []), report],
                verbose=0,
            )
        if best:
            best.restore()

    def _epoch(self, epoch: int, epochs: int, logs: dict[str, float], best: "_Best | None") -> None:
        row = {key: float(value) for key, value in logs.items()}
        if not np.isfinite(row["loss"]):
            raise UserError(f"the training loss became {row['loss']} in epoch {epoch}: lower the learning rate")
        if best:
            best.offer(row["val_accuracy"])
        self.tell({"event": "epoch", "epoch": epoch, "epochs": epochs, **row})

    def _examples(self, name: str, *, training: bool) -> tuple[Any, int]:
        """A ``tf.data`` pipeline of normalised batches, and its batches per epoch."""
        if self.job[name] is None:
            return None, 0
        stored = StoredExamples(self.directory, name, self.job[name], self.preprocessing)
        batch_size, seed, augment = (self.settings[key] for key in ("batch_size", "seed", "augment"))
        steps = -(-len(stored) // batch_size)
        if training:
            return stored.shuffled(batch_size, seed=seed, augment=augment), steps
        return stored.in_order(batch_size), steps


class _Best:
    """The weights that were best on validation so far."""

    def __init__(self, network: Any, validation: Any) -> None:
        self._network = network
        self._accuracy = network.evaluate(validation, verbose=0, return_dict=True)["accuracy"]
        self._weights = network.get_weights()

    def offer(self, accuracy: float) -> None:
        if accuracy >= self._accuracy:
            self._accuracy, self._weights = accuracy, self._network.get_weights()

    def restore(self) -> None:
        self._network.set_weights(self._weights)


def pruned(
    model: Any, *, total_steps: int, sparsity: float, pattern: str, schedule: str, block: list[int], skip: list[str]
) -> tuple[Any, Any]:
    """Copy a tf_keras network so that it loses its smallest weights while it trains; also the callback for that.

    The options are those of ``toolkit.compress.Pruning``; the last quarter of ``total_steps`` trains at full sparsity.
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
        copy = layer.__class__.from_config(layer.get_config())
        if layer.name in skip or not _is_kernel(layer, kinds):
            return copy
        return api.prune_low_magnitude(copy, pruning_schedule=schedules[schedule](), **patterns[pattern])

    return _cloned(model, wrap), api.UpdatePruningStep()


def clustered(model: Any, *, num_clusters: int, preserve_sparsity: bool, per_channel: bool, skip: list[str]) -> Any:
    """Copy a tf_keras network so that its kernels keep ``num_clusters`` different values each, found by k-means.

    The options are those of ``toolkit.compress.Clustering``.
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


def _ends_in_softmax(network: Any) -> bool:
    """Tell whether the network answers probabilities instead of logits."""
    last = network.layers[-1]
    last = getattr(last, "layer", last)  # without the wrapper of a method
    if type(last).__name__ == "Softmax":
        return True
    activation = getattr(last, "activation", None)
    activation = getattr(activation, "activation", activation)  # fake quantization wraps it once more
    return getattr(activation, "__name__", "") == "softmax"


def _claim_stdout() -> Callable[[dict[str, Any]], None]:
    """Keep stdout for events, which the result tells: what libraries print, from C++ too, goes to stderr."""
    sys.stdout.flush()
    events = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    return lambda event: print(json.dumps(event), file=events, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
