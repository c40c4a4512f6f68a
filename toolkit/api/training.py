"""Calls that train from scratch, search settings and check gradients."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toolkit.api.calls import call
from toolkit.api.options import overrides_of, source_of
from toolkit.api.results import FORMATS, Result, Trained
from toolkit.errors import UserError

if TYPE_CHECKING:
    import keras

    from toolkit.training.hosts import Hosts


@call
def train(
    data: str | os.PathLike[str] | None = None,
    *,
    model: str | None = None,
    weights: str | os.PathLike[str] | None = None,
    recipe: str | None = None,
    set: Sequence[str] | Mapping[str, Any] = (),
    out: str | os.PathLike[str] | None = None,
    resume: bool | str | os.PathLike[str] | None = None,
    smoke: bool = False,
    coordinator: str | None = None,
    num_hosts: int | None = None,
    host_id: int | None = None,
    export: str | os.PathLike[str] | None = None,
    examples: int = 0,
    force: bool = False,
    formats: Sequence[str] = FORMATS,
    half: bool = False,
    skip_bad: bool = False,
    split_folders: str | Mapping[str, str] | None = None,
    join_classes: bool = False,
    track: Sequence[str] = (),
    callbacks: "Sequence[keras.callbacks.Callback]" = (),
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> Trained:
    """Train a network on a folder of pictures.

    >>> import toolkit
    >>> result = toolkit.train("photos", model="resnet20", out="runs/mine", set={"run.epochs": 5})  # doctest: +SKIP

    Args:
        data: see ``toolkit.finetune``; not needed to go on with a run.
        model: a network, see ``toolkit.list_models``; not needed to go on with a run.
        weights: start from these: a run, a file of weights, a bundle or a tag; by default from fresh ones.
        recipe: name of the settings to start from, by default the network's own.
        set: settings on top of the recipe, as a dictionary or as ``"group.key=value"`` each.
        out: the run's directory.
        resume: go on with this run, or, if True, with the one in ``out`` if there is one.
        smoke: train two epochs, to see that it works.
        coordinator: ``HOST:PORT`` of host 0, where several hosts train together, each with this call.
        num_hosts: how many they are.
        host_id: which of them this is, from 0.
        export: also write a bundle: ``saved_models/NAME``.
        examples: held-out pictures to ship in the bundle for the demo.
        force: write the bundle even if its engines disagree.
        formats: files of the bundle, see ``toolkit.finetune``.
        half: round the weights to half precision, see ``toolkit.finetune``.
        skip_bad: leave unreadable pictures out instead of refusing the folder.
        split_folders: see ``toolkit.finetune``.
        join_classes: see ``toolkit.finetune``.
        track: also note the run in these: ``"tensorboard"`` in its directory, ``"mlflow"`` in ``mlruns`` or where
            ``MLFLOW_TRACKING_URI`` says, ``"wandb"`` offline in its directory.
        callbacks: of Keras, called after the run's own. Where one of them is ``BackupAndRestore``, the run goes on from
            its own checkpoint all the same.
        on_epoch: called with each epoch's metrics.

    Returns:
        The run: ``result["metrics"]`` on held-out pictures, ``result.report()``, ``result.export()``, ``result.model``.

    Raises:
        UserError: bad data, a bad setting, or a run directory in use. Nothing is written then.
    """
    hosts = hosts_of(coordinator, num_hosts, host_id)
    data, run = _data_and_run(data, out, resume)
    if run is None or (not resume and not (data and model)):
        raise UserError("DATA, --model and --out are required, or --resume RUN to go on with a run")
    from toolkit.workflows import ExportOptions, TrainOptions, train_folder

    return Trained(
        train_folder(
            None if data is None else source_of(data, split_folders, join_classes),
            model,
            out=run,
            options=TrainOptions(
                recipe_name=recipe,
                overrides=overrides_of(set),
                weights=weights,
                smoke_run=smoke,
                resume=bool(resume),
                skip_bad=skip_bad,
                track=(track,) if isinstance(track, str) else tuple(track),
                callbacks=tuple(callbacks),
                hosts=hosts,
            ),
            export=None if export is None else ExportOptions(Path(export), examples, force, tuple(formats), half),
            epoch_report=on_epoch,
        )
    )


def _data_and_run(data: Any, out: Any, resume: Any) -> tuple[Any, Path | None]:
    """Tell DATA and the run's directory, which stands behind --out or --resume."""
    named = Path(resume) if resume not in (None, True, False) else None
    if named and out and not data and not (named / "config.json").exists():  # `--resume DATA --out RUN`
        data, named = named, None
    if named and out and named.absolute() != Path(out).absolute():
        raise UserError(f"--resume {named} and --out {out} name two runs: leave --out out")
    run = out or named
    return data, None if run is None else Path(run)


def hosts_of(coordinator: str | None, num_hosts: int | None, host_id: int | None) -> "Hosts | None":
    """Give the hosts that train together; None for this one alone."""
    from toolkit.training.hosts import Hosts

    given = (coordinator, num_hosts, host_id)
    if given == (None, None, None):
        return None
    if coordinator is None or num_hosts is None or host_id is None:
        raise UserError("--coordinator, --num-hosts and --host-id belong together: give all three on every host")
    return Hosts(coordinator, num_hosts, host_id)


class Tuned(Result):
    """A search over a training run's settings, see ``toolkit.tune``."""

    @property
    def place(self) -> Path | None:
        """The search's directory."""
        return Path(self["out"])

    def _title(self) -> str:
        best = self["best"]
        return f"best: trial {best['trial']}, {self['metric']} {best['value']:.4f}"

    def _lines(self) -> list[str]:
        return [self._title(), *(f"{key} = {value}" for key, value in self["best"]["settings"].items())]

    def _body(self) -> str:
        from toolkit.report.page import Figure, table

        keys = list(self["best"]["settings"])
        rows = [
            [str(row["trial"]), row["state"], Figure("" if row["value"] is None else f"{row['value']:.4f}")]
            + [Figure(row["settings"].get(key, "")) for key in keys]
            for row in self["trials"]
        ]
        return table("Trials", ["trial", "state", self["metric"], *keys], rows)


@call
def tune(
    data: str | os.PathLike[str],
    *,
    model: str,
    out: str | os.PathLike[str],
    search: Sequence[str],
    trials: int = 20,
    jobs: int = 1,
    metric: Literal["val_accuracy", "val_loss"] = "val_accuracy",
    prune: bool = False,
    seed: int = 0,
    recipe: str | None = None,
    set: Sequence[str] | Mapping[str, Any] = (),
    resume: bool = False,
    skip_bad: bool = False,
    split_folders: str | Mapping[str, str] | None = None,
    join_classes: bool = False,
    on_trial: Callable[[dict[str, Any]], None] | None = None,
) -> Tuned:
    """Search a training run's settings at random, each trial a run of its own.

    Args:
        data: see ``toolkit.finetune``.
        model: a network, see ``toolkit.list_models``.
        out: the search's directory; a run per trial below.
        search: settings and their scales, such as ``"optimizer.lr=log:1e-4:1e-1"``.
        trials: in all.
        jobs: trials at a time.
        metric: ``"val_accuracy"`` or ``"val_loss"``.
        prune: stop trials that do worse than the median so far.
        seed: of the values tried.
        recipe: name of the settings to start from, by default the network's own.
        set: settings that all trials share, see ``toolkit.train``.
        resume: go on with the search in ``out``, if there is one.
        skip_bad: leave unreadable pictures out instead of refusing the folder.
        split_folders: see ``toolkit.finetune``.
        join_classes: see ``toolkit.finetune``.
        on_trial: called with each trial as it ends.

    Returns:
        ``{"out", "model", "recipe", "metric", "seed", "trials", "best", "plot"}``, the best trial first.

    Raises:
        UserError: bad data or settings, a directory in use, no Optuna, or every trial failed.
    """
    from toolkit.workflows.tune import SearchOptions, tune_folder

    options = SearchOptions(
        search=(search,) if isinstance(search, str) else tuple(search),
        recipe_name=recipe,
        overrides=overrides_of(set),
        trials=trials,
        jobs=jobs,
        seed=seed,
        metric=metric,
        prune=prune,
        skip_bad=skip_bad,
    )
    source = source_of(data, split_folders, join_classes)
    return Tuned(tune_folder(source, model, out=os.fspath(out), options=options, resume=resume, on_trial=on_trial))


@call
def gradcheck(
    model: str,
    *,
    size: int | None = None,
    batch: int = 4,
    entries: int = 3,
    batch_norm: Literal["batch", "running"] = "batch",
    seed: int = 0,
) -> dict[str, Any]:
    """Hold a network's gradients against numerical ones, in float64.

    Args:
        model: see ``toolkit.list_models``.
        size: of the pictures in pixels, by default 32 or what the network needs.
        batch: pictures.
        entries: of each variable.
        batch_norm: whose statistics: ``"batch"`` or ``"running"``.
        seed: of pictures and entries.

    Returns:
        ``{"passed", "worst", "tolerance", "variables", …}``.

    Raises:
        UserError: no such network, or a size that it cannot take.
    """
    from toolkit.workflows.gradcheck import check_model_gradients

    return check_model_gradients(
        model, size=size, batch_size=batch, num_entries=entries, batch_norm=batch_norm, seed=seed
    )
