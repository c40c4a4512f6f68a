"""A search: trials run one after another or several at a time, and remembered in Optuna's SQLite store.

Of Optuna's stores this one is whole after a kill at any moment: a change is a transaction, and the kernel's lock is
gone with the process. Its journal file has a lock that outlives the process, and a last line that may be half written.
Only the process that leads a search opens the store; the trials report to it.
"""

import sqlite3
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toolkit.errors import UserError
from toolkit.training.search_space import Setting, Value
from toolkit.training.trial_pool import Outcome, Report, Row, run_trials

if TYPE_CHECKING:
    import optuna

Metric = Literal["val_accuracy", "val_loss"]
#: What a search can be led by, and whether more is better.
METRICS: dict[str, bool] = {"val_accuracy": True, "val_loss": False}

_NAME = "tune"
# Epochs before pruning looks, and trials: a first epoch, and a handful of networks, tell little.
_WARM_UP_EPOCHS = 1
_STARTUP_TRIALS = 5


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        number: from 0; together with the search's seed it decides ``values``.
        values: by setting.
        state: ``unfinished`` is what a kill leaves behind.
        value: the metric, of a complete trial; of a pruned one, when it was stopped.
        epochs: trained.
        error: why it failed.
        traceback: of a failure nobody foresaw.
    """

    number: int
    values: dict[str, Value]
    state: Literal["complete", "pruned", "failed", "unfinished"] = "unfinished"
    value: float | None = None
    epochs: int = 0
    error: str = ""
    traceback: str = field(default="", repr=False)


class SearchStore:
    """Hands out trials and keeps what they report.

    Args:
        file: the store; a new one is created.
        settings: what is searched.
        metric: a key of ``METRICS``.
        seed: of the values; the same seed and number are the same values in every search over a setting.

    Raises:
        UserError: Optuna is not installed.
    """

    def __init__(self, file: Path, settings: Sequence[Setting], *, metric: str, seed: int) -> None:
        optuna = import_optuna()
        self._settings = tuple(settings)
        self.metric = metric
        self._more_is_better = METRICS[metric]
        # Connected by path and not by address, in which some characters of a path would mean something else.
        storage = optuna.storages.RDBStorage(
            "sqlite:///search.db", engine_kwargs={"creator": lambda: sqlite3.connect(file, check_same_thread=False)}
        )
        self._study = optuna.create_study(
            storage=storage,
            study_name=_NAME,
            sampler=_sampler(self._settings, seed),
            pruner=optuna.pruners.MedianPruner(_STARTUP_TRIALS, _WARM_UP_EPOCHS + 1),
            direction="maximize" if self._more_is_better else "minimize",
            load_if_exists=True,
        )
        self._running: dict[int, Any] = {}

    def next(self, total: int) -> Trial | None:
        """The next trial to run: one that a killed process left unfinished, else a new one, up to ``total`` trials."""
        import optuna

        found = self._study.get_trials(deepcopy=False)
        left = [t for t in found[:total] if not t.state.is_finished() and t.number not in self._running]
        if left:
            trial = optuna.Trial(self._study, left[0]._trial_id)
        elif len(found) < total:
            trial = self._study.ask()
        else:
            return None
        # Of a trial that was killed while it was made, the values that are missing are drawn now.
        values = {setting.key: _suggest(trial, setting) for setting in self._settings}
        self._running[trial.number] = trial
        return Trial(trial.number, values)

    def report(self, number: int, epoch: int, value: float) -> None:
        """Note a running trial's metric after an epoch; of one that goes on after a kill, perhaps again."""
        trial = self._running[number]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what was reported already, the first report counts
            trial.report(value, epoch)

    def is_worse(self, number: int) -> bool:
        """Whether a running trial has done worse so far than the median of the complete ones after as many epochs."""
        return self._running[number].should_prune()

    def end(self, number: int, outcome: Outcome) -> None:
        """Note how a running trial ended."""
        import optuna

        trial = self._running.pop(number)
        states = optuna.trial.TrialState
        state = {"complete": states.COMPLETE, "pruned": states.PRUNED, "failed": states.FAIL}[outcome.state]
        if outcome.error:
            trial.set_user_attr("error", outcome.error)
            trial.set_user_attr("traceback", outcome.traceback)
        self._study.tell(trial, outcome.value if outcome.state == "complete" else None, state=state)

    def trials(self) -> list[Trial]:
        """All trials so far: complete ones from the best, then pruned, failed and unfinished ones."""
        rows = [_row(trial) for trial in self._study.get_trials(deepcopy=False)]
        order = ("complete", "pruned", "failed", "unfinished")
        sign = -1 if self._more_is_better else 1
        return sorted(rows, key=lambda row: (order.index(row.state), sign * (row.value or 0), row.number))


def search(
    store: SearchStore,
    run: Callable[[Trial, Report], float],
    *,
    total: int,
    jobs: int = 1,
    prune: bool = False,
    on_end: Callable[[Trial, Outcome], None] | None = None,
) -> None:
    """Run trials until there are ``total``, those that were left unfinished first.

    Args:
        store: what trials there are, and what they try.
        run: called in a worker process with a trial, gives its metric. It reports every epoch's metrics as a row with
            ``"epoch"`` and ``store.metric``; ``"last"`` where it is over anyway.
        total: trials, earlier ones among them.
        jobs: trials at a time.
        prune: stop trials that are worse than the median.
        on_end: called as trials end, with what is in ``store`` by then.
    """

    def on_epoch(trial: Trial, row: Row) -> bool:
        store.report(trial.number, row["epoch"], row[store.metric])
        return prune and not row.get("last", False) and store.is_worse(trial.number)

    def note(trial: Trial, outcome: Outcome) -> None:
        store.end(trial.number, outcome)
        if on_end:
            on_end(trial, outcome)

    trials = (trial for trial in iter(partial(store.next, total), None) if trial)
    run_trials(trials, run, num_workers=jobs, on_epoch=on_epoch, on_end=note)


def import_optuna() -> Any:
    """The library, told to be quiet.

    Raises:
        UserError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise UserError("a search needs Optuna: pip install 'toolkit[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _sampler(settings: Sequence[Setting], seed: int) -> "optuna.samplers.BaseSampler":
    """Draws every value from seed, trial number and setting, so it matters neither in which order trials are asked
    for nor by how many, and a search that is taken up again tries what it would have tried."""
    import optuna

    by_key = {setting.key: setting for setting in settings}

    class Sampler(optuna.samplers.BaseSampler):
        def infer_relative_search_space(self, study, trial):
            return {}

        def sample_relative(self, study, trial, search_space):
            return {}

        def sample_independent(self, study, trial, param_name, param_distribution):
            return by_key[param_name].draw(seed, trial.number)

    return Sampler()


def _suggest(trial: "optuna.Trial", setting: Setting) -> Value:
    if setting.scale == "choice":
        return trial.suggest_categorical(setting.key, list(setting.options))
    if setting.scale in ("int", "logint"):
        return trial.suggest_int(setting.key, int(setting.low), int(setting.high))
    return trial.suggest_float(setting.key, setting.low, setting.high)


def _row(trial: "optuna.trial.FrozenTrial") -> Trial:
    state = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}.get(trial.state.name, "unfinished")
    return Trial(
        trial.number,
        dict(trial.params),
        state,  # type: ignore[arg-type]
        trial.value if state in ("complete", "pruned") else None,
        trial.last_step or 0,
        trial.user_attrs.get("error", "") if state == "failed" else "",
        trial.user_attrs.get("traceback", "") if state == "failed" else "",
    )
