"""Calls that make bundles of bundles, of smaller networks, and of networks that others trained."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.api.calls import call
from toolkit.api.options import source_of
from toolkit.api.results import FORMATS, Compressed, Result, accuracy_in_words, place_beside

if TYPE_CHECKING:
    from toolkit.spec import Preprocessing


class Joined(Result):
    """Bundles joined in one, see ``toolkit.ensemble``."""

    @property
    def place(self) -> Path | None:
        """The bundle's folder for what is beside the SavedModel."""
        return place_beside(self)

    def _lines(self) -> list[str]:
        return [*([accuracy_in_words(self["metrics"])] if "top1" in self["metrics"] else []), self["bundle"]]


@call
def ensemble(
    bundles: Sequence[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str],
    crops: int = 1,
    scales: Sequence[int] = (),
    data: str | os.PathLike[str] | None = None,
    examples: int = 0,
    force: bool = False,
    skip_bad: bool = False,
    split_folders: str | Mapping[str, str] | None = None,
    join_classes: bool = False,
) -> Joined:
    """Export bundles as one that averages them, over several views if asked.

    Args:
        bundles: with the same labels; one will do to export its views.
        out: the bundle, ``saved_models/NAME``.
        crops: of each picture, to average.
        scales: shorter sides in pixels, each with all of the crops.
        data: the pictures they were trained on: its accuracy and its reject threshold are measured on those that none
            of them learned from; without such it has neither.
        examples: pictures, held-out ones where there are some, to ship in the bundle for the demo.
        force: write the bundle even if its engines disagree.
        skip_bad: leave unreadable pictures out instead of refusing the folder.
        split_folders: see ``toolkit.finetune``.
        join_classes: see ``toolkit.finetune``.

    Returns:
        ``{"bundle", "members", "crops", "scales", "metrics", "parity", "reject_below"}``.

    Raises:
        UserError: labels differ, or the bundle cannot be written.
    """
    from toolkit.workflows import ExportOptions
    from toolkit.workflows.ensemble import ensemble_bundles

    return Joined(
        ensemble_bundles(
            bundles,
            export=ExportOptions(Path(out), examples, force),
            crops=crops,
            scales=scales,
            data=None if data is None else source_of(data, split_folders, join_classes),
            skip_bad=skip_bad,
        )
    )


@call
def compress(
    bundle: str | os.PathLike[str],
    *,
    method: str,
    data: str | os.PathLike[str],
    epochs: int = 3,
    learning_rate: float = 1e-5,
    sparsity: float = 0.5,
    pattern: str = "any",
    clusters: int = 16,
    keep_float: Sequence[str] = (),
    keep_worst: int = 0,
    report: str | os.PathLike[str] | None = None,
    force: bool = False,
    skip_bad: bool = False,
    split_folders: str | Mapping[str, str] | None = None,
    join_classes: bool = False,
) -> Compressed:
    """Compress a bundle's network and write the bundle's next version.

    Args:
        bundle: ``saved_models/NAME``, or one version of it.
        method: ``"int8"``, ``"float16"``, ``"dynamic"``, ``"int16x8"``, ``"qat"``, ``"prune"``, ``"cluster"``, or
            several joined, such as ``"prune+int8"``.
        data: the pictures it was trained on.
        epochs: of more training, for the methods that train on.
        learning_rate: at its start.
        sparsity: share of zeros.
        pattern: where zeros may be: ``"any"``, ``"2:4"`` or ``"block"``.
        clusters: values per kernel.
        keep_float: layers to leave in float under int8 and qat.
        keep_worst: leave so many layers in float that int8 hurts most.
        report: also write the report to this HTML file.
        force: write it even if too much accuracy is lost.
        skip_bad: leave unreadable pictures out instead of refusing the folder.
        split_folders: see ``toolkit.finetune``.
        join_classes: see ``toolkit.finetune``.

    Returns:
        ``result["bundle"]``, ``result["bytes"]``, ``result["top1"]`` and more, see
        ``toolkit.workflows.compress_bundle``; ``result.report()``.

    Raises:
        UserError: bad input, or more accuracy lost than the budget of a bundle allows.
    """
    from toolkit.workflows.compress import CompressionOptions, compress_bundle

    options = CompressionOptions(
        epochs=epochs,
        learning_rate=learning_rate,
        sparsity=sparsity,
        pattern=pattern,
        num_clusters=clusters,
        keep_float=tuple(keep_float),
        keep_worst=keep_worst,
        page=None if report is None else Path(report),
    )
    source = source_of(data, split_folders, join_classes)
    place = Path(bundle)
    return Compressed(compress_bundle(place, method, data=source, options=options, skip_bad=skip_bad, force=force))


class Imported(Result):
    """Somebody else's network as a bundle, see ``toolkit.import_model``."""

    @property
    def place(self) -> Path | None:
        """The bundle's folder for what is beside the SavedModel."""
        return place_beside(self)

    def _lines(self) -> list[str]:
        return [f"{self['model']}: {len(self['labels'])} classes", self["bundle"]]


@call
def import_model(
    file: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    labels: str | os.PathLike[str] | Sequence[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    preprocessing: "str | Preprocessing | None" = None,
    data: str | os.PathLike[str] | None = None,
    examples: int = 0,
    force: bool = False,
    formats: Sequence[str] = FORMATS,
    half: bool = False,
    skip_bad: bool = False,
    split_folders: str | Mapping[str, str] | None = None,
    join_classes: bool = False,
) -> Imported:
    """Make a bundle of a classifier that somebody else trained, with Keras, torch or another framework.

    Args:
        file: a ``.keras`` or ``.h5`` file of a whole model, an ``.onnx`` or ``.tflite`` file, or a SavedModel's folder,
            such as Teachable Machine's. It may answer logits, probabilities, or one sigmoid. What is not Keras' is
            built anew in Keras and compared with the file. Or a network, see ``toolkit.list_models``, with ``weights``.
        out: the bundle, ``saved_models/NAME``.
        labels: class names in the order of the outputs: a file, one a line, numbered or not; or a list. By default
            those that the file brings: ONNX files of this package and of Ultralytics, LiteRT files with metadata, or a
            ``labels.txt`` beside it, as Teachable Machine writes.
        weights: of a network: a tag, see ``toolkit.model_info(name).weights``, or a file.
        preprocessing: what it was trained with, see ``toolkit.finetune``; by default as its layers tell.
        data: pictures of its classes: engines are compared on some, the int8 file is calibrated on others. Without them
            engines are compared on noise, and there is no int8 file.
        examples: pictures to ship in the bundle for the demo.
        force: write the bundle even if its engines disagree.
        formats: files of the bundle, see ``toolkit.finetune``.
        half: round the weights to half precision, see ``toolkit.finetune``.
        skip_bad: leave unreadable pictures out instead of refusing the folder.
        split_folders: see ``toolkit.finetune``.
        join_classes: see ``toolkit.finetune``.

    Returns:
        ``{"bundle", "model", "labels", "parity"}``: by engine, the largest difference in probability from Keras.

    Raises:
        UserError: no such network, labels that do not fit it, or nothing tells its preprocessing.
    """
    from toolkit.workflows.steps import ExportOptions, import_network

    chosen = ExportOptions(Path(out), examples, force, tuple(formats), half)
    return Imported(
        import_network(
            Path(file),
            chosen,
            labels=labels,
            weights=weights,
            preprocessing=preprocessing,
            data=None if data is None else source_of(data, split_folders, join_classes),
            skip_bad=skip_bad,
        )
    )
