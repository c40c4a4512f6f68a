"""Compression of a bundle: its network in a smaller form becomes the bundle's next version."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.bundle import (
    FLOAT_LITERT,
    find_bundle,
    litert_file,
    read_examples,
    read_manifest,
    require_network,
    write_examples,
)
from toolkit.compress import METHODS
from toolkit.data import Split, split_folder
from toolkit.data.feed.split import Subset
from toolkit.errors import UserError, unknown_name
from toolkit.files import write_file
from toolkit.lazy import keras
from toolkit.network import load_network
from toolkit.spec import Preprocessing
from toolkit.workflows.steps import scan

if TYPE_CHECKING:
    from toolkit.compress.job import Progress as TrainingProgress
    from toolkit.export.bundle import BundleDraft
    from toolkit.export.parity import EngineAnswers

#: Methods by name: after training, then those that train on. ``+`` joins what follows on each other.
COMPRESSION_METHODS = (
    *METHODS,
    *("qat", "prune", "cluster", "prune+cluster"),
    *("prune+int8", "cluster+int8", "prune+qat", "cluster+qat", "prune+cluster+qat"),
)
#: Held-out pictures that are reported on.
NUM_REPORTED = 2000


@dataclass(frozen=True)
class CompressionOptions:
    """Settings of the methods that have any, and of the report.

    Attributes:
        epochs: how long to train on, each time.
        learning_rate: at its start.
        sparsity: share of zeros.
        pattern: where zeros may be: ``"any"``, ``"2:4"`` or ``"block"``.
        num_clusters: different values per kernel.
        keep_float: names of layers that int8 leaves in float.
        keep_worst: how many of the layers that int8 hurts most it leaves in float besides.
        progress: told how the training goes.
        page: where to write the report as HTML.
    """

    epochs: int = 3
    learning_rate: float = 1e-4
    sparsity: float = 0.5
    pattern: Any = "any"
    num_clusters: int = 16
    keep_float: tuple[str, ...] = ()
    keep_worst: int = 0
    progress: "TrainingProgress | None" = None
    page: str | Path | None = None


def compress_bundle(
    bundle: str | Path,
    method: str,
    *,
    data: str | Path,
    options: CompressionOptions | None = None,
    skip_bad: bool = False,
    force: bool = False,
) -> dict[str, Any]:
    """Compress a bundle's network and write the next version of the bundle with it.

    Args:
        bundle: the bundle to start from; its ``model.keras`` is what is compressed.
        method: one of ``COMPRESSION_METHODS``.
        data: the pictures it was trained on: the training split calibrates and trains on, the validation split chooses
            among epochs (see ``training_parts``), the held-out split judges.
        options: of the method.
        skip_bad: leave unreadable pictures out instead of refusing the folder.
        force: write it even if too much accuracy is lost.

    Returns:
        ``{"bundle", "method", "bytes", "float_bytes", "top1", "float_top1", "kept_float", "report"}``; the last as
        ``toolkit.compress.compression_report`` gives it.

    Raises:
        UserError: bad input, or more top-1 lost than the budget of a bundle allows.
    """
    from toolkit.compress import range_report, report_page
    from toolkit.export import AccuracyBudget, BundleOptions, draft_bundle

    options = options or CompressionOptions()
    if method not in COMPRESSION_METHODS:
        raise UserError(unknown_name("method", method, list(COMPRESSION_METHODS)))
    version_dir = find_bundle(bundle)
    manifest = read_manifest(version_dir)
    keras_file = require_network(version_dir, manifest)
    split = split_folder(scan(data, skip_bad, manifest.labels))
    model = load_network(keras_file)
    compressed = _compress(model, method, manifest.preprocessing, split, options)
    chosen = BundleOptions(
        evaluation=split.held_out[1],
        methods=(),
        files=compressed.files,
        temperature=manifest.temperature,
        reject_below=manifest.reject_below,
        ground=manifest.ground,
        force=force,
    )
    network, preprocessing = compressed.network, manifest.preprocessing
    with draft_bundle(network, version_dir.parent, manifest.labels, preprocessing, chosen) as draft:
        write_examples(draft.path, read_examples(version_dir))
        answers, report = _measure(draft, model, compressed, method)
        if options.page:
            integer = compressed.files.get("int8") or compressed.files.get("int16x8")
            # On pictures that the ranges were not learned from.
            ranges = integer and range_report(integer, network, split.val, preprocessing=preprocessing)
            write_file(options.page, report_page(report, ranges or ()))
        reference, row = report["rows"]
        if not AccuracyBudget().allows(reference["top1"] - row["top1"], report["n"]) and not force:
            raise UserError(f"{version_dir.parent}: not written: {row['verdict']} (--force writes it)")
        path = draft.publish(answers)
    return {
        "bundle": str(path),
        "method": method,
        "bytes": row["bytes"],
        "float_bytes": (path / FLOAT_LITERT).stat().st_size,
        "top1": row["top1"],
        "float_top1": reference["top1"],
        "kept_float": list(compressed.kept_float),
        "report": report,
    }


@dataclass(frozen=True)
class _Compressed:
    """A network, the bundle's own where no method trained it on, and LiteRT files of it by ``litert_file``'s names.

    ``kept_float`` are the layers that stayed in float in int8.
    """

    network: "keras.Model"
    files: dict[str, bytes] = field(default_factory=dict)
    kept_float: tuple[str, ...] = ()


def _compress(
    model: "keras.Model", method: str, preprocessing: Preprocessing, split: Split, options: CompressionOptions
) -> _Compressed:
    from toolkit.compress import Clustering, Pruning, Retraining, cluster, prune, quantize, quantize_aware_train
    from toolkit.compress.litert import require_integer

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
    last: Any = steps[-1]
    if last in ("prune", "cluster"):
        return _Compressed(network)
    if last not in ("int8", "qat"):
        return _Compressed(
            network, {last: quantize(network, last, preprocessing=preprocessing, calibration=split.train)}
        )
    kept = options.keep_float
    if options.keep_worst:
        from toolkit.compress import float_layers, layer_sensitivity

        ranking = layer_sensitivity(network, split.train, preprocessing=preprocessing)
        kept += float_layers(network, ranking, options.keep_worst)
    if last == "qat":
        preserve: Any = {"qat": "none", "prune+qat": "sparsity", "cluster+qat": "clusters"}.get(method, "both")
        content = quantize_aware_train(network, validation=validation, preserve=preserve, keep_float=kept, **training)
    else:
        content = quantize(network, "int8", preprocessing=preprocessing, calibration=split.train, keep_float=kept)
    return _Compressed(network, {"int8": content}, require_integer(content, network, kept))


def training_parts(split: Split) -> tuple[Subset, Subset]:
    """Divide the pictures into those to train on and those that choose among epochs; none of them is reported on.

    A folder that came with ``train`` and ``val`` only is judged on ``val``, so every fifth training picture chooses.
    """
    from toolkit.compress.examples import picked

    if len(split.test):
        return split.train, split.val
    choosing = range(0, len(split.train), 5)
    kept = sorted(set(range(len(split.train))) - set(choosing))
    return picked(split.train, kept), picked(split.train, choosing)


def _measure(
    draft: "BundleDraft", model: "keras.Model", compressed: _Compressed, method: str
) -> "tuple[EngineAnswers, dict[str, Any]]":
    """Run the new bundle over the held-out pictures once, for the gate and for the report.

    The report is on ``NUM_REPORTED`` of the pictures: the float file of ``model`` and the compressed one, in LiteRT and
    in OpenVINO, which are the bundle's own engines wherever it has them.
    """
    from toolkit.compress.examples import evenly
    from toolkit.compress.report import Form, open_runtimes, report_on
    from toolkit.engines import ENGINES
    from toolkit.engines.convert import to_litert

    with tempfile.TemporaryDirectory(prefix="toolkit-compress-") as directory:
        files = {"float": draft.path / FLOAT_LITERT}
        files[method] = draft.path / next(map(litert_file, compressed.files), FLOAT_LITERT)
        if compressed.network is not model:  # what is in the draft was trained on
            files["float"] = Path(directory) / "float.tflite"
            files["float"].write_bytes(to_litert(model))
        forms: dict[str, Form] = {}
        names: dict[tuple[str, str], str] = {}
        for form, file in files.items():
            # An engine's name begins with its runtime's.
            names_of_file = [name for name in draft.engines if draft.path / ENGINES[name].file == file]
            own = {name.split("-")[0]: name for name in names_of_file}
            opened = {runtime: draft.engines[engine] for runtime, engine in own.items()}
            forms[form] = Form(file.read_bytes(), open_runtimes(file, draft.preprocessing, opened))
            names |= {(form, runtime): own.get(runtime, f"{form} {runtime}") for runtime in forms[form].opened}
        reported = np.array(evenly(len(draft.options.evaluation or ()), NUM_REPORTED))
        answers = draft.measure(
            {engine: forms[form].opened[runtime] for (form, runtime), engine in names.items()},
            dict.fromkeys(names.values(), reported),
        )
        for (form, runtime), engine in names.items():
            forms[form].answers[runtime] = answers.of(engine, reported)
        labels = np.asarray(answers.labels)[reported]
        return answers, report_on(model.name, forms, labels, draft.preprocessing.size)
