"""keras.io's guide to transfer learning, line by line with this package's names in the place of its own."""

import keras
import numpy as np

import toolkit
from toolkit.data import pipeline


def test_guide_to_transfer_learning_and_fine_tuning(few, tmp_path):
    keras.utils.set_random_seed(0)
    preprocessing = toolkit.model_info("lenet5").preprocessing
    train_ds = pipeline(few, "train", preprocessing=preprocessing, batch_size=8).as_tf()
    validation_ds = pipeline(few, "val", preprocessing=preprocessing, batch_size=8).as_tf()

    base_model = toolkit.create_model("lenet5", include_top=False)
    base_model.trainable = False
    inputs = keras.Input(shape=preprocessing.input_shape)
    x = base_model(inputs, training=False)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dropout(0.2)(x)
    outputs = keras.layers.Dense(3)(x)
    model = keras.Model(inputs, outputs)

    model.compile(
        optimizer=keras.optimizers.Adam(),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy()],
    )
    frozen = [weight.copy() for weight in base_model.get_weights()]
    stop = keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", save_best_only=True)
    history = model.fit(train_ds, epochs=2, validation_data=validation_ds, callbacks=[stop], verbose=0)
    assert len(history.history["val_sparse_categorical_accuracy"]) == 2
    assert all(map(np.array_equal, frozen, base_model.get_weights()))

    base_model.trainable = True
    model.compile(
        optimizer=keras.optimizers.Adam(1e-5),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy()],
    )
    model.fit(train_ds, epochs=1, validation_data=validation_ds, verbose=0)
    assert not all(map(np.array_equal, frozen, base_model.get_weights()))
    reopened = keras.models.load_model(tmp_path / "best.keras")
    assert reopened.predict(validation_ds, verbose=0).shape == (sum(len(labels) for _, labels in validation_ds), 3)
