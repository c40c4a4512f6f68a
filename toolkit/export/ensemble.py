"""Several bundles exported as one, whose SavedModel averages them; written only if it answers as they do."""

import hashlib
import io
import logging
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from toolkit.bundle import (
    EXAMPLES,
    EnsembleMember,
    Manifest,
    find_bundle,
    publish,
    read_manifest,
    require_network,
    require_same_labels,
    staging_dir,
    write_manifest,
)
from toolkit.data.crops import plan_crops
from toolkit.data.feed.split import Subset
from toolkit.data.pixels.decode import read_file
from toolkit.engines.exported import open_ensemble
from toolkit.engines.panel import Member, Panel
from toolkit.engines.runtimes import KerasEngine
from toolkit.export.bundle import ParityError, copy_examples, package_versions, require_tensorflow
from toolkit.export.parity import FLOAT_TOLERANCE, NUM_PARITY
from toolkit.export.shown import ShownNetwork, largest_input
from toolkit.metrics import accuracy_report, reject_threshold
from toolkit.network import as_float32, load_network

log = logging.getLogger(__name__)

_NUM_NOISE = 4  # pictures that stand in for evaluation pictures
_MAX_ROUNDED = 0.005  # share of pixel values that may have fallen on the other side of a rounding boundary


def export_ensemble(
    bundles: Sequence[str | Path],
    directory: str | Path,
    *,
    crops: int = 1,
    scales: Sequence[int] = (),
    evaluation: Subset | None = None,
    validation: Subset | None = None,
    num_examples: int = 0,
    force: bool = False,
) -> Path:
    """Write the next version of the bundle ``directory``, which averages the networks of other bundles.

    It needs nothing of them once written. It holds a SavedModel and no LiteRT files, so engine ``savedmodel`` runs it.

    Args:
        bundles: one or more; their labels must be equal and in the same order. Each member's float network is taken.
        directory: ``…/NAME``.
        crops: views that each member is shown, see ``toolkit.data.crops.plan_crops``.
        scales: shorter sides to resize to; by default each member's own.
        evaluation: held-out pictures to measure accuracy on and compare answers on; without them, synthetic ones serve
            for the comparison.
        validation: pictures to fit the reject threshold on; without them there is none, since those of the members do
            not hold for an average.
        num_examples: evaluation pictures to copy into the bundle for the demo.
        force: write it even if its answers differ; the manifest then says so.

    Raises:
        UserError: not bundles, damaged ones, other labels, one is itself an ensemble, a scale is too small, or Keras
            runs on another backend than TensorFlow.
        ParityError: the SavedModel's answers differ from those of the members' networks on views cut on the host.
    """
    require_tensorflow()
    directory = Path(directory)
    networks, manifest = _plan(bundles, directory.name, crops, tuple(scales))
    staging = staging_dir(directory)
    try:
        _write_forms(networks, staging, manifest)
        if evaluation is not None:
            copy_examples(evaluation, staging / EXAMPLES, num_examples)
        reference = Panel([Member(KerasEngine(n.model, n.preprocessing), n.preprocessing, n.crops) for n in networks])
        pictures = _pictures(reference, manifest, evaluation)
        difference, objections = _compare(reference, staging, manifest, pictures)
        if objections and not force:
            raise ParityError(f"{directory}: not written, its engines disagree: {'; '.join(objections)} (see --force)")
        measured = _measured(reference, manifest.labels, evaluation, validation)
        write_manifest(staging, replace(manifest, parity={"savedmodel": difference}, forced=objections, **measured))
        return publish(staging, directory)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()


def _plan(
    bundles: Sequence[str | Path], name: str, crops: int, scales: tuple[int, ...]
) -> tuple[list[ShownNetwork], Manifest]:
    """The networks with their views, and the manifest but for what is measured."""
    version_dirs = [find_bundle(bundle) for bundle in bundles]
    manifests = [read_manifest(version_dir) for version_dir in version_dirs]
    require_same_labels(version_dirs, manifests)
    plans = [plan_crops(manifest.preprocessing, crops, scales) for manifest in manifests]
    files = [require_network(*pair) for pair in zip(version_dirs, manifests, strict=True)]
    members = tuple(
        EnsembleMember(f"{path.parent.name}/{path.name}", own.model, own.weights_digest, own.preprocessing)
        for path, own in zip(version_dirs, manifests, strict=True)
    )
    networks = [
        ShownNetwork(as_float32(load_network(file)), member.preprocessing, plan)
        for file, member, plan in zip(files, members, plans, strict=True)
    ]
    manifest = Manifest(
        name=name,
        model=_title(members, len(plans[0])),
        num_params=sum(manifest.num_params for manifest in manifests),
        weights_digest=hashlib.sha256("".join(member.weights_digest for member in members).encode()).hexdigest(),
        preprocessing=largest_input([member.preprocessing for member in members]),
        labels=manifests[0].labels,
        metrics={},
        parity={},
        versions=package_versions(),
        recommended_engine="savedmodel",
        members=members,
        crops=crops,
        scales=scales,
    )
    return networks, manifest


def _title(members: Sequence[EnsembleMember], num_views: int) -> str:
    models = [member.model for member in members]
    names = [
        f"{models.count(model)} × {model}" if models.count(model) > 1 else model for model in dict.fromkeys(models)
    ]
    return " + ".join(names) + (f", {num_views} views" if num_views > 1 else "")


def _write_forms(networks: Sequence[ShownNetwork], staging: Path, manifest: Manifest) -> None:
    from toolkit.export.ensemble_graph import write_ensemble_model
    from toolkit.export.saved_model import write_warmup

    labels_file = staging / "labels.txt"
    labels_file.write_text("\n".join(manifest.labels) + "\n", encoding="utf-8")
    write_ensemble_model(networks, staging, labels=manifest.labels, labels_file=labels_file)
    labels_file.unlink()
    write_warmup(staging, manifest.preprocessing)


def _pictures(reference: Panel, manifest: Manifest, evaluation: Subset | None) -> list[bytes]:
    """Encoded pictures to compare answers on: the fewer, the more views each of them has."""
    if evaluation is None:
        return [_noise(index, manifest) for index in range(_NUM_NOISE)]
    count = min(max(_NUM_NOISE, NUM_PARITY // reference.num_views), len(evaluation))
    return [read_file(Path(evaluation.paths[index * len(evaluation) // count])) for index in range(count)]


def _noise(seed: int, manifest: Manifest) -> bytes:
    rng = np.random.default_rng(seed)
    height, width = (side * (4 + seed) // 3 for side in manifest.preprocessing.size)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (height, width + 7 * seed, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _compare(
    reference: Panel, staging: Path, manifest: Manifest, pictures: Sequence[bytes]
) -> tuple[float, tuple[str, ...]]:
    """The largest difference in probability of the SavedModel from Keras, and what speaks against publishing it.

    The networks in it are given the host's views, and the whole graph encoded pictures. What the graph makes of those
    is compared with Keras on the graph's views: on the host's, a pixel that rounded the other way would count as well,
    which is judged as such.
    """
    import tensorflow as tf

    from toolkit.data.graph_views import decode_views

    exported, panel = open_ensemble("savedmodel", staging, manifest)
    host = reference.decode_all(pictures)
    graph = tuple(
        np.stack([decode_views(tf.constant(picture), preprocessing, crops).numpy() for picture in pictures])
        for preprocessing, crops in reference.cuts
    )
    differences = [
        np.abs(panel.probabilities(host) - reference.probabilities(host)).max(),
        np.abs(exported.from_bytes(pictures) - reference.probabilities(graph)).max(),
    ]
    difference = float(np.max(differences))  # NaN stays
    log.info("savedmodel: largest difference in probability from Keras %.2g", difference)
    objections = []
    if not difference <= FLOAT_TOLERANCE:  # so that NaN is an objection too
        objections.append(f"savedmodel differs from Keras by {difference:.2g}, more than {FLOAT_TOLERANCE}")
    if not all(map(_same_but_for_rounding, host, graph)):
        objections.append("savedmodel cuts other views than the host")
    return difference, tuple(objections)


def _same_but_for_rounding(host: np.ndarray, graph: np.ndarray) -> bool:
    difference = np.abs(host.astype(np.int16) - graph)
    return bool(difference.max() <= 1 and np.mean(difference > 0) < _MAX_ROUNDED)


def _measured(
    reference: Panel, labels: tuple[str, ...], evaluation: Subset | None, validation: Subset | None
) -> dict[str, Any]:
    """Accuracy on ``evaluation`` and the reject threshold from ``validation``, which may be the same pictures."""
    subsets = {subset for subset in (evaluation, validation) if subset is not None}
    probabilities = {subset: _probabilities(reference, subset) for subset in subsets}
    measured: dict[str, Any] = {}
    if evaluation is not None:
        report = accuracy_report(probabilities[evaluation], np.asarray(evaluation.labels), labels)
        measured["metrics"] = {key: report[key] for key in ("top1", "top5", "n")}
    if validation is not None:
        measured["reject_below"] = reject_threshold(probabilities[validation], np.asarray(validation.labels))
    return measured


def _probabilities(panel: Panel, subset: Subset) -> np.ndarray:
    step = min(32, panel.pictures_at_once)
    batches = [subset.paths[i : i + step] for i in range(0, len(subset), step)]
    return np.concatenate([panel.probabilities(panel.decode_all(batch)) for batch in batches])
