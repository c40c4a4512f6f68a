"""Whole journeys, shared by the command line and the demo: a folder in, a bundle out."""

import importlib.metadata
import json
import logging
import os
import platform
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.bundle import KERAS_FILE, MANIFEST, find_bundle, read_manifest, verify_files
from toolkit.data import ImageFolder, Split, scan_folder, split_folder
from toolkit.registry import model_info
from toolkit.spec import Preprocessing, UserError
from toolkit.training.config import TrainConfig, apply_overrides, config_as_json
from toolkit.training.recipes import recipe, smoke

if TYPE_CHECKING:
    import keras

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ExportOptions:
    """Where and how a journey ends in a bundle.

    Attributes:
        directory: ``…/NAME``; the next version is written below it.
        num_examples: held-out pictures to put into the bundle for the demo's visitors to click on. None by default:
            a bundle is passed on, and the pictures may be private.
        force: write it even if its engines disagree.
    """

    directory: Path
    num_examples: int = 0
    force: bool = False


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
        _require_writable(export.directory)
    config = apply_overrides(recipe(recipe_name or info.recipe), overrides)
    config = smoke(config) if smoke_run else config
    folder = _scan(data, skip_bad, scan_progress)
    split = split_folder(folder, fractions=config.data.fractions, seed=config.data.split_seed)

    from toolkit.training.run_dir import RunDirectory

    run = RunDirectory(out)
    run.begin(_run_files(model_name, config, folder, split), resume=resume)
    model = _trained_model(model_name, info.preprocessing, config, folder, split, run, epoch_report)
    metrics = _held_out_metrics(model, info.preprocessing, folder, split)
    run.write_text("result.json", json.dumps(metrics, indent=1) + "\n")
    result: dict[str, Any] = {"run": str(run.path), "metrics": metrics}
    if export:
        result["bundle"] = str(_export(model, folder, split, info.preprocessing, export))
    return result


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
    _require_writable(export.directory)
    path, preprocessing = _pretrained(weights, info.preprocessing)
    folder = _scan(data, skip_bad, scan_progress)
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
    metrics = _held_out_metrics(model, preprocessing, folder, split)
    bundle = _export(model, folder, split, preprocessing, export)
    return {
        "bundle": str(bundle),
        "metrics": metrics,
        "val_accuracy": head.val_accuracy,
        "strength": head.strength,
        "num_params": model.count_params(),
    }


def compress_bundle(
    bundle: str | Path,
    method: str,
    *,
    data: str | Path,
    skip_bad: bool = False,
    force: bool = False,
    scan_progress: Progress | None = None,
) -> dict[str, Any]:
    """Quantize a bundle's network and write the next version of the bundle with the file in it.

    Args:
        bundle: the bundle to start from; its ``model.keras`` is what is quantized.
        method: one of ``toolkit.compress.METHODS``.
        data: the pictures it was trained on: the training split calibrates, the held-out split judges.
        skip_bad: leave unreadable pictures out instead of refusing the folder.
        force: write it even if too much accuracy is lost.
        scan_progress: called with (done, total) files.

    Returns:
        ``{"bundle", "method", "bytes", "float_bytes", "top1", "float_top1"}``.
    """
    from toolkit.bundle import FLOAT_LITERT, litert_file
    from toolkit.compress import METHODS
    from toolkit.export import export_bundle
    from toolkit.registry import unknown_name

    if method not in METHODS:
        raise UserError(unknown_name("method", method, list(METHODS)))
    version_dir = find_bundle(bundle)
    manifest = read_manifest(version_dir)
    verify_files(version_dir, manifest, (KERAS_FILE,))
    folder = scan_folder(data, class_names=manifest.labels, progress=scan_progress)
    if not skip_bad:
        folder.require_clean()
    split = split_folder(folder)
    path = export_bundle(
        _load_keras(version_dir / KERAS_FILE),
        version_dir.parent,
        labels=manifest.labels,
        preprocessing=manifest.preprocessing,
        calibration=split.train,
        evaluation=split.held_out[1],
        methods=(method,),
        force=force,
    )
    metrics = read_manifest(path).metrics
    return {
        "bundle": str(path),
        "method": method,
        "bytes": (path / litert_file(method)).stat().st_size,
        "float_bytes": (path / FLOAT_LITERT).stat().st_size,
        "top1": metrics[f"top1_litert-{method}"],
        "float_top1": metrics["top1"],
    }


def _require_writable(directory: Path) -> None:
    """Learn now, and not after hours of training, that the bundle has nowhere to go."""
    existing = directory.absolute()
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"{directory}: cannot be created below {existing}, which is not a writable folder")


def _scan(data: str | Path, skip_bad: bool, progress: Progress | None) -> ImageFolder:
    folder = scan_folder(data, progress=progress)
    if not skip_bad:
        folder.require_clean()
    for path, reason in folder.problems:
        log.warning("left out %s: %s", path, reason)
    return folder


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
    run: Any,
    epoch_report: Callable[[dict[str, Any]], None] | None,
) -> "keras.Model":
    if run.model_file.exists():
        log.info("%s is finished already", run.path)
        return _load_keras(run.model_file)
    import keras

    from toolkit.factory import create_model
    from toolkit.training.loop import train
    from toolkit.training.plots import plot_curves

    keras.utils.set_random_seed(config.run.seed)
    keras.config.set_dtype_policy(config.run.dtype_policy)
    try:
        model = create_model(model_name, num_classes=len(folder.class_names), input_shape=preprocessing.input_shape)
        train(model, split, preprocessing, config, run, on_epoch=epoch_report)
    finally:
        keras.config.set_dtype_policy("float32")
    plot_curves(run.history(), run.path / "curves.png", title=f"{model_name}, {len(split.train):,} training pictures")
    run.finish(model)
    return model


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


def _held_out_metrics(
    model: "keras.Model", preprocessing: Preprocessing, folder: ImageFolder, split: Split
) -> dict[str, Any]:
    from toolkit.data.arrays import load_pixels
    from toolkit.engines.convert import as_float32
    from toolkit.engines.runtimes import KerasEngine
    from toolkit.metrics import accuracy_report

    name, subset = split.held_out
    engine = KerasEngine(as_float32(model), preprocessing)
    chunks = (subset.paths[i : i + 64] for i in range(0, len(subset), 64))
    probabilities = np.concatenate([engine.probabilities(load_pixels(chunk, preprocessing)) for chunk in chunks])
    return {"subset": name} | accuracy_report(probabilities, np.asarray(subset.labels), folder.class_names)


def _export(
    model: "keras.Model", folder: ImageFolder, split: Split, preprocessing: Preprocessing, options: ExportOptions
) -> Path:
    from toolkit.export import export_bundle

    return export_bundle(
        model,
        options.directory,
        labels=folder.class_names,
        preprocessing=preprocessing,
        calibration=split.train,
        evaluation=split.held_out[1],
        num_examples=options.num_examples,
        force=options.force,
    )


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


def _load_keras(path: Path) -> "keras.Model":
    import keras

    import toolkit.layers  # noqa: F401  (registers the custom layers the file may name)

    return keras.saving.load_model(path, compile=False, safe_mode=True)
