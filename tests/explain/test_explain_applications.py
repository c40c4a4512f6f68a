"""Networks of keras.applications are explained as others are, flat or as a layer of somebody's own network."""

import keras
import numpy as np
import pytest

from toolkit.demo.inside.way import way_through
from toolkit.engines.convert import to_litert
from toolkit.explain import METHODS, Explainer, open_explainer
from toolkit.explain.inside import feature_maps, first_filters, statistics
from toolkit.factory import open_application, preprocessing_of
from toolkit.network import name_stages
from toolkit.spec import Preprocessing

SIZE = (64, 64)


def _flat(name, tmp_path):
    model = open_application(f"keras.applications:{name}", num_classes=3, input_shape=(*SIZE, 3))
    return Explainer(model, preprocessing_of(model))


def _nested(name, tmp_path):
    backbone = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(*SIZE, 3))
    own = [keras.Input((*SIZE, 3)), backbone, keras.layers.GlobalAveragePooling2D(), keras.layers.Dropout(0.2)]
    keras.Sequential([*own, keras.layers.Dense(3, activation="softmax")]).save(tmp_path / "own.keras")
    return open_explainer(tmp_path / "own.keras", preprocessing=Preprocessing(SIZE))


def test_a_network_with_operations_that_are_no_layers_is_explained(tmp_path):
    inputs = keras.Input((*SIZE, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="first")(keras.layers.Rescaling(1 / 255)(inputs))
    one, other = keras.ops.split(x, 2, axis=-1)
    other = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="second")(other)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="third")(keras.ops.concatenate([one, other]))
    x = keras.layers.Dense(3, activation="softmax", name="logits")(keras.ops.mean(x, axis=(1, 2)))
    keras.Model(inputs, x).save(tmp_path / "own.keras")
    explainer = open_explainer(tmp_path / "own.keras")
    explanation = explainer.explain(np.random.default_rng(0).integers(0, 256, (80, 70, 3), np.uint8))
    for method in ("grad-cam", "hires-cam"):
        assert np.isfinite(explanation.heat_map(method=method, stage="third").values).all()
    assert to_litert(explainer.model, quantization="int8", calibration=[np.ones((1, *SIZE, 3), np.float32)])
    assert name_stages(explainer.model).output_shape == (None, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "name"),
    [(_flat, "MobileNet"), (_flat, "EfficientNetV2B0"), (_flat, "DenseNet121"), (_nested, "MobileNetV2")],
)
def test_applications_are_explained(make, name, tmp_path):
    keras.utils.set_random_seed(0)
    explainer = make(name, tmp_path)
    explanation = explainer.explain(np.random.default_rng(0).integers(0, 256, (80, 70, 3), np.uint8))
    assert explainer.read_out is not None  # an average before the classifier
    assert len(explainer.maps) > 3
    for method in METHODS:
        assert np.isfinite(explanation.heat_map(method=method).values).all()
    for stage, layer in explainer.maps.items():
        assert explanation.heat_map(stage=stage).maps == (layer.name,)
    assert feature_maps(explanation)[1].ndim == 3
    assert len(statistics(explanation)) == len(explainer.maps)
    assert first_filters(explainer)[1].shape[-1] == 3
    steps = way_through(explainer.model)
    assert sum(step.working.num_params for step in steps) == explainer.model.count_params()
