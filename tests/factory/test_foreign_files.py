"""Files of other projects and of this one, loaded into networks: whole, with what belongs to them, or not at all."""

import logging

import h5py
import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

import toolkit
from toolkit.errors import UserError
from toolkit.factory import load_weights, preprocessing_of, save_weights

RNG = np.random.default_rng(0)
TORCH_VARIABLES = ("weight", "bias", "running_mean", "running_var")


def randomize(model, deviation=0.02):
    """Moving statistics too, which start alike in every model."""
    for weight in model.weights:
        low, high = (0.5, 1.5) if "variance" in weight.name or "gamma" in weight.name else (-deviation, deviation)
        weight.assign(RNG.uniform(low, high, weight.shape))


def torch_resnet18(num_classes=7):
    """Tensors by torchvision's names."""
    tensors = {"conv1.weight": (64, 3, 7, 7), "fc.weight": (num_classes, 512), "fc.bias": (num_classes,)}
    norms = {"bn1": 64}
    for stage, width in enumerate((64, 128, 256, 512), start=1):
        for block in range(2):
            name, before = f"layer{stage}.{block}", width if block or stage == 1 else width // 2
            tensors |= {f"{name}.conv1.weight": (width, before, 3, 3), f"{name}.conv2.weight": (width, width, 3, 3)}
            norms |= {f"{name}.bn1": width, f"{name}.bn2": width}
            if before != width:
                tensors[f"{name}.downsample.0.weight"] = (width, before, 1, 1)
                norms[f"{name}.downsample.1"] = width
    tensors |= {f"{name}.{variable}": (width,) for name, width in norms.items() for variable in TORCH_VARIABLES}
    return {name: RNG.uniform(0.5, 1.5, shape).astype("float32") for name, shape in tensors.items()}


@pytest.fixture
def resnet18_file(tmp_path):
    tensors = torch_resnet18()
    save_file(tensors, tmp_path / "resnet18.safetensors")
    return tmp_path / "resnet18.safetensors", tensors


def legacy_h5(model, path):
    """The form of keras.applications' downloads: a group per layer, its weights listed in an attribute."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        for layer in model.layers:
            group = file.create_group(layer.name)
            group.attrs["weight_names"] = [f"{layer.name}/{weight.name}:0".encode() for weight in layer.weights]
            for weight in layer.weights:
                group[f"{layer.name}/{weight.name}:0"] = keras.ops.convert_to_numpy(weight)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        pytest.param("resnet50", "ResNet50", marks=pytest.mark.slow),
        pytest.param("resnet101", "ResNet101", marks=pytest.mark.slow),
        pytest.param("resnet152", "ResNet152", marks=pytest.mark.slow),
        pytest.param("vgg16", "VGG16", marks=pytest.mark.slow),
        pytest.param("vgg19", "VGG19", marks=pytest.mark.slow),
    ],
)
def test_files_of_keras_applications_give_its_answers(tmp_path, name, reference):
    keras.utils.set_random_seed(0)
    shape = (64, 64, 3)
    theirs = getattr(keras.applications, reference)(weights=None, classifier_activation=None, input_shape=shape)
    for weight in theirs.weights:
        if "moving" in weight.name or "gamma" in weight.name:
            weight.assign(RNG.uniform(0.8, 1.2, weight.shape))
    picture = RNG.uniform(-100, 100, (1, *shape)).astype("float32")
    expected = keras.ops.convert_to_numpy(theirs(picture))
    theirs.save(tmp_path / "whole.h5")
    legacy_h5(theirs, tmp_path / "weights.h5")
    legacy_h5(keras.Model(theirs.input, theirs.layers[-4 if "vgg" in name else -2].output), tmp_path / "notop.h5")
    del theirs
    for file in ("whole.h5", "weights.h5"):
        model = toolkit.create_model(name, weights=tmp_path / file, input_shape=shape)
        found = keras.ops.convert_to_numpy(model(picture))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        assert preprocessing_of(model).channel_order == "bgr"
    backbone = toolkit.create_model(name, weights=tmp_path / "notop.h5", input_shape=shape, include_top=False)
    assert all(
        np.array_equal(ours, theirs)
        for ours, theirs in zip(backbone.get_weights(), model.get_weights(), strict=False)
        if ours.ndim == 4
    )
    with pytest.raises(UserError, match=r"notop\.h5 does not fit .*: the file lacks layer ('head_logits'|'head_fc1')"):
        toolkit.create_model(name, weights=tmp_path / "notop.h5", input_shape=shape)


def test_torch_kernels_are_turned_and_their_preprocessing_comes_along(resnet18_file, caplog):
    path, tensors = resnet18_file
    with caplog.at_level(logging.INFO, logger="toolkit"):
        model = toolkit.create_model("resnet18", weights=path, num_classes=7)
    assert "resnet18: weights by torchvision" in caplog.text
    kernel, mean = (
        keras.ops.convert_to_numpy(model.get_layer(layer).weights[number])
        for layer, number in (("stage3_block1_shortcut_conv", 0), ("stage2_block2_bn1", 2))
    )
    assert kernel[0, 0, 5, 3] == tensors["layer3.0.downsample.0.weight"][3, 5, 0, 0]
    np.testing.assert_array_equal(mean, tensors["layer2.1.bn1.running_mean"])
    stem = keras.ops.convert_to_numpy(model.get_layer("stem_conv").kernel)
    assert stem[2, 6, 1, 40] == tensors["conv1.weight"][40, 1, 2, 6]
    dense = keras.ops.convert_to_numpy(model.get_layer("head_logits").kernel)
    np.testing.assert_array_equal(dense, tensors["fc.weight"].T)
    assert preprocessing_of(model).mean == (0.485, 0.456, 0.406)


def test_a_dense_layer_on_flattened_maps_takes_torchs_order(tmp_path):
    sizes = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
    tensors = {f"features.{n}.weight": np.zeros((o, i, k, k), "float32") for n, (o, i, k) in sizes.items()}
    tensors |= {f"features.{n}.bias": np.zeros(o, "float32") for n, (o, _, _) in sizes.items()}
    for n, (units, inputs) in {1: (4096, 256 * 6 * 6), 4: (4096, 4096), 6: (10, 4096)}.items():
        tensors |= {f"classifier.{n}.weight": np.zeros((units, inputs), "float32")}
        tensors |= {f"classifier.{n}.bias": np.zeros(units, "float32")}
    channel, row, column, unit = 200, 4, 1, 77
    tensors["classifier.1.weight"][unit, channel * 36 + row * 6 + column] = 5.0
    save_file(tensors, tmp_path / "alexnet.safetensors")
    model = toolkit.create_model("alexnet_owt", weights=tmp_path / "alexnet.safetensors", num_classes=10)
    kernel = keras.ops.convert_to_numpy(model.get_layer("head_fc1").kernel)
    assert np.argwhere(kernel).tolist() == [[(row * 6 + column) * 256 + channel, unit]]


def test_other_classes_keep_the_backbone_and_say_so(resnet18_file, caplog):
    path, tensors = resnet18_file
    with caplog.at_level(logging.INFO, logger="toolkit"):
        model = toolkit.create_model("resnet18", weights=path, num_classes=3)
    assert "head_logits keeps its fresh weights: the file has 7 classes, the model 3" in caplog.text
    assert float(model.get_layer("stem_conv").kernel[0, 0, 0, 0]) == tensors["conv1.weight"][0, 0, 0, 0]


def test_what_is_left_over_on_either_side_is_listed(resnet18_file, tmp_path):
    _, tensors = resnet18_file
    lacking = {
        name: tensor for name, tensor in tensors.items() if name not in ("layer4.1.bn2.bias", "layer1.0.conv1.weight")
    }
    save_file(lacking | {"layer5.0.conv1.weight": np.ones(3), "extra": np.ones(3)}, tmp_path / "odd.safetensors")
    model = toolkit.create_model("resnet18", num_classes=7)
    before = model.get_weights()
    with pytest.raises(UserError) as caught:
        load_weights(model, tmp_path / "odd.safetensors")
    for part in (
        "lacks layer 'stage1_block1_conv1'",
        "lacks stage4_block2_bn2/beta",
        "lacks layer 'stage5_block1_conv1'",
        "'extra'",
    ):
        assert part in str(caught.value)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_a_shape_that_differs_is_shown_as_the_file_has_it(resnet18_file, tmp_path):
    _, tensors = resnet18_file
    save_file(tensors | {"conv1.weight": np.ones((64, 3, 3, 3), "float32")}, tmp_path / "cifar.safetensors")
    with pytest.raises(UserError, match="stem_conv/kernel has shape 64×3×3×3 in the file and 64×3×7×7 in the model"):
        toolkit.create_model("resnet18", weights=tmp_path / "cifar.safetensors", num_classes=7)


def test_a_file_for_another_network_says_what_is_nearest(resnet18_file):
    path, _ = resnet18_file
    with pytest.raises(UserError, match="does not fit model 'resnet34': the file lacks layer 'stage1_block3_conv1'"):
        toolkit.create_model("resnet34", weights=path)


def test_grey_pictures_through_colour_filters(tmp_path):
    colour = toolkit.create_model("resnet20")
    randomize(colour, 0.2)
    path = save_weights(colour, tmp_path / "colour.safetensors")
    with pytest.raises(UserError, match="sum_channels=True"):
        toolkit.create_model("resnet20", input_shape=(32, 32, 1), weights=path)
    grey = toolkit.create_model("resnet20", input_shape=(32, 32, 1), weights=path, sum_channels=True)
    picture = RNG.normal(size=(2, 32, 32, 1)).astype("float32")
    expected = keras.ops.convert_to_numpy(colour(np.repeat(picture, 3, axis=-1)))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(grey(picture)), expected, rtol=1e-4, atol=1e-4)
    own, theirs = preprocessing_of(grey), preprocessing_of(colour)
    assert (own.channel_order, own.mean) == ("grey", (sum(theirs.mean) / 3,))
    path = save_weights(grey, tmp_path / "grey.safetensors")  # nothing to sum in it
    again = toolkit.create_model("resnet20", input_shape=(32, 32, 1), weights=path, sum_channels=True)
    assert all(np.array_equal(a, b) for a, b in zip(grey.get_weights(), again.get_weights(), strict=True))


def test_only_filters_of_three_channels_for_one_are_called_colour(resnet18_file, tmp_path):
    _, tensors = resnet18_file
    narrow = tensors | {"layer2.0.downsample.0.weight": np.ones((128, 64, 3, 3), "float32")}
    save_file(narrow, tmp_path / "narrow.safetensors")
    with pytest.raises(UserError, match=r"64×3×3 in the file and 128×64×1×1 in the model$"):
        toolkit.create_model("resnet18", weights=tmp_path / "narrow.safetensors")


@pytest.mark.parametrize(
    ("name", "stated", "built"),
    [
        ("resnet50", {"version": "v1"}, {"input_shape": (32, 32, 3)}),
        ("alexnet", {"layout": "bvlc_alexnet"}, {"input_shape": (63, 63, 3)}),
    ],
)
def test_a_variant_that_no_shape_betrays_is_not_mixed_up(tmp_path, name, stated, built):
    built |= {"num_classes": 3}
    path = save_weights(toolkit.create_model(name, **built, **stated), tmp_path / "stated.safetensors")
    with pytest.raises(UserError, match=f"is for '{name}' with {next(iter(stated))}="):
        load_weights(toolkit.create_model(name, **built), path)
    load_weights(toolkit.create_model(name, **built, **stated), path)


def test_a_plain_twins_weights_are_refused_though_they_fit(tmp_path):
    path = save_weights(toolkit.create_model("plain20"), tmp_path / "plain.safetensors")
    with pytest.raises(UserError, match="holds weights of plain20, not of resnet20"):
        toolkit.create_model("resnet20", weights=path)
    path = save_weights(toolkit.create_model("resnet56"), tmp_path / "resnet56.safetensors")
    toolkit.create_model("resnet56_sd", weights=path)


def test_a_backbone_of_a_network_with_auxiliary_heads(tmp_path):
    path = save_weights(toolkit.create_model("googlenet", aux_heads=True, num_classes=2), tmp_path / "aux.safetensors")
    assert len(toolkit.create_model("googlenet", weights=path).outputs) == 3
    assert toolkit.create_model("googlenet", weights=path, include_top=False).output_shape == (None, 7, 7, 1024)


def test_a_name_of_its_own_leaves_no_guess_at_the_preprocessing(resnet18_file):
    """Networks for CIFAR have the same layers in files, and other pictures."""
    path, _ = resnet18_file
    model = toolkit.create_model("resnet18", num_classes=7)
    renamed = keras.Model(model.input, model.output, name="mine")
    load_weights(renamed, path)
    assert preprocessing_of(toolkit.create_model("resnet18", weights=path)).crop_fraction == 0.875
    with pytest.raises(UserError, match="'mine' does not say how its pictures are prepared"):
        preprocessing_of(renamed)


@pytest.mark.parametrize("suffix", [".safetensors", ".weights.h5"])
def test_own_files_tell_their_variant_and_preprocessing(tmp_path, suffix):
    model = toolkit.create_model(
        "resnet50", version="v1", use_bias=True, epsilon=1.001e-5, num_classes=4, input_shape=(64, 64, 3)
    )
    randomize(model)
    model.preprocessing = keras_style = preprocessing_of(model).__class__(size=(64, 64), channel_order="bgr", scale=1.0)
    again = toolkit.create_model("resnet50", weights=save_weights(model, tmp_path / f"own{suffix}"), num_classes=4)
    assert preprocessing_of(again) == keras_style
    picture = RNG.normal(size=(1, 64, 64, 3)).astype("float32")
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(again(picture)), keras.ops.convert_to_numpy(model(picture))
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"own{suffix}"]


@pytest.mark.slow
def test_a_saved_model_tells_v1_from_v1_5_by_its_strides(tmp_path, outline):
    for version in ("v1", "v1.5"):
        model = toolkit.create_model("resnet50", version=version, num_classes=3, input_shape=(32, 32, 3))
        model.save(tmp_path / "model.keras")
        again = toolkit.create_model("resnet50", weights=tmp_path / "model.keras", num_classes=3)
        strides = [again.get_layer(f"stage2_block1_conv{number}").strides[0] for number in (1, 2)]
        assert strides == ([2, 1] if version == "v1" else [1, 2])
        with pytest.raises(UserError, match=r"has strides .* in the file and .* in the model"):
            load_weights(
                outline("resnet50", version="v1" if version == "v1.5" else "v1.5"),
                tmp_path / "model.keras",
            )


@pytest.mark.slow
def test_a_saved_model_tells_alexnets_layouts_apart(tmp_path):
    picture = RNG.normal(scale=60, size=(1, 67, 67, 3)).astype("float32")
    for layout in ("paper", "bvlc_alexnet", "bvlc_reference_caffenet"):
        model = toolkit.create_model("alexnet", layout=layout, num_classes=3, input_shape=(67, 67, 3))
        model.save(tmp_path / "model.keras")
        again = toolkit.create_model("alexnet", weights=tmp_path / "model.keras", input_shape=(67, 67, 3))
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(again(picture)), keras.ops.convert_to_numpy(model(picture))
        )


def test_a_saved_twin_without_shortcuts_is_another_network(tmp_path):
    toolkit.create_model("plain20").save(tmp_path / "plain20.keras")
    with pytest.raises(UserError, match="does not fit model 'resnet20': the file lacks layer 'stage1_block1_add'"):
        toolkit.create_model("resnet20", weights=tmp_path / "plain20.keras")
    toolkit.create_model("resnet56_sd").save(tmp_path / "sd.keras")
    toolkit.create_model("resnet56", weights=tmp_path / "sd.keras")


def test_a_saved_model_fits_another_input_size(tmp_path):
    toolkit.create_model("googlenet", input_shape=(97, 97, 3)).save(tmp_path / "odd.keras")
    toolkit.create_model("googlenet", input_shape=(128, 128, 3), weights=tmp_path / "odd.keras")


def test_a_file_written_under_a_wrong_suffix_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"cannot write weights to 'model\.pth'; the name must end in \.safetensors"):
        save_weights(toolkit.create_model("xo"), tmp_path / "model.pth")


def test_a_model_of_unknown_making_has_no_preprocessing():
    inputs = keras.Input((4,))
    with pytest.raises(UserError, match="does not say how its pictures are prepared"):
        preprocessing_of(keras.Model(inputs, keras.layers.Dense(2)(inputs)))
