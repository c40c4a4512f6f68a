"""Losses that Keras lacks."""

import keras


@keras.saving.register_keras_serializable("toolkit")
class SparseCrossEntropy(keras.losses.Loss):
    """Cross-entropy of integer labels (batch,) and logits (batch, classes), with label smoothing.

    Keras smooths one-hot labels only. Smoothing is that of Szegedy et al., *Rethinking the Inception Architecture*,
    CVPR 2016, section 7.

    Args:
        label_smoothing: probability in 0…1 moved from the true class and spread over all.
    """

    def __init__(self, label_smoothing: float = 0.0, name: str = "sparse_cross_entropy", **kwargs) -> None:
        super().__init__(name=name, **kwargs)
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        labels = keras.ops.cast(keras.ops.reshape(y_true, (-1,)), "int32")
        targets = keras.ops.one_hot(labels, y_pred.shape[-1], dtype=y_pred.dtype)
        return keras.losses.categorical_crossentropy(
            targets, y_pred, from_logits=True, label_smoothing=self.label_smoothing
        )

    def get_config(self):
        return super().get_config() | {"label_smoothing": self.label_smoothing}
