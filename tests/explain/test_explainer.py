"""Heat maps are right: halves of two classes are found, sums are exact, and shuffled weights lose both."""

import keras
import numpy as np
import pytest
from PIL import Image
from textured import texture

import toolkit
from toolkit.data.pixels.decode import decode_pixels, normalize
from toolkit.errors import UserError
from toolkit.explain import METHODS, Explainer, HeatMap
from toolkit.explain.scores import contrast, log_odds
from toolkit.layers import UnitLength
from toolkit.metrics import softmax
from toolkit.spec import Preprocessing


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


def test_grad_cam_of_an_averaged_map_is_the_evidence_without_the_bias(textures, halved):
    explanation = textures.explain(halved[0][0])
    evidence, by_gradient = (explanation.heat_map(method=method) for method in ("evidence", "grad-cam"))
    bias = dict(evidence.by_stage)["bias"]
    np.testing.assert_allclose(by_gradient.values, evidence.values - bias / evidence.values.size, atol=1e-6)
    assert by_gradient.maps == evidence.maps == ("stage3_conv",)


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
    assert found.values.sum() == pytest.approx(lead, abs=1e-4)
    assert explanation.heat_map("2", stage="stage1").maps == ("stage1_conv",)
    assert explanation.heat_map("2", stage="stage1", method="grad-cam").method == "grad-cam"


def test_gradients_go_through_one_map_alone(textures, halved):
    """The gradient by an early map is that of the logits as that map changes."""
    explanation = textures.explain(halved[0][0])
    from toolkit.explain.gradients import map_and_gradient

    halves = textures.halves(textures.model.get_layer("stage2_conv"))
    inputs = normalize(explanation.pixels[None], textures.preprocessing)
    weights = np.array([1, 0, 0], np.float32)
    cells, gradient = map_and_gradient(halves, inputs, weights)
    step = 1e-2 * gradient / np.linalg.norm(gradient)
    ahead, behind = (np.asarray(halves.back(cells[None] + sign * step))[0, 0] for sign in (1, -1))
    assert (ahead - behind) / 2e-2 == pytest.approx(np.linalg.norm(gradient), rel=0.05)


def test_the_map_beats_a_random_and_a_central_one(textures):
    """On pictures with one textured corner, by deletion and by insertion."""
    rng = np.random.default_rng(2)
    areas = {name: [] for name in ("evidence", "random", "centre")}
    down, across = np.mgrid[:48, :48] - 23.5
    for number in range(6):
        pixels = rng.normal(128, 12, (48, 48, 3)).clip(0, 255).astype(np.uint8)
        top, left = (number % 2) * 24, (number // 2 % 2) * 24
        pixels[top : top + 24, left : left + 24] = texture(textures.labels[number % 3], 24, 24, rng)
        explanation = textures.explain(pixels)
        label = textures.labels[number % 3]
        values = {"random": np.kron(rng.random((6, 6)), np.ones((8, 8))), "centre": -np.hypot(down, across)}
        maps = {name: HeatMap(given, label, "", name) for name, given in values.items()}
        for name, found in (maps | {"evidence": explanation.heat_map(label)}).items():
            areas[name].append(explanation.faithfulness(found).areas)
    deletion, insertion = ({name: np.mean(rows, axis=0)[side] for name, rows in areas.items()} for side in (0, 1))
    assert deletion["evidence"] < min(deletion["random"], deletion["centre"])
    assert insertion["evidence"] > max(insertion["random"], insertion["centre"])


def test_the_smallest_region_keeps_the_answer_when_cut_out(textures, tmp_path):
    rng = np.random.default_rng(3)
    picture = rng.normal(128, 12, (96, 150, 3)).clip(0, 255).astype(np.uint8)
    picture[30:80, 40:90] = texture("down", 50, 50, rng, stroke=4)
    explanation = textures.explain(picture)
    region = explanation.smallest_region()
    assert region is not None
    assert region.share < 0.5
    part = explanation.cut_out(region.box)
    Image.fromarray(part).save(tmp_path / "part.png")
    pixels = decode_pixels(tmp_path / "part.png", textures.preprocessing)
    answer = softmax(textures.logits(pixels[None]))[0]
    assert textures.labels[answer.argmax()] == explanation.label
    assert answer.max() == pytest.approx(region.probability, abs=1e-4)
    assert answer.max() >= 0.9 * explanation.probabilities.max()


def test_log_odds_are_those_of_the_probabilities():
    logits = np.random.default_rng(0).normal(size=(4, 5))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.log(probabilities[:, 2] / (1 - probabilities[:, 2]))
    np.testing.assert_allclose(log_odds(logits, 2), expected)
    np.testing.assert_allclose(log_odds(logits, 2, 3), logits[:, 2] - logits[:, 3])


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
