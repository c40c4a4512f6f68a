import dataclasses
import inspect

import numpy as np
import pytest

import toolkit
from toolkit.api.options import overrides_of
from toolkit.errors import UserError
from toolkit.training.config import NO_VARIANTS, TrainConfig, apply_overrides, config_from_json
from toolkit.training.recipes import recipe


def test_overrides_are_typed():
    config = apply_overrides(
        TrainConfig(), ["optimizer.lr=5e-2", "run.epochs=3", "data.fractions=[0.8, 0.1, 0.1]", "optimizer.name=sgd"]
    )
    assert config.optimizer.lr == 0.05
    assert config.run.epochs == 3
    assert config.data.fractions == (0.8, 0.1, 0.1)
    assert config.optimizer.name == "sgd"


def test_values_of_python_are_written_as_they_are_read():
    settings = {
        "data.balanced": True,
        "data.fractions": (0.8, 0.1, 0.1),
        "optimizer.clip_norm": None,
        "optimizer.lr": np.float32(0.5),
        "run.epochs": np.int64(3),
        "model.variant": {"aux_heads": True},
        "data.augment": "mirror",
    }
    config = apply_overrides(TrainConfig(), overrides_of(settings))
    assert (config.data.balanced, config.data.fractions, config.data.augment) == (True, (0.8, 0.1, 0.1), "mirror")
    assert (config.optimizer.clip_norm, config.optimizer.lr, config.run.epochs) == (None, 0.5, 3)
    assert config.model.variant == {"aux_heads": True}


def test_what_is_no_variant_is_what_networks_are_told_by_name():
    named = inspect.signature(toolkit.create_model).parameters.values()
    assert tuple(each.name for each in named if each.kind is not each.VAR_KEYWORD) == NO_VARIANTS


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
        ("optimizer.lr=-1", "optimizer.lr=-1: Input should be greater than 0"),
        ("optimizer.name=lion", "optimizer.name='lion'"),
        ("run.epochs=0", "run.epochs=0: Input should be greater than or equal to 1"),
        ("optimizer.lr=NaN", "finite number"),
        ("optimizer.ema_epochs=true", "valid number"),
        ("optimizer.schedule=manual", "needs optimizer.milestones"),
        ("optimizer.milestones=[3, 2]", "must rise"),
        ("data.fractions=0.9,x", "data.fractions='0.9,x': expected three shares, of training, validation and test"),
        ("data.fractions=0.9,0.1", "data.fractions=[0.9, 0.1]: expected three shares"),
        ("run.epochs=2.5", "run.epochs=2.5"),
        ("run.seed=-1", "run.seed=-1: Input should be greater than or equal to 0"),
        ("run.seed=4294967296", "run.seed=4294967296: Input should be less than 4294967296"),
        ("data.split_seed=-1", "data.split_seed=-1: Input should be greater than or equal to 0"),
        ('model.variant={"num_classes": 5}', "'num_classes' is no keyword of a network's builder; leave it out"),
    ],
)
def test_bad_override_is_one_clear_line(override, message):
    with pytest.raises(UserError, match=r"^[^\n]*$") as caught:
        apply_overrides(TrainConfig(), [override])
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ['{"data": {"augmentt": "none"}}', '{"optimizer": {"lr": "0.1"}}', "[1]", "{"])
def test_document_with_a_wrong_key_or_type_is_one_clear_line(text):
    with pytest.raises(UserError, match=r"^[^\n]*$"):
        config_from_json(text)
