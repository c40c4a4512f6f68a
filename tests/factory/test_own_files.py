"""Networks of one's own around a known backbone: their files fill it, whatever the classifier and the wrapping."""

import keras
import numpy as np
import pytest
from keras import layers
from safetensors.numpy import save_file

import toolkit
from toolkit.errors import UserError
from toolkit.factory import preprocessing_of

RNG = np.random.default_rng(0)
SHAPE = (32, 32, 3)


def randomize(model):
    for weight in model.weights:
        low, high = (0.5, 1.5) if "variance" in weight.name or "gamma" in weight.name else (-0.05, 0.05)
        if weight.dtype == "float32":
            weight.assign(RNG.uniform(low, high, weight.shape))
    return model


@pytest.fixture(scope="module")
def backbone():
    """ResNet-20 by this package's names, which stands for any backbone: small, and with a naming of its own."""
    return randomize(toolkit.create_model("resnet20", include_top=False))


def on_top(backbone, *head):
    body = keras.Model(backbone.input, backbone.output, name="resnet")
    end = [layers.GlobalAveragePooling2D(), layers.Dropout(0.2), *head]
    return randomize(keras.Sequential([keras.Input(SHAPE), layers.RandomFlip(), body, *end], name="mine"))


def answers(model, inputs):
    return keras.ops.convert_to_numpy(model(inputs, training=False))


INPUTS = RNG.normal(size=(2, *SHAPE)).astype("float32")


@pytest.mark.parametrize("name", ["mine.keras", "mine.h5", "mine.weights.h5"])
def test_a_nested_network_of_ones_own_fills_a_registered_one(tmp_path, backbone, name):
    mine = on_top(backbone, layers.Dense(5, name="flowers"))
    (mine.save_weights if "weights" in name else mine.save)(tmp_path / name)
    model = toolkit.create_model("resnet20", weights=tmp_path / name, shortcut="A")
    assert model.output_shape == (None, 5)
    np.testing.assert_allclose(answers(model, INPUTS), answers(mine, INPUTS), atol=1e-5)


@pytest.mark.parametrize("name", ["thin.keras", "thin.h5", "thin.weights.h5", "thin.safetensors"])
def test_a_network_of_another_width_is_told_by_its_tensors(tmp_path, name):
    for width, found in ((0.125, 0.125), (0.3, 19 / 64)):
        thin = randomize(toolkit.create_model("resnet18", num_classes=5, input_shape=SHAPE, width=width))
        if name.endswith(".safetensors"):
            toolkit.save_weights(thin, tmp_path / name)
        else:
            (thin.save_weights if "weights" in name else thin.save)(tmp_path / name)
        model = toolkit.create_model("resnet18", weights=tmp_path / name, input_shape=SHAPE)
        assert model.variant["width"] in (width, found)
        np.testing.assert_allclose(answers(model, INPUTS), answers(thin, INPUTS), atol=1e-5)


@pytest.mark.parametrize("name", ["mine.keras", "mine.h5"])
def test_layers_that_scale_the_input_tell_the_preprocessing(tmp_path, backbone, name):
    start = [keras.Input(SHAPE), layers.Rescaling(1 / 127.5, offset=-1)]
    mine = keras.Sequential([*start, backbone, layers.GlobalAveragePooling2D(), layers.Dense(5, name="flowers")])
    mine.save(tmp_path / name)
    model = toolkit.create_model("resnet20", weights=tmp_path / name)
    preprocessing = preprocessing_of(model)
    np.testing.assert_allclose(preprocessing.affine(), [(1 / 127.5,) * 3, (-1,) * 3], rtol=1e-6)
    pixels = RNG.uniform(0, 255, (2, *SHAPE)).astype("float32")
    factor, offset = (np.float32(values) for values in preprocessing.affine())
    np.testing.assert_allclose(answers(model, pixels * factor + offset), answers(mine, pixels), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["mine.keras", "mine.h5", "mine.weights.h5"])
def test_statistics_that_a_layer_was_adapted_to_are_read_or_asked_for(tmp_path, backbone, name):
    statistics = layers.Normalization()
    statistics.adapt(RNG.normal((120, 110, 100), (60, 55, 50), (40, *SHAPE[:2], 3)).astype("float32"))
    mine = keras.Sequential(
        [keras.Input(SHAPE), statistics, backbone, layers.GlobalAveragePooling2D(), layers.Dense(5)]
    )
    (mine.save_weights if "weights" in name else mine.save)(tmp_path / name)
    if "weights" in name:  # which tells of no layers, and so not what comes before this one
        with pytest.raises(UserError, match=r"lacks layer 'normalization\w*'; only a whole network, model.save"):
            toolkit.create_model("resnet20", weights=tmp_path / name)
        return
    model = toolkit.create_model("resnet20", weights=tmp_path / name)
    pixels = RNG.uniform(0, 255, (2, *SHAPE)).astype("float32")
    factor, offset = (np.float32(values) for values in preprocessing_of(model).affine())
    np.testing.assert_allclose(answers(model, pixels * factor + offset), answers(mine, pixels), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mine.keras", "mine.h5"])
def test_resnet50_of_keras_applications_within_a_classifier(tmp_path, name):
    shape = (64, 64, 3)
    theirs = keras.applications.ResNet50(weights=None, include_top=False, input_shape=shape, pooling="avg")
    mine = randomize(keras.Sequential([keras.Input(shape), theirs, layers.Dense(5, activation="softmax")]))
    mine.compile("adam", "categorical_crossentropy")
    mine.save(tmp_path / name)
    inputs = RNG.normal(size=(2, *shape)).astype("float32")
    expected = answers(mine, inputs)
    model = toolkit.create_model("resnet50", weights=tmp_path / name, input_shape=shape)
    logits = answers(model, inputs)
    found = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(found / found.sum(axis=1, keepdims=True), expected, atol=1e-5)
    assert preprocessing_of(model).channel_order == "bgr"
    assert toolkit.create_model("resnet50", weights=tmp_path / name, num_classes=7).output_shape == (None, 7)


@pytest.mark.parametrize(
    "head",
    [
        lambda: [layers.Dense(5, name="flowers")],
        lambda: [layers.Dense(3, use_bias=False, name="other")],
        lambda: [layers.Dense(16, activation="relu"), layers.BatchNormalization(), layers.Dense(3, name="last")],
        lambda: [layers.Dense(3, name="head_logits"), layers.Dense(4, name="after")],
        list,
    ],
    ids=["classes", "bias", "hidden", "after", "none"],
)
@pytest.mark.parametrize("name", ["mine.keras", "mine.h5"])
def test_a_head_that_is_replaced_is_no_reason_to_refuse(tmp_path, backbone, head, name):
    mine = on_top(backbone, *head())
    mine.save(tmp_path / name)
    model = toolkit.create_model("resnet20", weights=tmp_path / name, num_classes=7)
    assert model.output_shape == (None, 7)
    ours = keras.Model(model.inputs, model.layers[-1].input)
    body = keras.Sequential([backbone, layers.GlobalAveragePooling2D()])
    np.testing.assert_allclose(answers(ours, INPUTS), answers(body, INPUTS), atol=1e-5)


def torch_file(backbone, path, prefix="", head="fc", classes=5):
    tensors = {}
    for layer in backbone.layers:
        name = layer.name.replace("stem_", "").replace("conv", "conv1") if "stem" in layer.name else layer.name
        name = name.replace("bn", "bn1") if "stem" in layer.name else name
        for kind in ("conv1", "conv2", "bn1", "bn2"):
            if layer.name.startswith("stage") and layer.name.endswith(kind):
                stage, block = (int(part[-1]) for part in layer.name.split("_")[:2])
                name = f"layer{stage}.{block - 1}.{kind}"
        for weight, kind in zip(layer.get_weights(), ("weight", "bias", "running_mean", "running_var"), strict=False):
            tensors[f"{prefix}{name}.{kind}"] = weight.transpose(3, 2, 0, 1).copy() if weight.ndim == 4 else weight
    if head:
        tensors[f"{head}.weight"] = RNG.normal(size=(classes, 64)).astype("float32")
        tensors[f"{head}.bias"] = RNG.normal(size=classes).astype("float32")
    save_file(tensors, path)
    return tensors


@pytest.mark.parametrize(
    ("prefix", "head"),
    [
        ("", "fc"),
        ("", "fc.1"),
        ("backbone.", "fc"),
        ("net.", "net.fc.1"),
        ("model.", "model.fc"),
        ("module.encoder.", "module.classifier"),
        ("model.backbone.", "head"),
        ("encoder.", ""),
    ],
)
def test_prefixes_and_names_of_the_head_are_seen_through(tmp_path, backbone, prefix, head):
    tensors = torch_file(backbone, tmp_path / "mine.safetensors", prefix, head)
    model = toolkit.create_model("resnet20", weights=tmp_path / "mine.safetensors", num_classes=5)
    np.testing.assert_array_equal(model.get_layer("stem_conv").get_weights()[0], backbone.layers[1].get_weights()[0])
    kernel = model.layers[-1].get_weights()[0]
    assert bool(head) == (bool(head) and np.array_equal(kernel, tensors[f"{head}.weight"].T))
    assert preprocessing_of(model).size == (32, 32)


def test_what_fits_nowhere_is_listed_by_the_files_own_names(tmp_path, backbone):
    save_file(
        {f"blocks.{n}.attn.qkv.weight": np.ones((4, 4), "float32") for n in range(9)}, tmp_path / "vit.safetensors"
    )
    with pytest.raises(UserError, match=r"no tensor of it belongs to 'resnet20'; it holds blocks\.0\.attn.*9 in all"):
        toolkit.create_model("resnet20", weights=tmp_path / "vit.safetensors", num_classes=3)
    tensors = torch_file(backbone, tmp_path / "mine.safetensors", "backbone.")
    extra = tensors | {"backbone.layer9.conv.weight": np.ones((4, 4, 1, 1), "float32")}
    save_file(extra, tmp_path / "more.safetensors")
    with pytest.raises(UserError, match=r"no place for tensor 'backbone\.layer9\.conv\.weight'"):
        toolkit.create_model("resnet20", weights=tmp_path / "more.safetensors", num_classes=5)
    two = {f"{side}.{name.removeprefix('backbone.')}": value for side in "qk" for name, value in tensors.items()}
    save_file(two, tmp_path / "two.safetensors")
    with pytest.raises(UserError, match=r"holds several networks, under 'k\.', 'q\.'"):
        toolkit.create_model("resnet20", weights=tmp_path / "two.safetensors", num_classes=5)
