"""Networks of no table, opened from the file that Keras saved."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.errors import UserError
from toolkit.factory import is_network_file, open_network, preprocessing_of, read_preprocessing
from toolkit.factory.foreign import _looked_up
from toolkit.network import as_classifier
from toolkit.spec import IMAGENET, Preprocessing
from toolkit.weights.naming import CAFFE, INCEPTION

RNG = np.random.default_rng(0)
SHAPE = (32, 24, 3)
PIXELS = RNG.uniform(0, 255, (2, *SHAPE)).astype("float32")


def save(
    path, *start, conv="conv", head=(layers.GlobalAveragePooling2D, lambda: layers.Dense(5, activation="softmax"))
):
    inner = keras.Sequential([keras.Input(SHAPE), layers.Conv2D(4, 3, name=conv), layers.ReLU()], name="backbone")
    model = keras.Sequential([keras.Input(SHAPE), *start, inner, *(make() for make in head)], name="mine")
    model.save(path)
    return model


def normalized(preprocessing):
    factor, offset = preprocessing.affine()
    return PIXELS * np.float32(factor) + np.float32(offset)


@pytest.mark.parametrize("name", ["mine.keras", "mine.h5", "MINE.KERAS"])
def test_a_network_that_scales_its_input_tells_its_preprocessing(tmp_path, name):
    own = save(tmp_path / name.lower(), layers.RandomFlip(), layers.Rescaling(1 / 127.5, offset=-1))
    (tmp_path / name.lower()).rename(tmp_path / name)
    model = open_network(tmp_path / name)
    preprocessing = preprocessing_of(model)
    assert (preprocessing.size, preprocessing.channel_order) == (SHAPE[:2], "rgb")
    np.testing.assert_allclose(preprocessing.affine(), [(1 / 127.5,) * 3, (-1,) * 3], rtol=1e-6)
    logits = model.predict(normalized(preprocessing), verbose=0)
    expected = own.predict(PIXELS, verbose=0)
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), expected, atol=1e-5)
    assert [layer.name for layer in model.layers][1] == "conv"


@pytest.mark.parametrize("head", ["classifier", "ten sigmoids", "maps", "vectors"])
def test_a_new_classifier_stands_on_the_same_features(tmp_path, head):
    ends = {
        "classifier": [layers.GlobalAveragePooling2D, lambda: layers.Dense(5, activation="softmax")],
        "ten sigmoids": [layers.GlobalAveragePooling2D, lambda: layers.Dense(10), lambda: layers.Activation("sigmoid")],
        "maps": [],
        "vectors": [layers.GlobalAveragePooling2D],
    }
    own = save(tmp_path / "mine.keras", head=ends[head])
    model = open_network(tmp_path / "mine.keras", num_classes=7, preprocessing=IMAGENET)
    assert (model.output_shape, model.layers[-1].name) == ((None, 7), "head_logits")
    assert preprocessing_of(model).affine() == IMAGENET.affine()
    features = keras.Model(model.inputs, model.layers[-1].input).predict(PIXELS, verbose=0)
    maps = own.layers[0].predict(PIXELS, verbose=0)
    np.testing.assert_allclose(features, maps.mean(axis=(1, 2)), rtol=1e-4)


@pytest.mark.parametrize(("name", "expected"), [("conv2_block1_0_conv", CAFFE), ("bn_Conv1", INCEPTION)])
def test_keras_applications_are_known_by_their_layers(tmp_path, name, expected):
    save(tmp_path / "mine.keras", conv=name)
    assert preprocessing_of(open_network(tmp_path / "mine.keras")).affine() == expected.affine()


def test_what_nothing_tells_is_asked_for(tmp_path):
    save(tmp_path / "mine.keras")
    with pytest.raises(UserError, match="does not say which pictures it was trained on; give a preprocessing"):
        open_network(tmp_path / "mine.keras")
    model = as_classifier(save(tmp_path / "mine.keras"))
    for file, can_be_changed in (("mine.keras", True), ("mine.onnx", False), ("mine.tflite", False)):
        with pytest.raises(UserError, match=r"--preprocessing imagenet .*, inception for .* none for 0…255") as error:
            _looked_up(Path(file), model, ())
        assert ("or put a Rescaling layer at its input" in str(error.value)) == can_be_changed
    save(tmp_path / "scaled.keras", layers.Rescaling(1 / 255))
    with pytest.raises(UserError, match="scales its input itself"):
        open_network(tmp_path / "scaled.keras", preprocessing=Preprocessing((8, 8)))


@pytest.mark.parametrize("end", ["cast", "clip", "average"])
def test_probabilities_that_would_be_taken_for_logits_are_refused(tmp_path, end):
    """Softmax of them made nearly even answers of sure ones, and no check could see it."""
    inputs = keras.Input(SHAPE)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3, activation="relu")(layers.Rescaling(1 / 255)(inputs)))
    soft, other = (layers.Dense(4, activation="softmax")(x) for _ in range(2))
    make = {"cast": lambda: keras.ops.cast(soft, "float32"), "clip": lambda: keras.ops.clip(soft, 1e-7, 1)}
    x = make.get(end, lambda: layers.Average()([soft, other]))()
    own = keras.Model(inputs, x)
    own.save(tmp_path / "mine.keras")
    if end != "cast":
        with pytest.raises(UserError, match="answers probabilities, which would be taken for logits, for it ends in"):
            open_network(tmp_path / "mine.keras")
        return
    model = open_network(tmp_path / "mine.keras")  # which changes nothing, and is passed over
    logits = model.predict(normalized(preprocessing_of(model)), verbose=0)
    expected = own.predict(PIXELS, verbose=0)
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), expected, atol=1e-5)
    assert open_network(tmp_path / "mine.keras", num_classes=3).layers[-1].input.shape == (None, 8)


def test_a_network_of_grey_pictures_without_a_channel_is_given_one(tmp_path):
    """As the beginner's Flatten(input_shape=(28, 28))."""
    own = keras.Sequential([keras.Input((28, 28)), layers.Flatten(), layers.Dense(8, "relu"), layers.Dense(10)])
    own.save(tmp_path / "mine.keras")
    told = read_preprocessing('{"channel_order": "grey", "scale": 0.00392156862745098}')
    model = open_network(tmp_path / "mine.keras", preprocessing=told)
    assert preprocessing_of(model).input_shape == (28, 28, 1)
    pixels = RNG.uniform(0, 1, (3, 28, 28, 1)).astype(np.float32)
    np.testing.assert_allclose(model.predict(pixels, verbose=0), own.predict(pixels[..., 0], verbose=0), rtol=1e-4)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((784,), "takes 784, and pictures are height×width×channels"),
        ((8, 8, 4), "takes 8×8×4, and pictures are height×width×channels, 1 or 3 of these"),
        ((3, 8, 8), "takes 3×8×8, channels first; build it with data_format='channels_last'"),
    ],
)
def test_what_takes_no_pictures_is_told_what_it_takes(tmp_path, shape, message):
    keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(3)]).save(tmp_path / "mine.keras")
    with pytest.raises(UserError, match=message):
        open_network(tmp_path / "mine.keras", preprocessing=IMAGENET)


@pytest.mark.parametrize("kind", ["bytes", "operation", "lora"])
def test_ends_and_beginnings_of_other_kinds_answer_alike(tmp_path, kind):
    inputs = keras.Input(SHAPE, dtype="uint8" if kind == "bytes" else None)
    x = layers.Conv2D(4, 3, activation="relu")(layers.Rescaling(1 / 255)(inputs))
    if kind == "operation":
        x = layers.Activation("softmax")(keras.ops.mean(x, axis=(1, 2)))
    else:
        head = layers.Dense(4, activation="softmax")
        x = head(layers.GlobalAveragePooling2D()(x))
        if kind == "lora":
            head.enable_lora(2)
            for weight in (head.lora_kernel_a, head.lora_kernel_b):
                weight.assign(RNG.normal(0, 1, weight.shape))
    own = keras.Model(inputs, x)
    own.save(tmp_path / "mine.keras")
    model = open_network(tmp_path / "mine.keras")
    pixels = RNG.integers(0, 256, (2, *SHAPE)).astype(np.float32)
    factor, offset = preprocessing_of(model).affine()
    logits = model.predict(pixels * np.float32(factor) + np.float32(offset), verbose=0)
    expected = own.predict(pixels.astype(np.uint8) if kind == "bytes" else pixels, verbose=0)
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), expected, atol=1e-4)


def test_what_keras_quantized_is_refused_in_one_line(tmp_path):
    own = save(tmp_path / "mine.keras", layers.Rescaling(1 / 255))
    own.quantize("int8")
    own.save(tmp_path / "mine.keras")
    with pytest.raises(UserError, match=r"is quantized by Keras; bring the float network, and `toolkit compress`"):
        open_network(tmp_path / "mine.keras")


def test_a_network_of_pictures_of_any_size_takes_that_of_its_preprocessing(tmp_path):
    parts = [layers.Conv2D(4, 3, name="conv"), layers.GlobalAveragePooling2D(name="pool"), layers.Dense(3)]
    own = keras.Sequential([keras.Input((None, None, 3)), *parts])
    own.save(tmp_path / "any.keras")
    with pytest.raises(
        UserError, match=r"takes pictures of any size \(\?×\?×\?×3\); give a preprocessing that has one"
    ):
        open_network(tmp_path / "any.keras")
    told = read_preprocessing('{"size": [32, 24], "scale": 1.0}')
    model = open_network(tmp_path / "any.keras", preprocessing=told)
    assert (model.input_shape, preprocessing_of(model).size) == ((None, *SHAPE), SHAPE[:2])
    assert [layer.name for layer in model.layers][1:3] == ["conv", "pool"]
    np.testing.assert_allclose(model.predict(PIXELS, verbose=0), own.predict(PIXELS, verbose=0), rtol=1e-4)


TO_ONE = '{"scale": 0.00392156862745098}'


@pytest.mark.parametrize(
    ("scaling", "before"),
    [
        (lambda: layers.Normalization(mean=[0.485, 0.456, 0.406], variance=[0.0524, 0.0502, 0.0506]), TO_ONE),
        (lambda: layers.Rescaling(2, -1), TO_ONE),
        (lambda: layers.Rescaling([0.458, 0.448, 0.45], [-0.03, -0.088, -0.188]), "imagenet"),
    ],
    ids=["normalised", "doubled", "transform_input"],
)
def test_scaling_that_cannot_begin_from_pixels_is_asked_what_comes_before(tmp_path, scaling, before):
    """Torch's people put it behind ToTensor and Keras' behind a division by 255, and pixels made garbage of it."""
    own = save(tmp_path / "mine.keras", scaling())
    with pytest.raises(UserError, match=r"scales its input, but not from pixels of 0…255, of which") as error:
        open_network(tmp_path / "mine.keras")
    assert "--preprocessing imagenet" in str(error.value)
    given = read_preprocessing(before)
    model = open_network(tmp_path / "mine.keras", preprocessing=given)
    expected = own.predict(normalized(given), verbose=0)
    logits = model.predict(normalized(preprocessing_of(model)), verbose=0)
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), expected, atol=1e-5)


@pytest.mark.parametrize(
    "scaling",
    [
        lambda: layers.Rescaling(1),
        lambda: layers.Normalization(mean=[123.7, 116.3, 103.5], variance=[1.0, 1.0, 1.0]),
        lambda: layers.Normalization(mean=[123.7, 116.3, 103.5], variance=[3409.0, 3262.0, 3291.0]),
    ],
    ids=["as they are", "less the mean", "normalised"],
)
def test_scaling_of_pixels_is_taken_as_it_is(tmp_path, scaling):
    save(tmp_path / "mine.keras", scaling())
    assert preprocessing_of(open_network(tmp_path / "mine.keras")).scale == 1.0


def test_a_grey_network_is_asked_for_grey_pictures(tmp_path):
    def save_grey(name, *first):
        inputs = keras.Input((8, 8, 1))
        x = inputs
        for layer in (*first, layers.Conv2D(2, 3, activation="relu"), layers.GlobalAveragePooling2D()):
            x = layer(x)
        keras.Model(inputs, layers.Dense(3)(x)).save(tmp_path / name)
        return tmp_path / name

    grey = save_grey("grey.keras")
    with pytest.raises(UserError, match='"channel_order": "grey"') as asked:
        open_network(grey)
    text = re.search(r"'(\{.*?\})'", str(asked.value))[1]
    assert preprocessing_of(open_network(grey, preprocessing=read_preprocessing(text))).input_shape == (8, 8, 1)
    with pytest.raises(UserError, match='gives 3; say "channel_order": "grey"'):
        open_network(grey, preprocessing=read_preprocessing('{"scale": 1.0}'))
    scaled = open_network(save_grey("scaled.keras", layers.Rescaling(1 / 255)))
    assert preprocessing_of(scaled).affine() == ((pytest.approx(1 / 255),), (0.0,))


def test_names_of_files_and_of_networks():
    assert [is_network_file(name) for name in ("a/mine.keras", "MINE.H5", "mine.weights.h5", "resnet50")] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("caffe", CAFFE), ('{"scale": 1.0}', Preprocessing((224, 224), scale=1.0))],
)
def test_a_preprocessing_is_read_from_the_command_line(text, expected):
    assert read_preprocessing(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "caffee",
        "{",
        "[1]",
        '{"skale": 1}',
        '{"mean": [1]}',
        '{"std": [0, 0, 0]}',
        "1",
        '{"channel_order": "gbr"}',
        '{"scale": "x"}',
    ],
)
def test_one_that_is_none_is_refused_in_a_line(text):
    with pytest.raises(UserError, match=r"cannot read preprocessing .*imagenet, caffe, inception, none, or JSON"):
        read_preprocessing(text)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("MobileNet", "MobileNetV2", "MobileNetV3Small", "EfficientNetB0", "EfficientNetV2B0"),
        *("DenseNet121", "Xception", "ResNet50V2", "ConvNeXtTiny", "InceptionV3"),
    ],
)
def test_networks_of_keras_applications_answer_the_same(tmp_path, name):
    shape = (96, 96, 3)
    given = getattr(keras.applications, name)(weights=None, input_shape=shape)
    pixels = RNG.uniform(0, 255, (16, *shape)).astype("float32")
    module = {
        **dict.fromkeys(("MobileNet", "Xception"), name.lower()),
        "MobileNetV2": "mobilenet_v2",
        "MobileNetV3Small": "mobilenet_v3",
        "EfficientNetB0": "efficientnet",
        "EfficientNetV2B0": "efficientnet_v2",
        "DenseNet121": "densenet",
        "ResNet50V2": "resnet_v2",
        "ConvNeXtTiny": "convnext",
        "InceptionV3": "inception_v3",
    }[name]
    prepared = getattr(keras.applications, module).preprocess_input(pixels.copy())
    for layer in given.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0
    given(prepared, training=True)  # statistics of these pictures, or an untrained network answers next to nothing
    given.save(tmp_path / "whole.keras")
    expected = given.predict(prepared, verbose=0)
    model = open_network(tmp_path / "whole.keras")
    factor, offset = preprocessing_of(model).affine()
    logits = model.predict(pixels * np.float32(factor) + np.float32(offset), verbose=0)
    found = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(found / found.sum(axis=1, keepdims=True), expected, rtol=1e-2, atol=1e-7)
