import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from interpreted import interpreted

from toolkit import create_model
from toolkit.engines.convert import float_head, to_litert
from toolkit.errors import UserError
from toolkit.layers import UnitLength
from toolkit.network import as_float32, feature_tensor, weights_digest


@pytest.fixture
def policy(request):
    """The network is built and used under this dtype policy."""
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(
    ("policy", "frozen"),
    [("mixed_bfloat16", True), pytest.param("mixed_float16", False, marks=pytest.mark.slow)],
    indirect=["policy"],
)
def test_mixed_precision_network_is_rebuilt_in_float32_with_the_same_weights(policy, frozen, residual):
    mixed = create_model("resnet20", num_classes=3)
    mixed.set_weights(residual.get_weights())
    if frozen:
        for layer in mixed.layers[:20]:
            layer.trainable = False
    assert any(layer.compute_dtype == policy.removeprefix("mixed_") for layer in mixed.layers)
    rebuilt = as_float32(mixed)  # the policy is still in force
    assert {layer.dtype_policy.name for layer in rebuilt.layers[1:]} == {"float32"}
    assert {str(layer.output.dtype) for layer in rebuilt.layers} == {"float32"}
    assert [layer.name for layer in rebuilt.layers] == [layer.name for layer in mixed.layers]
    assert [layer.trainable for layer in rebuilt.layers[1:]] == [layer.trainable for layer in mixed.layers[1:]]
    for ours, theirs in zip(rebuilt.layers, mixed.layers, strict=True):
        for weight, original in zip(ours.get_weights(), theirs.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, original)
    inputs = np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype(np.float32)
    np.testing.assert_allclose(rebuilt(inputs, training=False), residual(inputs, training=False), atol=1e-5)
    assert "toolkit>PadChannels" in str(rebuilt.get_config())


def test_float32_network_is_itself(residual):
    assert as_float32(residual) is residual


def test_features_are_what_the_classifier_sees(residual, lenet):
    for model in (residual, lenet):
        shape = model.input_shape[1:]
        inputs = np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)
        features = keras.Model(model.input, feature_tensor(model))(inputs, training=False).numpy()
        kernel, bias = model.layers[-1].get_weights()
        np.testing.assert_allclose(features @ kernel + bias, model(inputs, training=False), rtol=1e-4, atol=1e-4)


def test_features_of_averaged_class_maps_are_averages_too():
    model = create_model("nin_cifar", num_classes=3)
    inputs = np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype(np.float32)
    maps = keras.Model(model.input, model.get_layer("stage3_conv2").output)(inputs, training=False).numpy()
    features = keras.Model(model.input, feature_tensor(model))(inputs, training=False).numpy()
    np.testing.assert_allclose(features, maps.mean(axis=(1, 2)), atol=1e-5)
    with pytest.raises(UserError, match="expected a classifier"):
        feature_tensor(create_model("nin_cifar", include_top=False, pooling="avg"))


def test_network_without_a_classifier_on_vectors_has_no_features():
    with pytest.raises(UserError, match=r"ends in .* 'stage2_pool'; expected a classifier"):
        feature_tensor(create_model("lenet5", include_top=False))


@pytest.fixture(scope="module")
def calibration(digits_split, lenet_preprocessing):
    from toolkit.compress.examples import spread

    return np.split(spread(digits_split.train, lenet_preprocessing, 64), 2)


@pytest.fixture(scope="module")
def files(lenet, calibration):
    """LeNet-5 as LiteRT under every quantization."""
    return {
        kind: to_litert(lenet, quantization=kind, calibration=calibration)
        for kind in ("none", "float16", "dynamic", "int8")
    }


def stored_types(file: bytes) -> set:
    return {np.dtype(tensor["dtype"]).name for tensor in Interpreter(model_content=file).get_tensor_details()}


@pytest.mark.parametrize(
    ("name", "num_classes", "expected"),
    [
        ("googlenet", 10, {"head_pool", "head_dropout", "head_logits"}),
        ("googlenet", 1000, set()),  # an eighth of the parameters
        ("nin_cifar", 10, {"head_logits"}),  # a pooling
        ("vgg16", 10, set()),  # flattens, and is all head
        ("lenet5", 10, set()),
    ],
)
def test_small_heads_behind_pooling_stay_in_float(name, num_classes, expected, outline):
    assert float_head(outline(name, num_classes=num_classes)) == expected


def test_heads_that_join_stages_stay_in_float_whatever_their_size():
    inputs = keras.Input((8, 8, 3))
    early = keras.layers.Conv2D(4, 3, name="stage1_conv")(inputs)
    fc = keras.layers.Dense(6, name="stage2_fc")(keras.layers.Flatten(name="stage2_flatten")(early))
    pooled = UnitLength(name="head_unit")(keras.layers.GlobalAveragePooling2D(name="head_pool")(early))
    joined = keras.layers.Concatenate(name="head_join")([pooled, fc])
    model = keras.Model(inputs, keras.layers.Dense(900, name="head_logits")(joined))
    assert float_head(model) == {"head_unit", "head_pool", "head_join", "head_logits"}


def test_quantized_files_are_smaller(files):
    sizes = {kind: len(file) for kind, file in files.items()}
    assert sizes["none"] > 4 * 61_706  # four bytes a parameter
    assert sizes["float16"] < 0.55 * sizes["none"]
    assert sizes["dynamic"] < 0.4 * sizes["none"]
    assert sizes["int8"] < 0.4 * sizes["none"]


def test_quantized_files_hold_what_their_name_says(files):
    assert "int8" not in stored_types(files["none"])
    assert "float16" in stored_types(files["float16"])
    assert "int8" in stored_types(files["dynamic"])
    assert "int8" in stored_types(files["int8"])
    assert stored_types(files["none"]) & {"float16", "int8"} == set()


@pytest.mark.parametrize(("kind", "tolerance"), [("none", 1e-4), ("float16", 0.05), ("dynamic", 0.6), ("int8", 1.5)])
def test_quantized_files_take_floats_answer_float_logits_and_stay_close(files, lenet, calibration, kind, tolerance):
    inputs = calibration[0][:16]
    expected = lenet(inputs, training=False).numpy()
    for batch in (1, 16):
        logits = interpreted(files[kind], inputs[:batch])
        assert logits.dtype == np.float32
        assert logits.shape == (batch, 10)
        np.testing.assert_allclose(logits, expected[:batch], atol=tolerance)
    assert np.mean(interpreted(files[kind], inputs).argmax(1) == expected.argmax(1)) >= 15 / 16


def test_int8_without_calibration_is_refused(lenet):
    with pytest.raises(ValueError, match="calibration"):
        to_litert(lenet, quantization="int8")


def test_digest_follows_the_weights_and_not_the_names(residual):
    again = create_model("resnet20", num_classes=3)
    assert weights_digest(again) != weights_digest(residual)
    again.set_weights(residual.get_weights())
    assert weights_digest(again) == weights_digest(residual)
    renamed = keras.models.clone_model(residual)
    renamed.set_weights(residual.get_weights())
    assert weights_digest(renamed) == weights_digest(residual)
    kernel = again.layers[1].kernel
    kernel.assign(kernel + 1e-7)
    assert weights_digest(again) != weights_digest(residual)


def test_int8_keeps_response_normalisation_in_float():
    """In int8 its divisor, 1 to hundreds, would have steps of about one: trained networks then answer nonsense."""
    from toolkit.layers import LocalResponseNormalization

    rng = np.random.default_rng(0)
    inputs = keras.Input((16, 16, 3), name="input")
    x = keras.layers.Conv2D(16, 3, activation="relu", name="stem_conv")(inputs)
    x = LocalResponseNormalization(5, 1e-4, 1.0, name="stem_norm")(x)
    outputs = keras.layers.Dense(4, name="head_logits")(keras.layers.GlobalAveragePooling2D(name="head_pool")(x))
    model = keras.Model(inputs, outputs)
    # Activations with a long tail, as behind a trained first layer on pixels of 0…255.
    examples = (rng.normal(0, 1, (32, 16, 16, 3)) * rng.gamma(0.5, 120, (32, 1, 1, 1))).astype("float32")
    expected = model(examples).numpy()

    answer = interpreted(to_litert(model, quantization="int8", calibration=[examples]), examples)
    assert np.abs(answer - expected).max() < 0.05 * np.abs(expected).max()
