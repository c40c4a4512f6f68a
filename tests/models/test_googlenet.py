"""GoogLeNets against the paper's table 1, published counts, and Caffe's semantics written out in TensorFlow."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import toolkit
from toolkit.arithmetic import count_macs, count_params, layer_table
from toolkit.data.pixels.decode import normalize
from toolkit.training.losses import classifier
from toolkit.training.recipes import recipe
from toolkit.transfer.freeze import stages_of

RNG = np.random.default_rng(0)
BOTH = ["googlenet", "googlenet_bn"]
# Their auxiliary heads are built by the same lines: by default the one with batch normalisation is tried.
TELLING = [pytest.param("googlenet", marks=pytest.mark.slow), "googlenet_bn"]
# Table 1 as printed: input channels, #1×1, #3×3 reduce, #3×3, #5×5 reduce, #5×5, pool proj, params (K), ops (M).
TABLE_1 = {
    "stage3_a": (192, 64, 96, 128, 16, 32, 32, 159, 128),
    "stage3_b": (256, 128, 128, 192, 32, 96, 64, 380, 304),
    "stage4_a": (480, 192, 96, 208, 16, 48, 64, 364, 73),
    "stage4_b": (512, 160, 112, 224, 24, 64, 64, 437, 88),
    "stage4_c": (512, 128, 128, 256, 24, 64, 64, 463, 100),
    "stage4_d": (512, 112, 144, 288, 32, 64, 64, 580, 119),
    "stage4_e": (528, 256, 160, 320, 32, 128, 128, 840, 170),
    "stage5_a": (832, 256, 160, 320, 32, 128, 128, 1072, 54),
    "stage5_b": (832, 384, 192, 384, 48, 128, 128, 1388, 71),
}


@pytest.fixture(scope="module")
def rows(outline):
    """The layer table of GoogLeNet at 224×224."""
    return layer_table(outline("googlenet"))


def _randomise(model):
    """Weights that let every activation matter, with biases and statistics away from their defaults."""
    for layer in model.layers:
        for weight in layer.weights:
            value = RNG.normal(0, 0.2, weight.shape)
            if weight.name == "kernel":
                value = RNG.normal(0, np.sqrt(2 / np.prod(weight.shape[:-1])), weight.shape)
            elif weight.name in ("gamma", "moving_variance"):
                value = RNG.uniform(0.7, 1.3, weight.shape)
            if weight.dtype == "float32":
                weight.assign(value)


def _numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


class _Caffe:
    """Caffe's layers in TensorFlow's primitives: every padding explicit, pooling sizes by Caffe's own formula."""

    def __init__(self, model):
        self.model = model

    def conv(self, x, name, kernel, stride=1):
        pad = kernel // 2
        kernels, biases = (w.numpy() for w in self.model.get_layer(name).weights)
        assert kernels.shape[:2] == (kernel, kernel)
        x = tf.nn.conv2d(x, kernels, stride, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
        return tf.maximum(x + biases, 0)

    def pool(self, x, kernel, stride, pad=0):
        sides = x.shape[1:3]
        pooled = [-(-(side + 2 * pad - kernel) // stride) + 1 for side in sides]
        if pad:
            pooled = [p - 1 if (p - 1) * stride >= s + pad else p for p, s in zip(pooled, sides, strict=True)]
        after = [max(0, (p - 1) * stride + kernel - s - pad) for p, s in zip(pooled, sides, strict=True)]
        x = tf.pad(x, [[0, 0], [pad, after[0]], [pad, after[1]], [0, 0]], constant_values=-np.inf)
        return tf.nn.max_pool2d(x, kernel, stride, "VALID")[:, : pooled[0], : pooled[1]]

    def norm(self, x):
        return tf.nn.local_response_normalization(x, depth_radius=2, bias=1.0, alpha=1e-4 / 5, beta=0.75)

    def inception(self, x, name):
        three = self.conv(self.conv(x, f"{name}_reduce3", 1), f"{name}_conv3", 3)
        five = self.conv(self.conv(x, f"{name}_reduce5", 1), f"{name}_conv5", 5)
        proj = self.conv(self.pool(x, 3, 1, pad=1), f"{name}_proj", 1)
        return tf.concat([self.conv(x, f"{name}_conv1", 1), three, five, proj], axis=-1)

    def network(self, x):
        x = self.norm(self.pool(self.conv(x, "stage1_conv", 7, 2), 3, 2))
        x = self.conv(self.conv(x, "stage2_reduce", 1), "stage2_conv", 3)
        x = self.pool(self.norm(x), 3, 2)
        for module in TABLE_1:
            x = self.inception(x, module)
            if module in ("stage3_b", "stage4_e"):
                x = self.pool(x, 3, 2)
        kernel, bias = (w.numpy() for w in self.model.get_layer("head_logits").weights)
        return tf.reduce_mean(x, axis=(1, 2)) @ kernel + bias


def test_inception_module_is_caffes():
    model = toolkit.create_model("googlenet", input_shape=(72, 64, 3))
    _randomise(model)
    module = keras.Model(model.get_layer("stage2_pool").output, model.get_layer("stage3_a_concat").output)
    x = RNG.uniform(0, 3, size=(2, 9, 8, 192)).astype("float32")
    np.testing.assert_allclose(_numpy(module(x)), _Caffe(model).inception(x, "stage3_a"), rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", [(64, 64), (97, 78), (71, 130)])
def test_whole_network_is_caffes_whichever_sides_are_odd(shape):
    model = toolkit.create_model("googlenet", input_shape=(*shape, 3), num_classes=20)
    _randomise(model)
    x = RNG.normal(0, 60, size=(2, *shape, 3)).astype("float32")
    expected = _Caffe(model).network(x).numpy()
    assert expected.std() > 1  # the comparison would mean nothing if logits vanished
    np.testing.assert_allclose(_numpy(model(x)), expected, rtol=1e-4, atol=1e-4 * expected.std())


@pytest.mark.parametrize("name", BOTH)
def test_feature_maps_shrink_as_in_table_1(name, outline):
    shapes = {row.name: row.output_shape for row in layer_table(outline(name))}
    assert shapes["stage1_conv"] == (112, 112, 64)
    assert shapes["stage1_pool"] == (56, 56, 64)
    assert shapes["stage2_conv"] == (56, 56, 192)
    assert shapes["stage2_pool"] == (28, 28, 192)
    assert shapes["stage3_a_concat"] == (28, 28, 256)
    assert shapes["stage3_pool"] == (14, 14, 480)
    assert shapes["stage4_a_concat"] == (14, 14, 512)
    assert shapes["stage4_pool"] == (7, 7, 832)
    assert shapes["stage5_b_concat"] == (7, 7, 1024)
    assert shapes["head_pool"] == (1024,)


@pytest.mark.parametrize("module", TABLE_1)
def test_module_counts_are_those_of_table_1(module, rows):
    inputs, one, reduce3, three, reduce5, five, proj, params_printed, ops_printed = TABLE_1[module]
    kernels = inputs * (one + reduce3 + reduce5 + proj) + 9 * reduce3 * three + 25 * reduce5 * five
    biases = one + reduce3 + three + reduce5 + five + proj
    own = [row for row in rows if row.name.startswith(f"{module}_")]
    assert sum(row.params for row in own) == kernels + biases
    positions = {"3": 28 * 28, "4": 14 * 14, "5": 7 * 7}[module[5]]
    assert sum(row.macs for row in own) == kernels * positions
    # The paper counts K as 1,024 and rounds freely: 4c and 5a are 8 % and 5 % off.
    assert kernels / 1024 == pytest.approx(params_printed, rel=0.08)
    assert kernels * positions / 1e6 == pytest.approx(ops_printed, rel=0.06)


def test_narrow_layer_in_front_of_5x5_saves_nine_tenths(rows):
    """The notes' sum: 120 million multiply-adds for 32 filters of 5×5×192, 12.4 million by way of 16 channels."""
    macs = {row.name: row.macs for row in rows}
    assert 28 * 28 * 32 * 5 * 5 * 192 == 120_422_400
    assert macs["stage3_a_reduce5"] == 28 * 28 * 16 * 192 == 2_408_448
    assert macs["stage3_a_conv5"] == 28 * 28 * 32 * 5 * 5 * 16 == 10_035_200


@pytest.mark.parametrize(
    ("name", "plain", "with_heads"), [("googlenet", 6_998_552, 13_378_280), ("googlenet_bn", 6_624_904, 13_004_888)]
)
def test_counts_with_and_without_heads(name, plain, with_heads, outline):
    full = outline(name, aux_heads=True)
    assert count_params(full) == with_heads
    assert count_params(classifier(full)) == count_params(outline(name)) == plain
    assert count_macs(classifier(full)) == toolkit.model_info(name).macs
    # By hand: 1×1 convolution to 128, 4·4·128 to 1024, 1024 to 1000; two vectors per convolution where normalised.
    extra = 128 if name == "googlenet" else 256
    heads = [inputs * 128 + extra + 2048 * 1024 + 1024 + 1024 * 1000 + 1000 for inputs in (512, 528)]
    assert sum(heads) == with_heads - plain


@pytest.mark.parametrize("name", BOTH)
def test_auxiliary_heads_hang_where_the_paper_has_them(name, outline):
    model = outline(name, aux_heads=True, num_classes=5)
    assert {key: output.shape for key, output in model.output.items()} == dict.fromkeys(
        ("logits", "aux1", "aux2"), (None, 5)
    )
    for aux, module in (("aux1", "stage4_a"), ("aux2", "stage4_d")):
        assert model.get_layer(f"{aux}_pool").input is model.get_layer(f"{module}_concat").output
        assert model.get_layer(f"{aux}_pool").output.shape[1:3] == (4, 4)
        assert model.output[aux] is model.get_layer(f"{aux}_logits").output
    assert stages_of(model) == ("stage1", "stage2", "stage3", "stage4", "stage5", "aux1", "aux2", "head")


def test_adaptive_pooling_is_torchs():
    """Torch averages rows floor(14 i / 4) up to ceil(14 (i + 1) / 4): four each, the second and fourth overlapping."""
    x = RNG.normal(size=(1, 14, 14, 2)).astype("float32")
    edges = [(0, 4), (3, 7), (7, 11), (10, 14)]
    expected = [[x[0, a:b, c:d].mean(axis=(0, 1)) for c, d in edges] for a, b in edges]
    np.testing.assert_allclose(_numpy(keras.layers.AdaptiveAveragePooling2D(4)(x))[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", TELLING)
def test_stripped_network_shares_its_weights(name):
    full = toolkit.create_model(name, aux_heads=True, input_shape=(96, 96, 3), num_classes=5)
    stripped = classifier(full)
    plain = toolkit.create_model(name, input_shape=(96, 96, 3), num_classes=5)
    assert {layer.name for layer in stripped.layers} == {layer.name for layer in plain.layers}
    assert stripped.name == plain.name
    assert all(layer is full.get_layer(layer.name) for layer in stripped.layers)
    x = RNG.normal(size=(2, 96, 96, 3)).astype("float32")
    expected = _numpy(full(x)["logits"])
    np.testing.assert_array_equal(_numpy(stripped(x)), expected)
    for layer in plain.layers:
        layer.set_weights(full.get_layer(layer.name).get_weights())
    np.testing.assert_allclose(_numpy(plain(x)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", TELLING)
def test_training_weighs_each_auxiliary_loss_with_three_tenths(name):
    model = toolkit.create_model(name, aux_heads=True, input_shape=(96, 96, 3), num_classes=4)
    crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0  # the losses are compared with a second pass
    loss_weights = {"logits": 1.0, **recipe("googlenet").model.loss_weights}
    loss = dict.fromkeys(loss_weights, crossentropy)
    model.compile(keras.optimizers.Adam(1e-2), loss, loss_weights=loss_weights, run_eagerly=True)
    before = [variable.numpy() for variable in model.trainable_variables]
    x, labels = RNG.normal(size=(4, 96, 96, 3)).astype("float32"), np.arange(4)
    answers = model(x, training=True)
    logs = model.train_on_batch(x, dict.fromkeys(answers, labels), return_dict=True)
    losses = {key: float(crossentropy(labels, answer)) for key, answer in answers.items()}
    assert logs["loss"] == pytest.approx(losses["logits"] + 0.3 * losses["aux1"] + 0.3 * losses["aux2"], rel=1e-3)
    moved = zip(model.trainable_variables, before, strict=True)
    assert not [variable.path for variable, old in moved if np.array_equal(old, variable.numpy())]


def test_heads_are_refused_where_they_cannot_be(outline):
    with pytest.raises(toolkit.errors.UserError, match="aux_heads=True is for a network that classifies"):
        toolkit.create_model("googlenet", aux_heads=True, include_top=False)
    with pytest.raises(toolkit.errors.UserError, match="at least 79×79"):
        toolkit.create_model("googlenet", aux_heads=True, input_shape=(78, 224, 3))
    assert outline("googlenet", aux_heads=True, input_shape=(79, 79, 3)).output["aux1"].shape[-1] == 1000


@pytest.mark.parametrize("name", BOTH)
def test_pictures_too_small_are_refused(name):
    with pytest.raises(toolkit.errors.UserError, match=f"{name} needs pictures of at least 32×32"):
        toolkit.create_model(name, input_shape=(31, 64, 3))


def test_normalisation_follows_torchvision(outline):
    model = outline("googlenet_bn")
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    convs = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(norms) == len(convs) == 57
    assert {(norm.epsilon, norm.momentum) for norm in norms} == {(1e-3, 0.9)}
    assert not any(conv.use_bias for conv in convs)
    assert {model.get_layer(f"{module}_conv5").kernel_size for module in TABLE_1} == {(3, 3)}


def test_inputs_are_what_the_references_see():
    pixels = np.array([[[0, 128, 255]]], np.uint8)
    caffe, torchvision = (normalize(pixels[None], toolkit.model_info(name).preprocessing)[0, 0, 0] for name in BOTH)
    np.testing.assert_allclose(caffe, [255 - 104, 128 - 117, 0 - 123], rtol=1e-6)  # blue, green, red
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    normalised = (pixels[0, 0] / 255 - mean) / std
    transform_input = normalised * (std / 0.5) + (mean - 0.5) / 0.5  # torchvision's GoogLeNet._transform_input
    np.testing.assert_allclose(torchvision, transform_input, rtol=0, atol=1e-6)
