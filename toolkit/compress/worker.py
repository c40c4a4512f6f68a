"""Training under TensorFlow Model Optimization, a process of its own: ``python -m toolkit.compress.worker JOB``.

``toolkit.compress.job`` starts it, and ``toolkit.compress.bridge`` says why it stands alone. ``JOB`` is a directory
with ``job.json``, ``model.h5`` (the twin made by ``to_tf_keras``) and the examples. Progress leaves on stdout, a JSON
document a line; the result is ``result.h5`` (pruned, clustered) or ``result.tflite`` (quantization-aware trained), with
``training.json`` about what the training did.

The process ends when its stdin closes, so it never outlives the one that started it.
"""

import functools
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.compress.bridge import load_twin, save_twin
from toolkit.compress.examples import StoredExamples
from toolkit.errors import UserError
from toolkit.lazy import without_companions
from toolkit.machine import end_with_parent
from toolkit.spec import Preprocessing

#: Training batches that activation ranges are first set from, or all of an epoch.
NUM_CALIBRATION_BATCHES = 16
#: Times that pruning chooses anew which weights are zero, in a training of few steps.
_MASK_UPDATES = 4
#: Seconds between two tellings of how many batches are done.
_TELL_EVERY = 0.2


def main(directory: Path) -> None:
    """Do the job in ``directory``; the process's exit status is 0 on success."""
    tell = _claim_stdout()
    end_with_parent()  # which holds the other end of standard input and never writes
    job = json.loads((directory / "job.json").read_text())
    try:
        with without_companions():
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
        unfreeze(model)
        self.tell({"event": "stage", "stage": "reading the training pictures"})
        self.train, self.steps = self._examples("train", training=True)
        self.validation, _ = self._examples("validation", training=False)
        getattr(self, f"run_{self.method}")(model)

    def run_qat(self, model: Any) -> None:
        from toolkit.compress.fake_quantization import calibrate, convert, quantization_aware, zero_masks

        masks = zero_masks(model) if self.options["preserve"] in ("sparsity", "both") else None
        network = quantization_aware(model, preserve=self.options["preserve"], keep_float=self.options["keep_float"])
        self.tell({"event": "stage", "stage": "calibrating the ranges"})
        num_batches = min(NUM_CALIBRATION_BATCHES, self.steps)
        calibrate(network, (inputs for inputs, _ in self.train.take(num_batches)))
        self.fit(_classifying(network), keep_best=True)
        self.tell({"event": "stage", "stage": "converting to int8"})
        (self.directory / "result.tflite").write_bytes(convert(network, masks))

    def run_prune(self, model: Any) -> None:
        from tensorflow_model_optimization.sparsity.keras import strip_pruning

        total = self.steps * self.settings["epochs"]
        network, callback = pruned(model, total_steps=total, **self.options)
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
        start = {id(weight): weight.numpy() for weight in network.trainable_weights}
        if epochs:
            network.fit(
                self.train,
                steps_per_epoch=self.steps,
                epochs=epochs,
                validation_data=self.validation,
                callbacks=[*(callbacks or []), self._report(epochs, best)],
                verbose=0,
            )
        trained, untouched = _moved(network, start)
        if best:
            best.restore()
        facts = {"trained": trained, "untouched": untouched, "kept_epoch": best.epoch if best else epochs}
        (self.directory / "training.json").write_text(json.dumps(facts))

    def _report(self, epochs: int, best: "_Best | None") -> Any:
        """Make the callback that tells how far the training is."""
        import tf_keras

        told = 0.0

        def begin(epoch: int, logs: Any) -> None:
            stage = f"training, epoch {epoch + 1} of {epochs}"
            self.tell({"event": "stage", "stage": stage, "total": self.steps})

        def batch(number: int, logs: Any) -> None:
            nonlocal told
            if time.monotonic() - told > _TELL_EVERY:
                told = time.monotonic()
                self.tell({"event": "batch", "done": number + 1})

        def end(epoch: int, logs: dict[str, float]) -> None:
            row = {key: float(value) for key, value in logs.items()}
            if not np.isfinite(row["loss"]):
                raise UserError(f"the training loss became {row['loss']} in epoch {epoch + 1}: lower the learning rate")
            if best:
                best.offer(epoch + 1, row["val_accuracy"])
            self.tell({"event": "epoch", "epoch": epoch + 1, "epochs": epochs, **row})

        return tf_keras.callbacks.LambdaCallback(on_epoch_begin=begin, on_batch_end=batch, on_epoch_end=end)

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
    """The weights that were best on validation so far, and the epoch they are from: 0 before the first."""

    def __init__(self, network: Any, validation: Any) -> None:
        self.epoch = 0
        self._network = network
        self._accuracy = network.evaluate(validation, verbose=0, return_dict=True)["accuracy"]
        self._weights = network.get_weights()

    def offer(self, epoch: int, accuracy: float) -> None:
        if accuracy >= self._accuracy:
            self.epoch, self._accuracy, self._weights = epoch, accuracy, self._network.get_weights()

    def restore(self) -> None:
        self._network.set_weights(self._weights)


def _moved(network: Any, start: dict[int, np.ndarray]) -> tuple[int, list[str]]:
    """Count the parameters that training moved from ``start``, and name the layers whose kernel stayed as it was."""
    trained, untouched = 0, []
    for layer in network.layers:
        own = [weight for weight in layer.trainable_weights if id(weight) in start]
        moved = {tuple(weight.shape) for weight in own if not np.array_equal(start[id(weight)], weight.numpy())}
        # Where clusters are preserved, a copy of the kernel and its centroids train in its stead.
        parameters = [weight for weight in own if not re.search("cluster_centroids|ori_weights", weight.name)]
        trained += sum(int(np.prod(weight.shape)) for weight in parameters if tuple(weight.shape) in moved)
        kernels = [weight for weight in getattr(layer, "layer", layer).weights if len(weight.shape) > 1]
        if any(tuple(kernel.shape) not in moved for kernel in kernels):
            untouched.append(layer.name.removeprefix("quant_"))
    return trained, untouched


def unfreeze(model: Any) -> None:
    """Let all layers of a twin train, whichever of them the network's own training had frozen.

    But batch normalisations that were frozen keep their statistics: those of a few pictures would undo them.
    """
    for layer in model.layers:
        layer.trainable = layer.trainable or type(layer).__name__ != "BatchNormalization"


def pruned(
    model: Any,
    *,
    total_steps: int,
    sparsity: float,
    pattern: str,
    schedule: str,
    block: list[int],
    layers: Collection[str],
) -> tuple[Any, Any]:
    """Copy a tf_keras network so that ``layers`` lose their smallest weights while it trains; also the callback for it.

    The options are those of ``toolkit.compress.Pruning``; the last quarter of ``total_steps`` trains at full sparsity.
    """
    import tensorflow_model_optimization as tfmot

    api = tfmot.sparsity.keras
    patterns: dict[str, dict[str, Any]] = {
        "any": {},
        "2:4": {"sparsity_m_by_n": (2, 4)},
        "block": {"block_size": tuple(block), "block_pooling_type": "AVG"},
    }
    # Masks follow the schedule a few times: each time all weights are sorted, which takes as long as a training step.
    # The last time is the schedule's end, or zeros would be missing.
    frequency = max(1, min(100, total_steps // _MASK_UPDATES))
    end = frequency * max(1, 3 * total_steps // 4 // frequency)
    schedules = {
        "polynomial": lambda: api.PolynomialDecay(0.0, sparsity, 0, end, frequency=frequency),
        "constant": lambda: api.ConstantSparsity(sparsity, 0, frequency=frequency),
    }

    def wrap(layer: Any) -> Any:
        copy = layer.__class__.from_config(layer.get_config())
        if layer.name not in layers:
            return copy
        return api.prune_low_magnitude(copy, pruning_schedule=schedules[schedule](), **patterns[pattern])

    return _cloned(model, wrap), api.UpdatePruningStep()


def clustered(
    model: Any, *, num_clusters: int, preserve_sparsity: bool, per_channel: bool, layers: Collection[str]
) -> Any:
    """Copy a tf_keras network so that kernels of ``layers`` keep ``num_clusters`` different values each, by k-means.

    The options are those of ``toolkit.compress.Clustering``.
    """
    import tensorflow_model_optimization as tfmot
    import tf_keras

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
        clone_function=lambda layer: wrapped(layer) if layer.name in layers else layer,
    )


def _cloned(model: Any, clone: Any) -> Any:
    import tf_keras

    copy = tf_keras.models.clone_model(model, clone_function=clone)
    for layer, original in zip(copy.layers, model.layers, strict=True):
        getattr(layer, "layer", layer).set_weights(original.get_weights())
    return copy


def _classifying(network: Any) -> Any:
    """The part of a network that answers logits, with the same layers; novelty is not trained."""
    import tf_keras

    return network if len(network.outputs) == 1 else tf_keras.Model(network.input, network.outputs[0])


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
