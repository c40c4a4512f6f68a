from types import SimpleNamespace

import numpy as np
import pytest

from toolkit.compress import changes
from toolkit.compress.changes import Changes
from toolkit.engines.convert import to_litert
from toolkit.errors import UserError


@pytest.mark.parametrize("method", ["int8", "dynamic", "float16", "int16x8"])
def test_kernels_are_read_from_every_kind_of_file(lenet, lenet_files, method):
    """Zeros are where they are in the network, whatever numbers the file holds."""
    kernels = changes.kernels_in(lenet_files[method], [layer.name for layer in lenet.layers])
    expected = {layer.name: np.asarray(layer.kernel) for layer in lenet.layers if hasattr(layer, "kernel")}
    assert {name: kernel.size for name, kernel in kernels.items()} == {n: k.size for n, k in expected.items()}
    for name, kernel in kernels.items():
        stored = np.moveaxis(expected[name], -1, 0).reshape(len(kernel), -1)
        ours = kernel.reshape(len(kernel), -1)
        if kernel.ndim == 4:  # HWIO to OHWI keeps the order of the rest
            assert np.corrcoef(ours[0].astype(float), stored[0])[0, 1] > 0.999


def test_a_constant_that_a_layer_computes_with_is_no_kernel():
    """Local response normalisation becomes a convolution of ones and zeros."""
    import keras

    from toolkit.layers import LocalResponseNormalization

    inputs = keras.Input((8, 8, 16), name="input")
    x = keras.layers.Conv2D(16, 1, name="conv")(inputs)
    x = LocalResponseNormalization(5, 1.0, 1.0, name="norm")(x)
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(keras.layers.Flatten(name="flat")(x)))
    kernels = changes.kernels_in(to_litert(model), [layer.name for layer in model.layers if hasattr(layer, "kernel")])
    assert set(kernels) == {"conv", "logits"}
    assert changes.share_of_zeros(kernels.values()) == 0


def test_zeros_and_shared_values_are_counted():
    half = np.array([[0.0, 1.0], [0.0, 2.0]])
    kernels = {"a": half, "b": np.ones((4, 3))}
    assert changes.share_of_zeros(kernels.values()) == 2 / 16
    assert changes.most_values(kernels, by_channel=False) == 3
    assert changes.most_values(kernels, by_channel=True) == 2


def test_what_was_not_done_is_said():
    half, whole = np.array([0.0, 1.0] * 50), np.ones(100)
    changes.require_zeros({"a": half}, 0.5)
    changes.require_zeros({"a": half}, 0.505)
    with pytest.raises(UserError, match=r"50.0 % of the weights zero, and made 25.0 %; none in b"):
        changes.require_zeros({"a": half, "b": whole}, 0.5)
    with pytest.raises(UserError, match=r"60.0 % of the weights zero, and made 50.0 %; train longer"):
        changes.require_zeros({"a": half}, 0.6)
    changes.require_values({"a": half}, 2, by_channel=False)
    with pytest.raises(UserError, match="to leave 16 different values in a kernel, and left 40 in many"):
        changes.require_values({"a": half, "many": np.arange(40)}, 16, by_channel=False)
    names = [f"conv{index}" for index in range(7)]
    with pytest.raises(
        UserError, match=r"moved 10 of 99 parameters and left the kernels of conv0, .* and 2 more layers"
    ):
        changes.require_trained(SimpleNamespace(trained=10, untouched=names), 99)


def test_parameters_are_counted_without_statistics(residual):
    assert changes.num_parameters(residual) == sum(w.numpy().size for w in residual.trainable_weights)
    import keras

    other = keras.models.clone_model(residual)
    other.set_weights(residual.get_weights())
    assert changes.moved_parameters(other, residual) == 0
    other.get_layer("stem_bn").moving_mean.assign_add(np.ones(16))
    other.layers[-1].bias.assign_add(np.ones(3))
    assert changes.moved_parameters(other, residual) == 3


def test_changes_are_put_into_words():
    assert str(Changes(0.0)) == "0.0 % of the kernels' weights are zero"
    assert str(Changes(0.5, parameters=100, trained=99, kept_epoch=0)) == (
        "50.0 % of the kernels' weights are zero; training moved 99 of 100 parameters; kept: the start, better than any"
    )
    assert "at most 16 different values in a kernel" in str(Changes(0.1, values=16))
