"""Heat maps are right: halves of two classes are found, sums are exact, and shuffled weights lose both."""

import keras
import numpy as np
import pytest

import toolkit
from toolkit.errors import UserError
from toolkit.explain import METHODS, Explainer
from toolkit.explain.scores import contrast


def found_halves(explainer, halved, method):
    """Share of maps with their peak on the class's half, and mean share of the mass there."""
    peaks, masses = [], []
    for pixels, *labels in halved:
        explanation = explainer.explain(pixels)
        for label, is_left in zip(labels, (True, False), strict=True):
            found = explanation.heat_map(label, method=method)
            heat, width = found.heat, pixels.shape[1]
            on_left = heat[:, : width // 2].sum() / max(heat.sum(), 1e-9)
            peaks.append((found.peak[1] < 0.5) == is_left)
            masses.append(on_left if is_left else 1 - on_left)
    return np.mean(peaks), np.mean(masses)


@pytest.mark.parametrize("method", ["evidence", "grad-cam", "hires-cam", "occlusion"])
def test_each_class_is_found_on_its_half(textures, halved, method):
    peaks, mass = found_halves(textures, halved[:6] if method == "occlusion" else halved, method)
    assert peaks >= 0.9
    assert mass >= 0.75


def test_each_class_is_found_by_a_network_with_hidden_layers(flattened, halved):
    assert flattened.read_out is None
    assert flattened.explain(halved[0][0]).heat_map().method == "occlusion"
    peaks, mass = found_halves(flattened, halved[:8], "auto")
    assert peaks >= 0.9
    assert mass >= 0.75


def test_shuffled_weights_lose_both(textures, halved):
    model = keras.models.clone_model(textures.model)
    rng = np.random.default_rng(0)
    model.set_weights([rng.permutation(w.ravel()).reshape(w.shape) for w in textures.model.get_weights()])
    peaks, mass = found_halves(Explainer(model, textures.preprocessing), as_numbers(halved, textures), "evidence")
    assert peaks < 0.75
    assert mass < 0.65


def as_numbers(halved, explainer):
    return [(pixels, *(str(explainer.index_of(label)) for label in labels)) for pixels, *labels in halved]


def test_evidence_adds_up_to_the_lead(textures, halved):
    explanation = textures.explain(halved[0][0])
    for label in textures.labels:
        found = explanation.heat_map(label)
        lead = contrast(explanation.logits, textures.index_of(label)) @ explanation.logits
        assert found.method == "evidence"
        assert found.values.sum() == pytest.approx(lead, abs=1e-3)
        assert sum(value for _, value in found.by_stage) == pytest.approx(lead, abs=1e-3)
    pair = explanation.heat_map("across", against="down")
    assert pair.values.sum() == pytest.approx(explanation.logits[0] - explanation.logits[1], abs=1e-3)
    other = explanation.heat_map("down", against="across")
    np.testing.assert_allclose(other.values, -pair.values, atol=1e-5)


def test_evidence_for_further_classes_needs_no_further_pass(textures, halved, monkeypatch):
    explanation = textures.explain(halved[0][0])
    for name in ("outputs", "logits"):
        monkeypatch.setattr(textures, name, None)
    values = [explanation.heat_map(label).values for label in textures.labels]
    assert not np.array_equal(values[0], values[1])


def test_grad_cam_of_an_averaged_map_is_the_evidence_without_the_bias(textures, halved):
    explanation = textures.explain(halved[0][0])
    evidence, by_gradient = (explanation.heat_map(method=method) for method in ("evidence", "grad-cam"))
    bias = dict(evidence.by_stage)["bias"]
    np.testing.assert_allclose(by_gradient.values, evidence.values - bias / evidence.values.size, atol=1e-6)
    assert by_gradient.maps == evidence.maps == ("stage3_conv",)


def test_what_cannot_be_explained_is_said_in_a_line(textures, flattened, halved):
    explanation = textures.explain(halved[0][0])
    cases = [
        ({"label": "acros"}, "unknown class 'acros'; did you mean 'across'"),
        ({"label": "9"}, "unknown class '9'"),
        ({"method": "grad-cm"}, "unknown method 'grad-cm'; did you mean 'grad-cam'"),
        ({"stage": "stage9"}, "unknown stage 'stage9'"),
        ({"stage": "head_logits"}, "has no map to show"),
        ({"label": "down", "against": "down"}, "cannot be held against itself"),
        ({"method": "evidence", "stage": "stage1"}, "does not read stage 'stage1', but stage3_conv"),
        ({"method": "occlusion", "stage": "stage1"}, "leave the stage out"),
    ]
    for arguments, message in cases:
        with pytest.raises(UserError, match=message):
            explanation.heat_map(**arguments)
    with pytest.raises(UserError, match="not linear in maps"):
        flattened.explain(halved[0][0]).heat_map(method="evidence")
    with pytest.raises(UserError, match="2 labels for a network of 3 classes"):
        Explainer(textures.model, textures.preprocessing, ("a", "b"))


SMALL = (
    "lenet5",
    "softmax_regression",
    "mlp",
    "xo",
    "resnet20",
    "nin_cifar",
    "highway_mlp",
    "exercise_cnn",
    "googlenet",
)


@pytest.mark.parametrize(
    "name", [name if name in SMALL else pytest.param(name, marks=pytest.mark.slow) for name in toolkit.list_models()]
)
def test_every_network_has_maps_of_the_right_form(name):
    keras.utils.set_random_seed(0)
    info = toolkit.model_info(name)
    height, width, channels = info.input_shape
    side = max(64, info.min_size)
    shape = (min(height, side), min(width, side), channels)
    model = toolkit.create_model(name, input_shape=shape)
    explainer = Explainer(model, toolkit.preprocessing_of(model))
    picture = np.random.default_rng(0).integers(0, 256, (shape[0] + 7, shape[1] + 30, 3), np.uint8)
    explanation = explainer.explain(picture)
    tried = 0
    for method in METHODS:
        if (method == "evidence" and explainer.read_out is None) or ("cam" in method and not explainer.maps):
            continue
        values = explanation.heat_map(method=method).values
        assert values.shape == shape[:2], method
        assert np.isfinite(values).all(), method
        # Plain networks of a hundred layers, fresh, answer alike whatever they see.
        assert np.ptp(values) > 0 or name.startswith("plain"), method
        tried += 1
    assert tried >= 1
    assert explainer.maps or name in ("softmax_regression", "mlp", "highway_mlp")
