"""A search as an Optuna study: its store, its sampler, its pruner and its plot.

Of Optuna's stores SQLite's is whole after a kill at any moment: a change is a transaction, and the kernel's lock is
gone with the process. The journal file has a lock that outlives the process, and a last line that may be half written.
Only the process that leads a search opens the store.
"""

import sqlite3
import warnings
from collections.abc import Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from toolkit.errors import UserError
from toolkit.files import replacing
from toolkit.training.search.space import Setting, Value

if TYPE_CHECKING:
    import optuna
    from matplotlib.axes import Axes

Metric = Literal["val_accuracy", "val_loss"]
#: What a search can be led by, and Optuna's word for which way is better.
DIRECTIONS: dict[str, str] = {"val_accuracy": "maximize", "val_loss": "minimize"}

# Epochs before pruning looks, and trials: a first epoch, and a handful of networks, tell little.
_WARM_UP_EPOCHS = 1
_STARTUP_TRIALS = 5


def import_optuna() -> Any:
    """Import the library and keep it quiet, or say how it is installed."""
    try:
        import optuna
    except ImportError:
        raise UserError("a search needs Optuna: pip install 'toolkit[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def open_study(file: Path, *, metric: str, seed: int, prune: bool = False) -> "optuna.Study":
    """Open a search's store, or create it.

    Seed and a trial's number are the same values in every search over a setting. With ``prune``, trials stop that are
    worse than the median of the complete ones was after as many epochs.
    """
    optuna = import_optuna()
    # Connected by path and not by address, in which some characters of a path would mean something else.
    storage = optuna.storages.RDBStorage(
        "sqlite:///search.db", engine_kwargs={"creator": lambda: sqlite3.connect(file, check_same_thread=False)}
    )
    median = optuna.pruners.MedianPruner(_STARTUP_TRIALS, _WARM_UP_EPOCHS + 1)
    return optuna.create_study(
        storage=storage,
        study_name="tune",
        sampler=_sampler(seed),
        pruner=median if prune else optuna.pruners.NopPruner(),
        direction=DIRECTIONS[metric],
        load_if_exists=True,
    )


def next_trial(study: "optuna.Study", total: int, running: Container[int]) -> "optuna.Trial | None":
    """Take a trial that a killed process left unfinished, else a new one, as long as there are fewer than ``total``.

    Those under way have the numbers ``running``.
    """
    import optuna

    trials = study.get_trials(deepcopy=False)
    left = [t for t in trials[:total] if not t.state.is_finished() and t.number not in running]
    if left:
        return optuna.Trial(study, left[0]._trial_id)
    return study.ask() if len(trials) < total else None


def plan_values(settings: Sequence[Setting], *, seed: int, total: int) -> list[dict[str, Value]]:
    """Draw what the first ``total`` trials will try, without a store."""
    study = import_optuna().create_study(sampler=_sampler(seed))
    trials = [study.ask() for _ in range(total)]
    return [{setting.key: setting.suggest(trial) for setting in settings} for trial in trials]


def plot_study(study: "optuna.Study", metric: str, path: Path) -> None:
    """Draw the metric of complete trials against each setting, as PNG."""
    import matplotlib
    import matplotlib.pyplot as plt
    from optuna.visualization.matplotlib import plot_slice

    with warnings.catch_warnings(), matplotlib.rc_context():  # Optuna sets a style for good
        warnings.simplefilter("ignore")  # experimental, and an axis of one trial has no width
        axes = np.ravel(np.asarray(plot_slice(study, target_name=metric), object))
        for axis in axes:
            _space_labels(axis)
        figure = axes[0].figure
        figure.set_size_inches(max(6.4, 3.6 * len(axes)), 4.8)
        with replacing(path) as partial:
            figure.savefig(partial, dpi=110, bbox_inches="tight")
        plt.close(figure)


def _space_labels(axis: "Axes") -> None:
    """Label a log axis of few decades in plain numbers; Matplotlib's labels overlap there."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = axis.get_xlim()
    if axis.get_xscale() == "log" and high < 100 * low:
        axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.xaxis.set_minor_formatter(NullFormatter())


def _sampler(seed: int) -> "optuna.samplers.BaseSampler":
    """Make a random sampler that is seeded anew with seed, trial number and parameter for each value.

    So it matters neither in which order trials are asked for nor by how many, and a search that is taken up again
    tries what it would have tried.
    """
    from optuna.samplers import RandomSampler

    class Sampler(RandomSampler):
        def sample_independent(self, study, trial, param_name, param_distribution):
            words = np.random.SeedSequence([seed, trial.number, *param_name.encode()]).generate_state(1)
            return RandomSampler(int(words[0])).sample_independent(study, trial, param_name, param_distribution)

    return Sampler()
