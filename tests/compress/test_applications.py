"""Networks of keras.applications through every method: right answers, or one line that names a layer and a remedy."""

import functools

import keras
import numpy as np
import pytest

from toolkit.compress import Pruning, Retraining, cluster, prune, quantize, quantize_aware_train
from toolkit.compress.retrain import Clustering, kernels_to_change
from toolkit.data.pixels.decode import normalize
from toolkit.engines.extract import open_extractor
from toolkit.engines.onnx_graph import to_onnx
from toolkit.engines.runtimes import KerasEngine, LiteRTEngine, OpenVINOEngine
from toolkit.errors import UserError
from toolkit.network import as_classifier, feature_tensor
from toolkit.spec import Preprocessing

onnxruntime = pytest.importorskip("onnxruntime")

CLASSES = 5
SIDE = 96
#: Those that scale their input themselves take 0…255.
SCALING = ("ConvNeXt", "EfficientNet", "MobileNetV3")
NETWORKS = {
    "ConvNeXtTiny": {},
    "DenseNet121": {},
    "EfficientNetB0": {},
    "EfficientNetV2B0": {},
    "InceptionV3": {},
    "MobileNet": {"alpha": 0.25},
    "MobileNetV2": {"alpha": 0.35},
    "MobileNetV3Large": {"alpha": 0.75},
    "MobileNetV3Small": {"alpha": 0.75},
    "NASNetMobile": {},
    "ResNet50V2": {},
    "Xception": {},
}
#: Share of pictures that keep their class, by method; 1.0 means equal probabilities.
AGREEMENT = {
    "litert": 1.0,
    "openvino": 1.0,
    "onnx": 1.0,
    "features": 1.0,
    "float16": 0.95,
    "dynamic": 0.9,
    "int16x8": 0.9,
    "int8": 0.85,
    "qat": 0.75,
}
#: What is refused, with the words of the remedy; each remedy is followed.
REFUSED = {
    ("ConvNeXtTiny", "int8"): "all of their kind at once: LayerNormalization",
    ("ConvNeXtTiny", "int16x8"): r"layer '\w+' \(LayerNormalization\) .* take float16",
    **{("ConvNeXtTiny", method): r"DepthwiseConv2D\(1, use_bias=False\)" for method in ("qat", "prune", "cluster")},
}
QUICK = [("MobileNetV3Small", "onnx")]


def pictures(count: int, seed: int) -> np.ndarray:
    """Pictures of five kinds, by colour and the size of spots; the kinds in turn."""
    rng = np.random.default_rng(seed)
    colours = np.array([(200, 60, 60), (60, 170, 80), (70, 80, 190), (120, 120, 120), (220, 200, 90)])
    found = []
    for index in range(count):
        spots = (24, 3, 12, 48, 6)[index % CLASSES]
        noise = np.kron(rng.normal(0, 14, (spots, spots, 1)), np.ones((SIDE // spots, SIDE // spots, 3)))
        found.append(np.clip(colours[index % CLASSES] + rng.normal(0, 8, 3) + noise, 0, 255))
    return np.array(found, np.uint8)


@functools.cache
def network(name: str) -> tuple[keras.Model, Preprocessing]:
    """One with random weights that sees differences as a trained one does: statistics of pictures, a fitted head."""
    keras.utils.set_random_seed(0)
    options = {"weights": None, "input_shape": (SIDE, SIDE, 3), "classes": CLASSES, **NETWORKS[name]}
    model = getattr(keras.applications, name)(classifier_activation=None, **options)
    raw = name.startswith(SCALING)
    preprocessing = Preprocessing((SIDE, SIDE), scale=1.0 if raw else 1 / 127.5, mean=(0.0,) * 3 if raw else (1.0,) * 3)
    inputs = normalize(pictures(40, 0), preprocessing)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # Mostly above zero: a deep random network turns small differences into other answers otherwise.
            for weight, low, high in ((layer.gamma, 0.5, 0.9), (layer.beta, 0.3, 1.1)):
                if weight is not None:
                    weight.assign(rng.uniform(low, high, weight.shape))
            layer.momentum = 0.0  # statistics are the last batch's
        elif type(layer).__name__ == "LayerScale":
            layer.gamma.assign(rng.normal(0, 0.5, layer.gamma.shape))
    model(inputs, training=True)
    model = as_classifier(model)
    features = np.asarray(keras.Model(model.input, feature_tensor(model))(inputs, training=False))
    centred = features - features.mean(0)
    gram = centred @ centred.T
    ridge = 0.3 * np.trace(gram) / len(gram) * np.eye(len(gram))
    targets = np.eye(CLASSES)[np.arange(len(gram)) % CLASSES] - 1 / CLASSES
    kernel = centred.T @ np.linalg.solve(gram + ridge, targets)
    kernel *= 6 / np.ptp(centred @ kernel, axis=1).mean()
    model.layers[-1].set_weights([kernel, -features.mean(0) @ kernel])
    return model, preprocessing


def probabilities(name: str, method: str, tmp_path, **options) -> np.ndarray:
    model, preprocessing = network(name)
    training = (pictures(40, 0), np.arange(40) % CLASSES)
    if method == "onnx":
        session = onnxruntime.InferenceSession(to_onnx(model, preprocessing), providers=["CPUExecutionProvider"])
        return session.run(["probabilities"], {"pixels": pictures(25, 1)})[0]
    if method == "qat":
        quick = Retraining(epochs=0)
        content = quantize_aware_train(model, preprocessing=preprocessing, train=training, retraining=quick, **options)
    elif method in ("litert", "openvino"):
        from toolkit.engines.convert import to_litert

        content = to_litert(model)
    else:
        content = quantize(model, method, preprocessing=preprocessing, calibration=training[0], **options)
    (tmp_path / "model.tflite").write_bytes(content)
    engine = OpenVINOEngine if method == "openvino" else LiteRTEngine
    return engine(tmp_path / "model.tflite", preprocessing).probabilities(pictures(25, 1))


def assert_agrees(name: str, method: str, found: np.ndarray) -> None:
    expected = KerasEngine(*network(name)).probabilities(pictures(25, 1))
    assert len(set(expected.argmax(1))) >= 3
    if AGREEMENT[method] == 1.0:
        np.testing.assert_allclose(found, expected, atol=1e-4)
    else:
        assert np.mean(found.argmax(1) == expected.argmax(1)) >= AGREEMENT[method]


@pytest.mark.parametrize(
    ("name", "method"),
    [
        pytest.param(name, method, marks=() if (name, method) in QUICK else pytest.mark.slow)
        for name in NETWORKS
        for method in ("litert", "openvino", "onnx", "float16", "dynamic", "int8", "int16x8", "qat")
    ],
)
def test_every_method_answers_alike_or_refuses_with_a_remedy(name, method, tmp_path):
    refusal = REFUSED.get((name, method))
    if refusal is None:
        assert_agrees(name, method, probabilities(name, method, tmp_path))
        return
    with pytest.raises(UserError, match=refusal):
        probabilities(name, method, tmp_path)
    if method == "int8":
        found = probabilities(name, method, tmp_path, keep_float=["LayerNormalization"])
        assert_agrees(name, method, found)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_features_are_read_by_openvino(name):
    model, preprocessing = network(name)
    frozen = keras.Model(model.input, feature_tensor(model))
    extractor = open_extractor(frozen, preprocessing, pictures(4, 1), engine="openvino")
    assert extractor.name == "OpenVINO"


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("method", ["prune", "cluster"])
def test_pruned_and_clustered(name, method):
    model, preprocessing = network(name)
    function, settings = {"prune": (prune, Pruning(0.5)), "cluster": (cluster, Clustering(16))}[method]
    training = (pictures(40, 0), np.arange(40) % CLASSES)
    run = functools.partial(
        function, model, settings, preprocessing=preprocessing, train=training, retraining=Retraining(epochs=1)
    )
    if (name, method) in REFUSED:
        with pytest.raises(UserError, match=REFUSED[name, method]):
            run()
        return
    changed = run()
    for layer in kernels_to_change(model, settings):
        kernel = np.asarray(changed.get_layer(layer).kernel)
        if method == "prune":
            assert np.mean(kernel == 0) == pytest.approx(0.5, abs=0.02)
        else:
            assert len(np.unique(kernel)) <= 16


def every_kind() -> keras.Model:
    """The kinds of layers of all those networks, in one small one."""
    layers = keras.layers
    x = inputs = keras.Input((32, 32, 3))
    x = layers.Normalization(mean=[0.1, 0.0, -0.1], variance=[0.3, 0.4, 0.5])(layers.Rescaling(1 / 127.5, -1.0)(x))
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x))
    x = layers.Activation("hard_silu", name="hard")(x)
    gate = layers.Reshape((1, 1, 8))(layers.GlobalAveragePooling2D()(x))
    gate = layers.Conv2D(8, 1, activation="sigmoid")(layers.Conv2D(4, 1, activation="silu")(gate))
    x = layers.Multiply()([x, gate])
    gate = layers.Rescaling(1.0, 3.0)(layers.Conv2D(8, 1)(layers.GlobalAveragePooling2D(keepdims=True)(x)))
    x = layers.Multiply()([x, layers.Rescaling(1 / 6)(layers.ReLU(6.0)(gate))])
    x = layers.AveragePooling2D(2)(layers.Conv2D(8, 1)(x))  # as between DenseNet's blocks
    y = layers.Conv2D(4, 3, padding="same")(layers.Activation("relu")(layers.BatchNormalization()(x)))
    x = layers.Concatenate()([x, y])
    x = layers.BatchNormalization()(layers.SeparableConv2D(8, 3, padding="same", use_bias=False)(x))
    x = layers.Cropping2D(1)(layers.ZeroPadding2D(1)(layers.Activation("silu")(x)))
    return keras.Model(inputs, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x)))


@pytest.mark.slow
def test_quantization_aware_training_knows_every_kind_of_layer(tmp_path):
    keras.utils.set_random_seed(0)
    model, preprocessing = every_kind(), Preprocessing((32, 32), scale=1.0)
    pixels = pictures(40, 0)[:, ::3, ::3]
    expected = np.asarray(model(normalize(pixels, preprocessing), training=False))
    kernel, bias = model.layers[-1].get_weights()
    scale = 6 / np.ptp(expected - expected.mean(0), axis=1).mean()
    model.layers[-1].set_weights([kernel * scale, bias - expected.mean(0) * scale])
    content = quantize_aware_train(
        model, preprocessing=preprocessing, train=(pixels, np.arange(40) % CLASSES), retraining=Retraining(epochs=0)
    )
    (tmp_path / "model.tflite").write_bytes(content)
    answers = LiteRTEngine(tmp_path / "model.tflite", preprocessing).probabilities(pixels)
    assert np.mean(answers.argmax(1) == KerasEngine(model, preprocessing).probabilities(pixels).argmax(1)) >= 0.9
