import keras
import numpy as np
import pytest

from toolkit import create_model
from toolkit.errors import UserError
from toolkit.network import architecture_digest
from toolkit.transfer import freeze
from toolkit.transfer.cut import cut_name, cut_tensor, frozen_part, trainable_part

INPUTS = np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype(np.float32)


def answer(model, inputs=INPUTS):
    return keras.ops.convert_to_numpy(model(inputs, training=False))


@pytest.mark.parametrize("stage", [None, "stem", "stage1", "stage2", "stage3"])
def test_both_parts_together_are_the_network(residual, stage):
    cut = cut_tensor(residual, stage)
    maps = answer(frozen_part(residual, cut))
    assert maps.shape[1:] == tuple(cut.shape[1:])
    np.testing.assert_allclose(answer(trainable_part(residual, cut), maps), answer(residual), atol=1e-5)


def test_parts_share_the_networks_weights(residual):
    cut = cut_tensor(residual, "stage2")
    rest = trainable_part(residual, cut)
    names = {layer.name for layer in rest.layers if layer.weights}
    assert names == {
        layer.name for layer in residual.layers if layer.weights and layer.name[:6] in ("stage3", "head_l")
    }
    assert all(rest.get_layer(name) is residual.get_layer(name) for name in names)
    assert cut_name(residual, cut) == "stage2_block3_out"


def test_stage_that_cannot_be_cut_after_is_said(residual):
    with pytest.raises(UserError, match="unknown stage 'stage7'"):
        cut_tensor(residual, "stage7")
    with pytest.raises(UserError, match="unknown stage 'head'"):
        cut_tensor(residual, "head")
    inputs = keras.Input((8, 8, 3))
    one = keras.layers.Conv2D(4, 1, name="stage1_conv")(inputs)
    two = keras.layers.Conv2D(4, 1, name="stage2_conv")(one)
    pooled = keras.layers.GlobalAveragePooling2D(name="head_pool")(keras.layers.Add(name="head_add")([one, two]))
    model = keras.Model(inputs, keras.layers.Dense(2, name="head_logits")(pooled))
    with pytest.raises(
        UserError, match=r"cannot be cut after 'stage2': 2 tensors leave it \(stage1_conv, stage2_conv\)"
    ):
        cut_tensor(model, "stage2")


def test_architecture_is_told_by_its_layers_and_not_by_names_or_freezing():
    def digest(name="resnet20", **variant):
        return architecture_digest(create_model(name, input_shape=(32, 32, 3), num_classes=4, **variant))

    model = create_model("resnet20", input_shape=(32, 32, 3), num_classes=4)
    freeze(model, "stage2")
    assert architecture_digest(model) == digest()
    assert len({digest(), digest(shortcut="B"), digest("plain20"), digest("resnet32")}) == 4
