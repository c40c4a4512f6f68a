"""A folder of pictures to a trained network."""

import dataclasses
import json
import logging
import os
import platform
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.bundle import require_bundle_place
from toolkit.catalogue import model_info
from toolkit.data import ImageFolder, Split, split_folder
from toolkit.data.feed.split import repeats_remarks
from toolkit.errors import UserError, one_line
from toolkit.factory import licence_of, locate_weights
from toolkit.files import require_writable
from toolkit.lazy import keras
from toolkit.machine import installed_versions
from toolkit.metrics import softmax
from toolkit.network import as_float32, load_network
from toolkit.progress import step
from toolkit.spec import ModelInfo, Preprocessing
from toolkit.training.config import TrainConfig, config_as_json
from toolkit.training.hosts import Hosts, connect, disconnect, loss_of_hosts
from toolkit.training.report.tracking import Tracking, require_trackers
from toolkit.training.run_dir import RunDirectory
from toolkit.transfer.view import at_size
from toolkit.workflows.run_command import (
    RunCommand,
    TrainOptions,
    begun_command,
    changed_length,
    resumable,
    settings_of,
)
from toolkit.workflows.steps import ExportOptions, export_held_out, require_size, scan

log = logging.getLogger("toolkit")


def train_folder(
    data: str | os.PathLike[str] | None = None,
    model_name: str | None = None,
    *,
    out: str | Path,
    options: TrainOptions | None = None,
    export: ExportOptions | None = None,
    epoch_report: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Train a network on a folder of pictures, on all devices of this host, or of several.

    Args:
        data: see ``toolkit.data.scan_folder``; of a run that goes on, by default where it found its pictures.
        model_name: a registered network; of a run that goes on, by default its own.
        out: the run directory; of several hosts, the same shared directory on all.
        options: recipe, settings and hosts; by default the network's own recipe on this host.
        export: also write a bundle. A run that goes on writes the one it was begun with, once.
        epoch_report: called with each epoch's metrics.

    Returns:
        ``{"run", "metrics", "bundle"}``: held-out accuracy as fractions; ``bundle`` only if exported. On hosts but the
        first, ``run`` only.

    Raises:
        UserError: bad data, a bad setting, or a run directory in use. Nothing is written then.
        HostLostError: another host died or is out of reach.
    """
    options = options or TrainOptions()
    hosts = options.hosts
    run = RunDirectory(out, writer=hosts is None or hosts.host_id == 0)
    begun = begun_command(run, data, options)
    command = RunCommand.resolved(data, model_name, options, export, begun)
    info = model_info(command.model)
    if begun is None and run.writer:  # which may have begun it by now
        run.require_free()
        require_writable(run.path, "--out")
    if export:
        require_bundle_place(export.directory, "--export")
    require_trackers(command.track)
    config = settings_of(command, options.overrides, run, begun)
    require_size(info, config.data.size, "data.size")
    weights = None if begun and run.positions() else command.weights
    if weights is not None:
        locate_weights(info, weights)
    folder = scan(command.source, command.skip_bad)
    split = split_folder(folder, fractions=config.data.fractions, seed=config.data.split_seed)
    split = split.skipping_bad(command.skip_bad)
    for remark in repeats_remarks(folder, keep_val=True):
        log.info(remark)

    with step("starting TensorFlow"):
        from toolkit.engines.runtimes import KerasEngine
        from toolkit.export.parity import HeldOutPictures
        from toolkit.training.devices import resolve_policy
        from toolkit.training.report.page import write_report

        policy = resolve_policy(config.run.dtype_policy)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, dtype_policy=policy))
    before = run.config() if begun else config
    finished = begun is not None and run.model_file.exists() and config.run.epochs == before.run.epochs
    if config.run.epochs != before.run.epochs:
        command = dataclasses.replace(command, bundle=None)  # that of the network of fewer epochs
    if hosts and not finished:
        connect(hosts)
    plan = _Plan(info, config, folder, split, command, weights, begun is not None)
    tracking = Tracking(command.track, epoch_report)
    with loss_of_hosts(hosts), resumable(run), closing(run), tracking:
        if begun:
            run.hold()
            message = changed_length(run, before, config)
            run.begin(plan.files(), resume=True)
            if message:
                log.info(message)
        if finished:
            log.info("%s is finished already", one_line(str(run.path)))
            model = load_network(run.model_file)
            preprocessing = Preprocessing.from_dict(run.model_description()["preprocessing"])
        else:
            model, preprocessing = _trained_model(plan, run, hosts, (tracking, options.callbacks))
        if not run.writer:
            return {"run": str(run.path)}
        engine = KerasEngine(as_float32(model), preprocessing)
        name, subset = split.held_out
        pictures = HeldOutPictures(subset, preprocessing)
        logits = pictures.answers(engine.logits, "predicting held-out pictures")
        with step("writing the report"):
            metrics = write_report(softmax(logits), split, preprocessing, folder.class_names, run, title=info.title)
        tracking.finish(metrics)
        result: dict[str, Any] = {"run": str(run.path), "metrics": metrics}
        if export is None and finished and command.bundle and Path(command.bundle).exists():
            return result | {"bundle": command.bundle}  # this network's already
        export = export or command.export_options()
        if export:
            validation = logits
            if name != "val":
                validation = HeldOutPictures(split.val, preprocessing).answers(engine.logits, "calibrating")
            calibration = _calibrate(model, validation, np.asarray(split.val.labels), logits)
            licence = licence_of(info.name, command.weights) if command.weights else ""
            path, _ = export_held_out(
                model, folder, split, preprocessing, export, pictures=pictures, licence=licence, **calibration
            )
            run.write_text("command.json", dataclasses.replace(command, bundle=str(path.absolute())).as_json())
            result["bundle"] = str(path)
    return result


def _calibrate(
    model: "keras.Model", validation: np.ndarray, labels: np.ndarray, held_out: np.ndarray
) -> dict[str, Any]:
    """Scale the network's logits so that validation finds its probabilities right, as fine-tuning does.

    Args:
        model: its last layer is changed.
        validation: the network's logits for the validation pictures, until now.
        labels: of those.
        held_out: the same for the held-out pictures.

    Returns:
        Options of ``export_held_out``: the temperature, the reject threshold, the probabilities from now on.
    """
    from toolkit.transfer.finetune import calibrate

    temperature, reject_below = calibrate(model, validation, labels)
    reference = softmax(held_out / np.float32(temperature))
    return {"temperature": temperature, "reject_below": reject_below, "reference": reference}


@dataclass(frozen=True)
class _Plan:
    """A network, its settings and its pictures, before anything is written.

    ``weights`` are those to start from, until there is a checkpoint.
    """

    info: ModelInfo
    config: TrainConfig
    folder: ImageFolder
    split: Split
    command: RunCommand
    weights: str | None
    begun: bool

    def files(self) -> dict[str, str]:
        """The texts by which a run is known again, by file name."""
        versions = installed_versions("toolkit", "keras", "tensorflow", "jax", "numpy")
        backend = os.environ.get("KERAS_BACKEND", "tensorflow")
        return {
            "command.json": self.command.as_json(),
            "config.json": config_as_json(self.config),
            "labels.txt": "".join(f"{one_line(name)}\n" for name in self.folder.class_names),
            "splits.json": json.dumps(self.split.as_dict(self.folder.root), indent=0) + "\n",
            "environment.json": json.dumps({"python": platform.python_version(), "backend": backend} | versions) + "\n",
        }


def _trained_model(
    plan: _Plan,
    run: RunDirectory,
    hosts: Hosts | None,
    listeners: "tuple[Tracking, tuple[keras.callbacks.Callback, ...]]",
) -> "tuple[keras.Model, Preprocessing]":
    """Train the network to the end of the run, from its beginning or from where it is."""
    from toolkit.training.callbacks import GoOnFromRun
    from toolkit.training.devices import all_devices
    from toolkit.training.loop import train
    from toolkit.training.optimizers import best_epoch

    config = plan.config
    keras.utils.set_random_seed(config.run.seed)
    keras.config.set_dtype_policy(config.run.dtype_policy)
    try:
        with all_devices() as shard:
            with step("building the network"):
                model, preprocessing = _built(plan, run)
            tracking, callbacks = listeners
            if any(isinstance(callback, keras.callbacks.BackupAndRestore) for callback in callbacks):
                callbacks = (*callbacks, GoOnFromRun(run))
            tracking.begin(run, dataclasses.asdict(config))
            model = train(
                model,
                plan.split,
                preprocessing,
                config,
                run,
                shard=shard,
                on_epoch=tracking.epoch,
                callbacks=callbacks,
            )
            if hosts:
                disconnect()
            best = best_epoch(config.optimizer, run.history()) if config.run.early_stopping else None
            model.preprocessing = preprocessing
            run.finish(model, best_epoch=best)
    finally:
        keras.config.set_dtype_policy("float32")
    # Of several devices each holds a copy, and what follows needs but one.
    one = model if shard.num_devices == 1 or not run.writer else load_network(run.model_file)
    return one, preprocessing


def _built(plan: _Plan, run: RunDirectory) -> "tuple[keras.Model, Preprocessing]":
    """Build the network of a run that begins, and begin it; or that of the run which goes on, as it is noted there."""
    from toolkit.factory import create_model, preprocessing_of

    info, num_classes, side = plan.info, len(plan.folder.class_names), plan.config.data.size
    if plan.begun:
        noted = run.model_description()
        preprocessing = Preprocessing.from_dict(noted["preprocessing"])
        model = create_model(
            info.name,
            num_classes=num_classes,
            input_shape=preprocessing.input_shape,
            weights=plan.weights,
            **noted["variant"],
        )
        return model, preprocessing
    if plan.weights and plan.config.model.initializer != "own":
        raise UserError("model.initializer draws kernels anew, and --weights gives them: leave one of the two out")
    model = create_model(
        info.name,
        num_classes=num_classes,
        input_shape=None if plan.weights else _input_shape(info, side),
        weights=plan.weights,
        **plan.config.model.variant,
    )
    if plan.weights and side is not None:
        model = at_size(model, (side, side), option="data.size")
    preprocessing = preprocessing_of(model)
    noted = {"name": info.name, "class_names": plan.folder.class_names, "variant": model.variant}
    text = json.dumps(noted | {"preprocessing": preprocessing.as_dict()}, indent=1) + "\n"
    # Only now: a network that cannot be built for this folder leaves no run behind.
    run.begin(plan.files() | {"model.json": text}, resume=False)
    run.hold()
    return model, preprocessing


def _input_shape(info: ModelInfo, side: int | None) -> tuple[int, int, int]:
    return info.input_shape if side is None else (side, side, info.preprocessing.channels)
