import dataclasses

import pytest

from toolkit.spec import UserError
from toolkit.training.config import TrainConfig, apply_overrides, config_as_json, config_from_json
from toolkit.training.recipes import list_recipes, recipe, smoke


@pytest.mark.parametrize("name", list_recipes())
def test_recipe_survives_json(name):
    config = recipe(name)
    assert config_from_json(config_as_json(config)) == config


def test_overrides_are_typed():
    config = apply_overrides(
        TrainConfig(), ["optimizer.lr=5e-2", "run.epochs=3", "data.fractions=[0.8, 0.1, 0.1]", "optimizer.name=sgd"]
    )
    assert config.optimizer.lr == 0.05
    assert config.run.epochs == 3
    assert config.data.fractions == (0.8, 0.1, 0.1)
    assert config.optimizer.name == "sgd"


def test_overrides_leave_the_rest_alone():
    assert apply_overrides(recipe("lenet"), ["run.epochs=3"]) == dataclasses.replace(
        recipe("lenet"), run=dataclasses.replace(recipe("lenet").run, epochs=3)
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lrr=1", "did you mean 'optimizer.lr'"),
        ("optimiser.lr=1", "did you mean 'optimizer.lr'"),
        ("lr=1", "expected group.key=value"),
        ("optimizer.lr", "expected group.key=value"),
        ("optimizer.lr=fast", "optimizer.lr='fast'"),
        ("optimizer.lr=-1", "must be positive"),
        ("optimizer.name=lion", "optimizer.name='lion'"),
        ("run.epochs=0", "at least 1"),
        ("run.epochs=2.5", "run.epochs=2.5"),
    ],
)
def test_bad_override_is_one_clear_line(override, message):
    with pytest.raises(UserError, match=r"^[^\n]*$") as caught:
        apply_overrides(TrainConfig(), [override])
    assert message in str(caught.value)


def test_recipes_hold_the_papers_figures():
    cifar = recipe("resnet_cifar")  # He et al. 2015, section 4.2
    assert (cifar.optimizer.lr, cifar.optimizer.momentum, cifar.run.batch_size) == (0.1, 0.9, 128)
    assert cifar.run.epochs * (50_000 // 128) == pytest.approx(64_000, rel=0.01)
    assert cifar.optimizer.weight_decay * (1 - cifar.optimizer.momentum) == pytest.approx(1e-4)


def test_smoke_is_two_epochs():
    assert smoke(recipe("resnet_cifar")).run.epochs == 2
