"""A trial's values follow from the search's seed and its number, each setting on its scale."""

import numpy as np
import pytest
from optuna.trial import TrialState
from PIL import Image
from scipy import stats

from toolkit.training.config import TrainConfig
from toolkit.training.search import study as study_module
from toolkit.training.search.space import parse_search, parse_setting
from toolkit.training.search.study import next_trial, open_study, plan_values, plot_study

SPECS = ("optimizer.lr=log:1e-4:1e-1", "run.batch_size=choice:16,32,64", "optimizer.momentum=log1m:0.5:0.99")


def draws(*specs: str, seed: int = 0) -> list[np.ndarray]:
    settings = [parse_setting(spec) for spec in specs]
    planned = plan_values(settings, seed=seed, total=1000)
    return [np.array([values[setting.key] for values in planned]) for setting in settings]


@pytest.mark.parametrize(
    ("spec", "stretched"),
    [
        ("optimizer.lr=log:1e-4:1e-1", lambda x: (np.log10(x) + 4) / 3),
        ("optimizer.momentum=log1m:0.9:0.999", lambda x: (-np.log10(1 - x) - 1) / 2),
        ("optimizer.momentum=uniform:0.5:0.75", lambda x: 4 * (x - 0.5)),
    ],
    ids=["log", "log1m", "uniform"],
)
def test_draws_are_uniform_on_their_scale(spec, stretched):
    shares = stretched(draws(spec)[0])
    assert stats.kstest(shares, "uniform").pvalue > 0.05
    assert stats.kstest(shares**2, "uniform").pvalue < 1e-6, "the test could not tell another scale"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("run.epochs=int:3:7", dict.fromkeys(range(3, 8), 0.2)),
        ("run.batch_size=choice:16,32,64", dict.fromkeys((16, 32, 64), 1 / 3)),
        # Each number reaches half way to its neighbours, and 4.5 / 0.5 is 9.
        ("run.epochs=logint:1:4", {n: np.log((n + 0.5) / (n - 0.5)) / np.log(9) for n in range(1, 5)}),
    ],
    ids=["int", "choice", "logint"],
)
def test_whole_numbers_and_choices_come_as_often_as_they_should(spec, expected):
    values, counts = np.unique(draws(spec)[0], return_counts=True)
    assert values.tolist() == sorted(expected)
    assert stats.chisquare(counts, [expected[v] * counts.sum() for v in values.tolist()]).pvalue > 0.05


def test_settings_of_one_trial_and_seeds_are_independent():
    rate, momentum = draws(SPECS[0], SPECS[2])
    assert abs(stats.spearmanr(rate, momentum).statistic) < 0.08
    np.testing.assert_array_equal(draws(SPECS[0])[0], rate)  # whatever else is searched
    assert abs(stats.spearmanr(rate, draws(SPECS[0], seed=1)[0]).statistic) < 0.08


def test_momentum_keeps_its_digits_close_to_one():
    (values,) = draws("optimizer.momentum=log1m:0.99:0.999999")
    assert len(set(values.tolist())) > 990  # of a thousand with six digits of 1 − value
    assert values.min() >= 0.99
    assert values.max() <= 0.999999


def test_trial_killed_while_it_was_made_gets_the_values_it_lacks(tmp_path):
    settings = parse_search(SPECS, TrainConfig())
    study = open_study(tmp_path / "search.db", metric="val_accuracy", seed=0)
    settings[0].suggest(study.ask())  # killed before it was given its last values
    trial = next_trial(open_study(tmp_path / "search.db", metric="val_accuracy", seed=0), 1, ())
    assert [{s.key: s.suggest(trial) for s in settings}] == plan_values(settings, seed=0, total=1)


def test_plot_has_each_setting_on_the_scale_it_was_drawn_from(tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    settings = parse_search((*SPECS, "run.epochs=int:1:9", "optimizer.weight_decay=log:1e-3:1e-2"), TrainConfig())
    study = open_study(tmp_path / "search.db", metric="val_accuracy", seed=0)
    for value in (0.2, 0.9, 0.5):
        trial = study.ask()
        drawn = {setting.key: setting.suggest(trial) for setting in settings}
        study.tell(trial, value)
    study.tell(study.ask(), state=TrialState.FAIL)
    figures = []
    monkeypatch.setattr(plt, "close", figures.append)
    style = plt.rcParams["axes.facecolor"]
    plot_study(study, "val_accuracy", tmp_path / "tune.png")
    monkeypatch.undo()
    plt.close(figures[0])

    assert plt.rcParams["axes.facecolor"] == style
    by_name = {axis.get_xlabel(): axis for axis in figures[0].axes}
    scales = {name: by_name[name].get_xscale() for name in ("optimizer.lr", "run.epochs", "1 - optimizer.momentum")}
    assert list(scales.values()) == ["log", "linear", "log"]
    dots = by_name["1 - optimizer.momentum"].collections[0].get_offsets().data
    assert dots[-1] == pytest.approx([1 - drawn["optimizer.momentum"], 0.5], rel=1e-5)
    assert by_name["optimizer.weight_decay"].xaxis.get_major_formatter()(0.001, None) == "0.001"
    with Image.open(tmp_path / "tune.png") as picture:
        assert picture.size > (1200, 400)


def test_directions_are_those_of_the_metrics():
    assert study_module.DIRECTIONS == {"val_accuracy": "maximize", "val_loss": "minimize"}
