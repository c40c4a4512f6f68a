"""A folder of pictures and a pretrained network to a bundle."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.bundle import MANIFEST, find_bundle, read_manifest, require_network, verify_files
from toolkit.catalogue import model_info
from toolkit.data import ImageFolder, Split, split_folder
from toolkit.spec import ModelInfo, Preprocessing
from toolkit.workflows.steps import ExportOptions, Progress, export_held_out, require_writable, scan

if TYPE_CHECKING:
    from toolkit.transfer import FinetuneOptions, FinetuneResult, Network


def finetune_folder(
    data: str | Path,
    model_name: str,
    *,
    weights: str | Path,
    export: ExportOptions,
    cache_dir: str | Path,
    options: "FinetuneOptions | None" = None,
    report: Path | None = None,
    skip_bad: bool = False,
    scan_progress: Progress | None = None,
    epoch_report: Callable[[dict[str, Any]], None] | None = None,
    extract_progress: Progress | None = None,
) -> dict[str, Any]:
    """Put a new classifier on a pretrained network: its frozen part runs once per picture, ever.

    Args:
        data: see ``toolkit.data.scanfolder``.
        model_name: a registered network.
        weights: a tag, a weights file, a run directory or a bundle.
        export: where the bundle goes.
        cache_dir: the feature cache.
        options: what trains and how, see ``toolkit.transfer.FinetuneOptions``.
        report: an HTML file to write: a map of the pictures, near duplicates, labels to look at again.
        skip_bad: leave unreadable pictures out instead of refusing the folder.
        scan_progress: called with (done, total) files.
        epoch_report: called with each epoch's metrics while unfrozen stages train.
        extract_progress: called with (done, total) pictures that are not in the cache.

    Returns:
        ``{"bundle", "metrics", "val_accuracy", "num_params"}`` and, under ``"finetuning"``, how it came about.
    """
    info = model_info(model_name)
    require_writable(export.directory)
    weights, preprocessing = _pretrained(weights, info)
    folder = scan(data, skip_bad, scan_progress)
    split = split_folder(folder)

    from toolkit.transfer import finetune

    network = pretrained_network(info, weights, len(folder.class_names), preprocessing)
    result = finetune(
        network,
        split,
        cache_dir=cache_dir,
        options=options,
        progress=extract_progress,
        on_epoch=epoch_report,
    )
    if report and result.features:
        _write_report(report, folder, split, result)
    bundle, metrics = export_held_out(
        result.model,
        folder,
        split,
        network.preprocessing,
        export,
        temperature=result.temperature,
        reject_below=result.reject_below,
    )
    return {
        "bundle": str(bundle),
        "metrics": metrics,
        "val_accuracy": result.val_accuracy,
        "num_params": result.model.count_params(),
        "finetuning": result.as_document(),
    }


def pretrained_network(
    info: ModelInfo, weights: str | Path, num_classes: int, preprocessing: Preprocessing | None = None
) -> "Network":
    """A network with a classifier of its own, built once it is needed.

    Args:
        info: of the network.
        weights: a tag or a file.
        num_classes: of the classifier.
        preprocessing: by default what the weights bring.
    """
    from toolkit.transfer import Network

    def build() -> tuple[Any, Preprocessing]:
        from toolkit.factory import create_model, preprocessing_of

        shape = None if preprocessing is None else preprocessing.input_shape
        model = create_model(info.name, num_classes=num_classes, input_shape=shape, weights=weights)
        return model, preprocessing or preprocessing_of(model)

    from toolkit.factory import locate_weights
    from toolkit.weights.download import cached_path

    place = locate_weights(info, weights)
    file = place if isinstance(place, Path) else cached_path(place)
    told = file.suffix if isinstance(place, Path) else f"tag {weights}"
    return Network(
        build,
        num_classes=num_classes,
        weights=file if file.is_file() else None,
        description=f"{info.name} {told} {preprocessing}",
    )


def _write_report(path: Path, folder: ImageFolder, split: Split, result: "FinetuneResult") -> None:
    from toolkit.transfer.report import write_report

    write_report(
        path,
        pictures=[*split.train.paths, *split.val.paths],
        labels=[*split.train.labels, *split.val.labels],
        class_names=folder.class_names,
        features=np.concatenate(result.features or ()),
        steps=result.steps,
    )


def _pretrained(weights: str | Path, info: ModelInfo) -> tuple[str | Path, Preprocessing | None]:
    """A bundle brings its own preprocessing, a run was trained with the network's; tags and files tell when loaded."""
    path = Path(weights)
    if path.is_dir() and (path / "model.keras").exists():
        return path / "model.keras", info.preprocessing
    if path.is_dir():
        version_dir = find_bundle(path)
        manifest = read_manifest(version_dir)
        verify_files(version_dir, manifest, (MANIFEST,))
        return require_network(version_dir, manifest), manifest.preprocessing
    from toolkit.factory import locate_weights

    locate_weights(info, weights)  # a mistyped tag is told before a large folder is read
    return weights, None
