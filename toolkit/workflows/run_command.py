"""The command of a training run, and the run that goes on by it."""

import dataclasses
import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.catalogue import model_info
from toolkit.data.sources.source import Source, as_source
from toolkit.errors import UserError
from toolkit.files import DISK_ERRORS
from toolkit.lazy import keras
from toolkit.training.config import TrainConfig, apply_overrides, config_as_json
from toolkit.training.hosts import Hosts
from toolkit.training.recipes import recipe, smoke
from toolkit.training.run_dir import RunDirectory, differences
from toolkit.workflows.steps import ExportOptions

# Schedules that divide the run's length.
_BY_LENGTH = ("cosine", "step")
_PARTS = 1000  # of an epoch, to look a schedule up


@dataclass(frozen=True)
class TrainOptions:
    """Options of training on a folder.

    Attributes:
        recipe_name: by default the one that suits the network.
        overrides: ``group.key=value`` settings on top of the recipe.
        weights: start from these in place of fresh ones: a run's directory, a weights file, a bundle or a tag.
        smoke_run: two epochs only; a later run may take the place of this one.
        resume: go on with the run in ``out``, if it holds one. What is not given comes from that run.
        skip_bad: leave unreadable pictures out instead of refusing the folder.
        track: names of ``toolkit.training.report.tracking.TRACKERS`` that note the run.
        callbacks: of Keras, beside the run's own.
        hosts: the others that train along, each calling ``train_folder``; the first one writes and reports.
    """

    recipe_name: str | None = None
    overrides: tuple[str, ...] = ()
    weights: str | os.PathLike[str] | None = None
    smoke_run: bool = False
    resume: bool = False
    skip_bad: bool = False
    track: tuple[str, ...] = ()
    callbacks: "tuple[keras.callbacks.Callback, ...]" = ()
    hosts: Hosts | None = None


@dataclass(frozen=True)
class RunCommand:
    """The command that began a run, by which it goes on; paths are absolute, as a run outlives its shell.

    ``split_folders`` and ``join_classes`` say how the pictures are read, see ``Source``; ``bundle`` is the version that
    was exported of the network.
    """

    data: str
    model: str
    recipe: str
    split_folders: dict[str, str] | None = None
    join_classes: bool = False
    weights: str | None = None
    skip_bad: bool = False
    smoke: bool = False
    export: dict[str, Any] | None = None
    bundle: str | None = None
    track: tuple[str, ...] = ()

    @classmethod
    def resolved(
        cls,
        data: str | os.PathLike[str] | None,
        model_name: str | None,
        options: TrainOptions,
        export: ExportOptions | None,
        begun: "RunCommand | None",
    ) -> "RunCommand":
        """Take what is given, and the rest from the run that goes on."""
        if begun is None:
            if data is None or model_name is None:
                raise UserError("a run that begins needs DATA, --model and --out; one that goes on, --resume RUN")
            begun = cls(str(data), model_name, options.recipe_name or model_info(model_name).recipe)
        elif model_name not in (None, begun.model):
            raise UserError(f"the run was begun with --model {begun.model} and cannot go on with {model_name}")
        elif options.weights is not None and _absolute(options.weights) != begun.weights:
            raise UserError("--weights is for a run that begins; one that goes on has its own")
        lengthened = any(override.partition("=")[0].strip() == "run.epochs" for override in options.overrides)
        source = begun.source if data is None else as_source(data)
        return cls(
            data=str(source.path.absolute()),
            split_folders=None if source.split_folders is None else dict(source.split_folders),
            join_classes=source.join_classes,
            model=model_name or begun.model,
            recipe=options.recipe_name or begun.recipe,
            weights=begun.weights if options.weights is None else _absolute(options.weights),
            skip_bad=options.skip_bad or begun.skip_bad,
            smoke=options.smoke_run or (begun.smoke and not lengthened),
            export=begun.export if export is None else _as_document(export),
            bundle=begun.bundle,
            track=tuple(options.track or begun.track),
        )

    @property
    def source(self) -> Source:
        """The pictures, and how they are read."""
        return Source(Path(self.data), self.split_folders, self.join_classes)

    def as_json(self) -> str:
        """The text of ``command.json``."""
        return json.dumps(dataclasses.asdict(self), indent=1) + "\n"

    def export_options(self) -> ExportOptions | None:
        """The bundle to write."""
        if self.export is None:
            return None
        given = self.export | {"directory": Path(self.export["directory"]), "formats": tuple(self.export["formats"])}
        return ExportOptions(**given)


def _absolute(weights: str | os.PathLike[str]) -> str:
    """Make a path that exists absolute; anything else is a tag."""
    return str(Path(weights).absolute()) if Path(weights).exists() else str(weights)


def _as_document(export: ExportOptions) -> dict[str, Any]:
    return dataclasses.asdict(export) | {"directory": str(export.directory.absolute())}


def begun_command(run: RunDirectory, data: str | os.PathLike[str] | None, options: TrainOptions) -> RunCommand | None:
    """Read the command of the run that goes on; None where one begins."""
    if not options.resume or (data is not None and not run.exists):
        return None
    begun = RunCommand(**run.command())
    # A whole command in the place of a smoke run means the real one, whether or not it says --resume.
    return None if data is not None and begun.smoke and not options.smoke_run else begun


def settings_of(
    command: RunCommand, overrides: tuple[str, ...], run: RunDirectory, begun: RunCommand | None
) -> TrainConfig:
    """Resolve the settings: those of the recipe, or of the run that goes on with it, and ``overrides`` on top."""
    goes_on = begun is not None and begun.recipe == command.recipe
    config = apply_overrides(run.config() if goes_on else recipe(command.recipe), overrides)
    if "tensorboard" in command.track:
        config = apply_overrides(config, ["run.tensorboard=true"])
    return smoke(config) if command.smoke else config


def changed_settings(recipe_name: str, config: TrainConfig) -> tuple[str, ...]:
    """Write as ``--set`` takes it in what a run's settings differ from those of its recipe."""
    begun, now = (json.loads(config_as_json(own)) for own in (recipe(recipe_name), config))
    changed = differences(begun, now)
    # What "auto" came to was this machine's doing.
    return tuple(f"{key}={json.dumps(value)}" for key, (before, value) in changed.items() if before != "auto")


def changed_length(run: RunDirectory, before: TrainConfig, now: TrainConfig) -> str:
    """Tell what another number of epochs makes of a run that goes on, in one line; nothing where it makes no other.

    Raises:
        UserError: early stopping has ended it, so that more epochs would change nothing.
    """
    from toolkit.training.callbacks import is_over
    from toolkit.training.optimizers import build_schedule

    history, epochs = run.history(), now.run.epochs
    done = len(history)
    if epochs == before.run.epochs:
        return ""
    if done < epochs and is_over(now, history):
        raise UserError(
            f"{run.path}: early stopping ended it after epoch {done}, so more epochs change nothing; to train on all "
            f"the same, start from what it learned: --weights {run.path}, another --out"
        )
    if now.optimizer.schedule not in _BY_LENGTH or done in (0, epochs):
        return ""

    def rate(length: int) -> float:
        schedule = build_schedule(now.optimizer, total_steps=length * _PARTS, steps_per_epoch=_PARTS)
        assert not isinstance(schedule, float)  # those of _BY_LENGTH change from step to step
        return float(keras.ops.convert_to_numpy(schedule(min(done, length) * _PARTS)))

    return (
        f"the {now.optimizer.schedule} schedule spans {epochs} epochs from now on: after epoch {done} the learning "
        f"rate is {rate(epochs):.2g}, which was to be {rate(before.run.epochs):.2g}. So this becomes another network "
        f"than {epochs} epochs from the start would give"
    )


@contextmanager
def resumable(run: RunDirectory) -> Iterator[None]:
    """Have an error of the disk say how the run goes on: all it has written is whole."""
    try:
        yield
    except (UserError, OSError) as error:
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError) or cause.errno not in DISK_ERRORS or not run.exists:
            raise
        message = f"{error.filename or run.path}: {error.strerror or error}" if error is cause else error
        raise UserError(
            f"{message}; once that is mended, `toolkit train --resume {shlex.quote(str(run.path))}` goes on"
        ) from None
