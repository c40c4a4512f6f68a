"""VGG networks against keras.applications and the paper's table 1."""

import keras
import numpy as np
import pytest

import toolkit
from toolkit.arithmetic import count_params, layer_table

RNG = np.random.default_rng(0)
DENSE = [102_764_544, 16_781_312, 4_097_000]  # 4096·(7·7·512+1), 4096·(4096+1), 1000·(4096+1)


def _randomise(model):
    for weight in model.weights:
        fan_in = np.prod(weight.shape[:-1])
        spread = np.sqrt(1.5 / fan_in) if len(weight.shape) > 1 else 0.1
        weight.assign(RNG.normal(0, spread, weight.shape))


@pytest.mark.parametrize("name", ["vgg16", pytest.param("vgg19", marks=pytest.mark.slow)])
def test_is_layout_compatible_with_keras_applications(name):
    build = {"vgg16": keras.applications.VGG16, "vgg19": keras.applications.VGG19}[name]
    theirs = build(weights=None, classifier_activation=None, input_shape=(64, 48, 3), classes=20)
    ours = toolkit.create_model(name, input_shape=(64, 48, 3), num_classes=20)
    _randomise(theirs)
    pairs = [[layer for layer in model.layers if layer.weights] for model in (theirs, ours)]
    for source, target in zip(*pairs, strict=True):
        target.set_weights(source.get_weights())

    x = RNG.normal(size=(2, 64, 48, 3)).astype("float32")
    expected, answer = (keras.ops.convert_to_numpy(model(x)) for model in (theirs, ours))
    assert expected.std() > 0.1  # the comparison would mean nothing if logits vanished
    np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        # 3×3 kernels: 64·(27+1), 64·(576+1), 128·(576+1), 128·(1152+1), 256·(1152+1), 256·(2304+1), …
        ("vgg11", [1_792, 73_856, 295_168, 590_080, 1_180_160, 2_359_808, 2_359_808, 2_359_808]),
        ("vgg13", [1_792, 36_928, 73_856, 147_584, 295_168, 590_080, 1_180_160, *[2_359_808] * 3]),
        ("vgg16", [1_792, 36_928, 73_856, 147_584, 295_168, *[590_080] * 2, 1_180_160, *[2_359_808] * 5]),
        ("vgg19", [1_792, 36_928, 73_856, 147_584, 295_168, *[590_080] * 3, 1_180_160, *[2_359_808] * 7]),
    ],
)
def test_parameters_layer_by_layer(name, first, outline):
    rows = layer_table(outline(name))
    assert [row.params for row in rows if row.params] == [*first, *DENSE]
    assert len([row for row in rows if row.params]) == int(name.removeprefix("vgg"))  # the depth in its name
    assert [row.output_shape for row in rows if row.type == "MaxPooling2D"] == [
        (112, 112, 64),
        (56, 56, 128),
        (28, 28, 256),
        (14, 14, 512),
        (7, 7, 512),
    ]


@pytest.mark.parametrize(("depth", "maps"), [(11, 2_752), (13, 2_944), (16, 4_224), (19, 5_504)])
def test_batch_normalisation_adds_a_scale_and_a_shift_per_map(depth, maps):
    plain, normalised = (toolkit.model_info(name).num_params for name in (f"vgg{depth}", f"vgg{depth}_bn"))
    assert normalised - plain == 2 * maps


def test_batch_normalisation_stands_between_convolution_and_relu(outline):
    model = outline("vgg11_bn")
    names = [layer.name for layer in model.layers]
    assert names[1:5] == ["stage1_conv1", "stage1_bn1", "stage1_relu1", "stage1_pool"]
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 8
    assert {(norm.epsilon, norm.momentum) for norm in norms} == {(1e-5, 0.9)}
    assert all(layer.use_bias for layer in model.layers if isinstance(layer, keras.layers.Conv2D))


def test_fresh_network_does_not_fade():
    """He's spread keeps the signal: nineteen layers of N(0, 0.01) would leave 1e-9 of it."""
    model = toolkit.create_model("vgg19", include_top=False, input_shape=(64, 64, 3))
    maps = keras.ops.convert_to_numpy(model(RNG.normal(size=(2, 64, 64, 3)).astype("float32")))
    assert 0.01 < maps.std() < 100


def test_head_follows_the_size_of_the_picture(outline):
    model = outline("vgg11", input_shape=(96, 64, 3), num_classes=5)
    assert model.get_layer("head_fc1").kernel.shape == (3 * 2 * 512, 4096)
    assert count_params(model) == 9_220_480 + 4096 * (3 * 2 * 512 + 1) + 4096 * 4097 + 5 * 4097


def test_pictures_too_small_are_refused():
    with pytest.raises(toolkit.errors.UserError, match="vgg16 needs pictures of at least 32×32"):
        toolkit.create_model("vgg16", input_shape=(31, 64, 3))
