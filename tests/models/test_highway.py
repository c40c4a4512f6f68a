"""Highway networks against the paper: its formula, its figures, and gates that start by carrying."""

import keras
import numpy as np
import pytest

import toolkit
from toolkit.arithmetic import count_macs, count_params, layer_table

RNG = np.random.default_rng(0)
CNNS = ["highway_cnn19", "highway_cnn32"]
DENSE_AND_CONVOLUTIONAL = [
    "highway_mlp",
    *(name if name == "highway_cnn19" else pytest.param(name, marks=pytest.mark.slow) for name in CNNS),
]
WIDTHS = {"highway_cnn19": (32, 80, 128), "highway_cnn32": (32, 64, 96)}
KERNELS = {"highway_cnn19": ([3] * 4, [3] * 5, [3] * 5), "highway_cnn32": ([1, 3, 1, 3, 1, 3, 1, 3, 1],) * 3}
SIGMOID_OF_MINUS_2 = 1 / (1 + np.exp(2))


def _numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def _small(name, **arguments):
    shape = (12, 12, 3) if name in CNNS else (28, 28, 1)
    return toolkit.create_model(name, input_shape=shape, **arguments)


def _pictures(model, count=4):
    return RNG.normal(size=(count, *model.input_shape[1:])).astype("float32")


def _blocks(model):
    """Names of the highway layers, in order."""
    return [layer.name.removesuffix("_gate") for layer in model.layers if layer.name.endswith("_gate")]


def _tensors(model, block):
    """A highway layer's input, transform, gate and output."""
    layers = [model.get_layer(f"{block}_{part}") for part in ("transform", "gate", "out")]
    return [layers[1].input, *(layer.output for layer in layers)]


def _values(model, tensors, x):
    return [_numpy(output) for output in keras.Model(model.inputs[0], tensors)(x)]


@pytest.mark.parametrize("name", DENSE_AND_CONVOLUTIONAL)
def test_every_layer_is_the_papers_formula(name):
    """Equation 3: y = H(x)·T(x) + x·(1 - T(x)), with biases drawn so that gates stand anywhere."""
    model = _small(name)
    for block in _blocks(model):
        bias = model.get_layer(f"{block}_gate").bias
        bias.assign(RNG.normal(0, 2, bias.shape))
    for block in _blocks(model):
        x, transform, gate, y = _values(model, _tensors(model, block), _pictures(model))
        np.testing.assert_allclose(y, transform * gate + x * (1 - gate), rtol=0, atol=1e-5)
        assert transform.min() >= 0
        assert gate.min() < gate.max()


@pytest.mark.parametrize("name", DENSE_AND_CONVOLUTIONAL)
def test_fresh_gates_carry(name):
    keras.utils.set_random_seed(0)
    model = _small(name)
    assert all((model.get_layer(f"{block}_gate").bias.numpy() == -2.0).all() for block in _blocks(model))
    means = []
    for block in _blocks(model):
        x, _, gate, y = _values(model, _tensors(model, block), 0.1 * _pictures(model))
        means.append(gate.mean())
        assert np.abs(y - x).mean() < 0.2 * np.abs(x).mean()
        assert np.corrcoef(x.ravel(), y.ravel())[0, 1] > 0.98
    assert np.mean(means) == pytest.approx(SIGMOID_OF_MINUS_2, abs=0.005)


@pytest.mark.parametrize("name", DENSE_AND_CONVOLUTIONAL)
def test_gate_bias_closes_the_gates(name):
    model = _small(name, gate_bias=-30.0)
    first, *_, last = [block for block in _blocks(model) if block.startswith("stage1_")]
    x, y = _values(model, [_tensors(model, first)[0], _tensors(model, last)[-1]], _pictures(model))
    assert x.std() > 0.1
    np.testing.assert_allclose(y, x, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_hundred_layers_still_pass_a_gradient_down():
    """The paper's point: at the first layer of 100 the gradient is still a good part of the one at the last."""
    keras.utils.set_random_seed(0)
    model = toolkit.create_model("highway_mlp", depth=100, gate_bias=-4.0)
    assert len(_blocks(model)) == 99
    before = {variable.path: variable.numpy() for variable in model.trainable_variables}
    model.compile(keras.optimizers.SGD(1.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.train_on_batch(RNG.uniform(0, 1, (8, 28, 28, 1)).astype("float32"), np.arange(8))
    steps = {v.path: np.linalg.norm(v.numpy() - before[v.path]) for v in model.trainable_variables}
    assert all(step > 0 for step in steps.values())
    first, last = (next(v for k, v in steps.items() if k.startswith(f"stage1_block{b}_transform")) for b in (1, 99))
    assert 0.1 < first / last < 10


@pytest.mark.parametrize("depth", [2, 10, 20, 50, 100])
def test_mlp_count_by_formula(depth, outline):
    """50 units: 784·50 + 50, then a transform and a gate of 50·50 + 50 each, then 50·10 + 10.

    Section 3.1 says 50 highway units and 71 plain ones give about 5,000 parameters per layer each.
    """
    model = outline("highway_mlp", depth=depth)
    per_layer = 2 * (50 * 50 + 50)
    assert per_layer == pytest.approx(71 * 71 + 71, rel=0.01)
    assert count_params(model) == 784 * 50 + 50 + (depth - 1) * per_layer + 50 * 10 + 10
    assert count_macs(model) == 784 * 50 + (depth - 1) * 2 * 50 * 50 + 50 * 10


@pytest.mark.parametrize(
    ("name", "depth", "total", "printed"),
    [("highway_cnn19", 19, 2_256_838, 2.3e6), ("highway_cnn32", 32, 1_264_502, 1.25e6)],
)
def test_cnn_counts_layer_by_layer(name, depth, total, printed, outline):
    model = outline(name)
    counted = {row.name: row.params for row in layer_table(model) if row.params}
    expected, channels = {}, 3
    for stage, (width, kernels) in enumerate(zip(WIDTHS[name], KERNELS[name], strict=True), start=1):
        expected[f"stage{stage}_conv"] = 9 * channels * width + width
        for block, kernel in enumerate(kernels, start=1):
            for part in ("transform", "gate"):
                expected[f"stage{stage}_block{block}_{part}"] = kernel**2 * width**2 + width
        channels = width
    expected |= {"head_conv": channels * 100 + 100, "head_logits": 100 * 10 + 10}
    assert counted == expected
    assert sum(counted.values()) == total
    assert total == pytest.approx(printed, rel=0.02)
    assert len([layer for layer in counted if not layer.endswith("_gate")]) == depth


@pytest.mark.parametrize("name", CNNS)
def test_cnn_feature_maps(name, outline):
    shapes = {row.name: row.output_shape for row in layer_table(outline(name))}
    for stage, (side, width) in enumerate(zip((32, 16, 8), WIDTHS[name], strict=True), start=1):
        assert shapes[f"stage{stage}_conv"] == shapes[f"stage{stage}_block1_out"] == (side, side, width)
    assert shapes["head_conv"] == (8, 8, 100)
    assert shapes["head_pool"] == (100,)


def test_dropout_can_be_left_out(outline):
    model = outline("highway_cnn19", dropout=0.0)
    rates = {layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)}
    assert rates == {0.0}
    published = outline("highway_cnn19")
    assert [layer.rate for layer in published.layers if isinstance(layer, keras.layers.Dropout)] == [0.2] * 4


def test_impossible_arguments_are_refused():
    with pytest.raises(toolkit.errors.UserError, match=r"depth of at least 2.*got 1"):
        toolkit.create_model("highway_mlp", depth=1)
    with pytest.raises(toolkit.errors.UserError, match="highway_cnn32 needs pictures of at least 8×8"):
        toolkit.create_model("highway_cnn32", input_shape=(32, 7, 3))
