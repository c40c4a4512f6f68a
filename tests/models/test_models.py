"""What must hold of every registered network, recomputed from the network itself."""

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
NAMES = [name if name in KINDS else pytest.param(name, marks=pytest.mark.slow) for name in toolkit.list_models()]
RNG = np.random.default_rng(0)
CLASSES = {"xo": 2}  # made by hand for these; the others take any number


def _small(name, *, side=64, **arguments):
    """The network for pictures of ``side``: at 64 the large ones take a second, and every stage still has pixels."""
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


@pytest.fixture
def policy():
    """Sets a dtype policy and puts the old one back."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


@pytest.mark.parametrize("name", NAMES)
def test_counts_are_those_recomputed(name):
    info = toolkit.model_info(name)
    model = toolkit.create_model(name)
    assert model.name == name
    assert model.input_shape == (None, *info.input_shape)
    assert model.output_shape == (None, info.num_classes)
    assert arithmetic.count_params(model) == info.num_params
    assert arithmetic.count_macs(model) == info.macs
    assert sum(row.params for row in arithmetic.layer_table(model)) == info.num_params


@pytest.mark.parametrize("name", NAMES)
def test_metadata_is_filled_in(name):
    info = toolkit.model_info(name)
    assert info.preprocessing.input_shape == info.input_shape
    assert str(info.year) in info.paper
    assert info.stages[-1] == "head"
    assert info.recipe
    assert info.deviations
    # Each under its own tag; "imagenet" stands for the best of them.
    assert all(tag in (weights.tag, "imagenet") for tag, weights in info.weights.items())


def test_graph_is_flat_and_of_known_layers(small):
    for layer in small.layers:
        known = getattr(layers, type(layer).__name__, None) or getattr(keras.layers, type(layer).__name__, None)
        assert type(layer) is known, f"{layer.name} is neither a stock layer nor one of toolkit.layers"
        assert not isinstance(layer, keras.Model | keras.layers.Wrapper | keras.layers.Lambda), layer.name
        assert len(layer._inbound_nodes) == 1, f"{layer.name} is used twice"
    # An operator such as `x + y` leaves an operation that is no layer of the model.
    assert {operation.name for operation in small.operations} == {layer.name for layer in small.layers}


def test_layer_names_start_with_a_stage_in_order(small):
    info = toolkit.model_info(small.name)
    first, *rest = [layer.name for layer in small.layers]
    assert first == "input"
    assert all(layer.startswith(tuple(f"{stage}_" for stage in info.stages)) for layer in rest)
    positions = [info.stages.index(layer.split("_")[0]) for layer in rest]
    assert set(positions) == set(range(len(info.stages)))
    assert rest[-1] == "head_logits"


class _Recording(keras.optimizers.Adam):
    """Keeps the gradients of the step it takes."""

    def apply(self, grads, trainable_variables=None):
        self.gradients = [keras.ops.convert_to_numpy(gradient) for gradient in grads]
        super().apply(grads, trainable_variables)


@pytest.mark.parametrize("dtype_policy", ["float32", pytest.param("mixed_bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_training_step_reaches_every_variable(name, dtype_policy, policy):
    policy(dtype_policy)
    keras.utils.set_random_seed(0)
    model = _small(name, side=32)
    if toolkit.model_info(name).num_params == 0:
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


def test_saved_and_reloaded_model_answers_the_same(small, tmp_path):
    x = _pictures(small)
    small.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert [layer.name for layer in again.layers] == [layer.name for layer in small.layers]
    np.testing.assert_allclose(_answer(again, x), _answer(small, x), rtol=0, atol=1e-6)
    (tmp_path / "model.keras").unlink()  # pytest keeps the folders of three runs, and all networks make gigabytes


@pytest.mark.parametrize("dtype_policy", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_logits_are_float32_under_mixed_precision(name, dtype_policy, policy):
    policy(dtype_policy)
    model = _small(name, side=32)
    compute = dtype_policy.removeprefix("mixed_")
    assert {layer.compute_dtype for layer in model.layers} == {compute, "float32"}
    # In training, where statistics are the batch's: fresh moving ones let a hundred layers grow beyond float16.
    answer = model(_pictures(model, 1), training=True)
    assert keras.backend.standardize_dtype(answer.dtype) == "float32"
    assert np.isfinite(keras.ops.convert_to_numpy(answer)).all()
    assert all(keras.backend.standardize_dtype(weight.dtype) == "float32" for weight in model.weights)


@pytest.mark.parametrize("name", NAMES)
def test_backbone_and_its_pooling(name):
    backbone = _small(name, include_top=False)
    x = _pictures(backbone)
    assert not any(layer.name.startswith("head") for layer in backbone.layers)
    features = _answer(backbone, x)
    assert features.ndim == 4

    for pooling, reduce in (("avg", np.mean), ("max", np.max)):
        model = _small(name, include_top=False, pooling=pooling)
        assert model.layers[-1].name == "head_pool"
        model.set_weights(backbone.get_weights())
        np.testing.assert_allclose(_answer(model, x), reduce(features, axis=(1, 2)), rtol=1e-5, atol=1e-5)


def test_two_models_start_from_different_weights(small):
    kernels, others = (
        [weight for weight in model.trainable_weights if weight.name == "kernel"]
        for model in (small, _small(small.name))
    )
    assert not any(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(kernels, others, strict=True))
