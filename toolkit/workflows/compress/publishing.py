"""The next version drafted, measured, and published where it is what was asked for."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
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
    litert_file,
    verify_files,
)
from toolkit.compress.changes import Changes, with_kernel
from toolkit.engines import ENGINES
from toolkit.errors import UserError
from toolkit.files import scratch_folder, write_file
from toolkit.lazy import keras
from toolkit.network import load_network
from toolkit.workflows.compress.pictures import DividedPictures
from toolkit.workflows.compress.source import Compressed, Request, Source

if TYPE_CHECKING:
    from toolkit.export.bundle import BundleDraft
    from toolkit.export.parity import EngineAnswers

log = logging.getLogger("toolkit")

#: Held-out pictures that are reported on.
NUM_REPORTED = 2000
#: Files that a version takes over from the one it was made of, where that has them: pictures for the demo with their
#: true labels, and which pictures taught the network.
_CARRIED = (EXAMPLES, EXAMPLE_LABELS, PICTURES, OLDER_PICTURES)
#: Beginnings of the places of a network's forms in float.
_FLOAT_FORMS = (*SAVED_MODEL, KERAS_FILE, FLOAT_LITERT)


def write(source: Source, compressed: Compressed, pictures: DividedPictures, request: Request) -> dict[str, Any]:
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
        **_accuracy(source, network, pictures),
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
        if has_already(manifest, compressed, source.model):
            return unchanged(source.path, request.method) | found
        path = draft.publish(answers)
    sizes = {"bytes": row["bytes"], "float_bytes": (path / FLOAT_LITERT).stat().st_size}
    return {"bundle": str(path), "method": request.method, "written": True, **sizes, **found}


def _accuracy(source: Source, network: "keras.Model", pictures: DividedPictures) -> dict[str, Any]:
    """Say as ``BundleOptions`` how good the network is known to be, where the pictures that judge may have taught it.

    One that was trained on is another network than the source's: of that nothing is known.
    """
    if pictures.unseen:
        return {}
    if network is not source.model:
        return {"out_of_fold": {}}
    metrics = source.manifest.metrics
    known = {key: metrics[key] for key in ("top1", "top5", "n", "standard_error") if key in metrics}
    return {"out_of_fold": known, "rejection": source.manifest.rejection}


def unchanged(version_dir: Path, method: str) -> dict[str, Any]:
    """Say that the bundle has what was asked for, and give the result of a compression that wrote nothing."""
    log.info("%s has this very %s file already: nothing was written", version_dir, method)
    float_file = version_dir / FLOAT_LITERT
    kind = "int8" if method == "qat" else method  # whose file is the bundle's int8
    return {
        "bundle": str(version_dir),
        "method": method,
        "written": False,
        "bytes": (version_dir / litert_file(kind)).stat().st_size,
        "float_bytes": float_file.stat().st_size if float_file.is_file() else None,
    }


def has_already(manifest: Manifest, compressed: Compressed, model: "keras.Model") -> bool:
    """Tell whether a version of the compressed network would hold what the bundle holds."""
    digests = {litert_file(kind): hashlib.sha256(content).hexdigest() for kind, content in compressed.files.items()}
    return bool(digests) and compressed.network is model and digests.items() <= manifest.files.items()


def _carried(source: Source, network: "keras.Model") -> dict[str, Path]:
    """Find the files that a version takes over from the source, by their place, and check them.

    Its float forms are among them where the network is the source's own, and these very packages wrote them.
    """
    from toolkit.export.bundle import package_versions

    prefixes: tuple[str, ...] = _CARRIED
    if network is source.model and source.manifest.versions == package_versions():
        prefixes += _FLOAT_FORMS
    verify_files(source.path, source.manifest, prefixes)
    return {place: source.path / place for place in source.manifest.files if place.startswith(prefixes)}


def _with_engine(row: Mapping[str, Any], compressed: Compressed, bundle: Path) -> str:
    """Say behind a verdict for an integer file how it comes to be used: engines that are not asked answer in float."""
    kind = next(iter(compressed.files), "")
    engine = f"{row['fastest']}-{kind}"
    if engine not in ENGINES or "use it" not in row["verdict"]:
        return row["verdict"]
    return (
        f"{row['verdict']} Other commands take it with --engine {engine}, or without a word after "
        f"`toolkit bundles recommend {bundle} {engine}`."
    )


def _changes(source: Source, compressed: Compressed, draft: Path, request: Request) -> Changes:
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


def _measure(
    draft: "BundleDraft", source: Source, compressed: Compressed, method: str, spare: Path
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
