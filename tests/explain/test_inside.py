"""A network's maps, filters and their statistics."""

import keras
import numpy as np
import pytest

from toolkit.errors import UserError
from toolkit.explain import Explainer
from toolkit.explain.inside import feature_maps, first_filters, statistics, strongest
from toolkit.spec import Preprocessing


def test_statistics_are_those_of_the_maps(textures, halved):
    explanation = textures.explain(halved[0][0])
    rows = statistics(explanation)
    assert [row.stage for row in rows] == ["stage1", "stage2", "stage3"]
    _, cells = feature_maps(explanation, "stage2")
    assert rows[1].mean == pytest.approx(cells.mean())
    assert rows[1].zeros == pytest.approx((cells == 0).mean())
    assert rows[1].silent == (cells == 0).all(axis=(0, 1)).sum()


def test_the_strongest_channels_are_those_of_largest_magnitude_in_their_order():
    cells = np.ones((2, 2, 4)) * [-3.0, 1.0, 0.0, 2.0]
    assert strongest(cells, 2).tolist() == [0, 3]
    assert strongest(cells, 9).tolist() == [0, 1, 2, 3]


def test_a_network_of_vectors_has_templates_and_no_maps(outline):
    explainer = Explainer(outline("mlp"), Preprocessing((28, 28), channel_order="grey", mean=(0.0,), std=(1.0,)))
    explanation = explainer.explain(np.zeros((28, 28, 3), np.uint8))
    for look in (feature_maps, statistics, lambda one: one.heat_map(method="grad-cam")):
        with pytest.raises(UserError, match="has no maps, only vectors; only occlusion"):
            look(explanation)
    name, filters = first_filters(explainer)
    kernel = keras.ops.convert_to_numpy(explainer.model.get_layer(name).kernel)
    np.testing.assert_array_equal(filters[3], kernel[:, 3].reshape(28, 28, 1))


def test_filters_for_blue_first_are_shown_red_first():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 3, name="stage1_conv")(inputs)
    logits = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, logits)
    kernel = keras.ops.convert_to_numpy(model.get_layer("stage1_conv").kernel)
    for order in ("rgb", "bgr"):
        _, filters = first_filters(Explainer(model, Preprocessing((8, 8), channel_order=order)))
        np.testing.assert_array_equal(filters[1, ..., 0], kernel[..., 0 if order == "rgb" else 2, 1])
