"""Several bundles exported as one, whose SavedModel averages them; written only if it answers as they do."""

import hashlib
import io
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from toolkit.bundle import (
    KERAS_FILE,
    EnsembleMember,
    Manifest,
    RejectionCurve,
    find_bundle,
    join_pictures,
    next_version,
    publish,
    read_manifest,
    read_pictures,
    require_network,
    require_same_labels,
    same_network,
    write_manifest,
    write_pictures,
)
from toolkit.data.feed.split import Subset
from toolkit.data.pixels.decode import as_graph_reads, read_file
from toolkit.engines.runtimes import KerasEngine
from toolkit.ensemble.crops import plan_crops
from toolkit.ensemble.ensemble import Ensemble, Member
from toolkit.ensemble.exported import ExportedEnsemble
from toolkit.errors import UserError
from toolkit.export.bundle import ParityError, copy_examples, package_versions, require_tensorflow
from toolkit.export.parity import FLOAT_TOLERANCE, NUM_PARITY
from toolkit.lazy import keras
from toolkit.metrics import accuracy_report, reject_threshold, rejection_curve
from toolkit.network import as_float32, load_network
from toolkit.progress import step, track

log = logging.getLogger(__name__)

_NUM_NOISE = 4  # pictures that stand in for evaluation pictures
_MAX_ROUNDED = 0.005  # share of pixel values that may have fallen on the other side of a rounding boundary


@dataclass(frozen=True)
class HeldOut:
    """Labelled pictures that an ensemble is measured on.

    Attributes:
        evaluation: to measure accuracy on and to compare answers on; without them, synthetic ones serve for the
            comparison.
        validation: to fit the reject threshold on; without them there is none, since those of the members do not hold
            for an average.
        num_examples: pictures of ``evaluation`` to copy into the bundle for the demo.
        taught: ``evaluation`` taught the members, so that answers are compared on them and accuracy is not measured.
    """

    evaluation: Subset | None = None
    validation: Subset | None = None
    num_examples: int = 0
    taught: bool = False


def export_ensemble(
    bundles: Sequence[str | os.PathLike[str]],
    directory: str | Path,
    *,
    crops: int = 1,
    scales: Sequence[int] = (),
    held_out: HeldOut | None = None,
    force: bool = False,
) -> Path:
    """Write the next version of the bundle ``directory``, which averages the networks of other bundles.

    It needs nothing of them once written. It holds a SavedModel and no LiteRT files, so engine ``savedmodel`` runs it.

    Args:
        bundles: one or more; their labels must be equal and in the same order. Each member's float network is taken.
        directory: ``…/NAME``.
        crops: of a picture that each member is shown, see ``toolkit.ensemble.crops.plan_crops``.
        scales: shorter sides to resize to; by default each member's own.
        held_out: pictures to measure it on.
        force: write it even if its answers differ; the manifest then says so.

    Raises:
        UserError: not bundles, damaged ones, other labels, two of one network, one is itself an ensemble, a scale is
            too small, or Keras runs on another backend than TensorFlow.
        ParityError: the SavedModel's answers differ from those of the members' networks on crops cut on the host.
    """
    members = require_members(bundles, crops, scales)
    require_tensorflow()
    from toolkit.ensemble.graph import write_ensemble_model
    from toolkit.export.saved_model import write_warmup

    directory, held_out = Path(directory), held_out or HeldOut()
    with step("loading networks"):
        reference, models, manifest = _plan(members, directory.name, crops, tuple(scales))
    with next_version(directory) as staging:
        with step("writing the SavedModel"):
            write_ensemble_model(reference, models, staging, manifest.labels)
            write_warmup(staging, manifest.preprocessing)
        if held_out.evaluation is not None:
            copy_examples(held_out.evaluation, staging, held_out.num_examples, manifest.labels)
        pictures = _pictures(reference, held_out.evaluation)
        with step("comparing it with its members"):
            difference, objections = _compare(reference, ExportedEnsemble(staging, manifest), pictures)
        if objections and not force:
            raise ParityError(f"{directory}: not written, its engines disagree: {'; '.join(objections)} (see --force)")
        if known := join_pictures([read_pictures(*member) for member in members]):
            write_pictures(staging, known)
        measured = _measured(reference, manifest.labels, held_out)
        write_manifest(staging, replace(manifest, parity={"savedmodel": difference}, forced=objections, **measured))
        return publish(staging, directory)


def require_members(
    bundles: Sequence[str | os.PathLike[str]], crops: int = 1, scales: Sequence[int] = ()
) -> list[tuple[Path, Manifest]]:
    """Find bundles that can be averaged, before anything is loaded.

    Returns:
        Version directories and manifests.

    Raises:
        UserError: see ``export_ensemble``.
    """
    version_dirs = [find_bundle(bundle, shipped=True) for bundle in bundles]
    manifests = [read_manifest(version_dir) for version_dir in version_dirs]
    require_same_labels(version_dirs, manifests)
    if repeated := same_network(version_dirs, manifests):
        raise UserError(repeated)
    for version_dir, manifest in zip(version_dirs, manifests, strict=True):
        plan_crops(manifest.preprocessing, crops, scales)
        require_network(version_dir, manifest)
    return list(zip(version_dirs, manifests, strict=True))


def _plan(
    found: Sequence[tuple[Path, Manifest]], name: str, crops: int, scales: tuple[int, ...]
) -> "tuple[Ensemble, list[keras.Model], Manifest]":
    """The members as their Keras networks answer, these networks, and the manifest but for what is measured."""
    manifests = [manifest for _, manifest in found]
    plans = [plan_crops(manifest.preprocessing, crops, scales) for manifest in manifests]
    members = tuple(
        EnsembleMember(f"{path.parent.name}/{path.name}", own.model, own.weights_digest, own.preprocessing)
        for path, own in found
    )
    models = [as_float32(load_network(path / KERAS_FILE)) for path, _ in found]
    reference = Ensemble(
        [
            Member(KerasEngine(model, own.preprocessing), own.preprocessing, plan)
            for model, own, plan in zip(models, manifests, plans, strict=True)
        ]
    )
    manifest = Manifest(
        name=name,
        model=_title(members, len(plans[0])),
        num_params=sum(manifest.num_params for manifest in manifests),
        weights_digest=hashlib.sha256("".join(member.weights_digest for member in members).encode()).hexdigest(),
        preprocessing=reference.largest_input,
        labels=manifests[0].labels,
        metrics={},
        parity={},
        versions=package_versions(),
        recommended_engine="savedmodel",
        members=members,
        crops=crops,
        scales=scales,
        licence=_licence(manifests),
    )
    return reference, models, manifest


def _licence(manifests: Sequence[Manifest]) -> str:
    """Name the licences of all networks; nothing where one is not known."""
    licences = dict.fromkeys(manifest.licence for manifest in manifests)
    return "" if "" in licences else " and ".join(licences)


def _title(members: Sequence[EnsembleMember], num_crops: int) -> str:
    models = [member.model for member in members]
    names = [
        f"{models.count(model)} × {model}" if models.count(model) > 1 else model for model in dict.fromkeys(models)
    ]
    return " + ".join(names) + (f", {num_crops} views" if num_crops > 1 else "")


def _pictures(reference: Ensemble, evaluation: Subset | None) -> list[bytes]:
    """Encoded pictures to compare answers on: the fewer, the more crops each of them has."""
    if evaluation is None:
        return [_noise(index, reference.largest_input.size) for index in range(_NUM_NOISE)]
    count = min(max(_NUM_NOISE, NUM_PARITY // reference.num_crops), len(evaluation))
    paths = [Path(evaluation.paths[index * len(evaluation) // count]) for index in range(count)]
    return [as_graph_reads(read_file(path)) for path in paths]


def _noise(seed: int, size: tuple[int, int]) -> bytes:
    rng = np.random.default_rng(seed)
    height, width = (side * (4 + seed) // 3 for side in size)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (height, width + 7 * seed, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _compare(
    reference: Ensemble, exported: ExportedEnsemble, pictures: Sequence[bytes]
) -> tuple[float, tuple[str, ...]]:
    """The largest difference in probability of the SavedModel from Keras, and what speaks against publishing it.

    The networks in it are given the host's crops, and the whole graph encoded pictures. What the graph makes of those
    is compared with Keras on the graph's crops: on the host's, a pixel that rounded the other way would count as well,
    which is judged as such.
    """
    import tensorflow as tf

    from toolkit.ensemble.cut_graph import decode_crops

    host = reference.decode_all(pictures)
    graph = tuple(
        np.stack([decode_crops(tf.constant(picture), preprocessing, crops).numpy() for picture in pictures])
        for preprocessing, crops in reference.cuts
    )
    differences = [
        np.abs(exported.probabilities(host) - reference.probabilities(host)).max(),
        np.abs(exported.from_bytes(pictures) - reference.probabilities(graph)).max(),
    ]
    difference = float(np.max(differences))  # NaN stays
    log.info("savedmodel: largest difference in probability from Keras %.2g", difference)
    objections = []
    if not difference <= FLOAT_TOLERANCE:  # so that NaN is an objection too
        objections.append(f"savedmodel differs from Keras by {difference:.2g}, more than {FLOAT_TOLERANCE}")
    if not all(map(_same_but_for_rounding, host, graph)):
        objections.append("savedmodel cuts other crops than the host")
    return difference, tuple(objections)


def _same_but_for_rounding(host: np.ndarray, graph: np.ndarray) -> bool:
    difference = np.abs(host.astype(np.int16) - graph)
    return bool(difference.max() <= 1 and np.mean(difference > 0) < _MAX_ROUNDED)


def _measured(reference: Ensemble, labels: tuple[str, ...], held_out: HeldOut) -> dict[str, Any]:
    """Accuracy on the pictures for evaluation and the reject threshold from those for validation: maybe the same."""
    evaluation, validation = None if held_out.taught else held_out.evaluation, held_out.validation
    subsets = {subset for subset in (evaluation, validation) if subset is not None}
    probabilities = {subset: _probabilities(reference, subset) for subset in subsets}
    measured: dict[str, Any] = {}
    if evaluation is not None:
        report = accuracy_report(probabilities[evaluation], np.asarray(evaluation.labels), labels)
        measured["metrics"] = {key: report[key] for key in ("top1", "top5", "n")}
        curve = rejection_curve(probabilities[evaluation], np.asarray(evaluation.labels))
        measured["rejection"] = RejectionCurve(*curve)
    if validation is not None:
        measured["reject_below"] = reject_threshold(probabilities[validation], np.asarray(validation.labels))
    return measured


def _probabilities(ensemble: Ensemble, subset: Subset) -> np.ndarray:
    size = min(32, ensemble.pictures_at_once)
    batches = [subset.paths[i : i + size] for i in range(0, len(subset), size)]
    label = "classifying held-out pictures"
    return np.concatenate([ensemble.probabilities(ensemble.decode_all(batch)) for batch in track(batches, label)])
