"""Freezing by stage is felt by the next fit, and batch normalisation stays in inference mode."""

import math

import keras
import numpy as np
import pytest
from networks import STAGES, small_residual

from toolkit import create_model
from toolkit.errors import UserError
from toolkit.network import architecture_digest
from toolkit.transfer import freeze, plan_freezing, stages_of, unfreeze
from toolkit.transfer.freeze import (
    ALL_FROM,
    HALF_FROM,
    LAST_STAGE_FROM,
    cut_name,
    cut_tensor,
    frozen_part,
    trainable_part,
)

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(1, 2, (8, 16, 16, 3)).astype(np.float32)
LABELS = RNG.integers(0, 3, 8)


@pytest.fixture
def model():
    model = small_residual(input_shape=(16, 16, 3))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), loss, metrics=["accuracy"])
    return model


def is_batch_norm(layer) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)


def params_by_hand(model, stages) -> int:
    """Kernels and biases of the stages: batch normalisation's gains and shifts are not among them."""
    layers = [layer for layer in model.layers if layer.name.split("_")[0] in stages and not is_batch_norm(layer)]
    return sum(math.prod(weight.shape) for layer in layers for weight in layer.weights)


def changed_layers(model, epochs=1) -> set[str]:
    before = {layer.name: layer.get_weights() for layer in model.layers}
    model.fit(INPUTS, LABELS, batch_size=4, epochs=epochs, verbose=0)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    return {
        layer.name
        for layer in model.layers
        if any(not np.array_equal(a, b) for a, b in zip(before[layer.name], layer.get_weights(), strict=True))
    }


def layers_with_weights(model, stages) -> set[str]:
    return {
        layer.name
        for layer in model.layers
        if layer.name.split("_")[0] in stages and layer.weights and not is_batch_norm(layer)
    }


def test_stages_come_from_input_to_output(model):
    assert stages_of(model) == STAGES
    assert stages_of(create_model("lenet5")) == ("stage1", "stage2", "head")


@pytest.mark.parametrize("upto", STAGES)
def test_freezing_counts_parameters_by_stage(model, upto):
    report = freeze(model, upto)
    behind = STAGES[STAGES.index(upto) + 1 :]
    assert report.trainable_stages == behind
    assert report.trainable == params_by_hand(model, behind)
    assert report.trainable + report.frozen == model.count_params()
    assert str(report).endswith(", ".join(behind) or "none")


def test_classifier_alone_has_99_parameters(model):
    assert freeze(model, "stage3").trainable == 32 * 3 + 3
    assert unfreeze(model, "head").trainable == 99
    assert unfreeze(model).trainable == params_by_hand(model, STAGES)


def test_frozen_layers_stay_and_the_others_change_in_the_next_fit(model):
    model.fit(INPUTS, LABELS, verbose=0)  # compiled and traced: a later change of trainable alone would do nothing
    freeze(model, "stage2")
    assert changed_layers(model) == layers_with_weights(model, ("stage3", "head"))
    unfreeze(model, "stage2")
    assert changed_layers(model) == layers_with_weights(model, ("stage2", "stage3", "head"))
    freeze(model, "stage3")
    assert changed_layers(model) == {"head_logits"}


def test_batch_norm_keeps_statistics_gain_and_shift_even_where_its_stage_trains(model):
    unfreeze(model)
    before = {layer.name: layer.get_weights() for layer in model.layers if is_batch_norm(layer)}
    model.fit(INPUTS, LABELS, batch_size=4, epochs=2, verbose=0)
    assert len(before) == 4
    for name, weights in before.items():
        for ours, theirs in zip(model.get_layer(name).get_weights(), weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_batch_norm_trains_when_asked_but_only_in_stages_that_train(model):
    report = freeze(model, "stage1", train_batch_norm=True)
    changed = changed_layers(model)
    batch_norms = {layer.name for layer in model.layers if is_batch_norm(layer)}
    assert changed & batch_norms == {name for name in batch_norms if name.startswith(("stage2", "stage3"))}
    assert report.trainable == params_by_hand(model, STAGES[2:]) + 2 * (16 + 32)


def test_freezing_keeps_how_the_model_was_compiled(model):
    freeze(model, "stage3")
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    assert float(model.optimizer.learning_rate) == pytest.approx(1e-3)
    assert model.optimizer.momentum == 0.9
    assert set(model.evaluate(INPUTS, LABELS, verbose=0, return_dict=True)) == {"loss", "accuracy"}


def test_network_compiled_by_this_package_can_be_frozen_and_trained_on():
    from toolkit.training.config import OptimizerConfig, TrainConfig
    from toolkit.training.loop import compile_model

    model = create_model("lenet5", num_classes=3, input_shape=(16, 16, 3))
    compile_model(model, TrainConfig(optimizer=OptimizerConfig(warmup_epochs=1)), steps_per_epoch=2)
    model.fit(INPUTS, LABELS, verbose=0)
    freeze(model, "stage2")
    assert changed_layers(model) == {"head_fc1", "head_fc2", "head_logits"}


def test_network_that_was_never_compiled_can_be_frozen():
    model = create_model("lenet5")
    freeze(model, "stage2")
    assert not model.compiled
    assert {layer.name for layer in model.layers if layer.trainable_weights} == {"head_fc1", "head_fc2", "head_logits"}


@pytest.mark.parametrize("change", [freeze, unfreeze])
def test_unknown_stage_is_named_and_nothing_changes(model, change):
    freeze(model, "stage2")
    before = [layer.trainable for layer in model.layers]
    with pytest.raises(UserError, match=r"unknown stage 'stage9'; did you mean 'stage3'"):
        change(model, "stage9")
    assert [layer.trainable for layer in model.layers] == before


PICTURES = np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype(np.float32)


def answer(model, inputs=PICTURES):
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


def test_more_pictures_free_more_stages_and_a_wish_overrides():
    stages = ("stem", "stage1", "stage2", "stage3", "stage4", "head")
    numbers = [LAST_STAGE_FROM - 1, LAST_STAGE_FROM, HALF_FROM, ALL_FROM]
    plans = [plan_freezing(stages, number) for number in numbers]
    assert [plan.unfreeze_from for plan in plans] == [None, "stage4", "stage2", "stem"]
    assert str(plans[0]) == "only the classifier will train (1,999 training pictures, fewer than 2,000)"
    assert plan_freezing(stages, 10, "stage1").unfreeze_from == "stage1"
    assert plan_freezing(stages, 10**6, "none").unfreeze_from is None
    with pytest.raises(UserError, match="unknown stage 'stag1'; did you mean 'stage1'"):
        plan_freezing(stages, 10, "stag1")
