"""A folder of pictures to a trained network."""

import dataclasses
import importlib.metadata
import json
import logging
import os
import platform
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.data import ImageFolder, Split, split_folder
from toolkit.lazy import keras
from toolkit.network import load_network
from toolkit.registry import model_info
from toolkit.spec import ModelInfo
from toolkit.training.config import TrainConfig, apply_overrides, config_as_json
from toolkit.training.hosts import Hosts, loss_of_hosts
from toolkit.training.recipes import recipe, smoke
from toolkit.workflows.steps import ExportOptions, Progress, export_held_out, require_writable, scan

if TYPE_CHECKING:
    from toolkit.training.run_dir import RunDirectory

log = logging.getLogger(__name__)


def train_folder(
    data: str | Path,
    model_name: str,
    *,
    out: str | Path,
    recipe_name: str | None = None,
    overrides: Iterable[str] = (),
    smoke_run: bool = False,
    resume: bool = False,
    skip_bad: bool = False,
    export: ExportOptions | None = None,
    hosts: Hosts | None = None,
    scan_progress: Progress | None = None,
    epoch_report: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Train a network from scratch on a folder of pictures, on all devices of this host, or of several.

    Args:
        data: see ``toolkit.data.scanfolder``.
        model_name: a registered network.
        out: the run directory; of several hosts, the same shared directory on all.
        recipe_name: by default the one that suits the network.
        overrides: ``group.key=value`` settings on top of the recipe.
        smoke_run: two epochs only.
        resume: go on with the run in ``out``, if it holds one.
        skip_bad: leave unreadable pictures out instead of refusing the folder.
        export: also write a bundle.
        hosts: the others that train along, each calling this; the first one writes and reports.
        scan_progress: called with (done, total) files.
        epoch_report: called with each epoch's metrics.

    Returns:
        ``{"run", "metrics", "bundle"}``: held-out accuracy as fractions; ``bundle`` only if exported. On hosts but the
        first, ``run`` only.

    Raises:
        UserError: bad data, a bad setting, or a run directory in use. Nothing is written then.
        HostLostError: another host died or is out of reach.
    """
    info = model_info(model_name)
    if export:
        require_writable(export.directory)
    config = apply_overrides(recipe(recipe_name or info.recipe), overrides)
    config = smoke(config) if smoke_run else config
    folder = scan(data, skip_bad, scan_progress)
    split = split_folder(folder, fractions=config.data.fractions, seed=config.data.split_seed)

    from toolkit.training.devices import connect
    from toolkit.training.precision import resolve_policy
    from toolkit.training.report import predict, write_report
    from toolkit.training.run_dir import RunDirectory

    run = RunDirectory(out, writer=hosts is None or hosts.host_id == 0)
    if hosts and not run.model_file.exists():
        connect(hosts)
    policy = resolve_policy(config.run.dtype_policy)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, dtype_policy=policy))
    begin = partial(run.begin, _run_files(info, config, folder, split), resume=resume)
    with loss_of_hosts(hosts):
        model = _trained_model(info, config, folder, split, run, begin, hosts, epoch_report)
    if not run.writer:
        return {"run": str(run.path)}
    probabilities = predict(model, split.held_out[1], info.preprocessing)
    metrics = write_report(probabilities, split, info.preprocessing, folder.class_names, run, title=info.title)
    result: dict[str, Any] = {"run": str(run.path), "metrics": metrics}
    if export:
        path, _ = export_held_out(model, folder, split, info.preprocessing, export, reference=probabilities)
        result["bundle"] = str(path)
    return result


def _run_files(info: ModelInfo, config: TrainConfig, folder: ImageFolder, split: Split) -> dict[str, str]:
    packages = ("toolkit", "keras", "tensorflow", "numpy")
    versions = {package: importlib.metadata.version(package) for package in packages}
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    return {
        "config.json": config_as_json(config),
        "model.json": json.dumps({"name": info.name, "num_classes": len(folder.class_names)}) + "\n",
        "labels.txt": "\n".join(folder.class_names) + "\n",
        "splits.json": json.dumps(split.as_dict(folder.root), indent=0) + "\n",
        "environment.json": json.dumps({"python": platform.python_version(), "backend": backend} | versions) + "\n",
    }


def _trained_model(
    info: ModelInfo,
    config: TrainConfig,
    folder: ImageFolder,
    split: Split,
    run: "RunDirectory",
    begin: Callable[[], None],
    hosts: Hosts | None,
    epoch_report: Callable[[dict[str, Any]], None] | None,
) -> "keras.Model":
    if run.model_file.exists():
        begin()
        log.info("%s is finished already", run.path)
        return load_network(run.model_file)
    from toolkit.factory import create_model
    from toolkit.training.devices import all_devices, disconnect
    from toolkit.training.loop import train

    keras.utils.set_random_seed(config.run.seed)
    keras.config.set_dtype_policy(config.run.dtype_policy)
    try:
        with all_devices() as shard:
            model = create_model(
                info.name,
                num_classes=len(folder.class_names),
                input_shape=info.preprocessing.input_shape,
                **config.model.variant,
            )
            begin()  # only now: a network that cannot be built for this folder leaves no run behind
            model = train(model, split, info.preprocessing, config, run, shard=shard, on_epoch=epoch_report)
            if hosts:
                disconnect()
            run.finish(model)
    finally:
        keras.config.set_dtype_policy("float32")
    # Of several devices each holds a copy, and what follows needs but one.
    return model if shard.num_devices == 1 or not run.writer else load_network(run.model_file)
