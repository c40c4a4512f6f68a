"""Outputs of a network and the losses and metrics on them, for labels as integers and, mixed, as probabilities."""

from collections.abc import Callable
from typing import Any

from toolkit.lazy import keras
from toolkit.training.config import TrainConfig

#: The output that classifies; others beside it exist for training only.
LOGITS = "logits"
#: ``loss(labels, outputs)`` of a batch, a scalar.
Loss = Callable[[Any, Any], Any]


@keras.saving.register_keras_serializable("toolkit")
class SparseCrossEntropy(keras.losses.Loss):
    """Cross-entropy of labels and logits (batch, classes), with label smoothing.

    Labels are integers (batch,), or probabilities (batch, classes) where pictures were mixed. Keras smooths the latter
    only. Smoothing is that of Szegedy et al., *Rethinking the Inception Architecture*, CVPR 2016, section 7.

    Args:
        label_smoothing: probability in 0…1 moved from the true class and spread over all.
    """

    def __init__(self, label_smoothing: float = 0.0, name: str = "sparse_cross_entropy", **kwargs) -> None:
        super().__init__(name=name, **kwargs)
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        num_classes = y_pred.shape[-1]
        if len(y_true.shape) < 2 or y_true.shape[-1] != num_classes:
            y_true = keras.ops.one_hot(
                keras.ops.cast(keras.ops.reshape(y_true, (-1,)), "int32"), num_classes, dtype=y_pred.dtype
            )
        return keras.losses.categorical_crossentropy(
            y_true, y_pred, from_logits=True, label_smoothing=self.label_smoothing
        )

    def get_config(self):
        return super().get_config() | {"label_smoothing": self.label_smoothing}


def accuracy_metrics(num_classes: int) -> "list[keras.metrics.Metric]":
    """Make top-1 accuracy and, where there are more than five classes, top-5 accuracy."""
    metrics = [keras.metrics.MeanMetricWrapper(_is_first, name="accuracy")]
    if num_classes > 5:
        metrics.append(keras.metrics.MeanMetricWrapper(_is_among_five, name="top5"))
    for metric in metrics:
        metric._direction = "up"  # so that Keras' callbacks know which of two values is better
    return metrics


@keras.saving.register_keras_serializable("toolkit")
def _is_first(y_true, y_pred):
    return keras.ops.cast(keras.ops.equal(_classes(y_true, y_pred), keras.ops.argmax(y_pred, axis=-1)), "float32")


@keras.saving.register_keras_serializable("toolkit")
def _is_among_five(y_true, y_pred):
    return keras.metrics.sparse_top_k_categorical_accuracy(_classes(y_true, y_pred), y_pred, k=5)


def _classes(y_true, y_pred):
    if len(y_true.shape) < 2 or y_true.shape[-1] != y_pred.shape[-1]:
        return keras.ops.cast(keras.ops.reshape(y_true, (-1,)), "int32")
    return keras.ops.argmax(y_true, axis=-1)


def output_names(model: "keras.Model") -> list[str]:
    """Return the keys of a network's outputs, or ``["logits"]`` for the one output of most.

    >>> inputs = keras.layers.Input((2,))
    >>> output_names(keras.Model(inputs, keras.layers.Dense(3)(inputs)))
    ['logits']
    """
    return list(model.output) if isinstance(model.output, dict) else [LOGITS]


def num_classes(model: "keras.Model") -> int:
    """Return the width of the logits."""
    return (model.output[LOGITS] if isinstance(model.output, dict) else model.output).shape[-1]


def classifier(model: "keras.Model") -> "keras.Model":
    """Take off the outputs that were for training only; the layers stay the same."""
    if not isinstance(model.output, dict):
        return model
    return keras.Model(model.inputs[0], model.output[LOGITS], name=model.name)


def total_loss(config: TrainConfig) -> Loss:
    """Make the loss of all outputs together, weighted, without weight decay."""
    loss = SparseCrossEntropy(config.optimizer.label_smoothing)

    def total(labels: Any, outputs: Any) -> Any:
        if not isinstance(outputs, dict):
            return loss(labels, outputs)
        of = labels if isinstance(labels, dict) else dict.fromkeys(outputs, labels)
        return sum(config.model.loss_weights.get(name, 1.0) * loss(of[name], outputs[name]) for name in outputs)

    return total
