"""Deepening by construction: the same answers, and a gradient into what was added."""

import keras
import numpy as np
import pytest

import toolkit
from toolkit.errors import UserError
from toolkit.transfer import deepen, freeze

RNG = np.random.default_rng(0)


def _trained(name, **arguments):
    """As if trained: nothing at its default, statistics included, and activations within reach of float32."""
    model = toolkit.create_model(name, **arguments)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(RNG.uniform(0.2, 0.6, layer.gamma.shape))
            layer.beta.assign(RNG.normal(0, 0.2, layer.beta.shape))
            layer.moving_mean.assign(RNG.normal(0, 0.2, layer.moving_mean.shape))
            layer.moving_variance.assign(RNG.uniform(0.5, 1.5, layer.moving_variance.shape))
    return model


def _answer(model, x):
    return keras.ops.convert_to_numpy(model(x))


@pytest.mark.parametrize(
    ("shallow", "deep", "arguments", "variant"),
    [
        pytest.param("resnet20", "resnet56", {"num_classes": 7}, {}, marks=pytest.mark.slow),
        ("resnet20", "resnet32", {"num_classes": 7}, {"shortcut": "B", "use_bias": True}),
        ("resnet20", "resnet44", {"include_top": False, "pooling": "max"}, {}),
        ("resnet18", "resnet34", {"input_shape": (64, 64, 3), "include_top": False}, {}),
        pytest.param(
            "resnet50", "resnet101", {"input_shape": (64, 64, 3), "num_classes": 5}, {}, marks=pytest.mark.slow
        ),
        pytest.param(
            "resnet50",
            "resnet101",
            {"input_shape": (64, 64, 3), "num_classes": 5},
            {"version": "v1", "epsilon": 1e-3},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_deeper_network_answers_the_same(shallow, deep, arguments, variant):
    model = _trained(shallow, **arguments, **variant)
    deeper = deepen(model, deep, **variant)
    assert deeper.name == deep
    fresh = toolkit.create_model(deep, **arguments, **variant)
    assert [layer.name for layer in deeper.layers] == [layer.name for layer in fresh.layers]
    x = RNG.normal(size=(2, *model.input_shape[1:])).astype("float32")
    expected = _answer(model, x)
    assert expected.std() > 0.05
    np.testing.assert_allclose(_answer(deeper, x), expected, rtol=0, atol=1e-5)


def test_added_blocks_learn():
    model = _trained("resnet20", num_classes=4, input_shape=(16, 16, 3))
    deeper = deepen(model, "resnet32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    deeper.compile(keras.optimizers.SGD(0.1), loss, run_eagerly=True)  # two steps are not worth tracing
    x, y = RNG.normal(size=(4, 16, 16, 3)).astype("float32"), np.arange(4)
    norms = [deeper.get_layer(f"stage{stage}_block{block}_bn2") for stage in (1, 2, 3) for block in (4, 5)]
    assert not any(norm.gamma.numpy().any() for norm in norms)
    kernel = deeper.get_layer("stage2_block5_conv1").kernel
    before = kernel.numpy()
    for _ in range(2):  # gamma moves first, then what stands before it
        deeper.train_on_batch(x, y)
    assert all(norm.gamma.numpy().any() for norm in norms)
    assert not np.array_equal(kernel.numpy(), before)


def test_the_shallow_model_and_its_freezing_stay_as_they_are():
    model = _trained("resnet20")
    freeze(model, "stage2")
    before = model.get_weights()
    deeper = deepen(model, "resnet32")
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    assert all(layer.trainable for layer in deeper.layers)


@pytest.mark.parametrize(
    ("shallow", "deep", "message"),
    [
        ("resnet32", "resnet20", "resnet20 does not continue resnet32: resnet20 has no layer 'stage1_block4_conv1'"),
        ("resnet20", "resnet20", "resnet20 has no block that resnet20 lacks"),
        ("plain20", "plain32", "block 'stage1_block4' of plain32 cannot be made the identity"),
        ("resnet20", "plain32", "plain32 has no layer 'stage1_block1_add'"),
        pytest.param("resnet18", "resnet50", "layer 'stage1_block1_conv1' has kernel_size", marks=pytest.mark.slow),
        pytest.param("resnet20", "resnet110_sd", "resnet20 has no layer 'stage1_block1_drop'", marks=pytest.mark.slow),
        ("resnet20", "resnet34", "layer 'stem_conv' has filters 16 in one and 64 in the other"),
    ],
)
def test_what_cannot_be_continued_is_refused(shallow, deep, message):
    model = toolkit.create_model(shallow, input_shape=(32, 32, 3), num_classes=10)
    with pytest.raises(UserError, match=message):
        deepen(model, deep)


@pytest.mark.slow
def test_another_variant_is_refused():
    model = toolkit.create_model("resnet50", version="v1", input_shape=(64, 64, 3))
    with pytest.raises(UserError, match=r"layer 'stage2_block1_conv1' has strides \(2, 2\).*the variant"):
        deepen(model, "resnet101")
