"""A folder of pictures and a pretrained network to a bundle."""

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.bundle import KERAS_FILE, MANIFEST, find_bundle, read_manifest, verify_files
from toolkit.data import Split, split_folder
from toolkit.registry import model_info
from toolkit.spec import Preprocessing, UserError
from toolkit.training.config import TrainConfig
from toolkit.workflows.steps import (
    ExportOptions,
    Progress,
    export_held_out,
    held_out_metrics,
    require_writable,
    scan,
)

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)


def finetune_folder(
    data: str | Path,
    model_name: str,
    *,
    weights: str | Path,
    export: ExportOptions,
    cache_dir: str | Path,
    unfreeze_from: str | None = None,
    epochs: int = 5,
    skip_bad: bool = False,
    scan_progress: Progress | None = None,
    epoch_report: Callable[[dict[str, Any]], None] | None = None,
    extract_progress: Progress | None = None,
) -> dict[str, Any]:
    """Put a new classifier on a pretrained network: its frozen part runs once per picture, ever.

    Args:
        data: see ``toolkit.data.scan_folder``.
        model_name: a registered network.
        weights: a tag, a weights file, a run directory or a bundle.
        export: where the bundle goes.
        cache_dir: the feature cache.
        unfreeze_from: once the classifier is fitted, also train the stages from this one on, gently.
        epochs: how long.
        skip_bad: leave unreadable pictures out instead of refusing the folder.
        scan_progress: called with (done, total) files.
        epoch_report: called with each epoch's metrics while unfrozen stages train.
        extract_progress: called with (done, total) pictures that are not in the cache.

    Returns:
        ``{"bundle", "metrics", "val_accuracy", "strength", "num_params"}``.
    """
    info = model_info(model_name)
    require_writable(export.directory)
    path, preprocessing = _pretrained(weights, info.preprocessing)
    folder = scan(data, skip_bad, scan_progress)
    split = split_folder(folder)

    from toolkit.factory import create_model
    from toolkit.transfer import extract_features, fit_head

    model = create_model(
        model_name, num_classes=len(folder.class_names), input_shape=preprocessing.input_shape, weights=path
    )
    if not model.layers[-1].weights:
        raise UserError(
            f"{model_name} averages class maps and has no dense classifier to fit on features; "
            f"train it as a whole, or fine-tune another network"
        )
    subsets = [split.train, split.val]
    paths = [p for subset in subsets for p in subset.paths]
    features = extract_features(model, paths, preprocessing, cache_dir=cache_dir, progress=extract_progress)
    head = fit_head(
        features[: len(split.train)],
        np.asarray(split.train.labels),
        features[len(split.train) :],
        np.asarray(split.val.labels),
        num_classes=len(folder.class_names),
    )
    model.layers[-1].set_weights([head.kernel, head.bias])
    if unfreeze_from:
        _train_unfrozen(model, unfreeze_from, epochs, preprocessing, split, epoch_report)
    metrics = held_out_metrics(model, preprocessing, folder, split)
    bundle = export_held_out(model, folder, split, preprocessing, export)
    return {
        "bundle": str(bundle),
        "metrics": metrics,
        "val_accuracy": head.val_accuracy,
        "strength": head.strength,
        "num_params": model.count_params(),
    }


def _train_unfrozen(
    model: "keras.Model",
    from_stage: str,
    epochs: int,
    preprocessing: Preprocessing,
    split: Split,
    epoch_report: Callable[[dict[str, Any]], None] | None,
) -> None:
    """A hundredth of the usual rate: the classifier already fits, and the rest should stay near what it was."""
    from toolkit.training.config import OptimizerConfig, RunConfig
    from toolkit.training.loop import train
    from toolkit.training.run_dir import RunDirectory
    from toolkit.transfer import unfreeze

    log.info("%s", unfreeze(model, from_stage))
    optimizer = OptimizerConfig(name="adamw", lr=1e-5, warmup_epochs=1)
    config = TrainConfig(optimizer=optimizer, run=RunConfig(epochs=epochs, batch_size=16))
    with tempfile.TemporaryDirectory() as directory:
        train(model, split, preprocessing, config, RunDirectory(directory), on_epoch=epoch_report)


def _pretrained(weights: str | Path, default: Preprocessing) -> tuple[str | Path, Preprocessing]:
    """A bundle brings its own preprocessing; a run directory stands for its trained network."""
    path = Path(weights)
    if path.is_dir() and (path / "model.keras").exists():
        return path / "model.keras", default
    if path.is_dir():
        version_dir = find_bundle(path)
        manifest = read_manifest(version_dir)
        verify_files(version_dir, manifest, (KERAS_FILE, MANIFEST))
        return version_dir / KERAS_FILE, manifest.preprocessing
    return weights, default
