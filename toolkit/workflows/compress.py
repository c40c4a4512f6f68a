"""Compression of a bundle: its network in a smaller form becomes the bundle's next version."""

import functools
import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolkit.bundle import (
    EXAMPLE_LABELS,
    EXAMPLES,
    FLOAT_LITERT,
    KERAS_FILE,
    OLDER_PICTURES,
    PICTURES,
    SAVED_MODEL,
    Manifest,
    Pictures,
    find_bundle,
    litert_file,
    picture_digests,
    read_manifest,
    read_pictures,
    require_network,
    verify_files,
)
from toolkit.compress import METHODS, Clustering, Pruning, Retraining
from toolkit.compress.changes import Changes, recipe_digest, with_kernel
from toolkit.compress.job import require_optimization
from toolkit.compress.litert import require_integer, require_layers
from toolkit.data import ImageFolder, Split, split_folder
from toolkit.data.feed.split import Subset, subset_of
from toolkit.engines import ENGINES
from toolkit.errors import UserError, unknown_name
from toolkit.files import require_place, require_writable, scratch_folder, write_file
from toolkit.lazy import keras
from toolkit.network import load_network
from toolkit.progress import step
from toolkit.workflows.steps import scan

if TYPE_CHECKING:
    from toolkit.compress.retrain import TrainingFacts
    from toolkit.export.bundle import BundleDraft
    from toolkit.export.parity import EngineAnswers
    from toolkit.transfer.heads.novelty import Novelty

log = logging.getLogger("toolkit")

#: Methods by name: after training, then those that train on. ``+`` joins what follows on each other.
COMPRESSION_METHODS = (
    *METHODS,
    *("qat", "prune", "cluster", "prune+cluster"),
    *("prune+int8", "cluster+int8", "prune+qat", "cluster+qat", "prune+cluster+qat"),
)
#: Held-out pictures that are reported on.
NUM_REPORTED = 2000
#: Files that a version takes over from the one it was made of, where that has them: pictures for the demo with their
#: true labels, and which pictures taught the network.
_CARRIED = (EXAMPLES, EXAMPLE_LABELS, PICTURES, OLDER_PICTURES)
#: Beginnings of the places of a network's forms in float.
_FLOAT_FORMS = (*SAVED_MODEL, KERAS_FILE, FLOAT_LITERT)


@dataclass(frozen=True)
class CompressionOptions:
    """Settings of the methods that have any, and of the report.

    Attributes:
        epochs: how long to train on, each time.
        learning_rate: at its start. Ten times the default undoes what a network learned elsewhere where pictures are
            few: a GoogLeNet of 244 pictures lost six points by pruning with it, and four without.
        sparsity: share of zeros.
        pattern: where zeros may be: ``"any"``, ``"2:4"`` or ``"block"``.
        num_clusters: different values per kernel.
        keep_float: names of layers that int8 leaves in float.
        keep_worst: how many of the layers that int8 hurts most it leaves in float besides.
        page: where to write the report as HTML.
    """

    epochs: int = 3
    learning_rate: float = 1e-5
    sparsity: float = 0.5
    pattern: Any = "any"
    num_clusters: int = 16
    keep_float: tuple[str, ...] = ()
    keep_worst: int = 0
    page: str | Path | None = None

    def __post_init__(self) -> None:
        # Making them refuses what they cannot do: now, and not after the pictures were read.
        _ = (self.retraining, self.pruning, self.clustering)
        if self.epochs < 1:
            raise UserError(f"epochs must be at least 1, got {self.epochs}")
        if self.keep_worst < 0:
            raise UserError(f"keep_worst is a number of layers, got {self.keep_worst}")

    @property
    def retraining(self) -> Retraining:
        return Retraining(self.epochs, self.learning_rate)

    @property
    def pruning(self) -> Pruning:
        return Pruning(self.sparsity, self.pattern)

    @property
    def clustering(self) -> Clustering:
        return Clustering(self.num_clusters)


def compress_bundle(
    bundle: str | Path,
    method: str,
    *,
    data: str | os.PathLike[str],
    options: CompressionOptions | None = None,
    skip_bad: bool = False,
    force: bool = False,
) -> dict[str, Any]:
    """Compress a bundle's network and write the next version of the bundle with it.

    Where the bundle has the very file already, nothing is written, and with no report to make that is said at once.

    Args:
        bundle: the bundle to start from; its ``model.keras`` is what is compressed.
        method: one of ``COMPRESSION_METHODS``, in any case.
        data: the pictures it was trained on: those that taught it calibrate and train on, validation pictures or a
            fifth of those choose among epochs, and the others judge.
        options: of the method.
        skip_bad: leave unreadable pictures out instead of refusing the folder.
        force: write it even if too much accuracy is lost.

    Returns:
        ``{"bundle", "method", "written", "bytes", "float_bytes"}``, the last None where nothing was done to a bundle
        without a float LiteRT file; and unless nothing was done,
        ``{"top1", "float_top1", "kept_float", "changes", "report"}``; the last two as ``toolkit.compress.Changes`` and
        ``toolkit.compress.compression_report`` have them.

    Raises:
        UserError: bad input, more top-1 lost than the budget of a bundle allows, or the network was not changed as
            was asked.
    """
    options = options or CompressionOptions()
    method = method.lower()
    if method not in COMPRESSION_METHODS:
        raise UserError(unknown_name("method", method, list(COMPRESSION_METHODS)))
    if method not in METHODS:  # before all pictures are read
        require_optimization()
    version_dir = find_bundle(bundle)
    manifest = read_manifest(version_dir)
    keras_file = require_network(version_dir, manifest)
    require_writable(version_dir.parent)
    if options.page:
        require_place(options.page)
    pictures = _divide(scan(data, skip_bad, manifest.labels), read_pictures(version_dir, manifest))
    recipe = _recipe(manifest, method, pictures, options)
    made = _made(version_dir, manifest, method, recipe)
    if made and not options.page:
        return _unchanged(version_dir, method)
    with step("loading the network"):
        model = load_network(keras_file)
    source = _Source(version_dir, manifest, model)
    if made:
        answering = source.answering(model)
        kept = require_integer(made, answering, [layer.name for layer in model.layers]) if method == "int8" else ()
        compressed = _Compressed(model, {method: made}, kept)
    else:
        compressed = _compress(source, method, pictures, options)
    if _has_already(manifest, compressed, model) and not options.page:
        return _unchanged(version_dir, method)
    return _write(source, compressed, pictures, _Request(method, options, recipe, force))


@dataclass(frozen=True)
class _Pictures:
    """The pictures, divided as the bundle's were.

    Attributes:
        calibration: those that taught the network.
        training: those that train it on.
        choosing: those that choose among epochs.
        judging: those that are reported on.
        words: says what ``judging`` is.
    """

    calibration: Subset
    training: Subset
    choosing: Subset
    judging: Subset
    words: str


def _divide(folder: ImageFolder, known: Pictures | None) -> _Pictures:
    """Report on what the bundle did not learn from; where there is nothing, on what does not train it on."""
    if known is not None:
        digests = picture_digests([folder.root / path for path in folder.paths])
        taught, chose = (np.isin(digests, list(known[name])) for name in ("train", "val"))
        others = ~taught & ~chose
        unseen = others if others.any() else chose & ~taught
        if taught.any() and unseen.any():
            training, own_val = subset_of(folder, np.flatnonzero(taught)), np.flatnonzero(chose & ~taught)
            parts = (
                (training, subset_of(folder, own_val)) if others.any() and len(own_val) else _fifth_chooses(training)
            )
            judging = subset_of(folder, np.flatnonzero(unseen))
            return _Pictures(training, *parts, judging, f"{len(judging):,} pictures that did not teach the bundle")
    split = split_folder(folder)
    judging = split.held_out[1]
    if known is None or not taught.any():
        words = f"{len(judging):,} held-out pictures; it is not known which pictures taught the bundle"
        return _Pictures(split.train, *training_parts(split), judging, words)
    words = f"{len(judging):,} pictures that taught the bundle, like all others: look at the change, not at the level"
    return _Pictures(subset_of(folder, np.flatnonzero(taught)), *training_parts(split), judging, words)


@dataclass(frozen=True)
class _Source:
    """The version that is compressed."""

    path: Path
    manifest: Manifest
    model: "keras.Model"

    @functools.cached_property
    def novelty(self) -> "Novelty | None":
        """Fitted on the network's features, to be answered beside its logits."""
        from toolkit.transfer.heads.novelty import Novelty

        return Novelty.of_bundle(self.path, self.manifest)

    def answering(self, network: "keras.Model") -> "keras.Model":
        """Put the novelty on the source's network, or on what a method made of it."""
        from toolkit.transfer.stages import with_novelty

        return network if self.novelty is None else with_novelty(network, self.novelty)

    @functools.cached_property
    def float_file(self) -> bytes:
        """The network's float LiteRT file, made where the bundle has none."""
        if FLOAT_LITERT not in self.manifest.files:
            from toolkit.engines.convert import to_litert

            return to_litert(self.answering(self.model))
        verify_files(self.path, self.manifest, (FLOAT_LITERT,))
        return (self.path / FLOAT_LITERT).read_bytes()


@dataclass(frozen=True)
class _Request:
    """A request, and the digest of all that its file follows from."""

    method: str
    options: CompressionOptions
    recipe: str | None
    force: bool

    @property
    def steps(self) -> list[str]:
        return self.method.split("+")


@dataclass(frozen=True)
class _Compressed:
    """A network, the bundle's own where no method trained it on, and LiteRT files of it by ``litert_file``'s names.

    ``kept_float`` are the layers that stayed in float in int8; ``training`` is what quantization-aware training did.
    """

    network: "keras.Model"
    files: dict[str, bytes] = field(default_factory=dict)
    kept_float: tuple[str, ...] = ()
    training: "TrainingFacts | None" = None


def _recipe(manifest: Manifest, method: str, pictures: _Pictures, options: CompressionOptions) -> str | None:
    """Digest what a file made after training follows from; None for methods that train on."""
    if method not in METHODS:
        return None
    kept = [*options.keep_float, *([f"the worst {options.keep_worst}"] if options.keep_worst else [])]
    return recipe_digest(manifest.weights_digest, method, manifest.preprocessing, pictures.calibration, keep_float=kept)


def _made(version_dir: Path, manifest: Manifest, method: str, recipe: str | None) -> bytes | None:
    """Read the file that the method would make, where the bundle has it, whole."""
    file = version_dir / litert_file(method)
    if recipe is None or manifest.recipes.get(method) != recipe or not file.is_file():
        return None
    content = file.read_bytes()
    return content if hashlib.sha256(content).hexdigest() == manifest.files.get(litert_file(method)) else None


def _unchanged(version_dir: Path, method: str) -> dict[str, Any]:
    log.info("%s has this very %s file already: nothing was written", version_dir, method)
    float_file = version_dir / FLOAT_LITERT
    return {
        "bundle": str(version_dir),
        "method": method,
        "written": False,
        "bytes": (version_dir / litert_file(method)).stat().st_size,
        "float_bytes": float_file.stat().st_size if float_file.is_file() else None,
    }


def _has_already(manifest: Manifest, compressed: _Compressed, model: "keras.Model") -> bool:
    """Tell whether a version of the compressed network would hold what the bundle holds."""
    digests = {litert_file(kind): hashlib.sha256(content).hexdigest() for kind, content in compressed.files.items()}
    return bool(digests) and compressed.network is model and digests.items() <= manifest.files.items()


def _write(source: _Source, compressed: _Compressed, pictures: _Pictures, request: _Request) -> dict[str, Any]:
    """Draft the next version, measure it, and publish it if it is what was asked for, and new."""
    from toolkit.compress import range_report, report_page
    from toolkit.export import AccuracyBudget, BundleOptions, draft_bundle

    manifest, network, options = source.manifest, compressed.network, request.options
    chosen = BundleOptions(
        evaluation=pictures.judging,
        methods=(),
        files=compressed.files,
        recipes={request.method: request.recipe} if request.recipe else {},
        copied=_carried(source, network),
        temperature=manifest.temperature,
        reject_below=manifest.reject_below,
        novelty=source.novelty,
        ground=manifest.ground,
        licence=manifest.licence,
        force=request.force,
    )
    name = source.path.parent
    with draft_bundle(network, name, manifest.labels, manifest.preprocessing, chosen) as draft:
        changes = _changes(source, compressed, draft.path, request)
        with scratch_folder("toolkit-compress-") as spare:
            answers, report = _measure(draft, source, compressed, request.method, spare)
        reference, row = report["rows"]
        report["pictures"] = pictures.words
        row["changes"] = str(changes)
        row["verdict"] = _with_engine(row, compressed, name)
        if options.page:
            integer = compressed.files.get("int8") or compressed.files.get("int16x8")
            # On pictures that the ranges were not learned from.
            ranges = integer and range_report(integer, network, pictures.judging, preprocessing=manifest.preprocessing)
            write_file(options.page, report_page(report, ranges or ()))
        lost = reference["top1"] - row["top1"]
        if not AccuracyBudget().allows(lost, report["n"]) and not request.force:
            raise UserError(f"{name}: not written: {row['verdict']} (--force writes it)")
        found = {"top1": row["top1"], "float_top1": reference["top1"], "kept_float": list(compressed.kept_float)}
        found |= {"changes": asdict(changes), "report": report}
        if _has_already(manifest, compressed, source.model):
            return _unchanged(source.path, request.method) | found
        path = draft.publish(answers)
    sizes = {"bytes": row["bytes"], "float_bytes": (path / FLOAT_LITERT).stat().st_size}
    return {"bundle": str(path), "method": request.method, "written": True, **sizes, **found}


def _carried(source: _Source, network: "keras.Model") -> dict[str, Path]:
    """Find the files that a version takes over from the source, by their place, and check them.

    Its float forms are among them where the network is the source's own, and these very packages wrote them.
    """
    from toolkit.export.bundle import package_versions

    prefixes: tuple[str, ...] = _CARRIED
    if network is source.model and source.manifest.versions == package_versions():
        prefixes += _FLOAT_FORMS
    verify_files(source.path, source.manifest, prefixes)
    return {place: source.path / place for place in source.manifest.files if place.startswith(prefixes)}


def _with_engine(row: Mapping[str, Any], compressed: _Compressed, bundle: Path) -> str:
    """Say behind a verdict for an integer file how it comes to be used: engines that are not asked answer in float."""
    kind = next(iter(compressed.files), "")
    engine = f"{row['fastest']}-{kind}"
    if engine not in ENGINES or "use it" not in row["verdict"]:
        return row["verdict"]
    return (
        f"{row['verdict']} Other commands take it with --engine {engine}, or without a word after "
        f"`toolkit bundles recommend {bundle} {engine}`."
    )


def _changes(source: _Source, compressed: _Compressed, draft: Path, request: _Request) -> Changes:
    """Measure on the draft's files what the method changed.

    Raises:
        UserError: that is not what was asked.
    """
    from toolkit.compress import changes
    from toolkit.compress.retrain import kernels_to_change

    model, steps, options = source.model, request.steps, request.options
    file = draft / next(map(litert_file, compressed.files), FLOAT_LITERT)
    kernels = changes.kernels_in(file.read_bytes(), changes.with_kernel(model))
    found = Changes(changes.share_of_zeros(kernels.values()))
    if "prune" in steps:
        asked = kernels_to_change(model, options.pruning)
        changes.require_zeros({name: kernels[name] for name in asked if name in kernels}, options.sparsity)
    written = compressed.network
    if steps[-1] in ("prune", "cluster"):
        written = load_network(draft / KERAS_FILE)
    if "cluster" in steps:
        asked = kernels_to_change(model, options.clustering)
        by_channel = steps[-1] != "cluster"
        judged = {name: kernels[name] for name in asked if name in kernels}
        judged = judged if by_channel else changes.kernels_of(written, asked)
        changes.require_values(judged, options.num_clusters, by_channel=by_channel)
        found = replace(found, values=changes.most_values(judged, by_channel=by_channel))
    if compressed.network is model and compressed.training is None:
        return found
    parameters = changes.num_parameters(model)
    if compressed.training is None:
        return replace(found, parameters=parameters, trained=changes.moved_parameters(written, model))
    training = compressed.training
    changes.require_trained(training, parameters)
    return replace(found, parameters=parameters, trained=training.trained, kept_epoch=training.kept_epoch)


def _compress(source: _Source, method: str, pictures: _Pictures, options: CompressionOptions) -> _Compressed:
    from toolkit.compress import cluster, prune, quantize
    from toolkit.compress.retrain import quantized_training

    steps = method.split("+")
    model, preprocessing = source.model, source.manifest.preprocessing
    require_layers(model, options.keep_float)
    train, validation = pictures.training, pictures.choosing
    training: dict[str, Any] = {"preprocessing": preprocessing, "train": train, "retraining": options.retraining}
    network = model
    if "prune" in steps:
        network = prune(network, options.pruning, **training)
    if "cluster" in steps:
        network = cluster(network, replace(options.clustering, preserve_sparsity="prune" in steps), **training)
    last: Any = steps[-1]
    if last in ("prune", "cluster"):
        return _Compressed(network)
    calibration: dict[str, Any] = {"preprocessing": preprocessing, "calibration": pictures.calibration}
    if network is model and last in ("int8", "int16x8"):
        calibration["float_file"] = source.float_file
    if last not in ("int8", "qat"):
        with step(f"quantizing by {last}"):
            content = quantize(source.answering(network), last, **calibration)
        return _Compressed(network, {last: content})
    kept = options.keep_float
    if options.keep_worst:
        from toolkit.compress import float_layers, layer_sensitivity

        ranking = layer_sensitivity(network, pictures.calibration, preprocessing=preprocessing)
        kept += float_layers(network, ranking, options.keep_worst)
    facts = None
    if last == "qat":
        if set(validation.paths) <= set(pictures.calibration.paths):
            log.info("training pictures choose the epoch: val_accuracy is of pictures that the network knows")
        preserve: Any = {"qat": "none", "prune+qat": "sparsity", "cluster+qat": "clusters"}.get(method, "both")
        content, facts = quantized_training(
            source.answering(network), validation=validation, preserve=preserve, keep_float=kept, **training
        )
    else:
        with step("quantizing to int8"):
            content = quantize(source.answering(network), "int8", keep_float=kept, **calibration)
    kept_float = require_integer(content, source.answering(network), kept)
    return _Compressed(network, {"int8": content}, kept_float, facts)


def training_parts(split: Split) -> tuple[Subset, Subset]:
    """Divide the pictures into those to train on and those that choose among epochs; none of them is reported on.

    A folder that came with ``train`` and ``val`` only is judged on ``val``, so every fifth training picture chooses.
    """
    return (split.train, split.val) if len(split.test) else _fifth_chooses(split.train)


def _fifth_chooses(training: Subset) -> tuple[Subset, Subset]:
    choosing = range(0, len(training), 5)
    kept = sorted(set(range(len(training))) - set(choosing))
    return training.picked(kept), training.picked(choosing)


def _measure(
    draft: "BundleDraft", source: _Source, compressed: _Compressed, method: str, spare: Path
) -> "tuple[EngineAnswers, dict[str, Any]]":
    """Run the new bundle over the held-out pictures once, for the gate and for the report.

    The report is on ``NUM_REPORTED`` of the pictures: the float file of the source and the compressed one, in LiteRT
    and in OpenVINO, which are the bundle's own engines wherever it has them.
    """
    from toolkit.compress.examples import evenly
    from toolkit.compress.report import Form, open_runtimes, report_on
    from toolkit.export.parity import NUM_PARITY

    files = {
        "float": draft.path / FLOAT_LITERT,
        method: draft.path / next(map(litert_file, compressed.files), FLOAT_LITERT),
    }
    if compressed.network is not source.model:  # the draft's was trained on
        files["float"] = spare / Path(FLOAT_LITERT).name
        files["float"].write_bytes(source.float_file)
    forms: dict[str, Form] = {}
    names: dict[tuple[str, str], str] = {}
    for form, file in files.items():
        # An engine's name begins with its runtime's; bfloat16 says nothing of a file.
        rows = [(name, ENGINES[name]) for name in draft.engines]
        names_of_file = [name for name, row in rows if draft.path / row.file == file and not row.bfloat16]
        own = {name.split("-")[0]: name for name in names_of_file}
        opened = {runtime: draft.engines[engine] for runtime, engine in own.items()}
        forms[form] = Form(file.read_bytes(), open_runtimes(file, draft.preprocessing, opened))
        names |= {(form, runtime): own.get(runtime, f"{form} {runtime}") for runtime in forms[form].opened}
    total = len(draft.options.evaluation or ())
    reported = np.array(evenly(total, NUM_REPORTED))
    # Enough to tell whether another runtime answers as LiteRT does; the gate shows float engines as many.
    compared = np.array(evenly(len(reported), NUM_PARITY))
    seen = {(form, runtime): np.arange(len(reported)) if runtime == "litert" else compared for form, runtime in names}
    answers = draft.measure(
        {engine: forms[form].opened[runtime] for (form, runtime), engine in names.items()},
        {engine: reported[seen[key]] for key, engine in names.items()},
    )
    for (form, runtime), engine in names.items():
        forms[form].seen[runtime] = seen[form, runtime]
        forms[form].answers[runtime] = answers.of(engine, reported[seen[form, runtime]])
    labels = np.asarray(answers.labels)[reported]
    layers = with_kernel(source.model)
    return answers, report_on(source.model.name, forms, labels, layers=layers, size=draft.preprocessing.size)
