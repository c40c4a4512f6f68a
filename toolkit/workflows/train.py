"""A folder of pictures to a trained network."""

import dataclasses
import importlib.metadata
import json
import logging
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.catalogue import model_info
from toolkit.data import ImageFolder, Split, split_folder
from toolkit.lazy import keras
from toolkit.metrics import fit_temperature, reject_threshold
from toolkit.network import load_network
from toolkit.progress import step
from toolkit.spec import ModelInfo, Preprocessing
from toolkit.training.config import TrainConfig, apply_overrides, config_as_json
from toolkit.training.hosts import Hosts, connect, disconnect, loss_of_hosts
from toolkit.training.recipes import recipe, smoke
from toolkit.workflows.steps import ExportOptions, export_held_out, require_writable, scan

if TYPE_CHECKING:
    from toolkit.training.run_dir import RunDirectory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainOptions:
    """Options of training on a folder.

    Attributes:
        recipe_name: by default the one that suits the network.
        overrides: ``group.key=value`` settings on top of the recipe.
        smoke_run: two epochs only.
        resume: go on with the run in ``out``, if it holds one.
        skip_bad: leave unreadable pictures out instead of refusing the folder.
        hosts: the others that train along, each calling ``train_folder``; the first one writes and reports.
    """

    recipe_name: str | None = None
    overrides: tuple[str, ...] = ()
    smoke_run: bool = False
    resume: bool = False
    skip_bad: bool = False
    hosts: Hosts | None = None


def train_folder(
    data: str | Path,
    model_name: str,
    *,
    out: str | Path,
    options: TrainOptions | None = None,
    export: ExportOptions | None = None,
    epoch_report: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Train a network from scratch on a folder of pictures, on all devices of this host, or of several.

    Args:
        data: see ``toolkit.data.scan_folder``.
        model_name: a registered network.
        out: the run directory; of several hosts, the same shared directory on all.
        options: recipe, settings and hosts; by default the network's own recipe on this host.
        export: also write a bundle.
        epoch_report: called with each epoch's metrics.

    Returns:
        ``{"run", "metrics", "bundle"}``: held-out accuracy as fractions; ``bundle`` only if exported. On hosts but the
        first, ``run`` only.

    Raises:
        UserError: bad data, a bad setting, or a run directory in use. Nothing is written then.
        HostLostError: another host died or is out of reach.
    """
    options = options or TrainOptions()
    info = model_info(model_name)
    if export:
        require_writable(export.directory)
    config = apply_overrides(recipe(options.recipe_name or info.recipe), options.overrides)
    config = smoke(config) if options.smoke_run else config
    folder = scan(data, options.skip_bad)
    split = split_folder(folder, fractions=config.data.fractions, seed=config.data.split_seed)
    split = split.skipping_bad(options.skip_bad)

    from toolkit.training.devices import resolve_policy
    from toolkit.training.report.page import predict, write_report
    from toolkit.training.run_dir import RunDirectory

    hosts = options.hosts
    run = RunDirectory(out, writer=hosts is None or hosts.host_id == 0)
    if hosts and not run.model_file.exists():
        connect(hosts)
    policy = resolve_policy(config.run.dtype_policy)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, dtype_policy=policy))
    with loss_of_hosts(hosts):
        model = _trained_model(_Plan(info, config, folder, split), run, options, epoch_report)
    if not run.writer:
        return {"run": str(run.path)}
    probabilities = predict(model, split.held_out[1], info.preprocessing)
    metrics = write_report(probabilities, split, info.preprocessing, folder.class_names, run, title=info.title)
    result: dict[str, Any] = {"run": str(run.path), "metrics": metrics}
    if export:
        calibration = _calibrate(model, split, info.preprocessing, probabilities)
        path, _ = export_held_out(model, folder, split, info.preprocessing, export, **calibration)
        result["bundle"] = str(path)
    return result


def _calibrate(
    model: "keras.Model", split: Split, preprocessing: Preprocessing, held_out: np.ndarray
) -> dict[str, Any]:
    """Scale the network's logits so that validation finds its probabilities right, as fine-tuning does.

    Args:
        model: its last layer is changed.
        held_out: the network's probabilities for the held-out pictures, until now.

    Returns:
        Options of ``export_held_out``: the temperature, the reject threshold, the probabilities from now on.
    """
    from toolkit.engines.runtimes import softmax
    from toolkit.training.report.page import predict
    from toolkit.transfer.finetune import divide_logits

    if not len(split.val):
        return {"reference": held_out}
    with step("calibrating"):
        logits, labels = _logits(predict(model, split.val, preprocessing)), np.asarray(split.val.labels)
    temperature = fit_temperature(logits, labels)
    divide_logits(model, temperature)
    return {
        "reference": softmax(_logits(held_out) / np.float32(temperature)),
        "temperature": temperature,
        "reject_below": reject_threshold(softmax(logits / np.float32(temperature)), labels),
    }


def _logits(probabilities: np.ndarray) -> np.ndarray:
    """Logits of these probabilities, of those there are: softmax takes no notice of a constant."""
    return np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))


@dataclass(frozen=True)
class _Plan:
    """A network, its settings and its pictures, before anything is written."""

    info: ModelInfo
    config: TrainConfig
    folder: ImageFolder
    split: Split

    def files(self) -> dict[str, str]:
        """The texts by which a run is known again, by file name."""
        packages = ("toolkit", "keras", "tensorflow", "numpy")
        versions = {package: importlib.metadata.version(package) for package in packages}
        backend = os.environ.get("KERAS_BACKEND", "tensorflow")
        class_names = self.folder.class_names
        return {
            "config.json": config_as_json(self.config),
            "model.json": json.dumps({"name": self.info.name, "num_classes": len(class_names)}) + "\n",
            "labels.txt": "\n".join(class_names) + "\n",
            "splits.json": json.dumps(self.split.as_dict(self.folder.root), indent=0) + "\n",
            "environment.json": json.dumps({"python": platform.python_version(), "backend": backend} | versions) + "\n",
        }


def _trained_model(
    plan: _Plan,
    run: "RunDirectory",
    options: TrainOptions,
    epoch_report: Callable[[dict[str, Any]], None] | None,
) -> "keras.Model":
    """Train the network, or load it from a run that is finished."""
    if run.model_file.exists():
        run.begin(plan.files(), resume=options.resume)
        log.info("%s is finished already", run.path)
        return load_network(run.model_file)
    from toolkit.factory import create_model
    from toolkit.training.devices import all_devices
    from toolkit.training.loop import train

    info, config = plan.info, plan.config
    keras.utils.set_random_seed(config.run.seed)
    keras.config.set_dtype_policy(config.run.dtype_policy)
    try:
        with all_devices() as shard:
            model = create_model(
                info.name,
                num_classes=len(plan.folder.class_names),
                input_shape=info.preprocessing.input_shape,
                **config.model.variant,
            )
            # Only now: a network that cannot be built for this folder leaves no run behind.
            run.begin(plan.files(), resume=options.resume)
            model = train(model, plan.split, info.preprocessing, config, run, shard=shard, on_epoch=epoch_report)
            if options.hosts:
                disconnect()
            run.finish(model)
    finally:
        keras.config.set_dtype_policy("float32")
    # Of several devices each holds a copy, and what follows needs but one.
    return model if shard.num_devices == 1 or not run.writer else load_network(run.model_file)
