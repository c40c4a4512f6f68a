"""Classifiers taken apart give back their logits, cell by cell."""

import keras
import numpy as np
import pytest

from toolkit.explain import Explainer
from toolkit.explain.scores import contrast
from toolkit.layers import UnitLength
from toolkit.spec import Preprocessing


def test_several_stages_at_unit_length_add_up_to_the_lead():
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((24, 20, 1))
    rows = []
    for stage in (1, 2):
        x = keras.layers.Conv2D(6, 3, activation="relu", name=f"stage{stage}_conv")(x)
        rows.append(UnitLength()(keras.layers.GlobalAveragePooling2D()(x)))
        x = keras.layers.MaxPooling2D(2, name=f"stage{stage}_pool")(x)
    x = keras.layers.Dropout(0.5)(keras.layers.Concatenate()(rows))
    logits = keras.layers.Dense(4, bias_initializer="random_normal", name="head_logits")(x)
    preprocessing = Preprocessing((24, 20), channel_order="grey", mean=(0.5,), std=(0.5,))
    explainer = Explainer(keras.Model(inputs, logits), preprocessing)
    explanation = explainer.explain(np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8))
    found = explanation.heat_map("2")
    lead = contrast(explanation.logits, 2) @ explanation.logits
    assert [name for name, _ in found.by_stage] == ["stage1_conv", "stage2_conv", "bias"]
    assert sum(part for _, part in found.by_stage) == pytest.approx(lead, abs=1e-4)
    assert explanation.heat_map("2", stage="stage1").maps == ("stage1_conv",)
    assert explanation.heat_map("2", stage="stage1", method="grad-cam").method == "grad-cam"


@pytest.mark.parametrize("reshaped", [True, False])
def test_an_average_that_keeps_its_shape_is_seen_through(reshaped):
    """As MobileNet ends in keras.applications, with its own classifier or another."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(6, 3, activation="relu", name="stage1_conv")(inputs)
    x = keras.layers.Dropout(0.1)(keras.layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = keras.layers.Reshape((6,))(x) if reshaped else keras.layers.GlobalAveragePooling2D()(x)
    logits = keras.layers.Dense(3, name="head_logits")(x)
    explainer = Explainer(keras.Model(inputs, logits), Preprocessing((16, 16)))
    explanation = explainer.explain(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    found = explanation.heat_map("1")
    assert (found.method, found.maps) == ("evidence", ("stage1_conv",))
    lead = contrast(explanation.logits, 1) @ explanation.logits
    assert sum(part for _, part in found.by_stage) == pytest.approx(lead, abs=1e-4)


def test_a_map_of_one_cell_tells_no_place():
    inputs = keras.Input((8, 8, 3))
    maps = keras.layers.Conv2D(4, 8, activation="relu", name="stage1_conv")(inputs)
    averaged = keras.layers.GlobalAveragePooling2D(name="head_pool")(maps)
    explainer = Explainer(
        keras.Model(inputs, keras.layers.Dense(2, name="head_logits")(averaged)), Preprocessing((8, 8))
    )
    assert explainer.read_out is None
    found = explainer.explain(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)).heat_map()
    assert found.method == "occlusion"
    assert np.ptp(found.values) > 0
