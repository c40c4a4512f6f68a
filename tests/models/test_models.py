"""Facts about every registered network, recomputed from the network itself."""

import keras
import numpy as np
import pytest

import toolkit
from toolkit import arithmetic, layers

#: One network for each kind of block, stem and head. `-m slow` has the others, further rows of the same tables.
KINDS = (
    *("softmax_regression", "mlp", "xo", "exercise_cnn", "lenet5", "lenet5_rgb", "alexnet", "vgg11_bn"),
    *("nin", "nin_cifar", "googlenet_bn", "highway_mlp", "highway_cnn19", "plain20", "resnet20", "resnet50"),
    "resnet56_sd",
)
ALL = toolkit.list_models()
NAMES = [name if name in KINDS else pytest.param(name, marks=pytest.mark.slow) for name in ALL]
RNG = np.random.default_rng(0)
CLASSES = {"xo": 2}  # made by hand for these; the others take any number


def _small(name, *, side=32, **arguments):
    """The network for pictures of ``side``, or the next larger that it takes."""
    info = toolkit.model_info(name)
    height, width, channels = info.input_shape
    shape = (min(height, max(side, info.min_size)), min(width, max(side, info.min_size)), channels)
    return toolkit.create_model(name, input_shape=shape, **{"num_classes": CLASSES.get(name, 7), **arguments})


def _pictures(model, count=2):
    return RNG.normal(size=(count, *model.input_shape[1:])).astype("float32")


def _answer(model, x):
    return keras.ops.convert_to_numpy(keras.ops.cast(model(x), "float32"))


@pytest.fixture(scope="module", params=NAMES)
def small(request):
    """Each network once, for the tests that leave it as it is."""
    return _small(request.param)


@pytest.fixture(scope="module")
def second(small):
    """The same network once more, which the last of its tests trains."""
    keras.utils.set_random_seed(0)
    return _small(small.name)


@pytest.fixture
def policy():
    """Sets a dtype policy and puts the old one back."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("name", ALL)
def test_counts_are_those_recomputed(name, outline):
    info = toolkit.model_info(name)
    model = outline(name)
    assert model.name == name
    assert model.input_shape == (None, *info.input_shape)
    assert model.output_shape == (None, info.num_classes)
    assert arithmetic.count_params(model) == info.num_params
    assert arithmetic.count_macs(model) == info.macs
    assert sum(row.params for row in arithmetic.layer_table(model)) == info.num_params


@pytest.mark.parametrize("name", ALL)
def test_metadata_is_filled_in(name):
    info = toolkit.model_info(name)
    assert info.preprocessing.input_shape == info.input_shape
    assert str(info.year) in info.paper
    assert info.stages[-1] == "head"
    assert info.recipe
    assert info.deviations
    # Each under its own tag; "imagenet" stands for the best of them.
    assert all(tag in (weights.tag, "imagenet") for tag, weights in info.weights.items())


@pytest.mark.parametrize("name", ALL)
def test_graph_is_flat_and_of_known_layers(name, outline):
    model = outline(name)
    for layer in model.layers:
        known = getattr(layers, type(layer).__name__, None) or getattr(keras.layers, type(layer).__name__, None)
        assert type(layer) is known, f"{layer.name} is neither a stock layer nor one of toolkit.layers"
        assert not isinstance(layer, keras.Model | keras.layers.Wrapper | keras.layers.Lambda), layer.name
        assert len(layer._inbound_nodes) == 1, f"{layer.name} is used twice"
    # An operator such as `x + y` leaves an operation that is no layer of the model.
    assert {operation.name for operation in model.operations} == {layer.name for layer in model.layers}


@pytest.mark.parametrize("name", ALL)
def test_layer_names_start_with_a_stage_in_order(name, outline):
    info = toolkit.model_info(name)
    first, *rest = [layer.name for layer in outline(name).layers]
    assert first == "input"
    assert all(layer.startswith(tuple(f"{stage}_" for stage in info.stages)) for layer in rest)
    positions = [info.stages.index(layer.split("_")[0]) for layer in rest]
    assert set(positions) == set(range(len(info.stages)))
    assert rest[-1] == "head_logits"


def test_saved_and_reloaded_model_answers_the_same(small, tmp_path):
    x = _pictures(small)
    small.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert [layer.name for layer in again.layers] == [layer.name for layer in small.layers]
    np.testing.assert_allclose(_answer(again, x), _answer(small, x), rtol=0, atol=1e-6)
    (tmp_path / "model.keras").unlink()  # pytest keeps the folders of three runs, and all networks make gigabytes


def test_two_models_start_from_different_weights(small, second):
    kernels, others = (
        [weight for weight in model.trainable_weights if weight.name == "kernel"] for model in (small, second)
    )
    assert not any(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(kernels, others, strict=True))


class _Recording(keras.optimizers.Adam):
    """Keeps the gradients of the step it takes."""

    def apply(self, grads, trainable_variables=None):
        self.gradients = [keras.ops.convert_to_numpy(gradient) for gradient in grads]
        super().apply(grads, trainable_variables)


def test_training_step_reaches_every_variable(second):
    _train_a_step(second)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_training_step_in_mixed_precision_reaches_every_variable(name, policy):
    policy("mixed_bfloat16")
    keras.utils.set_random_seed(0)
    _train_a_step(_small(name))


def _train_a_step(model):
    if toolkit.model_info(model.name).num_params == 0:
        assert not model.trainable_variables
        return
    assert model.output.dtype == "float32"
    optimizer = _Recording(1e-3)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    before = {variable.path: variable.numpy() for variable in model.trainable_variables}
    unreached = set(before)
    # One step is enough, but where stochastic depth drops a block.
    for _ in range(12 if any(isinstance(layer, layers.StochasticDepth) for layer in model.layers) else 1):
        assert np.isfinite(model.train_on_batch(_pictures(model, 4), np.array([0, 1, 2, 3])))
        for variable, gradient in zip(model.trainable_variables, optimizer.gradients, strict=True):
            assert gradient.dtype == np.float32
            assert np.isfinite(gradient).all(), variable.path
            if gradient.any():
                unreached.discard(variable.path)
        if not unreached:
            break
    assert not unreached
    for variable in model.trainable_variables:
        assert keras.backend.standardize_dtype(variable.dtype) == "float32"
        assert not np.array_equal(variable.numpy(), before[variable.path]), f"{variable.path} has not moved"


@pytest.mark.parametrize("dtype_policy", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_logits_are_float32_under_mixed_precision(name, dtype_policy, outline):
    model = outline(name, dtype_policy=dtype_policy)
    assert {layer.compute_dtype for layer in model.layers} == {dtype_policy.removeprefix("mixed_"), "float32"}
    assert model.output.dtype == "float32"
    assert all(keras.backend.standardize_dtype(weight.dtype) == "float32" for weight in model.weights)


@pytest.mark.parametrize("dtype_policy", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name", [name if name == "resnet20" else pytest.param(name, marks=pytest.mark.slow) for name in ALL]
)
def test_answers_in_mixed_precision_are_finite(name, dtype_policy, policy):
    policy(dtype_policy)
    model = _small(name)
    # In training, where statistics are the batch's: fresh moving ones let a hundred layers grow beyond float16.
    answer = model(_pictures(model, 1), training=True)
    assert keras.backend.standardize_dtype(answer.dtype) == "float32"
    assert np.isfinite(keras.ops.convert_to_numpy(answer)).all()


@pytest.mark.parametrize("name", NAMES)
def test_backbone_has_no_head(name, outline):
    backbone = outline(name, include_top=False)
    assert len(backbone.output.shape) == 4
    assert not any(layer.name.startswith("head") for layer in backbone.layers)
    pooled = outline(name, include_top=False, pooling="avg")
    assert [layer.name for layer in pooled.layers] == [*(layer.name for layer in backbone.layers), "head_pool"]
    assert pooled.output.shape == (None, backbone.output.shape[-1])


@pytest.mark.parametrize(("pooling", "reduce"), [("avg", np.mean), pytest.param("max", np.max, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_pooled_features_are_the_backbones(name, pooling, reduce):
    pooled = _small(name, side=64, include_top=False, pooling=pooling)  # of 32 pixels, one would be left to pool
    model = keras.Model(pooled.input, [pooled.layers[-2].output, pooled.output])
    features, answer = (keras.ops.convert_to_numpy(value) for value in model(_pictures(pooled)))
    assert features.std() > 0
    np.testing.assert_allclose(answer, reduce(features, axis=(1, 2)), rtol=1e-5, atol=1e-5)
