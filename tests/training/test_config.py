import dataclasses

import pytest

from toolkit.errors import UserError
from toolkit.training.config import TrainConfig, apply_overrides, config_from_json
from toolkit.training.recipes import recipe


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
