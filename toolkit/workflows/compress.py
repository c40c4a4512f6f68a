"""A bundle to its compressed next version."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.bundle import (
    FLOAT_LITERT,
    find_bundle,
    litert_file,
    publish,
    read_manifest,
    require_network,
    staging_dir,
    write_manifest,
)
from toolkit.data import Split, scan_folder, split_folder
from toolkit.data.feed.split import Subset
from toolkit.errors import UserError, unknown_name
from toolkit.files import write_file
from toolkit.lazy import keras
from toolkit.network import load_network
from toolkit.spec import Preprocessing
from toolkit.workflows.steps import Progress

if TYPE_CHECKING:
    from toolkit.compress.job import Progress as TrainingProgress

#: What ``--method`` takes. ``+`` joins what follows on each other.
COMPRESSION_METHODS = (
    *("dynamic", "float16", "int8", "int16x8"),
    *("qat", "prune", "cluster", "prune+cluster"),
    *("prune+int8", "cluster+int8", "prune+qat", "cluster+qat", "prune+cluster+qat"),
)
#: Held-out pictures that are reported on.
NUM_REPORTED = 2000


@dataclass(frozen=True)
class CompressionOptions:
    """Settings of the methods that have any.

    Attributes:
        epochs: how long to train on, each time.
        learning_rate: at its start.
        sparsity: share of zeros.
        pattern: where zeros may be: ``"any"``, ``"2:4"`` or ``"block"``.
        num_clusters: different values per kernel.
        keep_float: names of layers that int8 leaves in float.
        keep_worst: how many of the layers that int8 hurts most it leaves in float besides.
        progress: told how the training goes.
    """

    epochs: int = 3
    learning_rate: float = 1e-4
    sparsity: float = 0.5
    pattern: Any = "any"
    num_clusters: int = 16
    keep_float: tuple[str, ...] = ()
    keep_worst: int = 0
    progress: "TrainingProgress | None" = None


def compress_bundle(
    bundle: str | Path,
    method: str,
    *,
    data: str | Path,
    options: CompressionOptions | None = None,
    page: str | Path | None = None,
    skip_bad: bool = False,
    force: bool = False,
    scan_progress: Progress | None = None,
) -> dict[str, Any]:
    """Compress a bundle's network and write the next version of the bundle with it.

    Args:
        bundle: the bundle to start from; its ``model.keras`` is what is compressed.
        method: one of ``COMPRESSION_METHODS``.
        data: the pictures it was trained on: the training split calibrates and trains on, the validation split chooses
            among epochs (see ``training_parts``), the held-out split judges.
        options: of the method.
        page: where to write the report as HTML.
        skip_bad: leave unreadable pictures out instead of refusing the folder.
        force: write it even if too much accuracy is lost.
        scan_progress: called with (done, total) files.

    Returns:
        ``{"bundle", "method", "bytes", "float_bytes", "top1", "float_top1", "kept_float", "report"}``; the last as
        ``toolkit.compress.compression_report`` gives it.

    Raises:
        UserError: bad input, or more top-1 lost than the budget of a bundle allows.
    """
    from toolkit.compress import compression_report, report_page
    from toolkit.export.parity import AccuracyBudget

    if method not in COMPRESSION_METHODS:
        raise UserError(unknown_name("method", method, list(COMPRESSION_METHODS)))
    version_dir = find_bundle(bundle)
    manifest = read_manifest(version_dir)
    keras_file = require_network(version_dir, manifest)
    folder = scan_folder(data, class_names=manifest.labels, progress=scan_progress)
    if not skip_bad:
        folder.require_clean()
    split = split_folder(folder)
    model = load_network(keras_file)
    made = _compress(model, method, manifest.preprocessing, split, options or CompressionOptions())
    held_out = _spread(split.held_out[1], NUM_REPORTED)
    report = compression_report(
        model, {method: made.content}, preprocessing=manifest.preprocessing, evaluation=held_out
    )
    if page:
        write_file(page, report_page(report))
    reference, row = report["rows"]
    if not AccuracyBudget().allows(reference["top1"] - row["top1"], report["n"]) and not force:
        raise UserError(f"{version_dir.parent}: not written: {row['verdict']} (--force writes it)")
    path = _export(made, method, version_dir, split, force)
    return {
        "bundle": str(path),
        "method": method,
        "bytes": row["bytes"],
        "float_bytes": (path / FLOAT_LITERT).stat().st_size,
        "top1": row["top1"],
        "float_top1": reference["top1"],
        "kept_float": list(made.kept_float),
        "report": report,
    }


@dataclass(frozen=True)
class _Made:
    """A compressed network, its LiteRT file, and the layers that stayed in float in an int8 file."""

    network: "keras.Model"
    content: bytes
    kept_float: tuple[str, ...] = ()


def _compress(
    model: "keras.Model", method: str, preprocessing: Preprocessing, split: Split, options: CompressionOptions
) -> _Made:
    from toolkit.compress import Clustering, Pruning, Retraining, cluster, prune, quantize, quantize_aware_train
    from toolkit.compress.litert import require_integer
    from toolkit.engines.convert import to_litert

    steps = method.split("+")
    retraining = Retraining(options.epochs, options.learning_rate, progress=options.progress)
    train, validation = training_parts(split)
    training: dict[str, Any] = {"preprocessing": preprocessing, "train": train, "retraining": retraining}
    network = model
    if "prune" in steps:
        network = prune(network, Pruning(options.sparsity, options.pattern), **training)
    if "cluster" in steps:
        clustering = Clustering(options.num_clusters, preserve_sparsity="prune" in steps)
        network = cluster(network, clustering, **training)
    if steps[-1] in ("prune", "cluster"):
        return _Made(network, to_litert(network))
    if steps[-1] not in ("int8", "qat"):
        return _Made(
            network,
            quantize(network, steps[-1], preprocessing=preprocessing, calibration=split.train),  # type: ignore[arg-type]
        )
    kept = (*options.keep_float, *_worst(network, preprocessing, split, options.keep_worst))
    if steps[-1] == "qat":
        preserve = {"qat": "none", "prune+qat": "sparsity", "cluster+qat": "clusters"}.get(method, "both")
        content = quantize_aware_train(
            network,
            validation=validation,
            preserve=preserve,  # type: ignore[arg-type]
            keep_float=kept,
            **training,
        )
    else:
        content = quantize(network, "int8", preprocessing=preprocessing, calibration=split.train, keep_float=kept)
    return _Made(network, content, require_integer(content, network, kept))


def training_parts(split: Split) -> tuple[Subset, Subset]:
    """The pictures to train on, and those that choose among epochs; neither is what is reported on.

    A folder that came with ``train`` and ``val`` only is judged on ``val``, so every fifth training picture chooses.
    """
    if len(split.test):
        return split.train, split.val
    choosing = range(0, len(split.train), 5)
    kept = sorted(set(range(len(split.train))) - set(choosing))
    return _picked(split.train, kept), _picked(split.train, choosing)


def _worst(model: "keras.Model", preprocessing: Preprocessing, split: Split, count: int) -> tuple[str, ...]:
    from toolkit.compress import float_layers, layer_sensitivity

    if not count:
        return ()
    return float_layers(model, layer_sensitivity(model, split.train, preprocessing=preprocessing), count)


def _export(made: _Made, method: str, version_dir: Path, split: Split, force: bool) -> Path:
    """Write the bundle beside its place, put the file in, and publish it in one step."""
    from toolkit.export import export_bundle

    manifest = read_manifest(version_dir)
    directory, evaluation = version_dir.parent, split.held_out[1]
    last = method.split("+")[-1]
    kind = {"qat": "int8", "prune": "", "cluster": ""}.get(last, last)
    staging = staging_dir(directory)
    try:
        path = export_bundle(
            made.network,
            staging / directory.name,
            labels=manifest.labels,
            preprocessing=manifest.preprocessing,
            evaluation=evaluation,
            methods=(),
            temperature=manifest.temperature,
            reject_below=manifest.reject_below,
            force=force,
        )
        if kind:
            _add_file(path, kind, made, evaluation, force)
        return publish(path, directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _add_file(path: Path, kind: str, made: _Made, evaluation: Subset, force: bool) -> None:
    """Put a LiteRT file into an unpublished bundle, through the gate that every engine passes."""
    from toolkit.engines import ENGINES, available_engines, open_engine
    from toolkit.engines.runtimes import KerasEngine
    from toolkit.engines.timing import latency, recommend
    from toolkit.export.parity import AccuracyBudget, compare_engines

    (path / litert_file(kind)).write_bytes(made.content)
    manifest = read_manifest(path)
    preprocessing = manifest.preprocessing
    engines = {name: open_engine(name, path, preprocessing) for name in available_engines(path)}
    added = {name: engine for name, engine in engines.items() if ENGINES[name][1] == litert_file(kind)}
    reference = KerasEngine(made.network, preprocessing)
    comparison = compare_engines(reference, added, preprocessing, evaluation, AccuracyBudget())
    objections = tuple(comparison.objections.values())
    if objections and not force:
        raise UserError(f"not written: {'; '.join(objections)} (--force writes it)")
    pixels = np.zeros((1, *preprocessing.size, 3), np.uint8)
    trusted = [name for name in engines if name not in added or comparison.trusts(name)]
    write_manifest(
        path,
        replace(
            manifest,
            metrics=manifest.metrics | comparison.scores,
            parity=manifest.parity | comparison.parity,
            recommended_engine=recommend({name: latency(engines[name], pixels)[0] for name in trusted}),
            forced=manifest.forced + objections,
        ),
    )


def _spread(subset: Subset, count: int) -> Subset:
    """At most ``count`` pictures, evenly."""
    count = min(count, len(subset))
    return _picked(subset, [index * len(subset) // count for index in range(count)])


def _picked(subset: Subset, indices: Iterable[int]) -> Subset:
    indices = list(indices)
    return Subset(tuple(subset.paths[i] for i in indices), tuple(subset.labels[i] for i in indices))
