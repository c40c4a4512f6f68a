"""A search over a training run's settings: trials, each an ordinary run, and the best one's config."""

import hashlib
import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.catalogue import model_info
from toolkit.data import ImageFolder, split_folder
from toolkit.data.sources.source import as_source
from toolkit.errors import UserError, unknown_name
from toolkit.files import new_folder, require_writable, write_file
from toolkit.progress import step
from toolkit.training.config import TrainConfig, apply_overrides, config_as_json
from toolkit.training.recipes import recipe
from toolkit.training.run_dir import RunDirectory
from toolkit.training.search.space import Setting, Value, as_overrides, parse_search
from toolkit.training.search.study import DIRECTIONS, Metric, open_study, plan_values, plot_study
from toolkit.training.search.trials import TrialRun, run_trials, toolkit_command
from toolkit.workflows.steps import require_size, scan

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

_SEARCH, _STORE, _RESULT, _BEST, _PLOT = "search.json", "search.db", "tune.json", "best.json", "tune.png"
# Optuna's words and ours, in the order of the result; ``unfinished`` is what a kill leaves behind.
_STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "unfinished"}
# How values follow from seed and number; 1, which had no number, drew them without Optuna.
_FORMAT = 2
# Trials are compared on the same validation pictures, and a loss only with losses that mean the same.
_CHANGES_PICTURES = ("data.fractions", "data.split_seed")
_CHANGES_LOSS = ("optimizer.label_smoothing", "optimizer.l2", "model.loss_weights")


@dataclass(frozen=True)
class SearchOptions:
    """Options of a search.

    Attributes:
        search: ``KEY=SCALE:…`` each; see ``toolkit.training.search.space``.
        recipe_name: what the settings not searched come from; by default the network's own.
        overrides: ``group.key=value`` settings on top of the recipe.
        trials: how many in all, those of an earlier call among them.
        jobs: how many at a time, each in a process of its own.
        seed: of the values; what trial 7 tries follows from it and the 7.
        metric: a validation metric, as it is when a run ends, or where early stopping keeps an earlier epoch, then.
        prune: stop trials that are worse than the median of the complete ones was after as many epochs.
        skip_bad: leave unreadable pictures out instead of refusing the folder.
    """

    search: tuple[str, ...]
    recipe_name: str | None = None
    overrides: tuple[str, ...] = ()
    trials: int = 20
    jobs: int = 1
    seed: int = 0
    metric: Metric = "val_accuracy"
    prune: bool = False
    skip_bad: bool = False


def tune_folder(
    data: str | os.PathLike[str],
    model_name: str,
    *,
    out: str | Path,
    options: SearchOptions,
    resume: bool = False,
    on_trial: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Try settings at random, each in a process of ``toolkit train``, and tell which did best on validation pictures.

    A trial that fails, by a loss that is no number or by the death of its process, is listed and the search goes on. A
    search that was killed goes on where it was, its unfinished trials from their last checkpoint.

    Args:
        data: see ``toolkit.data.scan_folder``.
        model_name: a registered network.
        out: the search's directory: ``trial-0000/`` and so on are runs, ``search.db`` is Optuna's.
        options: what to search, and how.
        resume: go on with the search in ``out``, if it holds one.
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
    search = _Search.checked(data, model_name, Path(out), options)
    search.require_free(resume=resume)
    folder = scan(data, options.skip_bad)
    search.begin(folder)
    with _alone(search.out):
        study = search.open(search.out)

        def on_end(trial: "FrozenTrial") -> None:
            result = search.write_result(study)
            if trial.state.name in ("PRUNED", "COMPLETE"):
                shutil.rmtree(search.run(trial.number) / "checkpoints", ignore_errors=True)  # nothing goes on from them
            ended = sum(row["state"] != "unfinished" for row in result["trials"])
            told(ended)
            if on_trial:
                on_trial(search.row(trial) | {"metric": options.metric, "ended": ended, "total": options.trials})

        with step("trials", options.trials) as told:
            told(sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False)))
            run_trials(study, search.prepare, total=options.trials, jobs=options.jobs, on_end=on_end)
        if not search.write_result(study)["best"]:
            error = study.trials[0].user_attrs.get("error")
            raise UserError(f"every one of {len(study.trials)} trials failed, the first by: {error}")
        with step("drawing the trials"):
            plot_study(study, options.metric, search.out / _PLOT)
        return search.write_result(study)


@dataclass(frozen=True)
class _Search:
    """A search whose data, settings and options have been checked."""

    data: str | os.PathLike[str]
    model_name: str
    recipe_name: str
    out: Path
    options: SearchOptions
    settings: tuple[Setting, ...]
    base: TrainConfig

    @classmethod
    def checked(cls, data: str | os.PathLike[str], model_name: str, out: Path, options: SearchOptions) -> "_Search":
        if options.metric not in DIRECTIONS:
            raise UserError(unknown_name("metric", options.metric, list(DIRECTIONS)))
        if options.seed < 0 or options.trials < 1 or options.jobs < 1:
            raise UserError(
                "expected a seed from 0 on, and at least one trial and one job, "
                f"got {options.seed}, {options.trials} and {options.jobs}"
            )
        recipe_name = options.recipe_name or model_info(model_name).recipe
        base = apply_overrides(recipe(recipe_name), options.overrides)
        settings = parse_search(options.search, base, options.overrides)
        _require_comparable(settings, options.metric)
        search = cls(data, model_name, recipe_name, out, options, settings, base)
        for values in plan_values(settings, seed=options.seed, total=options.trials):
            config = search.config(values)  # each value is allowed, but are they together?
            require_size(model_info(model_name), config.data.size, "data.size")
        return search

    def config(self, values: Mapping[str, Value]) -> TrainConfig:
        return apply_overrides(self.base, as_overrides(self.settings, values))

    def run(self, number: int) -> Path:
        return self.out / f"trial-{number:04d}"

    def arguments(self, values: Mapping[str, Value], out: str) -> list[str]:
        """Arguments of ``toolkit`` that train with these values."""
        chosen = [*self.options.overrides, *as_overrides(self.settings, values)]
        words = ["train", *as_source(self.data).arguments(), "--model", self.model_name, "--recipe", self.recipe_name]
        words += [word for override in chosen for word in ("--set", override)]
        return [*words, *["--skip-bad"] * self.options.skip_bad, "--out", out]

    def prepare(self, trial: "optuna.Trial") -> TrialRun:
        # Of a trial that was killed while it was made, the values that are missing are drawn now.
        values = {setting.key: setting.suggest(trial) for setting in self.settings}
        path = self.run(trial.number)
        command = toolkit_command(*self.arguments(values, str(path)), "--resume", "--json")
        return TrialRun(command, RunDirectory(path), self.config(values), self.options.metric)

    def open(self, directory: Path) -> "optuna.Study":
        options = self.options
        return open_study(directory / _STORE, metric=options.metric, seed=options.seed, prune=options.prune)

    def require_free(self, *, resume: bool) -> None:
        """Refuse a directory that is in use, before anything takes long."""
        if (self.out / _SEARCH).exists():
            if not resume:
                raise UserError(f"{self.out}: holds a search already; pass --resume to go on with it, or another --out")
        elif self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise UserError(f"{self.out}: exists and is not a search; name a new folder")
        else:
            require_writable(self.out, "--out")

    def begin(self, folder: ImageFolder) -> None:
        """Create the search's directory, or see that the one there is the same search."""
        split = split_folder(folder, fractions=self.base.data.fractions, seed=self.base.data.split_seed)
        digest = hashlib.sha256(json.dumps(split.as_dict(folder.root), sort_keys=True).encode()).hexdigest()
        options = self.options
        description = {"format": _FORMAT, "model": self.model_name, "recipe": self.recipe_name}
        description |= {"set": list(options.overrides), "search": sorted(options.search)}
        description |= {key: getattr(options, key) for key in ("seed", "metric", "prune")} | {"pictures": digest}
        if (self.out / _SEARCH).exists():
            _require_same(self.out / _SEARCH, description)
            return
        with new_folder(self.out) as staging:
            (staging / _SEARCH).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
            self.open(staging)

    def write_result(self, study: "optuna.Study") -> dict[str, Any]:
        """Write the table and, once a trial is complete, the best one's config."""
        rows = [self.row(trial) for trial in study.get_trials(deepcopy=False)]
        sign = -1 if DIRECTIONS[self.options.metric] == "maximize" else 1
        states = list(_STATES.values())
        rows.sort(key=lambda row: (states.index(row["state"]), sign * (row["value"] or 0), row["trial"]))
        complete, plot = rows[0]["state"] == "complete", self.out / _PLOT
        if complete:
            write_file(self.out / _BEST, config_as_json(self.config(rows[0]["settings"])))
        document = {
            "out": str(self.out),
            "model": self.model_name,
            "recipe": self.recipe_name,
            "metric": self.options.metric,
            "seed": self.options.seed,
            "trials": rows,
            "best": self._best(rows[0]) if complete else None,
            "plot": str(plot) if plot.exists() else None,
        }
        write_file(self.out / _RESULT, json.dumps(document, indent=1) + "\n")
        return document

    def row(self, trial: "FrozenTrial") -> dict[str, Any]:
        traceback = trial.user_attrs.get("traceback")
        row = {
            "trial": trial.number,
            "state": _STATES[trial.state.name],
            "value": trial.value,
            "epochs": trial.last_step or 0,
            "settings": {s.key: s.suggest(trial) for s in self.settings if s.parameter in trial.params},
            "run": str(self.run(trial.number)),
            "error": trial.user_attrs.get("error", ""),
        }
        return row | ({"traceback": traceback} if traceback else {})

    def _best(self, row: dict[str, Any]) -> dict[str, Any]:
        held_out = json.loads((Path(row["run"]) / "result.json").read_text(encoding="utf-8"))
        figures = {key: held_out[key] for key in ("subset", "top1", "top5", "n")}
        figures["num_classes"] = len(held_out["per_class"])
        command = shlex.join(["toolkit", *self.arguments(row["settings"], f"{self.out}-best")])
        row = row | {"config": str(self.out / _BEST), "command": command}
        return row if figures["subset"] == "val" else row | {"held_out": figures}


def _require_comparable(settings: Iterable[Setting], metric: str) -> None:
    for setting in settings:
        if setting.key in _CHANGES_PICTURES:
            raise UserError(
                f"--search {setting.key}: trials would be judged by different pictures; fix it by --set {setting.key}=…"
            )
        if metric == "val_loss" and setting.key in _CHANGES_LOSS:
            raise UserError(f"--search {setting.key} changes what the loss means: compare by --metric val_accuracy")


def _require_same(path: Path, description: dict[str, Any]) -> None:
    begun = json.loads(path.read_text(encoding="utf-8"))
    if begun.get("format") != _FORMAT:
        raise UserError(
            f"{path}: the search was begun by another version, which draws values otherwise; name another --out"
        )
    for key, value in description.items():
        if begun.get(key) != value:
            raise UserError(
                f"{path}: the search was begun with {key} {json.dumps(begun.get(key))} and would go on with "
                f"{json.dumps(value)}; repeat the command it was begun with, or name another --out"
            )


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep a second process out of the search."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(out / ".lock", timeout=0):
            yield
    except Timeout:
        raise UserError(f"{out}: another process is at this search; wait for it, or raise its --jobs") from None
