"""ResNets against independent sources: keras.applications, the paper's tables, and published parameter counts."""

import keras
import numpy as np
import pytest

import toolkit
import toolkit.layers
from toolkit.arithmetic import count_macs, count_params, layer_table

RNG = np.random.default_rng(0)
NAMES = [name for name in toolkit.list_models() if name.startswith(("resnet", "plain"))]


def _randomise(model):
    """Weights of every kind away from their defaults, so that no scale, bias or moving statistic can hide."""
    for layer in model.layers:
        for weight in layer.weights:
            fan_in = np.prod(weight.shape[:-1])
            value = RNG.normal(0, 0.1, weight.shape)
            if weight.name == "kernel":
                value = RNG.normal(0, np.sqrt(1.5 / fan_in), weight.shape)
            elif weight.name in ("gamma", "moving_variance"):
                value = RNG.uniform(0.7, 1.3, weight.shape)
            # A branch as strong as its shortcut would double the signal fifty times over.
            if weight.name == "gamma" and layer.name.endswith("_3_bn"):
                value *= 0.2
            weight.assign(value)


def _our_name(name):
    """keras.applications' layer name to ours: ``conv3_block1_0_conv`` is ``stage2_block1_shortcut_conv``."""
    fixed = {"conv1_conv": "stem_conv", "conv1_bn": "stem_bn", "predictions": "head_logits"}
    if name in fixed:
        return fixed[name]
    conv, block, number, kind = name.split("_")
    stage = int(conv.removeprefix("conv")) - 1
    return f"stage{stage}_{block}_" + (f"shortcut_{kind}" if number == "0" else f"{kind}{number}")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("resnet50", (96, 80, 3)),
        pytest.param("resnet101", (64, 64, 3), marks=pytest.mark.slow),
        pytest.param("resnet152", (64, 64, 3), marks=pytest.mark.slow),
    ],
)
def test_v1_answers_as_keras_applications_with_its_weights(name, shape):
    reference = getattr(keras.applications, name.replace("resnet", "ResNet"))
    theirs = reference(weights=None, classifier_activation=None, input_shape=shape, classes=20)
    ours = toolkit.create_model(name, version="v1", use_bias=True, epsilon=1.001e-5, input_shape=shape, num_classes=20)
    _randomise(theirs)
    copied = set()
    for layer in theirs.layers:
        if layer.weights:
            ours.get_layer(_our_name(layer.name)).set_weights(layer.get_weights())
            copied.add(_our_name(layer.name))
    assert copied == {layer.name for layer in ours.layers if layer.weights}

    x = RNG.normal(size=(2, *shape)).astype("float32")
    expected, answer = (keras.ops.convert_to_numpy(model(x)) for model in (theirs, ours))
    assert 0.1 < expected.std() < 100  # the comparison would mean nothing if logits vanished
    np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-4)


def test_v1_and_v1_5_differ_in_where_they_stride(outline):
    paper, later = (outline("resnet50", version=version) for version in ("v1", "v1.5"))
    for stage in ("stage2", "stage3", "stage4"):
        strides = [[m.get_layer(f"{stage}_block1_conv{n}").strides[0] for n in (1, 2, 3)] for m in (paper, later)]
        assert strides == [[2, 1, 1], [1, 2, 1]]
    assert count_params(paper) == count_params(later) == 25_557_032
    assert [tuple(w.shape) for w in paper.weights] == [tuple(w.shape) for w in later.weights]


def test_strided_convolutions_pad_alike_on_all_sides(outline):
    model = outline("resnet50")
    padded = {layer.name: layer.padding for layer in model.layers if isinstance(layer, keras.layers.ZeroPadding2D)}
    assert padded == {
        "stem_pad": ((3, 3), (3, 3)),
        "stem_pool_pad": ((1, 1), (1, 1)),
        **{f"stage{stage}_block1_pad2": ((1, 1), (1, 1)) for stage in (2, 3, 4)},
    }
    strided = [layer for layer in model.layers if getattr(layer, "strides", (1, 1)) != (1, 1)]
    assert {layer.padding for layer in strided} == {"valid"}


def test_strided_convolution_equals_the_sum_written_out():
    """Row and column 0 of a padded, strided 3×3 convolution see one row and column of zeros before the picture."""
    model = toolkit.create_model("resnet20")
    conv = model.get_layer("stage2_block1_conv1")
    block = keras.Model(model.get_layer("stage1_block3_out").output, conv.output)
    x = RNG.normal(size=(1, 32, 32, 16)).astype("float32")
    kernel = conv.kernel.numpy()
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = np.array(
        [[np.tensordot(padded[0, r : r + 3, c : c + 3], kernel, 3) for c in range(0, 32, 2)] for r in range(0, 32, 2)]
    )
    np.testing.assert_allclose(keras.ops.convert_to_numpy(block(x))[0], expected, rtol=0, atol=1e-4)


def test_feature_maps_are_those_of_table_1(outline):
    shapes = {row.name: row.output_shape for row in layer_table(outline("resnet50"))}
    assert shapes["stem_conv"] == (112, 112, 64)
    assert shapes["stem_pool"] == (56, 56, 64)
    assert shapes["stage1_block3_out"] == (56, 56, 256)
    assert shapes["stage2_block4_out"] == (28, 28, 512)
    assert shapes["stage3_block6_out"] == (14, 14, 1024)
    assert shapes["stage4_block3_out"] == (7, 7, 2048)


@pytest.mark.parametrize(
    ("name", "printed", "macs"),
    [("resnet50", 3.8e9, 3_857_973_248), ("resnet101", 7.6e9, 7_570_194_432), ("resnet152", 11.3e9, 11_282_415_616)],
)
def test_multiply_adds_of_the_paper_are_those_of_v1(name, printed, macs, outline):
    assert count_macs(outline(name, version="v1")) == macs
    assert macs == pytest.approx(printed, rel=0.02)


@pytest.mark.parametrize(
    ("name", "params"), [("resnet50", 25_583_592), ("resnet101", 44_601_832), ("resnet152", 60_268_520)]
)
def test_biased_variant_has_the_count_of_keras_applications(name, params, outline):
    """Their ``count_params()`` less the moving statistics, which no gradient reaches."""
    assert count_params(outline(name, use_bias=True)) == params


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
        ("resnet20", 269_722),
        ("resnet32", 464_154),
        ("resnet44", 658_586),
        ("resnet56", 853_018),
        ("resnet110", 1_727_962),
    ],
)
def test_parameters_are_those_published(name, params):
    """Of torchvision for ImageNet, of the public PyTorch checkpoints for CIFAR; the battery recomputes them."""
    assert toolkit.model_info(name).num_params == params


def test_only_bottlenecks_differ_from_the_paper_in_their_stride(outline):
    differing = {name for name in NAMES if any("v1.5" in text for text in toolkit.model_info(name).deviations)}
    assert differing == {"resnet50", "resnet101", "resnet152"}
    assert [layer.name for layer in outline("resnet18", version="v1").layers] == [
        layer.name for layer in outline("resnet18").layers
    ]


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("plain")])
def test_plain_twin_is_the_residual_network_without_shortcuts(name, outline):
    twin = outline(name.replace("plain", "resnet"))
    plain = outline(name)
    kept = [layer for layer in twin.layers if not layer.name.endswith("_add") and "shortcut" not in layer.name]
    assert [layer.name for layer in plain.layers] == [layer.name for layer in kept]
    assert [layer.output.shape for layer in plain.layers] == [layer.output.shape for layer in kept]
    projections = [layer for layer in twin.layers if "shortcut" in layer.name]
    dropped = sum(int(np.prod(weight.shape)) for layer in projections for weight in layer.trainable_weights)
    assert count_params(plain) == count_params(twin) - dropped
    assert dropped == (173_824 if name in ("plain18", "plain34") else 0)
    # Without shortcuts each layer feeds one other: a chain.
    assert all(len(layer._outbound_nodes) <= 1 for layer in plain.layers)


def test_without_normalisation_convolutions_carry_biases(outline):
    plain, bare = outline("plain20"), outline("plain20", batch_norm=False)
    assert [layer.name for layer in bare.layers] == [layer.name for layer in plain.layers if "_bn" not in layer.name]
    # A scale and a shift of each map are a bias less.
    maps = sum(layer.filters for layer in bare.layers if "_conv" in layer.name)
    assert count_params(bare) == count_params(plain) - maps


def test_survival_falls_linearly_to_a_half(outline):
    """Huang et al., equation 4: p = 1 - l / L · (1 - p_L), for 54 blocks."""
    model = outline("resnet110_sd")
    survivals = [layer.survival for layer in model.layers if isinstance(layer, toolkit.layers.StochasticDepth)]
    assert survivals == pytest.approx(np.linspace(1, 0.5, 55)[1:])
    assert sum(survivals) == pytest.approx(40, abs=0.5)  # section 3: about 40 of 54 blocks a step
    later = outline("resnet56_sd", survival=0.8)
    assert later.get_layer("stage3_block9_drop").survival == pytest.approx(0.8)
    certain = outline("resnet56_sd", survival=1.0)
    assert [layer.name for layer in certain.layers] == [layer.name for layer in outline("resnet56").layers]
    with pytest.raises(toolkit.errors.UserError, match=r"survival must be in \(0, 1\], got 0"):
        toolkit.create_model("resnet56_sd", survival=0)


def test_stochastic_depth_adds_no_weights_and_weakens_branches_at_test():
    base, deep = (toolkit.create_model(name) for name in ("resnet56", "resnet56_sd"))
    deep.set_weights(base.get_weights())
    x = RNG.normal(size=(1, 32, 32, 3)).astype("float32")
    assert not np.allclose(deep(x), base(x))
    for layer in deep.layers:
        if isinstance(layer, toolkit.layers.StochasticDepth):
            norm = base.get_layer(layer.name.replace("_drop", "_bn2"))
            norm.gamma.assign(layer.survival * norm.gamma)
            norm.beta.assign(layer.survival * norm.beta)
    # The rule for tf_keras: the layer vanishes into the normalisation before it.
    expected, answer = (keras.ops.convert_to_numpy(model(x)) for model in (base, deep))
    np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("shortcut", "params"), [("A", 269_722), ("B", 272_474)])
def test_cifar_shortcuts(shortcut, params, outline):
    model = outline("resnet20", shortcut=shortcut)
    assert count_params(model) == params
    # 6n + 2 weighted layers, n = 3; projections are not counted as depth.
    weighted = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)]
    assert len([name for name in weighted if "shortcut" not in name]) == 20
    crossing = [layer.name for layer in model.layers if "shortcut" in layer.name]
    names = {"A": ["shortcut"], "B": ["shortcut_conv", "shortcut_bn"]}[shortcut]
    assert sorted(crossing) == sorted(f"stage{stage}_block1_{name}" for stage in (2, 3) for name in names)


def test_branch_of_zeros_leaves_the_identity():
    """The notes' argument for residual blocks: with nothing learnt, a block is g(a), and a is not negative."""
    model = toolkit.create_model("resnet20", zero_init_residual=True)
    block = keras.Model(model.get_layer("stem_relu").output, model.get_layer("stage1_block3_out").output)
    a = RNG.uniform(0, 1, size=(2, 32, 32, 16)).astype("float32")
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(block(a)), a)


def test_branches_are_not_zero_unless_asked():
    model = toolkit.create_model("resnet20")
    assert {float(layer.gamma.numpy().min()) for layer in model.layers if hasattr(layer, "gamma")} == {1.0}
    zeroed = toolkit.create_model("resnet50", zero_init_residual=True, input_shape=(32, 32, 3))
    names = {layer.name for layer in zeroed.layers if hasattr(layer, "gamma") and not layer.gamma.numpy().any()}
    assert len(names) == 3 + 4 + 6 + 3
    assert all(name.endswith("_bn3") for name in names)


def test_initial_spread_is_hes_by_fan_out():
    kernel = toolkit.create_model("resnet50", input_shape=(32, 32, 3)).get_layer("stage4_block1_conv2").kernel.numpy()
    assert kernel.std() == pytest.approx(np.sqrt(2 / (3 * 3 * 512)), rel=0.01)
    assert abs(kernel.mean()) < 1e-4


def test_normalisation_follows_the_reference(outline):
    norm = outline("resnet50").get_layer("stem_bn")
    assert (norm.epsilon, norm.momentum) == (1e-5, 0.9)
    assert outline("resnet20", epsilon=1e-3).get_layer("stem_bn").epsilon == 1e-3


@pytest.mark.parametrize(("name", "shape", "least"), [("resnet50", (31, 64, 3), 32), ("resnet20", (32, 7, 3), 8)])
def test_pictures_too_small_are_refused(name, shape, least):
    with pytest.raises(toolkit.errors.UserError, match=f"{name} needs pictures of at least {least}×{least}"):
        toolkit.create_model(name, input_shape=shape)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_width_multiplies_the_channels_of_every_layer(name, outline):
    full, thin = outline(name), outline(name, width=0.125)
    assert [layer.name for layer in thin.layers] == [layer.name for layer in full.layers]
    kernels = [
        (layer.kernel.shape, thin.get_layer(layer.name).kernel.shape)
        for layer in full.layers[:-1]
        if hasattr(layer, "kernel")
    ]
    assert all(narrow[-1] == wide[-1] / 8 and narrow[-2] in (wide[-2] / 8, 3) for wide, narrow in kernels)
    assert thin.output_shape == full.output_shape


@pytest.mark.parametrize("width", [0, -1, 4.5, "wide", None])
def test_width_is_checked(width):
    with pytest.raises(toolkit.errors.UserError, match=rf"width must be a number in \(0, 4\], got {width!r}"):
        toolkit.create_model("resnet18", width=width)


def test_shortcut_option_is_checked():
    with pytest.raises(toolkit.errors.UserError, match=r"unknown shortcut 'C'.*A, B"):
        toolkit.create_model("resnet20", shortcut="C")
