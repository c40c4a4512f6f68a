import pytest

from toolkit.errors import UserError
from toolkit.training.config import OptimizerConfig, TrainConfig, apply_overrides
from toolkit.training.search.space import as_overrides, parse_search
from toolkit.training.search.study import plan_values

SPECS = ("optimizer.lr=log:1e-4:1e-1", "run.batch_size=choice:16,32,64", "optimizer.momentum=log1m:0.5:0.99")


def test_values_stand_in_the_config():
    specs = [*SPECS, 'data.augment=choice:"none","mirror, shift"', "optimizer.milestones=choice:[0.5],[0.3, 0.6]"]
    settings = parse_search(specs, TrainConfig())
    (values,) = plan_values(settings, seed=1, total=1)
    config = apply_overrides(TrainConfig(), as_overrides(settings, values))
    assert (config.run.batch_size, config.data.augment) == (values["run.batch_size"], "mirror, shift")
    assert config.optimizer.milestones == (0.3, 0.6)
    assert config.optimizer == OptimizerConfig(
        lr=values["optimizer.lr"], momentum=values["optimizer.momentum"], milestones=(0.3, 0.6)
    )


@pytest.mark.parametrize(
    ("spec", "fragments"),
    [
        ("optimizer.lr", ["such as optimizer.lr=log:1e-4:1e-1"]),
        ("optimizer.lr=0.1", ["expected KEY=SCALE:"]),
        ("optimizer.learning_rate=log:1e-4:1e-1", ["unknown setting 'optimizer.learning_rate'"]),
        ("optimizer.momentun=uniform:0:0.9", ["did you mean 'optimizer.momentum'"]),
        ("optimizer.lr=lgo:1e-4:1e-1", ["unknown scale 'lgo'", "choice, int, log, log1m"]),
        ("optimizer.lr=log:1e-1:1e-4", ["below the second", "0.1 and 0.0001"]),
        ("optimizer.lr=log:1e-4", ["two numbers as in log:LOW:HIGH", "'1e-4'"]),
        ("optimizer.lr=log:nan:1", ["below the second"]),
        ("optimizer.l2=log:0:1", ["starts above 0"]),
        ("optimizer.lr=uniform:-1:1", ["setting optimizer.lr=-1.0", "greater than 0"]),
        ("optimizer.momentum=uniform:0.5:1", ["setting optimizer.momentum=1.0", "less than 1"]),
        ("optimizer.momentum=log1m:0.9:1", ["ends below 1, got 1"]),
        ("run.batch_size=uniform:16:64", ["valid integer", "int:… and logint:…"]),
        ("run.batch_size=int:16:64.5", ["two whole numbers", "16:64.5"]),
        ("run.batch_size=choice:16,large", ["setting run.batch_size='large'"]),
        ("run.batch_size=choice:16,16", ["a value stands there twice"]),
        ("optimizer.name=choice:sgd,adamw,lion", ["setting optimizer.name='lion'", "'adamw'"]),
        ("optimizer.name=choice:", ["expected values with commas"]),
        ("run.seed=int:0:5", ["--set has fixed run.seed already"]),
    ],
)
def test_bad_search_is_one_clear_line(spec, fragments):
    with pytest.raises(UserError) as error:
        parse_search([spec], TrainConfig(), overridden=["run.seed=3"])
    assert "\n" not in str(error.value)
    for fragment in fragments:
        assert fragment in str(error.value)


def test_a_setting_is_searched_once_and_something_is():
    with pytest.raises(UserError, match="searched already"):
        parse_search([SPECS[0], SPECS[0]], TrainConfig())
    with pytest.raises(UserError, match="nothing to search"):
        parse_search([], TrainConfig())
