"""Steps that the journeys have in common: reading the folder, exporting and measuring on held-out pictures."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.bundle import (
    is_bundle,
    picture_digests,
    read_manifest,
    require_bundle_place,
    shipped_bundle,
    write_pictures,
)
from toolkit.catalogue import list_models, model_info
from toolkit.compress import METHODS
from toolkit.compress.examples import evenly
from toolkit.data import ImageFolder, Split, scan_folder
from toolkit.data.feed.split import subset_of
from toolkit.data.scan.facts import notes
from toolkit.data.scan.folder import require_classes
from toolkit.data.scan.imagenet import require_order_of_ids
from toolkit.errors import UserError, one_line, unknown_name
from toolkit.files import no_such_file
from toolkit.lazy import keras
from toolkit.progress import step
from toolkit.spec import ModelInfo, Preprocessing

log = logging.getLogger(__name__)

#: Files that a bundle may hold: the SavedModel always, the float LiteRT file, and quantized ones by their method.
FORMATS = ("savedmodel", "litert", *METHODS)


@dataclass(frozen=True)
class ExportOptions:
    """Settings of the bundle in which a journey ends.

    Attributes:
        directory: ``…/NAME``; the next version is written below it.
        num_examples: held-out pictures to put into the bundle for the demo's visitors to click on. None by default:
            a bundle is passed on, and the pictures may be private.
        force: write it even if its engines disagree.
        formats: of ``FORMATS``, what to write. Without LiteRT files only TensorFlow runs the bundle.
        half: round the weights to half precision, which halves the SavedModel and the Keras file.
    """

    directory: Path
    num_examples: int = 0
    force: bool = False
    formats: tuple[str, ...] = ("savedmodel", "litert", "int8")
    half: bool = False

    def __post_init__(self) -> None:
        for name in self.formats:
            if name not in FORMATS:
                raise UserError(unknown_name("format", name, list(FORMATS)))


def scan(data: str | os.PathLike[str], skip_bad: bool, class_names: tuple[str, ...] | None = None) -> ImageFolder:
    """Scan a folder, refusing or naming its unreadable pictures; ``class_names``, if given, are all it may have."""
    folder = scan_folder(data, class_names=class_names)
    for remark in folder.remarks():
        log.info(remark)
    if not skip_bad:
        folder.require_clean()
    folder.tell_left_out()
    for note in notes(folder.facts) if folder.facts is not None else ():
        log.warning("%s: %s", one_line(str(data)), note)
    return folder


def require_size(info: ModelInfo, side: int | None, option: str) -> None:
    """Refuse pictures, ``side`` pixels high and wide, that would vanish on a network's way down."""
    if side is None:
        return
    if not isinstance(side, int):
        raise UserError(f"{option} is a number of pixels, got {side!r}")
    if side < info.min_size:
        least = f"{info.min_size}×{info.min_size}"
        raise UserError(f"{option} {side}: {info.name} needs pictures of at least {least} pixels")


def import_network(
    file: Path,
    export: ExportOptions,
    *,
    labels: str | os.PathLike[str] | Sequence[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    preprocessing: str | Preprocessing | None = None,
    data: str | os.PathLike[str] | None = None,
    skip_bad: bool = False,
) -> dict[str, Any]:
    """Make a bundle of anyone's network, or of one with published weights, see ``toolkit.import_model``.

    Its accuracy is not noted: nobody knows which of the pictures taught it.
    """
    from toolkit.export import BundleOptions, export_bundle
    from toolkit.factory import preprocessing_of
    from toolkit.factory.graphs.onnx_file import read_threshold

    require_bundle_place(export.directory, "--out")
    if weights is None:
        _require_network_file(file)
    names = _class_names(file, labels, published=weights is not None)
    if weights is not None:
        _require_published(str(file), weights, names, preprocessing)
    if data is not None:
        require_classes(data, names)
    with step("opening the network"):
        model = _opened(file, weights, preprocessing, len(names))
    folder = None if data is None else scan(data, skip_bad, names)
    # Every other picture; a class may have none.
    calibration, evaluation = (
        None if folder is None else subset_of(folder, np.arange(n, len(folder), 2)) for n in (0, 1)
    )
    options = BundleOptions(
        calibration=calibration,
        evaluation=evaluation,
        litert="litert" in export.formats,
        methods=tuple(method for method in METHODS if method in export.formats),
        num_examples=export.num_examples,
        reject_below=read_threshold(file) if file.is_file() and file.suffix.lower() == ".onnx" else None,
        out_of_fold={},
        force=export.force,
        half=export.half,
    )
    path = export_bundle(
        model, export.directory, labels=names, preprocessing=preprocessing_of(model), **dict(vars(options))
    )
    manifest = read_manifest(path)
    return {"bundle": str(path), "model": manifest.model, "labels": list(names), "parity": manifest.parity}


def _class_names(
    file: Path, labels: str | os.PathLike[str] | Sequence[str] | None, *, published: bool
) -> tuple[str, ...]:
    from toolkit.factory import find_labels, read_labels

    if labels is None:
        if published:
            raise UserError(
                "published weights do not bring the names of their classes; give them with --labels, a text with a "
                "name a line in the order of the outputs"
            )
        return find_labels(file)
    return read_labels(Path(labels)) if isinstance(labels, str | os.PathLike) else tuple(labels)


def _require_published(
    name: str,
    weights: str | os.PathLike[str],
    labels: Sequence[str],
    preprocessing: str | Preprocessing | None,
) -> None:
    if preprocessing is not None:
        raise UserError("--preprocessing is for a FILE; published weights bring their own")
    published = model_info(name).weights.get(os.fspath(weights))
    if published is not None and published.num_classes != len(labels):
        raise UserError(
            f"{os.fspath(weights)} of {name} has {published.num_classes:,} outputs, but {len(labels):,} labels were "
            "given; --labels wants a name for each output, in their order"
        )
    require_order_of_ids(labels)


def _require_network_file(file: Path) -> None:
    from toolkit.factory import KINDS, is_network_file

    if not file.exists():
        hint = f"; the network {file} needs --weights" if str(file) in list_models() else ""
        hint = f"; {file} is a bundle already" if shipped_bundle(file) else hint
        raise UserError(no_such_file(str(file)) + hint)
    if is_bundle(file):
        raise UserError(f"{file}: is a bundle already")
    if not is_network_file(file):
        raise UserError(
            f"{file}: expected {KINDS}; from torch: torch.onnx.export(model.eval(), torch.zeros(1, 3, 224, 224), "
            "'model.onnx'); a file of weights alone goes to --weights, behind the name of its network"
        )


def _opened(
    file: Path, weights: str | os.PathLike[str] | None, preprocessing: str | Preprocessing | None, num_labels: int
) -> "keras.Model":
    from toolkit.factory import create_model, open_network, read_preprocessing
    from toolkit.network import require_labels

    if weights is not None:
        model = create_model(str(file), weights=weights)
        require_labels(model, num_labels)
        return model
    given = read_preprocessing(preprocessing) if isinstance(preprocessing, str) else preprocessing
    return open_network(file, num_labels=num_labels, preprocessing=given)


#: Training pictures that engines are compared on where none are held out.
_NUM_COMPARED = 1000


def export_held_out(
    model: "keras.Model",
    folder: ImageFolder,
    split: Split,
    preprocessing: Preprocessing,
    export: ExportOptions,
    *,
    out_of_fold: Mapping[str, Any] | None = None,
    **options: Any,
) -> tuple[Path, dict[str, Any]]:
    """Export a network and measure it, in one pass over the held-out pictures; the training pictures calibrate.

    Where none are held out, the engines are compared on pictures that taught the network, and its accuracy is the one
    given. The bundle keeps the digests of all pictures, so that it is known later which of them it learned from.

    Args:
        model: a classifier.
        folder: of the pictures.
        split: which of them taught it.
        preprocessing: what the network was trained with.
        export: where the bundle goes.
        out_of_fold: what ``accuracy_report`` says of it by cross-validation; empty where nothing could be judged.
        options: further fields of ``toolkit.export.BundleOptions``.

    Returns:
        The new version's directory, and the network's accuracy: ``"subset"``, ``"test"`` or where there is none
        ``"val"`` or ``"out-of-fold"``, and the figures of ``accuracy_report``; empty where it is unknown.
    """
    from toolkit.export import REFERENCE, BundleOptions, draft_bundle
    from toolkit.metrics import accuracy_report

    name, subset = split.held_out
    is_held_out = len(subset) > 0
    if not is_held_out:
        subset = split.train.picked(evenly(len(split.train), _NUM_COMPARED))
        shown = ("top1", "top5", "n", "standard_error")
        options["out_of_fold"] = {key: value for key, value in (out_of_fold or {}).items() if key in shown}
    options.setdefault("litert", "litert" in export.formats)
    options.setdefault("methods", tuple(method for method in METHODS if method in export.formats))
    options |= {"num_examples": export.num_examples, "force": export.force, "half": export.half}
    chosen = BundleOptions(split.train, subset, **options)
    with draft_bundle(model, export.directory, folder.class_names, preprocessing, chosen) as draft:
        subsets = {"train": split.train, "val": split.val, "test": split.test}
        write_pictures(draft.path, {subset: picture_digests(own.paths) for subset, own in subsets.items()})
        answers = draft.measure()
        labels = np.asarray(subset.labels)
        report = accuracy_report(answers.probabilities[REFERENCE], labels, folder.class_names)
        path = draft.publish(answers)
    if is_held_out:
        return path, {"subset": name} | report
    return path, {"subset": "out-of-fold"} | dict(out_of_fold) if out_of_fold else {}
