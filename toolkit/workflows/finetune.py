"""A folder of pictures and a pretrained network to a bundle."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.bundle import RejectionCurve, require_bundle_place
from toolkit.catalogue import model_info
from toolkit.data import ImageFolder, teaching_split
from toolkit.data.feed.split import lots_remarks, repeats_remarks
from toolkit.errors import UserError
from toolkit.factory import (
    KINDS,
    create_model,
    is_application,
    is_network_file,
    licence_of,
    locate_weights,
    open_application,
    open_network,
    preprocessing_of,
    require_application,
)
from toolkit.files import require_place, require_writable
from toolkit.lazy import keras
from toolkit.metrics import rejection_curve
from toolkit.network import as_float32
from toolkit.progress import step
from toolkit.spec import ModelInfo, Preprocessing
from toolkit.transfer import FinetuneOptions, FinetuneResult, finetune, plan_freezing
from toolkit.transfer.finetune import Judged
from toolkit.transfer.view import at_size, fitting_size, shorter_sides, takes_any_size, whole_view
from toolkit.workflows.steps import ExportOptions, export_held_out, require_size, scan

log = logging.getLogger("toolkit")

_EXPORTING = 0.1  # of a time budget


@dataclass(frozen=True)
class FolderOptions:
    """Options of fine-tuning on a folder.

    Attributes:
        cache_dir: the feature cache.
        finetuning: what trains and how, see ``toolkit.transfer.FinetuneOptions``.
        report: an HTML file to write: accuracy and mistakes out of fold and on test pictures, what was tried, a map of
            the pictures, near duplicates, labels to look at again.
        skip_bad: leave unreadable pictures out instead of refusing the folder.
        keep_val: hold the folder's own validation pictures out; by default they teach like the others.
        preprocessing: what a network from a file, or of keras.applications, was trained with, where neither its
            layers nor its name tell.
        curve: measure accuracy by number of pictures even if no report is named, for one that is written later.
        size: pixels a side in which the network sees the pictures; by default as it was trained, tiny pictures smaller.
    """

    cache_dir: str | Path
    finetuning: FinetuneOptions | None = None
    report: Path | None = None
    skip_bad: bool = False
    keep_val: bool = False
    preprocessing: Preprocessing | None = None
    curve: bool = False
    size: int | None = None


def finetune_folder(
    data: str | Path,
    model_name: str,
    *,
    weights: str | Path,
    export: ExportOptions,
    options: FolderOptions,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Put a new classifier on a pretrained network and export it: ``fit_folder``, then ``FinetunedFolder.deliver``."""
    fitted = fit_folder(data, model_name, weights=weights, export=export, options=options, on_epoch=on_epoch)
    return fitted.deliver(export, options.report)


@dataclass(frozen=True)
class FinetunedFolder:
    """A fine-tuned network with the pictures that taught it: its report and its bundles are made of this.

    Attributes:
        folder: the pictures.
        preprocessing: of the network.
        result: what fine-tuning came to.
        networks: those that were compared before, where there were several.
        licence: of the weights that it began with; empty where nothing tells.
        remarks: sentences for people on the pictures.
    """

    folder: ImageFolder
    preprocessing: Preprocessing
    result: FinetuneResult
    networks: tuple[dict[str, Any], ...] = ()
    licence: str = ""
    remarks: tuple[str, ...] = ()

    def deliver(self, export: ExportOptions | None = None, report: Path | None = None) -> dict[str, Any]:
        """Write the report and the bundle, where they are asked for.

        Returns:
            ``{"bundle", "metrics", "accuracy", "standard_error", "num_params"}`` and, under ``"finetuning"``, how it
            came about. ``"accuracy"`` is that of pictures which the answering classifier did not see, out of fold
            unless stages were trained, None where there are too few to tell; ``"metrics"`` are those of the held-out
            pictures, where there are some. Without an export there are neither a bundle nor metrics. Of several
            networks compared, ``"networks"`` tells each.
        """
        known = self.write_report(report) if report else {}
        result = self.result
        document = {} if export is None else self._export(export, known)
        document |= {
            "accuracy": result.accuracy,
            "standard_error": result.judged.standard_error,
            "num_params": result.model.count_params(),
            "finetuning": result.as_document(),
        }
        return document | ({"networks": list(self.networks)} if self.networks else {})

    def write_report(self, path: Path) -> dict[str, Any]:
        """Write the page about the fine-tuning, and give ``BundleOptions`` that spare doing it again."""
        return _write_report(path, self.result, self.folder.class_names, self.preprocessing, self.remarks)

    def _export(self, export: ExportOptions, known: dict[str, Any]) -> dict[str, Any]:
        result = self.result
        bundle, metrics = export_held_out(
            result.model,
            self.folder,
            result.split,
            self.preprocessing,
            export,
            out_of_fold=result.judged.report(self.folder.class_names),
            temperature=result.temperature,
            # Far from the pictures that taught it, a classifier is as sure as near them: distance tells, probability
            # not.
            reject_below=result.reject_below if result.novelty is None else None,
            rejection=_rejection(result.judged),
            novelty=result.novelty,
            licence=self.licence,
            **known,
        )
        return {"bundle": str(bundle), "metrics": metrics}


def fit_folder(
    data: str | Path,
    model_name: str,
    *,
    weights: str | Path,
    options: FolderOptions,
    export: ExportOptions | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> FinetunedFolder:
    """Put a new classifier on a pretrained network: its frozen part runs once per picture, ever.

    Every picture but a folder's own test pictures teaches, and accuracy is measured by cross-validation.

    Args:
        data: see ``toolkit.data.scan_folder``.
        model_name: a registered network, one of Keras' by ``"keras.applications:NAME"``, or the path of somebody's
            network, see ``toolkit.factory.open_network``.
        weights: a tag, a weights file, a run directory or a bundle; empty or the default for a network from a file,
            which brings its own.
        options: feature cache, training, report.
        export: where a bundle is to go, refused at once if it cannot be written.
        on_epoch: called with each epoch's metrics while unfrozen stages train.

    Raises:
        UserError: bad data, or an option that does not fit the network.
    """
    info = None if is_network_file(model_name) or is_application(model_name) else model_info(model_name)
    finetuning = options.finetuning or FinetuneOptions()
    if options.report or options.curve:
        finetuning = replace(finetuning, curve=True)
    if finetuning.deadline is not None:
        left = finetuning.deadline - time.monotonic()
        finetuning = replace(finetuning, deadline=finetuning.deadline - _EXPORTING * left)
    # What can be refused is refused before a large folder is read and Keras is imported.
    if info is not None:
        plan_freezing(info.stages, 0, finetuning.unfreeze)
        if options.preprocessing is not None:
            raise UserError(f"the preprocessing of {model_name} comes with its weights; leave --preprocessing out")
        require_size(info, options.size, "--size")
    elif options.size is not None:
        raise UserError(f"--size is for the networks of `toolkit models`; {model_name} has a size of its own")
    require_places(export, options)
    if info is not None:
        locate_weights(info, weights)
    elif is_application(model_name):
        require_application(model_name, weights)
    elif not Path(model_name).exists():
        raise UserError(f"no network at {model_name}; give {KINDS}")
    elif weights not in ("", "imagenet"):  # none, or the default
        raise UserError(
            f"{model_name} brings its own weights; leave --weights out, or name a network that they are for"
        )
    folder = scan(data, options.skip_bad)
    split, lots = teaching_split(folder, keep_val=options.keep_val)
    remarks = repeats_remarks(folder, keep_val=options.keep_val)
    for remark in [*lots_remarks(lots), *remarks]:
        log.info(remark)
    if options.keep_val and not len(split.val):
        log.info("there are no validation pictures to hold out: %s has none", folder.root)

    with step("building the network"):
        num_classes = len(folder.class_names)
        if info is not None:
            model, preprocessing = fitting_network(info, folder, weights, options.size)
        elif is_application(model_name):
            model = open_application(
                model_name, num_classes=num_classes, weights=weights, preprocessing=options.preprocessing
            )
            preprocessing = options.preprocessing or whole_view(preprocessing_of(model))
        else:
            model = open_network(model_name, num_classes=num_classes, preprocessing=options.preprocessing)
            preprocessing = preprocessing_of(model)
    result = finetune(
        model,
        split,
        preprocessing,
        cache_dir=options.cache_dir,
        lots=lots.lot_of,
        options=finetuning,
        on_epoch=on_epoch,
    )
    licence = licence_of(info.name, weights) if info is not None else ""
    return FinetunedFolder(folder, preprocessing, result, licence=licence, remarks=tuple(remarks))


def require_places(export: ExportOptions | None, options: FolderOptions) -> None:
    """Refuse places of the bundle, the cache and the report that cannot be written.

    Raises:
        UserError: one of them cannot.
    """
    if export is not None:
        require_bundle_place(export.directory, "--out")
    require_writable(Path(options.cache_dir), "--cache")
    if options.report:
        require_place(options.report)
        require_writable(Path(options.report).parent, "--report")


def fitting_network(
    info: ModelInfo, folder: ImageFolder, weights: str | Path, side: int | None = None
) -> tuple["keras.Model", Preprocessing]:
    """Build a network that sees the middle square of a folder's pictures, and of tiny ones at a size that becomes them.

    Args:
        info: the network.
        folder: the pictures.
        weights: see ``fit_folder``.
        side: pixels a side, instead of such a size.

    Raises:
        UserError: the network's weights are for one size only, and ``side`` is another.
    """
    require_size(info, side, "--size")
    model = create_model(info.name, num_classes=len(folder.class_names), weights=weights)
    size = preprocessing_of(model).size
    if side is not None:
        model = at_size(model, (side, side), option="--size")
    elif takes_any_size(model):
        sides = shorter_sides(folder)
        model = at_size(model, fitting_size(size, sides), option="--size")
        if preprocessing_of(model).size != size:
            log.info(
                "half of the pictures measure %d pixels or less on the shorter side: %s sees them at %d×%d",
                *(np.median(sides), info.name, *preprocessing_of(model).size),
            )
    model.preprocessing = whole_view(preprocessing_of(model))
    return model, model.preprocessing


def _rejection(judged: Judged) -> RejectionCurve | None:
    if not len(judged.subset):
        return None
    return RejectionCurve(*rejection_curve(judged.probabilities, np.asarray(judged.subset.labels)))


def _write_report(
    path: Path,
    result: FinetuneResult,
    class_names: tuple[str, ...],
    preprocessing: Preprocessing,
    remarks: tuple[str, ...],
) -> dict[str, Any]:
    """Write the page about a fine-tuning, and give ``BundleOptions`` that spare doing it again."""
    from toolkit.engines.runtimes import KerasEngine
    from toolkit.export.parity import HeldOutPictures
    from toolkit.transfer.report import HeldOut, Told, write_report

    judged, selection = result.judged, result.selection
    shown = [HeldOut(judged.name, judged.subset, judged.probabilities, judged.standard_error)]
    known: dict[str, Any] = {}
    name, subset = result.split.held_out
    if len(subset):
        engine = KerasEngine(as_float32(result.model), preprocessing)
        known["pictures"] = HeldOutPictures(subset, preprocessing)
        known["reference"] = known["pictures"].answers(engine.probabilities, "classifying held-out pictures")
        shown = [own for own in shown if own.name != name]
        shown.append(HeldOut(name, subset, known["reference"]))
    told = Told(result.steps, remarks=remarks)
    if selection is not None:
        told = Told(result.steps, selection.trials, (*remarks, *selection.remarks), selection.curve)
    with step("writing the report"):
        write_report(
            path,
            pictures=result.given,
            class_names=class_names,
            features=result.features,
            told=told,
            held_out=shown,
        )
    return known
