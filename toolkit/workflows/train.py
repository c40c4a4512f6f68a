"""A folder of pictures to a trained network."""

import importlib.metadata
import json
import logging
import platform
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.data import ImageFolder, Split, split_folder
from toolkit.registry import model_info
from toolkit.spec import Preprocessing
from toolkit.training.config import TrainConfig, apply_overrides, config_as_json
from toolkit.training.recipes import recipe, smoke
from toolkit.workflows.steps import (
    ExportOptions,
    Progress,
    export_held_out,
    held_out_metrics,
    load_keras,
    require_writable,
    scan,
)

if TYPE_CHECKING:
    import keras

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
    scan_progress: Progress | None = None,
    epoch_report: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Train a network from scratch on a folder of pictures.

    Args:
        data: see ``toolkit.data.scan_folder``.
        model_name: a registered network.
        out: the run directory.
        recipe_name: by default the one that suits the network.
        overrides: ``group.key=value`` settings on top of the recipe.
        smoke_run: two epochs only.
        resume: go on with the run in ``out``, if it holds one.
        skip_bad: leave unreadable pictures out instead of refusing the folder.
        export: also write a bundle.
        scan_progress: called with (done, total) files.
        epoch_report: called with each epoch's metrics.

    Returns:
        ``{"run", "metrics", "bundle"}``: held-out top-1 and top-5 as fractions; ``bundle`` only if exported.

    Raises:
        UserError: bad data, a bad setting, or a run directory in use. Nothing is written then.
    """
    info = model_info(model_name)
    if export:
        require_writable(export.directory)
    config = apply_overrides(recipe(recipe_name or info.recipe), overrides)
    config = smoke(config) if smoke_run else config
    folder = scan(data, skip_bad, scan_progress)
    split = split_folder(folder, fractions=config.data.fractions, seed=config.data.split_seed)

    from toolkit.training.run_dir import RunDirectory

    run = RunDirectory(out)
    begin = partial(run.begin, _run_files(model_name, config, folder, split), resume=resume)
    model = _trained_model(model_name, info.preprocessing, config, folder, split, run, begin, epoch_report)
    metrics = held_out_metrics(model, info.preprocessing, folder, split)
    run.write_text("result.json", json.dumps(metrics, indent=1) + "\n")
    result: dict[str, Any] = {"run": str(run.path), "metrics": metrics}
    if export:
        result["bundle"] = str(export_held_out(model, folder, split, info.preprocessing, export))
    return result


def _run_files(model_name: str, config: TrainConfig, folder: ImageFolder, split: Split) -> dict[str, str]:
    packages = ("toolkit", "keras", "tensorflow", "numpy")
    versions = {package: importlib.metadata.version(package) for package in packages}
    return {
        "config.json": config_as_json(config),
        "model.json": json.dumps({"name": model_name, "num_classes": len(folder.class_names)}) + "\n",
        "labels.txt": "\n".join(folder.class_names) + "\n",
        "splits.json": json.dumps(split.as_dict(folder.root), indent=0) + "\n",
        "environment.json": json.dumps({"python": platform.python_version()} | versions) + "\n",
    }


def _trained_model(
    model_name: str,
    preprocessing: Preprocessing,
    config: TrainConfig,
    folder: ImageFolder,
    split: Split,
    run: "RunDirectory",
    begin: Callable[[], None],
    epoch_report: Callable[[dict[str, Any]], None] | None,
) -> "keras.Model":
    if run.model_file.exists():
        begin()
        log.info("%s is finished already", run.path)
        return load_keras(run.model_file)
    import keras

    from toolkit.factory import create_model
    from toolkit.training.loop import train
    from toolkit.training.plots import plot_curves

    keras.utils.set_random_seed(config.run.seed)
    keras.config.set_dtype_policy(config.run.dtype_policy)
    try:
        model = create_model(model_name, num_classes=len(folder.class_names), input_shape=preprocessing.input_shape)
        begin()  # only now: a network that cannot be built for this folder leaves no run behind
        train(model, split, preprocessing, config, run, on_epoch=epoch_report)
    finally:
        keras.config.set_dtype_policy("float32")
    plot_curves(run.history(), run.path / "curves.png", title=f"{model_name}, {len(split.train):,} training pictures")
    run.finish(model)
    return model
