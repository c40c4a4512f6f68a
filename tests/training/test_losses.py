import keras
import numpy as np

from toolkit.training.losses import classifier


def convolutional() -> keras.Model:
    inputs = keras.layers.Input((8, 8, 30))
    x = keras.layers.Dropout(0.5)(keras.layers.Conv2D(200, 3, name="stage1_conv")(inputs))
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = {"logits": keras.layers.Dense(10, name="head_logits")(x), "aux": keras.layers.Dense(10, name="aux")(x)}
    return keras.Model(inputs, outputs)


def test_classifier_is_the_logits_alone_with_the_same_weights():
    model = convolutional()
    stripped = classifier(model)
    inputs = np.ones((1, 8, 8, 30), np.float32)
    np.testing.assert_array_equal(stripped(inputs), model(inputs)["logits"])
    assert "aux" not in [layer.name for layer in stripped.layers]
