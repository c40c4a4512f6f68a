"""Quantization-aware training, pruning and clustering: each test runs the worker process, so most are slow."""

import importlib.util
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from toolkit.compress import Clustering, Pruning, Retraining, cluster, operator_report, prune, quantize_aware_train
from toolkit.compress.retrain import kernels_to_change, quantized_training
from toolkit.data.feed.arrays import load_pixels
from toolkit.data.pixels.decode import normalize
from toolkit.engines.runtimes import KerasEngine, LiteRTEngine, OpenVINOEngine
from toolkit.errors import UserError
from toolkit.metrics import top_k_accuracy
from toolkit.progress import shown_on
from toolkit.spec import Preprocessing

# Importing it here would turn this process's tf.keras into tf_keras.
if importlib.util.find_spec("tensorflow_model_optimization") is None:
    pytest.skip("needs toolkit[compress]", allow_module_level=True)
layers = keras.layers
GREY = Preprocessing((32, 32), channel_order="grey", mean=(0.5,), std=(0.5,))
RGB = Preprocessing((16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)


def int8_weights(content: bytes) -> dict[str, np.ndarray]:
    """Kernels of an int8 file, by layer."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content)
    kernels = {}
    for detail in interpreter.get_tensor_details():
        if detail["dtype"] == np.int8 and len(detail["shape"]) >= 2 and detail["shape_signature"][0] != -1:
            kernels[detail["name"].split("/")[0]] = interpreter.get_tensor(detail["index"])
    return kernels


def engine_for(content: bytes, directory: Path, preprocessing: Preprocessing, engine_class=LiteRTEngine):
    file = directory / "model.tflite"
    file.write_bytes(content)
    return engine_class(file, preprocessing)


@pytest.fixture(scope="module")
def test_pixels(digits_split, lenet_preprocessing):
    return load_pixels(digits_split.test.paths, lenet_preprocessing), np.asarray(digits_split.test.labels)


def frozen(model: keras.Model) -> keras.Model:
    """A copy of which only the classifier trains, as fine-tuning leaves a network."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    for layer in copy.layers[:-1]:
        layer.trainable = False
    return copy


@pytest.fixture(scope="module")
def aware(lenet, lenet_preprocessing, digits_split):
    """A fine-tuned LeNet-5 after an epoch of quantization-aware training, what that did, and what steps told."""
    told: list[tuple] = []

    class Recorder:
        def begin(self, label, total, in_bytes):
            told.append((label, total))
            return 0

        def update(self, number, done, total):
            told.append(done)

        def end(self, number): ...

    with shown_on(Recorder()):
        content, facts = quantized_training(
            frozen(lenet),
            preserve="none",
            keep_float=(),
            preprocessing=lenet_preprocessing,
            train=digits_split.train,
            validation=digits_split.val,
            retraining=Retraining(epochs=1),
        )
    return content, facts, told


@pytest.mark.slow
def test_aware_training_ends_in_an_int8_file_for_both_runtimes(
    aware, lenet, lenet_preprocessing, test_pixels, tmp_path
):
    content, _, _ = aware
    pixels, labels = test_pixels
    report = operator_report(content)
    assert report.float_outputs == ()
    assert report.by_type["int8"] >= 7
    assert "MUL" not in report.by_name
    answers = engine_for(content, tmp_path, lenet_preprocessing).probabilities(pixels)
    expected = KerasEngine(lenet, lenet_preprocessing).probabilities(pixels)
    assert top_k_accuracy(answers, labels, 1) >= top_k_accuracy(expected, labels, 1) - 0.01
    pytest.importorskip("openvino")
    other = engine_for(content, tmp_path, lenet_preprocessing, OpenVINOEngine)
    for batch in (1, 16):
        np.testing.assert_allclose(other.probabilities(pixels[:batch]), answers[:batch], atol=0.05)


@pytest.mark.slow
def test_a_network_that_ends_in_softmax_is_trained_on_as_logits(
    lenet, lenet_preprocessing, digits_split, test_pixels, tmp_path
):
    inputs = keras.Input(lenet.input_shape[1:])
    model = keras.Model(inputs, layers.Softmax()(lenet(inputs)), name="ends_in_softmax")
    pixels, _ = test_pixels
    expected = model.predict(normalize(pixels, lenet_preprocessing), verbose=0)
    training = {
        "preprocessing": lenet_preprocessing,
        "train": digits_split.train,
        "retraining": Retraining(epochs=1, learning_rate=1e-5),
    }
    clustered = cluster(model, Clustering(64), **training)
    pruned = prune(model, Pruning(0.01), **training)
    for network in (clustered, pruned):
        assert [layer.name for layer in network.layers][1:] == [layer.name for layer in lenet.layers][1:]
        answers = KerasEngine(network, lenet_preprocessing).probabilities(pixels)
        assert np.abs(answers - expected).mean() < 0.01
    content = quantize_aware_train(model, **training)
    answers = engine_for(content, tmp_path, lenet_preprocessing).probabilities(pixels)
    assert np.abs(answers - expected).mean() < 0.01


@pytest.mark.slow
def test_aware_training_tells_how_far_it_is(aware):
    _, _, told = aware
    steps = [step for step in told if isinstance(step, tuple)]
    assert [label for label, _ in steps] == [
        "rebuilding the network in tf_keras",
        "starting TensorFlow Model Optimization",
        "reading the training pictures",
        "calibrating the ranges",
        "training, epoch 1 of 1",
        "converting to int8",
    ]
    assert dict(steps)["training, epoch 1 of 1"] == 34  # batches of 1,078 pictures
    assert any(0 < done <= 34 for done in told if isinstance(done, int))


@pytest.mark.slow
def test_aware_training_trains_what_fine_tuning_froze(aware, lenet):
    _, facts, _ = aware
    assert facts.trained == lenet.count_params()
    assert facts.untouched == []
    assert facts.kept_epoch in (0, 1)


@pytest.mark.slow
def test_the_parent_keeps_its_keras_and_its_network(aware, lenet):
    import tensorflow as tf

    assert tf.keras.layers.Dense is keras.layers.Dense
    assert "tensorflow_model_optimization" not in sys.modules


@pytest.mark.slow
def test_ranges_come_from_pictures_so_few_steps_suffice(lenet, lenet_preprocessing, test_pixels, tmp_path):
    """Left at -6…6 and moved by a thousandth a step, as the library has it, they would ruin a short training."""
    pixels, labels = test_pixels
    content = quantize_aware_train(
        lenet, preprocessing=lenet_preprocessing, train=(pixels[:64], labels[:64]), retraining=Retraining(epochs=0)
    )
    answers = engine_for(content, tmp_path, lenet_preprocessing).probabilities(pixels)
    expected = KerasEngine(lenet, lenet_preprocessing).probabilities(pixels)
    assert np.mean(answers.argmax(1) == expected.argmax(1)) >= 0.98


@pytest.fixture(scope="module")
def pruned(lenet, lenet_preprocessing, digits_split):
    return prune(
        frozen(lenet),
        Pruning(0.6, skip=("head_logits",)),
        preprocessing=lenet_preprocessing,
        train=digits_split.train,
        retraining=Retraining(epochs=2, learning_rate=1e-3),
    )


def kernels_of(model: keras.Model) -> dict[str, np.ndarray]:
    return {layer.name: layer.get_weights()[0] for layer in model.layers if layer.weights}


@pytest.mark.slow
def test_pruning_leaves_the_share_of_zeros_asked_for(pruned, lenet):
    zeros = {name: float(np.mean(kernel == 0)) for name, kernel in kernels_of(pruned).items()}
    for name in ("stage2_conv", "head_fc1", "head_fc2"):
        assert zeros[name] == pytest.approx(0.6, abs=0.01)
    assert zeros["stage1_conv"] == zeros["head_logits"] == 0  # too small, and skipped
    assert all(np.all(kernel != 0) for kernel in kernels_of(lenet).values())
    assert isinstance(pruned, keras.Model)
    assert [layer.name for layer in pruned.layers if layer.trainable] == ["head_logits"]  # as it came


@pytest.mark.slow
def test_two_in_four_zeros_lie_along_the_input_channels(lenet, lenet_preprocessing, digits_split):
    model = prune(
        lenet,
        Pruning(pattern="2:4"),
        preprocessing=lenet_preprocessing,
        train=digits_split.train,
        retraining=Retraining(epochs=1),
    )
    kernel = kernels_of(model)["head_fc1"]  # 400 inputs, 120 units
    groups = kernel.reshape(100, 4, 120)
    assert np.all(np.sum(groups == 0, axis=1) >= 2)


@pytest.mark.slow
def test_blocks_are_zero_as_a_whole(lenet, lenet_preprocessing, digits_split):
    model = prune(
        lenet,
        Pruning(0.5, pattern="block", block=(2, 4), schedule="constant"),
        preprocessing=lenet_preprocessing,
        train=digits_split.train,
        retraining=Retraining(epochs=1),
    )
    kernels = kernels_of(model)
    blocks = kernels["head_fc1"].reshape(200, 2, 30, 4).transpose(0, 2, 1, 3).reshape(-1, 8) == 0
    assert np.all(blocks.all(axis=1) | ~blocks.any(axis=1))
    assert blocks.mean() == pytest.approx(0.5, abs=0.01)
    assert np.all(kernels["stage2_conv"] != 0)


@pytest.mark.slow
def test_clusters_and_zeros_survive_quantization_aware_training(pruned, lenet_preprocessing, digits_split):
    data = {"preprocessing": lenet_preprocessing, "train": digits_split.train}
    brief = Retraining(epochs=1)
    clustered = cluster(pruned, Clustering(8, preserve_sparsity=True), retraining=brief, **data)
    for name, kernel in kernels_of(clustered).items():
        if name not in ("stage1_conv", "head_logits"):
            assert len(np.unique(kernel)) <= 8
            assert np.mean(kernel == 0) >= 0.59
    for preserve in ("sparsity", "both"):
        kernels = int8_weights(
            quantize_aware_train(
                pruned if preserve == "sparsity" else clustered, preserve=preserve, retraining=brief, **data
            )
        )
        for name in ("stage2_conv", "head_fc1", "head_fc2"):
            assert np.mean(kernels[name] == 0) >= 0.59
            if preserve == "both" and name != "stage2_conv":  # a scale per channel moves the values apart
                assert len(np.unique(kernels[name])) <= 8


def gated_and_normalised() -> keras.Model:
    """Layers that 8-bit training has no rule for: normalisation behind a sum, a gate, local response normalisation."""
    from toolkit.layers import LocalResponseNormalization, PadChannels

    inputs = keras.Input((16, 16, 3), name="input")
    x = layers.Conv2D(8, 3, padding="same", name="stem")(inputs)
    x = layers.BatchNormalization(name="before_bn")(layers.Activation("relu", name="stem_relu")(x))
    y = layers.Conv2D(8, 3, padding="same", name="branch")(x)
    x = layers.BatchNormalization(name="sum_bn")(layers.Add(name="sum")([x, y]))
    x = LocalResponseNormalization(5, 1.0, 1.0, name="norm")(x)
    gate = layers.Conv2D(8, 1, activation="sigmoid", name="gate")(x)
    x = layers.Multiply(name="gated")([gate, layers.Subtract(name="difference")([y, x])])
    x = layers.ReLU(name="pad_relu")(PadChannels(12, 2, name="pad")(x))
    x = layers.Conv2D(8, 3, activation="relu", name="last")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, layers.Dense(4, name="logits")(x), name="rules")
    rng = np.random.default_rng(0)
    for name in ("before_bn", "sum_bn"):
        layer = model.get_layer(name)
        layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


@pytest.mark.slow
def test_gates_lone_normalisations_and_lrn_become_int8(tmp_path):
    keras.utils.set_random_seed(0)
    model = gated_and_normalised()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, 16, 16, 3), np.uint8)
    content = quantize_aware_train(
        model, preprocessing=RGB, train=(pixels, rng.integers(0, 4, 64)), retraining=Retraining(epochs=0)
    )
    report = operator_report(content)
    assert report.by_name["DEPTHWISE_CONV_2D"] == {"int8": 2}  # the lone normalisations
    assert {name.split("/")[0] for name in report.float_outputs} == {"norm"}
    assert report.by_name["LOGISTIC"] == {"int8": 1}
    answers = engine_for(content, tmp_path, RGB).probabilities(pixels)
    assert np.abs(answers - KerasEngine(model, RGB).probabilities(pixels)).max() < 0.05


@pytest.mark.slow
def test_a_classifier_of_eight_stages_becomes_int8(tmp_path):
    """``toolkit finetune`` builds such on networks of many stages."""
    keras.utils.set_random_seed(0)
    inputs = x = keras.Input((16, 16, 3), name="input")
    pooled = []
    for number in range(8):
        x = layers.Conv2D(8, 3, padding="same", activation="relu", name=f"stage{number}")(x)
        average = layers.GlobalAveragePooling2D(name=f"pool{number}")(x)
        pooled.append(layers.UnitNormalization(name=f"unit{number}")(average) if number % 2 else average)
    model = keras.Model(inputs, layers.Dense(4, name="logits")(layers.Concatenate(name="joined")(pooled)), name="wide")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (64, 16, 16, 3), np.uint8)
    content = quantize_aware_train(
        model, preprocessing=RGB, train=(pixels, rng.integers(0, 4, 64)), retraining=Retraining(epochs=0)
    )
    assert operator_report(content).by_name["CONCATENATION"] == {"int8": 1}
    answers = engine_for(content, tmp_path, RGB).probabilities(pixels)
    assert np.abs(answers - KerasEngine(model, RGB).probabilities(pixels)).max() < 0.05


@pytest.mark.slow
def test_an_activation_that_has_no_int8_form_is_named():
    inputs = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, activation="elu", name="odd")(inputs)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, layers.Dense(4, name="logits")(x), name="elu")
    data = {"preprocessing": RGB, "train": (np.zeros((8, 16, 16, 3), np.uint8), np.zeros(8, int))}
    with pytest.raises(UserError, match=r"'odd'.* keep_float"):
        quantize_aware_train(model, retraining=Retraining(epochs=0), **data)
    content = quantize_aware_train(model, keep_float=("odd",), retraining=Retraining(epochs=0), **data)
    assert operator_report(content).by_type["float32"] >= 1


def test_what_is_changed_does_not_depend_on_what_is_frozen(lenet, outline):
    names = kernels_to_change(lenet, Pruning(skip=("head_logits",)))
    assert names == kernels_to_change(frozen(lenet), Pruning(skip=("head_logits",)))
    assert {"stage2_conv", "head_fc2"} <= set(names)
    assert "stage1_conv" not in names  # 150 weights
    assert set(kernels_to_change(lenet, Pruning(pattern="block"))) == {"head_fc1", "head_fc2", "head_logits"}
    assert len(kernels_to_change(outline("vgg16"), Clustering())) == 16


def test_a_network_with_nothing_to_change_is_refused():
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, layers.Dense(2, name="logits")(layers.Flatten()(inputs)), name="tiny")
    with pytest.raises(UserError, match="tiny: nothing to change: it has no dense layer or convolution of 256 weights"):
        kernels_to_change(model, Pruning())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda kw: quantize_aware_train(preserve="zeros", **kw), "unknown preserve 'zeros'"),
        (lambda kw: quantize_aware_train(keep_float=("conv",), **kw), "unknown layer 'conv'"),
        (lambda kw: quantize_aware_train(**kw | {"train": []}), "got no pictures"),
        (
            lambda kw: quantize_aware_train(**kw | {"train": (np.zeros((2, 8, 8, 3), np.uint8), [0, 1])}),
            "expected uint8",
        ),
        (lambda kw: prune(**kw, retraining=Retraining(epochs=0)), "at least one epoch"),
        (lambda kw: prune(pruning=Pruning(1.5), **kw), "sparsity must lie between 0 and 1, got 1.5"),
        (lambda kw: prune(pruning=Pruning(0.6, pattern="2:4"), **kw), "are a sparsity of 0.5, got 0.6"),
        (lambda kw: cluster(clustering=Clustering(1), **kw), "at least 2, got 1"),
        (lambda kw: cluster(**kw, retraining=Retraining(learning_rate=0)), "learning_rate positive, got .*=0"),
        (lambda kw: cluster(**kw, retraining=Retraining(augment="blur")), "unknown augmentation 'blur'"),
        (lambda kw: cluster(**kw, retraining=Retraining(augment="mixup")), "mixup and cutmix are for training from"),
    ],
)
def test_impossible_settings_are_refused_before_anything_starts(lenet, call, message):
    data = {"model": lenet, "preprocessing": GREY, "train": (np.zeros((4, 32, 32, 3), np.uint8), np.zeros(4, int))}
    with pytest.raises(UserError, match=message):
        call(data)


def test_what_is_missing_is_named_with_how_to_install_it(lenet, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"not installed: pip install 'toolkit\[compress\]'"):
        cluster(lenet, preprocessing=GREY, train=(np.zeros((4, 32, 32, 3), np.uint8), np.zeros(4, int)))
