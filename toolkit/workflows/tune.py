"""A search over a training run's settings: trials, each an ordinary run, and the best one's config."""

import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from toolkit.catalogue import model_info
from toolkit.data import ImageFolder, split_folder
from toolkit.errors import UserError, unknown_name
from toolkit.lazy import keras
from toolkit.training.config import TrainConfig, apply_overrides, config_as_json
from toolkit.training.recipes import recipe
from toolkit.training.search_space import Setting, as_overrides, parse_search
from toolkit.training.trial_pool import Outcome, Report, Row
from toolkit.training.tune import METRICS, Metric, SearchStore, Trial, import_optuna, search
from toolkit.workflows.steps import Progress, scan
from toolkit.workflows.train import train_folder

_SEARCH, _STORE, _RESULT, _BEST, _PLOT = "search.json", "search.db", "tune.json", "best.json", "tune.png"
# Trials are compared on the same validation pictures, and a loss only with losses that mean the same.
_CHANGES_PICTURES = ("data.fractions", "data.split_seed")
_CHANGES_LOSS = ("optimizer.label_smoothing", "optimizer.l2", "model.loss_weights")


@dataclass(frozen=True)
class SearchOptions:
    """What to search, and how.

    Attributes:
        search: ``KEY=SCALE:…`` each; see ``toolkit.training.search_space``.
        trials: how many in all, those of an earlier call among them.
        jobs: how many at a time, each in a process of its own.
        seed: of the values; what trial 7 tries follows from it and the 7.
        metric: a validation metric, as it is when a run ends, or where early stopping keeps an earlier epoch, then.
        prune: stop trials that are worse than the median of the complete ones was after as many epochs.
    """

    search: tuple[str, ...]
    trials: int = 20
    jobs: int = 1
    seed: int = 0
    metric: Metric = "val_accuracy"
    prune: bool = False


@dataclass(frozen=True)
class _Plan:
    """A search that has been found sound, before anything is written."""

    data: str | Path
    model_name: str
    recipe_name: str
    overrides: tuple[str, ...]
    options: SearchOptions
    skip_bad: bool
    settings: tuple[Setting, ...]
    base: TrainConfig
    out: Path

    def config(self, trial: Trial) -> TrainConfig:
        return apply_overrides(self.base, as_overrides(self.settings, trial.values))

    def run_path(self, trial: Trial) -> Path:
        return self.out / f"trial-{trial.number:04d}"

    def command(self, trial: Trial) -> str:
        """What trains with a trial's settings."""
        chosen = [*self.overrides, *as_overrides(self.settings, trial.values)]
        words = ["toolkit", "train", str(self.data), "--model", self.model_name, "--recipe", self.recipe_name]
        words += [word for override in chosen for word in ("--set", override)]
        words += ["--skip-bad"] * self.skip_bad
        return shlex.join([*words, "--out", f"{self.out}-best"])


def tune_folder(
    data: str | Path,
    model_name: str,
    *,
    out: str | Path,
    options: SearchOptions,
    recipe_name: str | None = None,
    overrides: Iterable[str] = (),
    resume: bool = False,
    skip_bad: bool = False,
    scan_progress: Progress | None = None,
    on_trial: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Try settings at random, each in a run of ``train_folder``, and tell which did best on validation pictures.

    A trial that fails, by a loss that is no number or by the death of its process, is listed and the search goes on. A
    search that was killed goes on where it was, its unfinished trials from their last checkpoint.

    Args:
        data: see ``toolkit.data.scanfolder``.
        model_name: a registered network.
        out: the search's directory: ``trial-0000/`` and so on are runs, ``search.db`` is Optuna's.
        options: what to search, and how.
        recipe_name: what the settings not searched come from; by default the network's own.
        overrides: ``group.key=value`` settings on top of the recipe.
        resume: go on with the search in ``out``, if it holds one.
        skip_bad: leave unreadable pictures out instead of refusing the folder.
        scan_progress: called with (done, total) files.
        on_trial: called with each trial as it ends: a row of the result, and in it ``"metric"``, and ``"ended"`` and
            ``"total"`` trials.

    Returns:
        What ``tune.json`` holds: ``{"out", "model", "recipe", "metric", "seed", "trials", "best", "plot"}``. Trials are
        ``{"trial", "state", "value", "epochs", "settings", "run", "error"}``, the best first. ``best`` adds
        ``"config"``, a file that ``config_from_json`` reads, ``"command"`` to train with it, and ``"held_out"``, the
        run's accuracy on pictures that took no part in the choice, where there are any.

    Raises:
        UserError: bad data or settings, a directory in use, no Optuna (nothing is written then), or every trial failed.
    """
    _check(options)
    import_optuna()  # before anything is written
    info = model_info(model_name)
    recipe_name = recipe_name or info.recipe
    fixed = tuple(overrides)
    base = apply_overrides(recipe(recipe_name), fixed)
    settings = parse_search(options.search, base, fixed)
    _require_comparable(settings, options.metric)
    plan = _Plan(data, model_name, recipe_name, fixed, options, skip_bad, settings, base, Path(out))
    for number in range(options.trials):  # each value is allowed, but are they together?
        plan.config(Trial(number, {setting.key: setting.draw(options.seed, number) for setting in settings}))
    folder = scan(data, skip_bad, scan_progress)
    _begin(plan, folder, resume=resume)
    with _alone(plan.out):
        store = _open(plan, plan.out)
        _run(plan, store, on_trial)
        return _conclude(plan, store)


def _check(options: SearchOptions) -> None:
    if options.metric not in METRICS:
        raise UserError(unknown_name("metric", options.metric, list(METRICS)))
    if options.seed < 0 or options.trials < 1 or options.jobs < 1:
        raise UserError(
            "expected a seed from 0 on, and at least one trial and one job, "
            f"got {options.seed}, {options.trials} and {options.jobs}"
        )


def _require_comparable(settings: Iterable[Setting], metric: str) -> None:
    for setting in settings:
        if setting.key in _CHANGES_PICTURES:
            raise UserError(
                f"--search {setting.key}: trials would be judged by different pictures; fix it by --set {setting.key}=…"
            )
        if metric == "val_loss" and setting.key in _CHANGES_LOSS:
            raise UserError(f"--search {setting.key} changes what the loss means: compare by --metric val_accuracy")


def _begin(plan: _Plan, folder: ImageFolder, *, resume: bool) -> None:
    """Create the search's directory, or see that the one there is the same search."""
    split = split_folder(folder, fractions=plan.base.data.fractions, seed=plan.base.data.split_seed)
    digest = hashlib.sha256(json.dumps(split.as_dict(folder.root), sort_keys=True).encode()).hexdigest()
    told = {
        "model": plan.model_name,
        "recipe": plan.recipe_name,
        "set": list(plan.overrides),
        "search": sorted(plan.options.search),
        "seed": plan.options.seed,
        "metric": plan.options.metric,
        "prune": plan.options.prune,
        "pictures": digest,
    }
    if (plan.out / _SEARCH).exists():
        if not resume:
            raise UserError(f"{plan.out}: holds a search already; pass --resume to go on with it, or another --out")
        _require_same(plan.out / _SEARCH, told)
        return
    if plan.out.exists() and (not plan.out.is_dir() or any(plan.out.iterdir())):
        raise UserError(f"{plan.out}: exists and is not a search; name a new folder")
    # Beside, then renamed: a kill leaves no directory that is neither a search nor free for one.
    partial = plan.out.with_name(f".{plan.out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    (partial / _SEARCH).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    _open(plan, partial)
    os.replace(partial, plan.out)


def _require_same(path: Path, told: dict[str, Any]) -> None:
    begun = json.loads(path.read_text(encoding="utf-8"))
    for key, value in told.items():
        if begun.get(key) != value:
            raise UserError(
                f"{path}: the search was begun with {key} {json.dumps(begun.get(key))} and would go on with "
                f"{json.dumps(value)}; repeat the command it was begun with, or name another --out"
            )


def _open(plan: _Plan, directory: Path) -> SearchStore:
    return SearchStore(directory / _STORE, plan.settings, metric=plan.options.metric, seed=plan.options.seed)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep a second process out of the search."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(out / ".lock", timeout=0):
            yield
    except Timeout:
        raise UserError(f"{out}: another process is at this search; wait for it, or raise its --jobs") from None


def _run(plan: _Plan, store: SearchStore, on_trial: Callable[[dict[str, Any]], None] | None) -> None:
    def on_end(trial: Trial, outcome: Outcome) -> None:
        if outcome.state == "pruned":
            shutil.rmtree(plan.run_path(trial) / "checkpoints", ignore_errors=True)  # nothing goes on from them
        trials = store.trials()
        _write_result(plan, trials)
        if on_trial:
            row = _row(plan, next(row for row in trials if row.number == trial.number))
            ended = sum(row.state != "unfinished" for row in trials)
            on_trial(row | {"metric": store.metric, "ended": ended, "total": plan.options.trials})

    options = plan.options
    run = partial(_train_trial, plan)
    search(store, run, total=options.trials, jobs=options.jobs, prune=options.prune, on_end=on_end)


def _train_trial(plan: _Plan, trial: Trial, report: Report) -> float:
    """In a worker: a trial's run, from its last checkpoint if it has one; the metric of the network it ends with."""
    from toolkit.training.run_dir import RunDirectory
    from toolkit.training.schedules import best_epoch

    keras.utils.clear_session()  # of what the worker's trial before has left
    config, run = plan.config(trial), RunDirectory(plan.run_path(trial))

    def report_epoch(row: Row) -> None:
        report(row | {"last": row["epoch"] == config.run.epochs})

    for row in run.history():  # what was measured before a kill may not have been reported
        report_epoch(row)
    train_folder(
        plan.data,
        plan.model_name,
        out=run.path,
        recipe_name=plan.recipe_name,
        overrides=[*plan.overrides, *as_overrides(plan.settings, trial.values)],
        resume=True,
        skip_bad=plan.skip_bad,
        epoch_report=report_epoch,
    )
    history = run.history()
    kept = best_epoch(config.optimizer, history) if config.run.early_stopping else len(history)
    return history[kept - 1][plan.options.metric]


def _conclude(plan: _Plan, store: SearchStore) -> dict[str, Any]:
    """Draw the picture, and write the result with it."""
    trials = store.trials()
    best = trials[0]
    if best.state != "complete":
        raise UserError(
            f"every one of {len(trials)} trials failed, the first by: {min(trials, key=lambda t: t.number).error}"
        )
    from toolkit.training.plots import plot_search

    plot_search(plan.settings, trials, plan.out / _PLOT, metric=plan.options.metric)
    return _write_result(plan, trials)


def _write_result(plan: _Plan, trials: list[Trial]) -> dict[str, Any]:
    """Write the table and, once a trial is complete, the best one's config."""
    complete, plot = trials[0].state == "complete", plan.out / _PLOT
    if complete:
        _write(plan.out / _BEST, config_as_json(plan.config(trials[0])))
    document = {
        "out": str(plan.out),
        "model": plan.model_name,
        "recipe": plan.recipe_name,
        "metric": plan.options.metric,
        "seed": plan.options.seed,
        "trials": [_row(plan, trial) for trial in trials],
        "best": _best(plan, trials[0]) if complete else None,
        "plot": str(plot) if plot.exists() else None,
    }
    _write(plan.out / _RESULT, json.dumps(document, indent=1) + "\n")
    return document


def _best(plan: _Plan, trial: Trial) -> dict[str, Any]:
    held_out = json.loads((plan.run_path(trial) / "result.json").read_text(encoding="utf-8"))
    figures = {key: held_out[key] for key in ("subset", "top1", "top5", "n")}
    row = _row(plan, trial) | {"config": str(plan.out / _BEST), "command": plan.command(trial)}
    return row if figures["subset"] == "val" else row | {"held_out": figures}


def _row(plan: _Plan, trial: Trial) -> dict[str, Any]:
    fields = asdict(trial)
    row = {"trial": trial.number} | {key: fields[key] for key in ("state", "value", "epochs")}
    row |= {"settings": trial.values, "run": str(plan.run_path(trial)), "error": trial.error}
    return row | ({"traceback": trial.traceback} if trial.traceback else {})


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
